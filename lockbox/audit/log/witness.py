"""Shipping checkpoints out of the house: to a folder, from which a roll-back of the database shows."""

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from errno import ENOTDIR
from pathlib import Path
from uuid import UUID

from lockbox.audit.log import checkpoint
from lockbox.audit.log.checkpoint import Checkpoint
from lockbox.audit.log.sealer import RolledBack
from lockbox.audit.log.tree_rows import Noted
from lockbox.failpoints import reach

LATEST = "latest.note"
MARK = "lockbox-checkpoints"


class Folder:
    """A folder that outlives the database: a disk of its own, or what an object store is mounted at.

    For each log it holds the newest checkpoint as `LOG/latest.note`, and one of each hour as `LOG/SIZE.note`. A mark
    beside them tells it from a mount point at which nothing is mounted. All that was signed before `seen` was
    shipped, as far as this process knows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seen: datetime | None = None

    def newest(self, log_id: UUID) -> Checkpoint | None:
        """Return what the newest checkpoint says that was shipped of a log, its signature unseen; None without one.

        Raises:
            OSError, BadNote: it cannot be read, or is none.
        """
        note = self._latest(log_id)
        return checkpoint.read(note) if note is not None else None

    def shipped(self, log_id: UUID) -> str | None:
        """Return the newest checkpoint that was shipped of a log; a folder that is not there at all is an error.

        Raises:
            OSError: it cannot be read.
        """
        found = self._latest(log_id)
        if found is None and not self._path.is_dir():
            raise NotADirectoryError(ENOTDIR, "there is no such folder", str(self._path))
        return found

    def logs(self) -> list[UUID]:
        """Return the logs of which something was shipped.

        Raises:
            OSError: the folder cannot be read.
        """
        return sorted(UUID(place.name) for place in self._path.iterdir() if (place / LATEST).exists())

    def set_aside(self, log_id: UUID) -> None:
        """Take the newest checkpoint of a log out of the way, and keep it: it is of a history that was given up."""
        place = self._path / str(log_id)
        shipped = self.newest(log_id)
        if shipped:
            (place / LATEST).replace(place / f"{shipped.origin.rpartition('/')[2]}-{shipped.size:020}.given-up.note")

    def begin(self, *, is_new: bool) -> None:
        """Make sure that this is the folder of before, and mark it where nothing was ever signed.

        Raises:
            OSError: it cannot be read or written.
            RolledBack: it is empty and bears no mark, though something was signed before.
        """
        mark = self._path / MARK
        if mark.exists():
            return
        if not (is_new or self.logs()):
            raise RolledBack(
                f"{self._path} is empty, as if nothing were mounted there; if it is a new one, make {mark}"
            )
        _write(mark, "Here Lockbox keeps checkpoints of its trail.\n")

    def has(self, noted: Noted) -> bool:
        """Whether this very checkpoint is the newest that was shipped of its log, as far as that can be read."""
        with suppress(OSError):
            return self._latest(noted.log_id) == noted.note
        return False

    def ship(self, noted: Iterable[Noted]) -> None:
        """Write these checkpoints, each whole or not at all; one that is older than what is there is left out.

        Raises:
            RolledBack: what is there is of another generation, which only `set_aside` takes out of the way.
            OSError, BadNote: a file cannot be written, or what is there is no checkpoint.
        """
        for one in noted:
            before = self.newest(one.log_id)
            if before and before.origin != one.origin:
                raise RolledBack(f"{one.log_id}: it was shipped as {before.origin}, and is {one.origin} here")
            if before and before.size > one.size:
                continue
            place = self._path / str(one.log_id)
            place.mkdir(exist_ok=True)
            _write(place / LATEST, one.note)
            if one.is_kept:
                _write(place / f"{one.size:020}.note", one.note)

    def _latest(self, log_id: UUID) -> str | None:
        try:
            return (self._path / str(log_id) / LATEST).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None


def _write(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    with beside.open("w") as written:
        written.write(text)
        written.flush()
        os.fsync(written.fileno())
    reach("shipping.before_replace")
    beside.replace(file)
