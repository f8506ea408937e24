"""The page at ``/``: links to what there is."""

from __future__ import annotations

from typing import Final

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
