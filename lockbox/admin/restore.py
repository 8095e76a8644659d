"""End all open access after a restore, and begin a new generation of logs that lag behind shipped checkpoints."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.audit.events import THE_OWNER, VENDORS_LOG, AuditEvent
from lockbox.audit.log import rollback
from lockbox.audit.log.checkpoint import Checkpoint
from lockbox.audit.log.checkpoint_folder import WitnessCheck
from lockbox.audit.log.merkle import EMPTY_ROOT
from lockbox.database import UnitOfWork, now
from lockbox.facts.enumerations import State
from lockbox.notifications import announcements
from lockbox.requests import transition
from lockbox.requests.transition import Move

RESTORED = "restored"
AT_ONCE = 500
WHY = (
    "The database was restored from a back-up. Everything open or pending then has ended, because it may "
    "have been closed or decided since. Submit again what is still needed."
)

PATIENT = text("SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '30s', true)")
OPEN = text("""
SELECT id, tenant_id, requester_id, mode, service, state, version, deadline_at, asked_at FROM requests
WHERE wake_at IS NOT NULL ORDER BY id FOR UPDATE
""")
END_SESSIONS = text("UPDATE sessions SET revoked_at = :at WHERE revoked_at IS NULL")
LOGS = text("SELECT id, tenant_id, origin, generation, size FROM logs ORDER BY id FOR NO KEY UPDATE")
TENANTS = text("SELECT id FROM tenants WHERE id = ANY(:ids)")
BEGIN = text(rollback.OPEN_LOG)
NEXT = text("UPDATE logs SET generation = generation + 1, origin = :origin, note = '' WHERE id = :id")


@dataclass(frozen=True)
class DivergedLog:
    """A log whose rows in the database differ from its shipped checkpoint."""

    id: UUID
    shipped: Checkpoint
    size: int
    generation: int
    is_there: bool


@dataclass(frozen=True)
class RestoreResult:
    logs: Sequence[UUID]
    revoked: int
    timed_out: int


def restore(session: UnitOfWork, shipped: WitnessCheck | None, *, anyway: bool = False) -> RestoreResult:
    """End everything that is open, and begin a new generation of each log that is behind its shipped checkpoint.

    If no log is behind, nothing is done unless `anyway`. After the commit the calling function moves the shipped
    checkpoints of these logs aside; until then access checks refuse.

    Raises:
        OSError, BadNote: the folder of checkpoints cannot be read, or contains an invalid checkpoint.
    """
    connection = session.connection()
    connection.execute(PATIENT)
    logs = _rolled_back(session, shipped) if shipped else []
    if not (logs or anyway):
        return RestoreResult((), 0, 0)
    at = now(session)
    rows = connection.execute(OPEN).all()
    for start in range(0, len(rows), AT_ONCE):
        _end(session, rows[start : start + AT_ONCE], at)
    connection.execute(END_SESSIONS, {"at": at})
    tenants = set(connection.execute(TENANTS, {"ids": [log.id for log in logs]}).scalars()) | {VENDORS_LOG}
    for log in logs:
        if log.id in tenants:
            _begin_anew(session, log, at)
    facts = [_audit_event(log, log.id if log.id in tenants - {VENDORS_LOG} else None, at) for log in logs]
    announcements.record(session, *(facts or [AuditEvent(at=at, action=RESTORED, actor=THE_OWNER)]))
    ended = [State(row.state) for row in rows]
    revoked = ended.count(State.ACTIVE)
    return RestoreResult([log.id for log in logs], revoked, len(ended) - revoked)


def _rolled_back(session: UnitOfWork, shipped: WitnessCheck) -> list[DivergedLog]:
    heads = {row.id: row for row in session.execute(LOGS)}
    # Signatures are checked first: under a wrong key every log would seem to be behind.
    notes = {log: shipped.verified(log) for log in shipped.folder.logs()}
    doubts = shipped.doubts(session, notes)
    found = []
    for log_id, note in notes.items():
        row = heads.get(log_id)
        if log_id in doubts:
            found.append(
                DivergedLog(log_id, note, row.size if row else 0, row.generation if row else 1, row is not None)
            )
    return found


def _begin_anew(session: UnitOfWork, log: DivergedLog, at: datetime) -> None:
    """Raise the log's generation above all shipped generations; a trigger allows only steps of one."""
    base, of_shipped = _parted(log.shipped.origin)
    if not log.is_there:
        begun = {"id": [log.id], "vendor": VENDORS_LOG, "origin": [base], "root": EMPTY_ROOT, "at": at}
        session.execute(BEGIN, begun)
    for generation in range(log.generation + 1, max(log.generation, of_shipped) + 2):
        session.execute(NEXT, {"id": log.id, "origin": f"{base}/{generation}"})


def _parted(origin: str) -> tuple[str, int]:
    base, _, last = origin.rpartition("/")
    return (base, int(last)) if last.isascii() and last.isdigit() else (origin, 1)


def _audit_event(log: DivergedLog, tenant_id: UUID | None, at: datetime) -> AuditEvent:
    return AuditEvent(
        at=at,
        action=RESTORED,
        actor=THE_OWNER,
        tenant_id=tenant_id,
        facts={
            "log_id": log.id,
            "shipped_origin": log.shipped.origin,
            "shipped_size": log.shipped.size,
            "shipped_root": base64.b64encode(log.shipped.root).decode(),
            "size": log.size,
        },
    )


def _end(session: UnitOfWork, rows: Sequence[Row[Any]], at: datetime) -> None:
    facts = {"restored": True}
    moves = [Move.ended(row, THE_OWNER, at, facts=facts, personal={"comment": WHY}) for row in rows]
    transition.end(session, moves)
