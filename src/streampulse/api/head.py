"""HEAD: what GET would answer, without the body (RFC 9110, section 9.3.2)."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: What those that are asked write into the scope for those that asked: which route it was, and who.
_TOLD: Final = ("route", "streampulse.user")


class HeadAsGet:
    """Middleware that has a HEAD served as the GET of the same target, and sends only how that answer begins.

    What serves it is told that the client is gone as soon as the headers are out, so that no event stream begins.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_head(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        async def receive_until_begun() -> Message:
            return {"type": "http.disconnect"} if begun else await receive()

        served = {**scope, "method": "GET"}
        try:
            await self._app(served, receive_until_begun, send_head)
        finally:
            scope.update({name: served[name] for name in _TOLD if name in served})
