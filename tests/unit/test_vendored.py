"""Vendored files for pages are as released, byte for byte, and have their licences beside them."""

import hashlib
import re
from importlib.resources import files

from api.portal.pages import ICON_FOLDER as ICONS
from api.portal.static import VENDORED

FOLDER = files("api.portal").joinpath("static", "vendor")


def test_vendored_files_match_their_recorded_checksums() -> None:
    lines = FOLDER.joinpath("SHA256SUMS").read_text().splitlines()
    noted = {name: total for total, name in map(str.split, lines)}
    vendored = (*VENDORED, *(f"{ICONS.name}/{icon.name}" for icon in ICONS.iterdir()))

    assert {name: hashlib.sha256(FOLDER.joinpath(name).read_bytes()).hexdigest() for name in vendored} == noted


def test_every_vendored_file_has_its_version_and_licence() -> None:
    for name in (*VENDORED, ICONS.name):
        found = re.fullmatch(r"([a-z]+)-\d+\.\d+\.\d+(?:\.min\.(?:js|css))?", name)
        assert found, name
        assert FOLDER.joinpath(f"{found[1]}-LICENSE").is_file()
