"""The sign-in that a terminal keeps: a token of a quarter of an hour, in a file that only its person reads."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MINE_ALONE = 0o600
MY_DIRECTORY = 0o700
OTHERS = 0o077


class TokenExposed(Exception):  # noqa: N818 - it names what was found
    """Others may read the file; the message says what to do."""


@dataclass(frozen=True)
class SavedToken:
    """A token, and the API that it is for."""

    url: str
    token: str = field(repr=False)


def keep(path: Path, url: str, token: str) -> None:
    """Keep a token in the place of what was kept before; nobody else can read it at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=MY_DIRECTORY)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MINE_ALONE)
    with os.fdopen(handle, "w") as file:
        json.dump({"url": url, "token": token}, file)
    fresh.replace(path)


def read(path: Path, url: str) -> SavedToken | None:
    """Return what is kept for an API, if anything is.

    Raises:
        TokenExposed: others may read the file.
    """
    try:
        mode, text = path.stat().st_mode, path.read_text()
    except OSError:
        return None
    if mode & OTHERS:
        raise TokenExposed(f"others may read {path}: remove it and sign in again")
    try:
        found = json.loads(text)
        kept = SavedToken(found["url"], found["token"])
    except (ValueError, KeyError, TypeError):
        return None
    return kept if kept.url == url else None


def forget(path: Path) -> None:
    """Keep nothing any more."""
    with suppress(FileNotFoundError):
        path.unlink()
