"""Serve the portal's static files: styles, scripts, icon and third-party files."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Self

from fastapi import Request, Response

from api.call_routes import CallRouter
from api.deps import SettingsDep
from api.portal import brand, phrases
from api.portal.pages import HEADERS, NO_PAGE, TAG
from lockbox.errors import NotFound

router = CallRouter(tags=[TAG], include_in_schema=False)

KINDS = {
    "tokens.css": "text/css; charset=utf-8",
    "portal.css": "text/css; charset=utf-8",
    "portal.js": "text/javascript; charset=utf-8",
    "reference.css": "text/css; charset=utf-8",
    "passkey.js": "text/javascript; charset=utf-8",
    "invitation.js": "text/javascript; charset=utf-8",
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
        return cls.of(files("api.portal").joinpath("static", *folder, name).read_bytes(), kind, kept_seconds)

    @classmethod
    def of(cls, plain: bytes, kind: str, kept_seconds: int) -> Self:
        """Return a file of that content."""
        tag = f'"{hashlib.sha256(plain).hexdigest()[:16]}"'
        return cls(plain, gzip.compress(plain, mtime=0), tag, kind, kept_seconds)


FILES = {name: StaticFile.read((), name, kind, KEPT_SECONDS) for name, kind in KINDS.items()}
FILES |= {name: StaticFile.read(("vendor",), name, kind, UNCHANGING_SECONDS) for name, kind in VENDORED.items()}


@cache
def _branded(name: str, colour: str | None, logo: Path | None) -> StaticFile | None:
    """Return a file that the vendor's settings make."""
    if name == "brand.css" and colour:
        return StaticFile.of(brand.style(colour), KINDS["tokens.css"], KEPT_SECONDS)
    if name == "logo" and logo:
        return StaticFile.of(*brand.logo(logo), KEPT_SECONDS)
    return None


@router.get("/static/{name}", tags=[NO_PAGE])
def show(request: Request, name: str, chosen: SettingsDep) -> Response:
    """Return a file, which browsers may cache: ours for an hour, versioned ones for a year."""
    file = FILES.get(name)
    if file is None and name in {"brand.css", "logo"}:
        file = _branded(name, chosen.vendor_colour, chosen.vendor_logo)
    if file is None:
        raise NotFound(phrases.NO_FILE)
    kept = {"cache-control": f"public, max-age={file.kept_seconds}", "etag": file.tag, "vary": "accept-encoding"}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=HEADERS | kept)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.small, headers=HEADERS | kept | {"content-encoding": "gzip"}, media_type=file.kind)
    return Response(file.plain, headers=HEADERS | kept, media_type=file.kind)
