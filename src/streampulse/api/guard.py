"""Who is let in: a key, or the cookie that a log-in with a key sets; how often; and how large a request may be.

Always: limits on bodies and on queries. Where the setting ``public`` is on: a key for everything but the log-in and the
page's assets, rate limits shared by all workers, and ``/health`` and ``/prometheus`` for private networks only.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from collections import OrderedDict
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

from itsdangerous import BadSignature, TimestampSigner
from limits import RateLimitItemPerMinute
from limits.strategies import FixedWindowRateLimiter
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from streampulse.api.networks import Networks, client, household
from streampulse.api.page import LOGIN_POLICY, login_page
from streampulse.api.shared_limits import SharedStorage
from streampulse.core.settings import ApiSettings, split

COOKIE: Final = "streampulse_session"
#: How long a log-in lasts, in seconds.
SESSION_SECONDS: Final = 7 * 86_400
#: Bytes of a request's body at most. Only the log-in has one.
MAX_BODY: Final = 16_384
#: Bytes of a query at most: the longest that makes sense has half of it. Who asks with ten thousand parameters would
#: keep the others waiting for an answer that names them all.
MAX_QUERY: Final = 8_192

REFUSED = Counter(
    "streampulse_api_refused",
    "Requests that were not let in: key (none or a wrong one), rate (too many), private (from outside), size.",
    ["reason"],
)

_PRIVATE: Final = frozenset({"/health", "/prometheus"})
_NO_KEY: Final = {"error": "an API key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"}


class _Caller(NamedTuple):
    """Who asks.

    :param user: the name of the key, which the log shows.
    :param counted: what requests are counted under: a key, or one log-in with it, so that a program that asks too often
        does not take the page from everybody.
    """

    user: str
    counted: str


class Guard:
    """Middleware that lets requests in or does not.

    :param settings: keys, limits and networks.
    :param storage: the counters that all workers share.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings, storage: SharedStorage) -> None:
        self._app = app
        self._public = settings.public
        self._private = Networks(settings.private_networks)
        self._limiter = FixedWindowRateLimiter(storage)
        self._user_limit = RateLimitItemPerMinute(settings.rate_limit_per_minute, namespace="user")
        self._address_limit = RateLimitItemPerMinute(settings.address_limit_per_minute, namespace="address")
        self._login_limit = RateLimitItemPerMinute(10, namespace="login")
        keys = split(settings.keys.get_secret_value()) if settings.keys else []
        #: Name of a key, for the log and the cookie, and the key.
        self._keys = {_name(key): key.encode() for key in keys}
        secret = settings.cookie_secret.get_secret_value() if settings.cookie_secret else secrets.token_hex()
        self._signer = TimestampSigner(secret, salt="streampulse.api.session", digest_method=hashlib.sha256)
        self._sessions: OrderedDict[str, tuple[_Caller, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            refusal = _too_large(scope) or (await self._refusal(scope, receive) if self._public else None)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _refusal(self, scope: Scope, receive: Receive) -> Response | None:
        """Return the answer to a request that goes no further, None to one that does."""
        path = scope["path"]
        if path in _PRIVATE:
            if client(scope) in self._private:
                return None
            REFUSED.labels("private").inc()
            return JSONResponse({"error": "only for private networks"}, status_code=403)
        if path in ("/login", "/logout"):
            scope["route"] = _Named(path)
            return await self._session(scope, receive)
        if path.startswith("/assets/"):
            return self._limited(scope, self._user_limit, household(client(scope)))
        caller = self._caller(scope)
        if caller is None:
            REFUSED.labels("key").inc()
            limited = self._limited(scope, self._address_limit, household(client(scope)))
            if limited is not None:
                return limited
            if path in ("/", "/docs") and scope["method"] == "GET":
                return RedirectResponse("/login", status_code=303)
            return JSONResponse(_NO_KEY, status_code=401, headers={"WWW-Authenticate": "Bearer"})
        scope["streampulse.user"] = caller.user
        return self._limited(scope, self._user_limit, caller.counted)

    def _limited(self, scope: Scope, limit: Any, who: str) -> Response | None:
        """Count a request, and return the refusal where it is one too many."""
        if self._limiter.hit(limit, who):
            return None
        REFUSED.labels("rate").inc()
        wait = max(1, math.ceil(self._limiter.get_window_stats(limit, who).reset_time - time.time()))
        error = f"more than {limit.amount} requests in a minute, try again in {wait} s"
        headers = {"Retry-After": str(wait)}
        if scope["path"] == "/login":
            return HTMLResponse(login_page(error), status_code=429, headers=headers | _PAGE)
        return JSONResponse({"error": error}, status_code=429, headers=headers)

    def _caller(self, scope: Scope) -> _Caller | None:
        """Return whose key a request has, or whose log-in it comes from."""
        cookie = None
        for name, value in scope["headers"]:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                return self._with_key(value[7:].strip())
            if name == b"x-api-key":
                return self._with_key(value.strip())
            if name == b"cookie":
                cookie = value
        return self._of_session(cookie.decode("latin-1")) if cookie is not None else None

    def _with_key(self, given: bytes) -> _Caller | None:
        user = self._named(given)
        return _Caller(user, user) if user is not None else None

    def _named(self, given: bytes) -> str | None:
        found = None
        for name, key in self._keys.items():
            # All of them, each in constant time.
            if hmac.compare_digest(given, key):
                found = name
        return found

    def _of_session(self, header: str) -> _Caller | None:
        for pair in header.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == COOKIE:
                known = self._sessions.get(value)
                if known is not None and known[1] > time.monotonic():
                    return known[0]
                try:
                    session = self._signer.unsign(value, max_age=SESSION_SECONDS).decode()
                except (BadSignature, UnicodeError):
                    return None
                user = session.partition(".")[0]
                # A key that was taken away takes its log-ins with it.
                if user not in self._keys:
                    return None
                caller = _Caller(user, session)
                self._sessions[value] = (caller, time.monotonic() + 60)
                if len(self._sessions) > 1024:
                    self._sessions.popitem(last=False)
                return caller
        return None

    async def _session(self, scope: Scope, receive: Receive) -> Response:
        """Answer a log-in or a log-out."""
        request = Request(scope, receive)
        secure = scope["scheme"] == "https"
        if scope["path"] == "/logout":
            if scope["method"] != "POST":
                return JSONResponse({"error": "Method Not Allowed"}, status_code=405, headers={"Allow": "POST"})
            response: Response = RedirectResponse("/login", status_code=303)
            response.delete_cookie(COOKIE, httponly=True, secure=secure, samesite="strict")
            return response
        if scope["method"] == "GET":
            limited = self._limited(scope, self._address_limit, household(client(scope)))
            return limited or HTMLResponse(login_page(), headers=_PAGE)
        if scope["method"] != "POST":
            return JSONResponse({"error": "Method Not Allowed"}, status_code=405, headers={"Allow": "GET, POST"})
        limited = self._limited(scope, self._login_limit, household(client(scope)))
        if limited is not None:
            return limited
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY:
                return _large_body()
        try:
            key = parse_qs(body.decode("ascii"), max_num_fields=4).get("key", [""])[0]
        except ValueError:
            key = ""
        user = self._named(key.strip().encode())
        if user is None:
            REFUSED.labels("key").inc()
            return HTMLResponse(login_page("That is not a key of this server."), status_code=401, headers=_PAGE)
        response = RedirectResponse("/", status_code=303)
        value = self._signer.sign(f"{user}.{secrets.token_urlsafe(12)}").decode()
        response.set_cookie(
            COOKIE, value, max_age=SESSION_SECONDS, httponly=True, secure=secure, samesite="strict", path="/"
        )
        return response


class _Named:
    """A path that has no route, for the metrics."""

    def __init__(self, path: str) -> None:
        self.path = path


_PAGE: Final = {"Content-Security-Policy": LOGIN_POLICY}


def _name(key: str) -> str:
    """Return a name for a key from which the key cannot be told."""
    return hashlib.sha256(b"streampulse.api.key:" + key.encode()).hexdigest()[:12]


def _large(status: int, error: str) -> Response:
    REFUSED.labels("size").inc()
    return JSONResponse({"error": error}, status_code=status, headers={"Connection": "close"})


def _large_body() -> Response:
    return _large(413, f"a request's body may have {MAX_BODY} bytes")


def _too_large(scope: Scope) -> Response | None:
    if len(scope["query_string"]) > MAX_QUERY:
        return _large(414, f"a request's query may have {MAX_QUERY} bytes")
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or len(value) > 9 or int(value) > MAX_BODY):
            return _large_body()
    return None
