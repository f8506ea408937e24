"""The pages' files: read once, with the hash of their content in the address, so that browsers may keep them for ever.

There is no build step. A file names another one as ``./name.ext`` and a page as ``{asset:name.ext}``; both become the
address with the hash. Files of other projects are in the folder ``vendor``; its ``vendor.json`` names their origin.
Swagger UI is large because it comes as one file with all that it needs: ``/docs`` works on hosts without the internet.
"""

import gzip
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FOLDER: Final = Path(__file__).parent / "static"
PREFIX: Final = "/assets/"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_IN_FILES: Final = re.compile(r"""(?<=["'])\./([\w-]+\.(?:js|css|woff2|svg))(?=["'])""")
_IN_PAGES: Final = re.compile(r"\{asset:([\w.-]+)\}")


class Asset(NamedTuple):
    """A file as it is served."""

    address: str
    content: bytes
    media_type: str


@cache
def asset(name: str) -> Asset:
    """Return a file by its name, from ``static`` or from ``vendor``.

    :raises KeyError: there is none.
    """
    file = next((file for file in (FOLDER / name, FOLDER / "vendor" / name) if file.is_file()), None)
    if file is None or file.suffix not in _TYPES:
        raise KeyError(name)
    content = file.read_bytes()
    if file.parent == FOLDER and file.suffix in (".js", ".css"):
        content = _IN_FILES.sub(lambda match: asset(match[1]).address, content.decode()).encode()
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Asset(f"{PREFIX}{file.stem}.{digest}{file.suffix}", content, _TYPES[file.suffix])


@cache
def page(name: str) -> str:
    """Return a page whose references to files have their addresses.

    :raises KeyError: it names a file that is not there.
    """
    text = (FOLDER / name).read_text(encoding="utf-8")
    return _IN_PAGES.sub(lambda match: asset(match[1]).address, text)


@cache
def _all() -> dict[str, Asset]:
    names = [file.name for folder in (FOLDER, FOLDER / "vendor") for file in folder.iterdir() if file.suffix in _TYPES]
    return {made.address: made for made in map(asset, names)}


@cache
def _compressed(address: str) -> bytes:
    return gzip.compress(_all()[address].content, 9, mtime=0)


router = APIRouter(include_in_schema=False)


@router.api_route(PREFIX + "{name}", methods=["GET", "HEAD"])
async def serve(request: Request, name: str) -> Response:
    """Serve a file. Its address changes with its content, so it may be kept for ever."""
    found = _all().get(PREFIX + name)
    if found is None:
        raise HTTPException(404)
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "Vary": "Accept-Encoding",
        "Content-Type": found.media_type,
    }
    # A font is compressed already.
    if not found.media_type.startswith("font/") and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(_compressed(found.address), headers=headers | {"Content-Encoding": "gzip"})
    return Response(found.content, headers=headers)
