"""The pages that people look at: the live page, the log-in, and the API's documentation."""

from __future__ import annotations

import html
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from streampulse.settings import ApiSettings

_LINKS: Final = (
    ("/metrics?minutes=10&amp;limit=5", "newest rows"),
    ("/metrics/latest?limit=100", "newest minute of each stream"),
    ("/metrics/history?minutes=10", "last minutes, oldest first"),
    ("/state?limit=100", "viewers now"),
    ("/streams/top?minutes=10&amp;by=donations_usd&amp;n=5", "top streams by donations"),
    ("/health", "health"),
    ("/prometheus", "scrape"),
    ("/docs", "the API's documentation"),
)

INDEX: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><title>streampulse</title></head>'
    "<body><main><h1>streampulse</h1><p>Real-time audience analytics for live streams.</p><ul>"
    + "".join(f'<li><a href="{path}">{path}</a>: {what}</li>' for path, what in _LINKS)
    + "</ul></main></body></html>\n"
)
INDEX_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"}


def pages(_settings: ApiSettings) -> APIRouter:
    """Return the pages' routes."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse(INDEX, headers=INDEX_HEADERS)

    return router


def login_page(problem: str = "") -> str:
    """Return the page that asks for a key.

    :param problem: why the last try did not succeed.
    """
    return f"<p>{html.escape(problem)}</p>"
