"""The migrations of a release are frozen."""

import hashlib

import pytest

from lockbox.migrations import FOLDER

# The files of each release, with what `sha256sum` says of them. Add those of the next one; change none.
RELEASED = {
    "0001_schema.py": "35bc73f4a282d934ffc2de5886bdf2482ee4cc8ff8da2232a8b78bab9be3a360",
    "0001_schema.sql": "217b288efd35904c68bdd80f598d9d560cb3def306373955dd3ece4beffe217b",
}


def digest(name: str) -> str:
    return hashlib.sha256((FOLDER / "versions" / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", RELEASED)
def test_released_migrations_are_unchanged(name: str) -> None:
    assert digest(name) == RELEASED[name], "this file was released: undo the change, and write a new revision"


def test_the_first_revision_is_named_after_its_schema() -> None:
    text = (FOLDER / "versions" / "0001_schema.py").read_text()

    assert f'revision = "0001_{digest("0001_schema.sql")[:12]}"' in text
