"""The folder, outside the database, to which checkpoints are shipped; it helps to detect rollbacks.

Functions that read or write the folder raise OSError if that fails, and BadNote if a file is not a checkpoint.
"""

import os
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from errno import ENOTDIR
from pathlib import Path
from uuid import UUID

import structlog
from sqlalchemy import text

from lockbox.audit.events import VENDORS_LOG
from lockbox.audit.log import checkpoint, rollback
from lockbox.audit.log.checkpoint import BadNote, Checkpoint, VerifierKey
from lockbox.audit.log.merkle import EMPTY_ROOT
from lockbox.audit.log.rollback import LatestCheckpoint, LogClaim, LogMismatch
from lockbox.audit.log.sealer import RollbackDetected
from lockbox.database import UnitOfWork
from lockbox.failpoints import failpoint

LATEST = "latest.note"
MARK = "lockbox-checkpoints"
log = structlog.get_logger(__name__)
KNOWN_SECONDS = 3.0
MOST_VERIFIED = 10_000
HEADS = text("SELECT id, origin, generation, size, root, note FROM log_heads(CAST(:ids AS uuid[]))")
TILES = text("""
SELECT level, number, hashes
FROM log_tiles(:log_id, CAST(:level AS smallint[]), CAST(:number AS bigint[]))
""")


