"""Static files, and the vendor's own colour and logo."""

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
from api.portal import phrases
from api.portal.pages import HEADERS, NO_PAGE, TAG
from config.brand import LEAST_CONTRAST, contrast, mixed
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
NIGHT, INK = "#171b23", "#0b1020"
"""The background of text on a dark screen, and the colour of text on a bright button there, as in `tokens.css`."""

STYLE = """:root {{ --brand: {colour}; --link: {colour}; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --brand: {bright}; --link: {bright}; --on-brand: {ink}; }}
}}
"""
KEPT_SECONDS = 3600
UNCHANGING_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True)
class StaticFile:
    """`small` is the compressed content, `tag` the ETag."""

    plain: bytes
    small: bytes
    tag: str
    kind: str
    kept_seconds: int

    @classmethod
    def read(cls, folder: tuple[str, ...], name: str, kind: str, kept_seconds: int) -> Self:
        return cls.of(files("api.portal").joinpath("static", *folder, name).read_bytes(), kind, kept_seconds)

    @classmethod
    def of(cls, plain: bytes, kind: str, kept_seconds: int) -> Self:
        tag = f'"{hashlib.sha256(plain).hexdigest()[:16]}"'
        return cls(plain, gzip.compress(plain, mtime=0), tag, kind, kept_seconds)


FILES = {name: StaticFile.read((), name, kind, KEPT_SECONDS) for name, kind in KINDS.items()}
FILES |= {name: StaticFile.read(("vendor",), name, kind, UNCHANGING_SECONDS) for name, kind in VENDORED.items()}


@cache
def brand_style(colour: str) -> bytes:
    mixtures = (mixed(colour, "#ffffff", share / 100) for share in range(0, 101, 5))
    bright = next(mixture for mixture in mixtures if contrast(mixture, NIGHT) >= LEAST_CONTRAST + 1)
    return STYLE.format(colour=colour, bright=bright, ink=INK).encode()


@cache
def vendor_logo(file: Path) -> tuple[bytes, str]:
    content = file.read_bytes()
    return content, "image/png" if content.startswith(b"\x89PNG") else "image/svg+xml"


@cache
def _branded(name: str, colour: str | None, logo: Path | None) -> StaticFile | None:
    if name == "brand.css" and colour:
        return StaticFile.of(brand_style(colour), KINDS["tokens.css"], KEPT_SECONDS)
    if name == "logo" and logo:
        return StaticFile.of(*vendor_logo(logo), KEPT_SECONDS)
    return None


@router.get("/static/{name}", tags=[NO_PAGE])
def show(request: Request, name: str, chosen: SettingsDep) -> Response:
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
