"""The licence is where people and tools look for it, and the notice names all vendored files."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENDORED = ROOT / "api" / "portal" / "static" / "vendor"


def test_the_licence_is_named_in_the_package_and_the_readme() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["license"] == "Apache-2.0"
    assert all(list(ROOT.glob(pattern)) for pattern in project["license-files"])
    assert "Apache-2.0 (`LICENSE`" in (ROOT / "README.md").read_text()
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
    assert "Copyright 2026 The Lockbox authors" in (ROOT / "LICENSE").read_text()


def test_every_vendored_file_is_in_the_notice_with_its_licence() -> None:
    notice = (ROOT / "NOTICE").read_text()
    made_by_others = [one.name for one in VENDORED.iterdir() if one.name != "SHA256SUMS"]

    assert made_by_others
    assert [name for name in made_by_others if name not in notice] == []
