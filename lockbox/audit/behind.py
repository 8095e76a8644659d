"""Whether the database is behind what was shipped of its logs: then it was restored, and nobody is let in."""

import threading
import time
from collections.abc import Collection, Mapping
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlmodel import Session

from lockbox.audit.checkpoint import BadNote, Checkpoint
from lockbox.audit.sealing import VENDORS_LOG
from lockbox.audit.shipping import Folder

log = structlog.get_logger(__name__)

KNOWN_SECONDS = 3.0

HEADS = text("SELECT id, origin, size FROM log_heads(CAST(:ids AS uuid[]))")

Head = tuple[str, int]
"""Origin and size of a log."""


class Shipped:
    """What was shipped, held against what the database holds; what was found is believed for three seconds."""

    def __init__(self, folder: Folder, known_seconds: float = KNOWN_SECONDS) -> None:
        self._folder = folder
        self._known_seconds = known_seconds
        self._known: dict[UUID, tuple[float, bool]] = {}
        self._changing = threading.Lock()

    def behind(self, session: Session, tenant_ids: Collection[UUID]) -> frozenset[UUID]:
        """Return those of the tenants of whose log, or of the vendor's, the database holds less than was shipped.

        What cannot be read is taken for it. The vendor's counts for all: who was shut out stands there.
        """
        if not tenant_ids:
            return frozenset()
        found = self._looked_up(session, {*tenant_ids, VENDORS_LOG})
        return frozenset(tenant_ids) if found[VENDORS_LOG] else frozenset(one for one in tenant_ids if found[one])

    def any_behind(self, session: Session) -> bool:
        """Whether the database holds less of any log than was shipped."""
        try:
            shipped = self._folder.logs()
        except OSError as error:
            log.critical("audit.folder_unreadable", error=type(error).__name__, reason=error.strerror)
            return True
        return any(self._looked_up(session, set(shipped)).values())

    def _looked_up(self, session: Session, log_ids: Collection[UUID]) -> dict[UUID, bool]:
        at = time.monotonic()
        known = {one: answer for one in log_ids if (answer := self._still_known(one, at)) is not None}
        wanted = [one for one in log_ids if one not in known]
        if not wanted:
            return known
        rows = session.connection().execute(HEADS, {"ids": wanted})
        heads: Mapping[UUID, Head] = {row.id: (row.origin, row.size) for row in rows}
        found = {one: is_behind(self._folder, one, heads.get(one)) for one in wanted}
        with self._changing:
            self._known |= {one: (at + self._known_seconds, answer) for one, answer in found.items()}
        return known | found

    def _still_known(self, log_id: UUID, at: float) -> bool | None:
        until, answer = self._known.get(log_id, (0.0, False))
        return answer if at < until else None


def is_behind(folder: Folder, log_id: UUID, head: Head | None) -> bool:
    """Whether the database, where a log stands like this, holds less of it than was shipped, or another one."""
    try:
        shipped = folder.shipped(log_id)
    except (OSError, BadNote) as error:
        log.critical("audit.folder_unreadable", log=str(log_id), error=type(error).__name__, reason=str(error))
        return True
    return shipped is not None and _is_less(head, shipped)


def of(session: Session) -> Shipped | None:
    """Return what the process of this session knows was shipped, None where it is told of no folder."""
    found: Shipped | None = session.info.get("shipped")
    return found


def _is_less(head: Head | None, shipped: Checkpoint) -> bool:
    origin, size = head or ("", 0)
    if size == 0:
        return shipped.size > 0
    return shipped.origin != origin or shipped.size > size
