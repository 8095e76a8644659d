"""Shipping checkpoints out of the house: to a folder, from which a roll-back of the database shows."""

import os
from collections.abc import Iterable
from errno import ENOTDIR
from pathlib import Path
from uuid import UUID

from lockbox.audit import checkpoint
from lockbox.audit.checkpoint import BadNote, Checkpoint
from lockbox.audit.sealing import Noted
from lockbox.failpoints import reach

LATEST = "latest.note"


class Folder:
    """A folder that outlives the database: a disk of its own, or what an object store is mounted at.

    For each log it holds the newest checkpoint as `LOG/latest.note`, and one of each hour as `LOG/SIZE.note`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def newest(self, log_id: UUID) -> Checkpoint | None:
        """Return the newest checkpoint that was shipped of a log, None where none was.

        Raises:
            OSError, BadNote: it cannot be read, or is none.
        """
        try:
            return checkpoint.read((self._path / str(log_id) / LATEST).read_text())
        except FileNotFoundError:
            return None

    def shipped(self, log_id: UUID) -> Checkpoint | None:
        """Return the newest checkpoint that was shipped of a log; a folder that is not there at all is an error.

        Raises:
            OSError, BadNote: it cannot be read, or is none.
        """
        found = self.newest(log_id)
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

    def ship(self, noted: Iterable[Noted]) -> None:
        """Write these checkpoints, each whole or not at all; one that is older than what is there is left out.

        Raises:
            OSError, BadNote: a file cannot be written, or what is there is no checkpoint.
        """
        for one in noted:
            before = self.newest(one.log_id)
            if before and before.origin == one.origin and before.size > one.size:
                continue
            place = self._path / str(one.log_id)
            place.mkdir(parents=True, exist_ok=True)
            _write(place / LATEST, one.note)
            if one.is_kept:
                _write(place / f"{one.size:020}.note", one.note)

    def is_ahead(self, log_id: UUID, origin: str, size: int) -> bool:
        """Whether a larger log of this origin was shipped than the database holds: it was rolled back.

        What cannot be read is taken for it: nobody is let in, and nothing is signed, on a guess.
        """
        try:
            shipped = self.newest(log_id)
        except (OSError, BadNote):
            return True
        return shipped is not None and shipped.origin == origin and shipped.size > size


def _write(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    with beside.open("w") as written:
        written.write(text)
        written.flush()
        os.fsync(written.fileno())
    reach("shipping.before_replace")
    beside.replace(file)
