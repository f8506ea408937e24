"""Queries that say one thing and say it in UTF-8: what is replaced or left out in silence is not what was asked for."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

from fastapi import Request
from fastapi.exceptions import RequestValidationError

NOT_TEXT: Final = "not_utf8"
REPEATED: Final = "repeated"


def well_formed(request: Request) -> None:
    """Check that each parameter of a query is there once and that its bytes are UTF-8.

    :raises RequestValidationError: one is not; it names the first of each kind.
    """
    query: bytes = request.scope["query_string"]
    errors = []
    seen = set()
    for pair in query.split(b"&"):
        name, _, value = (unquote_to_bytes(part.replace(b"+", b" ")) for part in pair.partition(b"="))
        if not name and not value:
            continue
        shown = name.decode(errors="backslashreplace")
        if not _is_text(name) or not _is_text(value):
            errors.append((NOT_TEXT, shown, value.decode(errors="backslashreplace")))
        elif name in seen:
            errors.append((REPEATED, shown, value.decode()))
        seen.add(name)
    if errors:
        raise RequestValidationError(
            [{"type": kind, "loc": ("query", name), "msg": kind, "input": value} for kind, name, value in errors]
        )


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
