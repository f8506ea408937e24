"""Access to the API: keys, log-ins, rate limits, and the size of requests.

Always: limits on bodies and on queries. Where the setting ``public`` is on: a key for everything but the log-in and the
page's assets, rate limits, and ``/health`` and ``/prometheus`` for private networks only.
"""

import hashlib
import hmac
import math
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import parse_qs

from fastapi import APIRouter
from fastapi.security.utils import get_authorization_scheme_param
from prometheus_client import Counter
from starlette.datastructures import Headers
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from streampulse.api.database import RETRY_AFTER_SECONDS, Unavailable
from streampulse.api.networks import Networks, client, household
from streampulse.api.page import LOGIN_POLICY, login_page
from streampulse.api.runtime import Runtime
from streampulse.core.settings import ApiSettings, split

COOKIE: Final = "streampulse_session"
#: How long a log-in lasts, in seconds.
SESSION_SECONDS: Final = 7 * 86_400
#: Bytes of a request's body at most. Only the log-in has one.
MAX_BODY: Final = 16_384
#: Windows of rate limits that a worker counts at most. Beyond that the oldest ones are forgotten.
MAX_WINDOWS: Final = 32_768
#: Bytes of a query at most; the longest useful query has half of it. A refusal names each wrong parameter.
MAX_QUERY: Final = 8_192

REFUSED = Counter(
    "streampulse_api_refused",
    "Requests that were not let in: key (none or a wrong one), rate (too many), private (from outside), size.",
    ["reason"],
)

_PRIVATE: Final = frozenset({"/health", "/prometheus"})
_NO_KEY: Final = {"error": "an API key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"}
_PAGE: Final = {"Content-Security-Policy": LOGIN_POLICY}


class _Caller(NamedTuple):
    """The sender of a request.

    :param user: the name of the key, for the log.
    :param counted: the name that rate limits count under: of a key, or of one log-in with it, so that a program that
        asks too often does not block the page.
    """

    user: str
    counted: str


class _Limit(NamedTuple):
    """A number of requests in a minute."""

    name: str
    amount: int


@dataclass(slots=True)
class _Window:
    """The minute that begins with a caller's first request."""

    ends: float
    requests: int = 0


class Access:
    """Keys and rate limits. Each worker counts for itself.

    :param settings: keys and limits.
    """

    def __init__(self, settings: ApiSettings) -> None:
        # Ordered by their ends, since all windows are equally long.
        self._windows: OrderedDict[tuple[_Limit, str], _Window] = OrderedDict()
        self.per_user = _Limit("user", settings.rate_limit_per_minute)
        self.per_address = _Limit("address", settings.address_limit_per_minute)
        self.log_ins = _Limit("login", 10)
        keys = split(settings.keys.get_secret_value()) if settings.keys else []
        self.keys = {_name(key): key.encode() for key in keys}

    def user(self, given: str) -> str | None:
        """Return the name of a key, or None for a text that is no key."""
        found = None
        for name, key in self.keys.items():
            # All keys are compared, each in constant time.
            if hmac.compare_digest(given.encode("utf-8", "surrogateescape"), key):
                found = name
        return found

    def limited(self, scope: Scope, limit: _Limit, counted: str) -> Response | None:
        """Count a request, and return the refusal if it exceeds a limit.

        :param counted: name that the request is counted under.
        """
        now = time.monotonic()
        while self._windows and next(iter(self._windows.values())).ends <= now:
            self._windows.popitem(last=False)
        window = self._windows.setdefault((limit, counted), _Window(now + 60))
        if len(self._windows) > MAX_WINDOWS:
            self._windows.popitem(last=False)
        window.requests += 1
        if window.requests <= limit.amount:
            return None
        REFUSED.labels("rate").inc()
        wait = math.ceil(window.ends - now)
        error = f"more than {limit.amount} requests in a minute, try again in {wait} s"
        headers = {"Retry-After": str(wait)}
        if scope["path"] == "/login":
            return HTMLResponse(login_page(error), status_code=429, headers=headers | _PAGE)
        return JSONResponse({"error": error}, status_code=429, headers=headers)


