"""The static files of the pages: how they look, their icon, and the script that passkeys need."""

import hashlib
from importlib.resources import files

from fastapi import APIRouter, Response

from api.portal.pages import HEADERS, TAG
from lockbox.refusals import Unknown

router = APIRouter(tags=[TAG], include_in_schema=False)

KINDS = {
    "portal.css": "text/css; charset=utf-8",
    "passkey.js": "text/javascript; charset=utf-8",
    "lockbox.svg": "image/svg+xml",
}
FILES = {name: files("api.portal").joinpath("static", name).read_bytes() for name in KINDS}
KEPT_SECONDS = 3600


@router.get("/static/{name}")
def show(name: str) -> Response:
    """Return a file; browsers may keep it for an hour."""
    if name not in FILES:
        raise Unknown("There is no such file.")
    tag = hashlib.sha256(FILES[name]).hexdigest()[:16]
    headers = HEADERS | {"cache-control": f"public, max-age={KEPT_SECONDS}", "etag": f'"{tag}"'}
    return Response(FILES[name], headers=headers, media_type=KINDS[name])
