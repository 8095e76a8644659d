"""Serve the portal's static files: styles, scripts, icon and third-party files."""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Self

from fastapi import APIRouter, Request, Response

from api.portal.pages import HEADERS, TAG
from lockbox.errors import NotFound

router = APIRouter(tags=[TAG], include_in_schema=False)

KINDS = {
    "portal.css": "text/css; charset=utf-8",
    "portal.js": "text/javascript; charset=utf-8",
    "passkey.js": "text/javascript; charset=utf-8",
    "lockbox.svg": "image/svg+xml",
}
VENDORED = {
    "simple-2.3.7.min.css": "text/css; charset=utf-8",
    "htmx-4.0.1.min.js": "text/javascript; charset=utf-8",
}
KEPT_SECONDS = 3600
UNCHANGING_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True)
class StaticFile:
    """A file's content, plain and compressed, its ETag, and how long to cache it."""

    plain: bytes
    small: bytes
    tag: str
    kind: str
    kept_seconds: int

    @classmethod
    def read(cls, folder: tuple[str, ...], name: str, kind: str, kept_seconds: int) -> Self:
        """Read a file of the package."""
        plain = files("api.portal").joinpath("static", *folder, name).read_bytes()
        tag = f'"{hashlib.sha256(plain).hexdigest()[:16]}"'
        return cls(plain, gzip.compress(plain, mtime=0), tag, kind, kept_seconds)


FILES = {name: StaticFile.read((), name, kind, KEPT_SECONDS) for name, kind in KINDS.items()}
FILES |= {name: StaticFile.read(("vendor",), name, kind, UNCHANGING_SECONDS) for name, kind in VENDORED.items()}


@router.get("/static/{name}")
def show(request: Request, name: str) -> Response:
    """Return a file, which browsers may cache: ours for an hour, versioned ones for a year."""
    if name not in FILES:
        raise NotFound("There is no such file.")
    file = FILES[name]
    kept = {"cache-control": f"public, max-age={file.kept_seconds}", "etag": file.tag, "vary": "accept-encoding"}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=HEADERS | kept)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.small, headers=HEADERS | kept | {"content-encoding": "gzip"}, media_type=file.kind)
    return Response(file.plain, headers=HEADERS | kept, media_type=file.kind)
