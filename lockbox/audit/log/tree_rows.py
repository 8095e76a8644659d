"""Lock, read and write the rows of growing logs: their tree edges and checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.audit.log import merkle
from lockbox.audit.log.merkle import EMPTY_ROOT, Edge, Place
from lockbox.sql import new_id

OPEN = text("""
INSERT INTO logs (id, tenant_id, origin, generation, size, root, unproven, note, noted_at, kept_at, digest_at)
SELECT n.id, nullif(n.id, CAST(:vendor AS uuid)), n.origin, 1, 0, :root, 0, '', :at, '-infinity', :at
FROM unnest(CAST(:ids AS uuid[]), CAST(:origins AS text[])) AS n (id, origin)
ON CONFLICT DO NOTHING
""")
EDGES = text("""
SELECT t.log_id, t.level, t.number, t.hashes FROM tiles t
JOIN unnest(CAST(:log_id AS uuid[]), CAST(:level AS smallint[]), CAST(:number AS bigint[]))
    AS w (log_id, level, number) USING (log_id, level, number)
""")
SEAL = text("""
INSERT INTO seals (log_id, number, event_id)
SELECT * FROM unnest(CAST(:log_id AS uuid[]), CAST(:number AS bigint[]), CAST(:event_id AS uuid[]))
""")
TILE = text("""
INSERT INTO tiles (log_id, level, number, hashes)
SELECT * FROM unnest(CAST(:log_id AS uuid[]), CAST(:level AS smallint[]), CAST(:number AS bigint[]),
    CAST(:hashes AS bytea[]))
ON CONFLICT (log_id, level, number) DO UPDATE SET hashes = EXCLUDED.hashes
""")
GROWN = text("""
UPDATE logs l SET origin = n.origin, size = n.size, root = n.root, note = n.note, noted_at = :at
FROM unnest(CAST(:id AS uuid[]), CAST(:origin AS text[]), CAST(:size AS bigint[]), CAST(:root AS bytea[]),
    CAST(:note AS text[])) AS n (id, origin, size, root, note)
WHERE l.id = n.id
""")
KEPT = text("UPDATE logs SET kept_at = :at WHERE id = ANY(:ids)")
KEEP = text("""
INSERT INTO checkpoints (id, log_id, size, at, note)
SELECT n.id, n.log_id, n.size, :at, n.note
FROM unnest(CAST(:id AS uuid[]), CAST(:log_id AS uuid[]), CAST(:size AS bigint[]), CAST(:note AS text[]))
    AS n (id, log_id, size, note)
""")
LIST_KEY = text("""
INSERT INTO audit_keys (key, purpose, first_used_at) VALUES (:key, 'log', :at) ON CONFLICT DO NOTHING
""")


@dataclass(frozen=True)
class LatestCheckpoint:
    """A log's newest checkpoint once committed; `is_kept` is whether it is the hourly one.

    `grown` is how many events it has sealed.
    """

    log_id: UUID
    origin: str
    size: int
    note: str
    is_kept: bool = False
    grown: int = 0


def begin(session: Session, origins: Mapping[UUID, str], vendor: UUID, at: datetime) -> None:
    """Create the missing logs; the vendor's own belongs to no tenant."""
    opened = {"ids": list(origins), "origins": list(origins.values()), "vendor": vendor, "root": EMPTY_ROOT, "at": at}
    session.connection().execute(OPEN, opened)


def edges(session: Session, sizes: Mapping[UUID, int]) -> dict[UUID, Edge]:
    """Return the growing edges of logs of these sizes."""
    wanted = [(log_id, *place) for log_id, size in sizes.items() for place in merkle.edge(size)]
    found: dict[UUID, dict[Place, bytes]] = {log_id: {} for log_id in sizes}
    if wanted:
        for row in session.connection().execute(EDGES, _columns(("log_id", "level", "number"), wanted)):
            found[row.log_id][row.level, row.number] = bytes(row.hashes)
    return {log_id: Edge(size, found[log_id]) for log_id, size in sizes.items()}


def append(session: Session, edges: Mapping[UUID, Edge], fresh: Mapping[UUID, Sequence[tuple[UUID, bytes]]]) -> None:
    """Append events with their leaf hashes to their logs, and write the changed parts of the trees."""
    places, changed = [], []
    for log_id, events in fresh.items():
        edge = edges[log_id]
        places += [(log_id, edge.size + offset, event) for offset, (event, _) in enumerate(events)]
        edge.extend([leaf for _, leaf in events])
        changed += [(log_id, *place, edge.tiles[place]) for place in sorted(edge.changed)]
    session.connection().execute(SEAL, _columns(("log_id", "number", "event_id"), places))
    session.connection().execute(TILE, _columns(("log_id", "level", "number", "hashes"), changed))


def note(session: Session, key: str, logs: Sequence[LatestCheckpoint], roots: Sequence[bytes], at: datetime) -> None:
    """Write the signed checkpoints of logs, and list the key that signed them."""
    grown = _columns(("id", "origin", "size", "note"), [(one.log_id, one.origin, one.size, one.note) for one in logs])
    if logs:
        session.connection().execute(LIST_KEY, {"key": key, "at": at})
    session.connection().execute(GROWN, grown | {"root": roots, "at": at})


def keep(session: Session, logs: Sequence[LatestCheckpoint], at: datetime) -> None:
    """Keep these checkpoints as the hourly ones."""
    kept = _columns(("id", "log_id", "size", "note"), [(new_id(), one.log_id, one.size, one.note) for one in logs])
    session.connection().execute(KEEP, kept | {"at": at})
    session.connection().execute(KEPT, {"ids": [one.log_id for one in logs], "at": at})


def _columns(names: Sequence[str], rows: Sequence[tuple[object, ...]]) -> dict[str, list[object]]:
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}
