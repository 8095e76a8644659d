"""Directory records of the vendor's people: employer, office and location."""

from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from lockbox.audit import events
from lockbox.audit.canonical import Value
from lockbox.audit.events import Actor, AuditEvent
from lockbox.database import UnitOfWork, now
from lockbox.identity import row_macs
from lockbox.identity.models import DirectoryRecord
from lockbox.sql import excluded, insert

CHANGED = "directory_record_changed"
LONGEST_ENTITY = 100
# Of two sources, the later statement counts. A statement older than the stored one changes nothing.
KEPT = text(f"""
{insert(DirectoryRecord, "d")}
ON CONFLICT (person_id) DO UPDATE SET {excluded(DirectoryRecord, but={"person_id"})}
WHERE d.as_of < excluded.as_of RETURNING d.person_id
""")
RECORDED = text(f"WITH {events.APPEND} SELECT 1")


@dataclass(frozen=True)
class DirectoryEntry:
    """A field is None if the directory has no value. Countries are ISO 3166-1 alpha-2 codes."""

    employing_entity: str | None = None
    office_country: str | None = None
    physical_country: str | None = None


def find(session: UnitOfWork, person_id: UUID) -> DirectoryRecord | None:
    """Return a record as far as the caller may see it, None if it has no valid MAC."""
    query = select(DirectoryRecord).where(col(DirectoryRecord.person_id) == person_id)
    row = session.orm.exec(query.execution_options(populate_existing=True)).one_or_none()
    if row is None or not row_macs.is_held(session, row.mac, row_macs.directory_record(row), person_id):
        return None
    return row


def keep(
    session: UnitOfWork, actor: Actor, person_id: UUID, entry: DirectoryEntry, *, source: str, as_of: datetime
) -> None:
    """Replace a person's record with a newer one from a source; a change is recorded in the vendor's log."""
    held = find(session, person_id)
    if held is not None and held.as_of >= as_of:
        return
    row = DirectoryRecord(person_id=person_id, source=source, as_of=as_of, **asdict(entry))
    row.mac = row_macs.mark(session, row_macs.directory_record(row))
    is_kept = session.execute(KEPT, row.model_dump()).one_or_none() is not None
    before = DirectoryEntry(held.employing_entity, held.office_country, held.physical_country) if held else None
    if is_kept and entry != before:
        personal = {name: value for name, value in asdict(entry).items() if value is not None}
        facts: dict[str, Value] = {"person_id": person_id, "source": source, "as_of": as_of}
        changed = AuditEvent(at=now(session), action=CHANGED, actor=actor, facts=facts, personal=personal)
        session.execute(RECORDED, events.append([changed]))