class WitnessFolder:
    """A folder that outlives the database: a separate disk, or a mounted object store.

    It holds each log's newest checkpoint as `LOG/latest.note`, and its hourly checkpoints as `LOG/SIZE.note`. A
    marker file in the folder distinguishes it from an empty mount point. As far as this process knows, all
    checkpoints signed before `seen` were shipped. `unfinished` holds the time when an interrupted pass over the logs
    began, and the last log that the pass covered.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seen: datetime | None = None
        self.unfinished: tuple[datetime, UUID | None] | None = None

    def newest(self, log_id: UUID) -> Checkpoint | None:
        """The newest shipped checkpoint of a log, unverified."""
        note = self._latest(log_id)
        return checkpoint.read(note) if note is not None else None

    def shipped(self, log_id: UUID) -> str | None:
        """The newest shipped note of a log; raises OSError also if the folder is missing."""
        found = self._latest(log_id)
        if found is None and not self._path.is_dir():
            raise NotADirectoryError(ENOTDIR, "there is no such folder", str(self._path))
        return found

    def logs(self) -> list[UUID]:
        return sorted(UUID(place.name) for place in self._path.iterdir() if (place / LATEST).exists())

    def set_aside(self, log_id: UUID) -> None:
        """Rename the newest checkpoint of a log, because it belongs to a history that was given up."""
        place = self._path / str(log_id)
        shipped = self.newest(log_id)
        if shipped:
            (place / LATEST).replace(place / f"{shipped.origin.rpartition('/')[2]}-{shipped.size:020}.given-up.note")

    def begin(self, *, is_new: bool) -> None:
        """Check that this is the same folder as before, by its marker file.

        Raises:
            RollbackDetected: the folder has neither checkpoints nor the marker file, though something was signed
                before.
        """
        mark = self._path / MARK
        if mark.exists():
            return
        if not (is_new or self.logs()):
            raise RollbackDetected(
                f"{self._path} is empty, as if nothing were mounted there; if it is a new one, make {mark}"
            )
        _write(mark, "Lockbox keeps checkpoints of its audit logs here.\n")

    def has(self, noted: LatestCheckpoint) -> bool:
        """False also if the shipped checkpoint cannot be read."""
        with suppress(OSError):
            return self._latest(noted.log_id) == noted.note
        return False

    def ship(self, noted: Iterable[LatestCheckpoint]) -> None:
        """Write checkpoints atomically; skip a checkpoint with a smaller size than the shipped one.

        Raises:
            RollbackDetected: the shipped checkpoint is of another generation; only `set_aside` removes it.
        """
        for one in noted:
            before = self.newest(one.log_id)
            if before and before.origin != one.origin:
                raise RollbackDetected(f"{one.log_id}: it was shipped as {before.origin}, and is {one.origin} here")
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
    failpoint("shipping.before_replace")
    beside.replace(file)


class WitnessCheck:
    """Compare the shipped checkpoints with the database; results are cached for three seconds.

    `trusted` maps four-byte ids to checkpoint keys.
    """

    def __init__(
        self, folder: WitnessFolder, trusted: Mapping[bytes, VerifierKey], known_seconds: float = KNOWN_SECONDS
    ) -> None:
        self.folder = folder
        self.trusted = trusted
        self._known_seconds = known_seconds
        self._known: dict[UUID, tuple[float, str]] = {}
        self._verified: dict[UUID, tuple[LogClaim | None, str]] = {}
        self._changing = threading.Lock()

    def rolled_back(self, session: UnitOfWork, tenant_ids: Collection[UUID]) -> frozenset[UUID]:
        """Return the tenants whose own log differs from its shipped checkpoint, or all tenants if the vendor's does.

        The vendor's log affects all tenants, because it records the disabling of people. A log whose shipped
        checkpoint cannot be read counts as different.
        """
        if not tenant_ids:
            return frozenset()
        found = self._looked_up(session, {*tenant_ids, VENDORS_LOG})
        return frozenset(tenant_ids) if found[VENDORS_LOG] else frozenset(one for one in tenant_ids if found[one])

    def all_doubts(self, session: UnitOfWork) -> list[str]:
        try:
            shipped = self.folder.logs()
        except OSError as error:
            log.critical("audit.folder_unreadable", error=type(error).__name__, reason=error.strerror)
            return [f"the folder of checkpoints cannot be read: {error.strerror}"]
        found = self._looked_up(session, {*shipped, VENDORS_LOG})
        return [f"log {one}: {doubt}" for one, doubt in sorted(found.items()) if doubt]

    def verified(self, log_id: UUID) -> Checkpoint:
        """The newest shipped checkpoint of a log; raises BadNote also if no trusted key has signed it."""
        return checkpoint.verify(self.folder.shipped(log_id) or "", self.trusted)[0]

    def doubts(self, session: UnitOfWork, log_ids: Collection[UUID]) -> dict[UUID, str]:
        # The folder is read first: commits precede shipping, so the database is at least as new.
        notes = {one: self._note(one) for one in log_ids}
        rows = session.execute(HEADS, {"ids": list(log_ids)})
        claims = {row.id: LogClaim.of(row) for row in rows}
        found = {}
        for one, note in notes.items():
            try:
                self._check(session, one, claims.get(one), note)
            except LogMismatch as doubt:
                found[one] = str(doubt)
        return found

    def _looked_up(self, session: UnitOfWork, log_ids: Collection[UUID]) -> dict[UUID, str]:
        at = time.monotonic()
        known = {one: answer for one in log_ids if (answer := self._still_known(one, at)) is not None}
        wanted = [one for one in log_ids if one not in known]
        if not wanted:
            return known
        # The folder may be on another machine, so reading it may take long.
        session.wait()
        doubts = self.doubts(session, wanted)
        for one, doubt in doubts.items():
            log.critical("audit.differs_from_shipped", log=str(one), reason=doubt)
        found = {one: doubts.get(one, "") for one in wanted}
        with self._changing:
            self._known |= {one: (at + self._known_seconds, answer) for one, answer in found.items()}
        return known | found

    def _still_known(self, log_id: UUID, at: float) -> str | None:
        until, answer = self._known.get(log_id, (0.0, ""))
        return answer if at < until else None

    def _note(self, log_id: UUID) -> str | OSError | None:
        try:
            return self.folder.shipped(log_id)
        except OSError as error:
            return error

    def _check(self, session: UnitOfWork, log_id: UUID, claim: LogClaim | None, note: str | OSError | None) -> None:
        if isinstance(note, OSError):
            raise LogMismatch(f"its checkpoint cannot be read: {note.strerror}")
        if note is None:
            if claim and claim.note:
                raise LogMismatch("nothing was shipped of it")
            return
        if self._verified.get(log_id) == (claim, note):
            return
        try:
            shipped, _ = checkpoint.verify(note, self.trusted)
        except BadNote as bad:
            raise LogMismatch(f"what was shipped of it: {bad}") from None
        held = claim or LogClaim(log_id, shipped.origin, 1, 0, EMPTY_ROOT, "")
        rollback.check(held, shipped, self.trusted, rollback.extends(session, held, TILES))
        rollback.check_root(session, held, TILES)
        with self._changing:
            self._verified.pop(log_id, None)
            self._verified[log_id] = (claim, note)
            if len(self._verified) > MOST_VERIFIED:
                del self._verified[next(iter(self._verified))]


def of(session: UnitOfWork) -> WitnessCheck | None:
    return session.keys.get(WitnessCheck)