class Guard:
    """Middleware that refuses requests. In public it expects :class:`Sessions` around it.

    :param settings: whether the API is public, and the private networks.
    :param access: keys and limits.
    :param runtime: checks log-ins.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings, access: Access, runtime: Runtime) -> None:
        self._app = app
        self._public = settings.public
        self._private = Networks(settings.private_networks)
        self._access = access
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            refusal = _too_large(scope) or (await self._refusal(scope) if self._public else None)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Response | None:
        path = scope["path"]
        if path in _PRIVATE:
            if client(scope) in self._private:
                return None
            REFUSED.labels("private").inc()
            return JSONResponse({"error": "only for private networks"}, status_code=403)
        if path in ("/login", "/logout"):
            return None
        if path.startswith("/assets/"):
            return self._access.limited(scope, self._access.per_user, household(client(scope)))
        caller = await self._caller(scope)
        if caller is None:
            REFUSED.labels("key").inc()
            limited = self._access.limited(scope, self._access.per_address, household(client(scope)))
            if limited is not None:
                return limited
            if path in ("/", "/docs") and scope["method"] in ("GET", "HEAD"):
                return RedirectResponse("/login", status_code=303)
            return JSONResponse(_NO_KEY, status_code=401, headers={"WWW-Authenticate": "Bearer"})
        scope["streampulse.user"] = caller.user
        return self._access.limited(scope, self._access.per_user, caller.counted)

    async def _caller(self, scope: Scope) -> _Caller | None:
        headers = Headers(scope=scope)
        scheme, key = get_authorization_scheme_param(headers.get("authorization"))
        if scheme.lower() != "bearer":
            key = headers.get("x-api-key", "")
        if key:
            user = self._access.user(key.strip())
            return _Caller(user, user) if user is not None else None
        session = scope["session"]
        user = session.get("user")
        # A key that was removed takes its log-ins with it.
        if user not in self._access.keys or not await self._runtime.accepts(session):
            return None
        scope["streampulse.session"] = session["id"]
        return _Caller(user, f"{user}.{session['id']}")


class Sessions:
    """Middleware with Starlette's signed cookie. Its Secure attribute follows the scheme of the request."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._by_scheme = {
            secure: SessionMiddleware(
                app, secret, COOKIE, max_age=SESSION_SECONDS, same_site="strict", https_only=secure
            )
            for secure in (False, True)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._by_scheme[scope.get("scheme") == "https"](scope, receive, send)


def log_in_routes(access: Access, runtime: Runtime) -> APIRouter:
    """Return the routes of the log-in and the log-out."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/login", methods=["GET", "HEAD", "POST"])
    async def log_in(request: Request) -> Response:
        address = household(client(request.scope))
        if request.method != "POST":
            limited = access.limited(request.scope, access.per_address, address)
            return limited or HTMLResponse(login_page(), headers=_PAGE)
        limited = access.limited(request.scope, access.log_ins, address)
        if limited is not None:
            return limited
        key = await _sent_key(request)
        if key is None:
            return _large(413, f"a request's body may have {MAX_BODY} bytes")
        user = access.user(key)
        if user is None:
            REFUSED.labels("key").inc()
            return HTMLResponse(login_page("That is not a key of this server."), status_code=401, headers=_PAGE)
        try:
            epoch = await runtime.session_epoch()
        except Unavailable as error:
            return _away(f"No log-in is possible now: {error}. Try again.")
        request.session.update(user=user, id=secrets.token_urlsafe(12), epoch=epoch)
        return RedirectResponse("/", status_code=303)

    @router.post("/logout")
    async def log_out(request: Request) -> Response:
        id_ = request.session.get("id")
        request.session.clear()
        if id_ is not None:
            try:
                await runtime.end_session(id_, SESSION_SECONDS)
            except Unavailable as error:
                return _away(
                    f"This browser is logged out, but copies of its cookie are not: {error}. Log in and out again."
                )
        return RedirectResponse("/login", status_code=303)

    return router


def _away(text: str) -> Response:
    headers = _PAGE | {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return HTMLResponse(login_page(text), status_code=503, headers=headers)


async def _sent_key(request: Request) -> str | None:
    """Return the key in the form of the log-in page, empty if there is none; None if the body is too large."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            return None
    try:
        return parse_qs(body.decode("ascii"), max_num_fields=4).get("key", [""])[0].strip()
    except ValueError:
        return ""


def cookie_secret(settings: ApiSettings) -> str:
    """Return the secret that signs cookies."""
    assert settings.cookie_secret is not None  # noqa: S101 - a public API has one: see ApiSettings
    return settings.cookie_secret.get_secret_value()


def _name(key: str) -> str:
    """Return a name for a key that does not reveal the key."""
    return hashlib.sha256(b"streampulse.api.key:" + key.encode()).hexdigest()[:12]


def _large(status: int, error: str) -> Response:
    REFUSED.labels("size").inc()
    return JSONResponse({"error": error}, status_code=status, headers={"Connection": "close"})


def _too_large(scope: Scope) -> Response | None:
    if len(scope["query_string"]) > MAX_QUERY:
        return _large(414, f"a request's query may have {MAX_QUERY} bytes")
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or len(value) > 9 or int(value) > MAX_BODY):
            return _large(413, f"a request's body may have {MAX_BODY} bytes")
    return None
