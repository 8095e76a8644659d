"""The last verified checkpoint of each log on this machine; the next export has to continue it."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lockbox.audit.log import checkpoint
from lockbox.audit.log.checkpoint import BadNote, VerifierKey
from lockbox.audit.verifier.verify import VENDORS

MINE_ALONE = 0o600
MY_DIRECTORY = 0o700


class UnreadableMemory(Exception):  # noqa: N818 - the name says what went wrong
    """The message says what to do."""


@dataclass(frozen=True)
class VerifiedCheckpoint:
    """The signed checkpoint of an intact export, and the keys that verified it."""

    log: str
    note: str
    keys: tuple[VerifierKey, ...]


def read(folder: Path, log: str) -> VerifiedCheckpoint | None:
    """Return the last verified checkpoint of a log, or None.

    `log` is the origin of its checkpoints, without the generation number that a restored back-up adds. A tenant's log
    is identified by the tenant, so that a renamed log does not count as a new one. Raises UnreadableMemory if the
    checkpoint cannot be read, or is of another log.
    """
    path = _path(folder, log)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        keys = tuple(VerifierKey.read(one) for one in found["keys"])
        origin = checkpoint.read(found["note"]).origin
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, BadNote):
        raise UnreadableMemory(
            f"{path}, where the last verified checkpoint is, cannot be read: move it away"
        ) from None
    known = checkpoint.named(origin)[0]
    if found["log"] != known or _whose(known) != _whose(log):
        raise UnreadableMemory(
            f"{path} should have the last verified checkpoint of {log}, and has another one: move it away"
        )
    return VerifiedCheckpoint(known, found["note"], keys)


def keep(folder: Path, log: str, note: str, keys: Sequence[VerifierKey]) -> None:
    """The file is never half-written. Raises OSError if it cannot be saved."""
    path = _path(folder, log)
    path.parent.mkdir(parents=True, exist_ok=True, mode=MY_DIRECTORY)
    fresh = path.with_suffix(f".{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, MINE_ALONE)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"log": log, "note": note, "keys": [key.text for key in keys]}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _whose(log: str) -> str:
    tenant = log.rpartition("/audit/")[2]
    return log if tenant == VENDORS else tenant


def _path(folder: Path, log: str) -> Path:
    return folder / f"{hashlib.sha256(_whose(log).encode()).hexdigest()[:32]}.json"
