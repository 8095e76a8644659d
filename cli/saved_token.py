"""The token that `lockbox sign-in` saves for 15 minutes, in a file that only its owner can read."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MINE_ALONE = 0o600
MY_DIRECTORY = 0o700
OTHERS = 0o077


class TokenExposed(Exception):  # noqa: N818 - the name says what went wrong
    """The message says what to do."""


@dataclass(frozen=True)
class SavedToken:
    url: str
    token: str = field(repr=False)


def keep(path: Path, url: str, token: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=MY_DIRECTORY)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MINE_ALONE)
    with os.fdopen(handle, "w") as file:
        json.dump({"url": url, "token": token}, file)
    fresh.replace(path)


def read(path: Path, url: str) -> SavedToken | None:
    """Raises TokenExposed if others may read the file."""
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
    with suppress(FileNotFoundError):
        path.unlink()
