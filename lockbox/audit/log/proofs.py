"""Inclusion and consistency proofs, computed from only the tiles that they need."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy import TextClause, text

from lockbox.audit.log import merkle
from lockbox.audit.log.merkle import HASH_BYTES, WIDTH, WIDTH_BITS, Place, Subtree
from lockbox.audit.models import AuditLog
from lockbox.database import UnitOfWork
from lockbox.sql import columns

T = TypeVar("T")

PLACE = text("SELECT number FROM seals WHERE log_id = :log_id AND event_id = :event_id")
TILES = text("""
SELECT t.level, t.number, t.hashes FROM tiles t
JOIN unnest(CAST(:level AS smallint[]), CAST(:number AS bigint[])) AS w (level, number) USING (level, number)
WHERE t.log_id = :log_id
""")
KEYS = text("SELECT key, purpose, first_used_at FROM known_audit_keys()")


@dataclass(frozen=True)
class LogHead:
    """A log at its newest checkpoint; `note` is the signed checkpoint of `size` and `root`."""

    id: UUID
    tenant_id: UUID | None
    origin: str
    generation: int
    size: int
    root: bytes
    unproven: int
    note: str
    noted_at: datetime


LOG_HEAD = columns(AuditLog, "logs", *(field.name for field in fields(LogHead)))
HEAD = text(f"SELECT {LOG_HEAD} FROM logs WHERE id = :log_id AND note <> ''")  # noqa: S608 - ours


@dataclass(frozen=True)
class PublicKeyEntry:
    """`key` has the form `name+id+base64`."""

    key: str
    purpose: str
    first_used_at: datetime


def head(session: UnitOfWork, log_id: UUID) -> LogHead | None:
    row = session.execute(HEAD, {"log_id": log_id}).one_or_none()
    return LogHead(**(row._asdict() | {"root": bytes(row.root)})) if row else None


def keys(session: UnitOfWork) -> list[PublicKeyEntry]:
    return [PublicKeyEntry(**row._asdict()) for row in session.execute(KEYS)]


def number_of(session: UnitOfWork, log: LogHead, event_id: UUID) -> int | None:
    """None if the checkpoint does not cover the event."""
    number = session.execute(PLACE, {"log_id": log.id, "event_id": event_id}).scalar()
    return number if number is not None and number < log.size else None


def inclusion(session: UnitOfWork, log: LogHead, numbers: Iterable[int]) -> dict[int, list[bytes]]:
    wanted = list(numbers)

    def make(subtree: Subtree) -> dict[int, list[bytes]]:
        return {number: merkle.inclusion(subtree, number, log.size) for number in wanted}

    return proven(session, log.id, make)


def consistency(session: UnitOfWork, log_id: UUID, old: int, new: int) -> list[bytes]:
    return proven(session, log_id, lambda subtree: merkle.consistency(subtree, old, new))


def tiled(session: UnitOfWork, log: LogHead, numbers: Sequence[int]) -> dict[int, tuple[list[bytes], list[bytes]]]:
    """Return, for each tile number, the tile's leaf hashes and the path from its root to the log's root."""
    count = (log.size + WIDTH - 1) // WIDTH

    def make(subtree: Subtree) -> dict[int, tuple[list[bytes], list[bytes]]]:
        def of_tiles(level: int, number: int) -> bytes:
            start, end = number << level + WIDTH_BITS, (number + 1) << level + WIDTH_BITS
            return merkle.range_hash(subtree, start, min(end, log.size))

        return {
            number: (
                [subtree(0, leaf) for leaf in range(number * WIDTH, min((number + 1) * WIDTH, log.size))],
                merkle.inclusion(of_tiles, number, count),
            )
            for number in numbers
        }

    return proven(session, log.id, make)


def proven(session: UnitOfWork, log_id: UUID, make: Callable[[Subtree], T], statement: TextClause = TILES) -> T:
    """Compute a value from hashes of complete subtrees, after one SQL statement has read the needed tiles.

    `statement` reads the tiles in the form of `TILES`; pass another one for a database login that may not read the
    table.
    """
    wanted: set[Place] = set()

    def note(level: int, number: int) -> bytes:
        wanted.add(merkle.of_subtree(level, number))
        return bytes(HASH_BYTES)

    make(note)
    found = _tiles(session, log_id, wanted, statement)
    return make(lambda level, number: merkle.subtree(found, level, number))


def _tiles(
    session: UnitOfWork, log_id: UUID, wanted: Iterable[Place], statement: TextClause
) -> Mapping[Place, bytes]:
    places = sorted(wanted)
    if not places:
        return {}
    values = {"log_id": log_id, "level": [level for level, _ in places], "number": [number for _, number in places]}
    rows = session.execute(statement, values)
    return {(row.level, row.number): bytes(row.hashes) for row in rows}
