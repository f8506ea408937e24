"""The pages for people: the live page, the log-in, and the API's documentation."""

import html
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from streampulse.api import assets
from streampulse.core.settings import ApiSettings

# Pages load only files of this server, have nothing inline, and may not be framed by other sites.
_OURS: Final = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; "
_CLOSED: Final = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
POLICY: Final = _OURS + "img-src 'self'; " + _CLOSED
#: Swagger UI draws its icons from data addresses.
DOCS_POLICY: Final = _OURS + "img-src 'self' data:; " + _CLOSED
LOGIN_POLICY: Final = (
    "default-src 'none'; style-src 'self'; font-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_MORE: Final = {"Cache-Control": "no-cache", "Permissions-Policy": "camera=(), microphone=(), geolocation=()"}


def pages(settings: ApiSettings) -> APIRouter:
    """Return the pages' routes."""
    router = APIRouter(include_in_schema=False)
    router.include_router(assets.router)

    # The page has no link to /docs if that is turned off.
    text = assets.page("page.html").replace("{docs}", '<a href="/docs">API</a>' if settings.docs else "")

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index() -> HTMLResponse:
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY, **_MORE})

    if settings.docs:

        @router.api_route("/docs", methods=["GET", "HEAD"])
        async def docs() -> HTMLResponse:
            return HTMLResponse(assets.page("docs.html"), headers={"Content-Security-Policy": DOCS_POLICY, **_MORE})

    return router


def login_page(problem: str = "") -> str:
    """Return the page that asks for a key.

    :param problem: why the last try did not succeed.
    """
    line = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
    return assets.page("login.html").replace("{problem}", line)
