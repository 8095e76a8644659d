"""Sealing: events that were written are given their place in a log, whose root is signed; and a heartbeat an hour."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from sqlmodel import Session

from lockbox.audit import checkpoint, tiles
from lockbox.audit.canonical import instant
from lockbox.audit.checkpoint import Checkpoint, VerifierKey
from lockbox.audit.merkle import EMPTY_ROOT
from lockbox.audit.tiles import Edge, Place
from lockbox.database import Database, now
from lockbox.failpoints import reach
from lockbox.ids import new_id

log = structlog.get_logger(__name__)

VENDORS_LOG = UUID(int=0)
MOST_EVENTS = 5_000
MOST_HEARTBEATS = 500
HEARTBEAT = timedelta(hours=1)
LOCK_NUMBER = 0x10CB5EA1

TAKE = text("""
WITH taken AS (
    DELETE FROM unsealed WHERE event_id IN (SELECT event_id FROM unsealed ORDER BY event_id LIMIT :most)
    RETURNING event_id
)
SELECT e.id, coalesce(e.tenant_id, CAST(:vendor AS uuid)) AS log_id, sha256('\\x00'::bytea || e.body) AS leaf
FROM taken t JOIN events e ON e.id = t.event_id ORDER BY log_id, e.at, e.id
""")
OPEN = text("""
INSERT INTO logs (id, tenant_id, origin, generation, size, root, unproven, note, noted_at, kept_at, digest_at)
SELECT n.id, nullif(n.id, CAST(:vendor AS uuid)), n.origin, 1, 0, :root, 0, '', :at, '-infinity', :at
FROM unnest(CAST(:ids AS uuid[]), CAST(:origins AS text[])) AS n (id, origin)
ON CONFLICT DO NOTHING
""")
LOCK = text("""
SELECT id, origin, generation, size, root FROM logs WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE
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
SILENT = text("""
SELECT id, origin, size, root FROM logs WHERE kept_at <= :since ORDER BY kept_at LIMIT :most
FOR NO KEY UPDATE SKIP LOCKED
""")
KEPT = text("UPDATE logs SET kept_at = :at WHERE id = ANY(:ids)")
NEWEST = text("""
SELECT id, origin, size, note FROM logs WHERE note <> '' AND (CAST(:after AS uuid) IS NULL OR id > :after)
ORDER BY id LIMIT :most
""")
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
class Signer:
    """Who signs for the logs of this installation: a name, with which every origin begins, and keys, newest first."""

    name: str
    keys: Sequence[Ed25519PrivateKey]

    @property
    def public(self) -> VerifierKey:
        """The newest key's public half."""
        return VerifierKey(self.name, self.keys[0].public_key().public_bytes_raw())

    def origin(self, log_id: UUID, generation: int = 1) -> str:
        """Return what a log is called in its checkpoints; unique over installations and restored back-ups."""
        whose = "vendor" if log_id == VENDORS_LOG else str(log_id)
        return f"{self.name}/audit/{whose}" + (f"/{generation}" if generation > 1 else "")

    def note(self, origin: str, size: int, root: bytes, at: datetime) -> str:
        """Return the signed checkpoint."""
        return checkpoint.sign(Checkpoint(origin, size, root, instant(at)), self.name, self.keys)


@dataclass(frozen=True)
class Noted:
    """A log's newest checkpoint, once it is committed; `is_kept` is whether it is the one of its hour."""

    log_id: UUID
    origin: str
    size: int
    note: str
    is_kept: bool = False


class RolledBack(Exception):  # noqa: N818 - a state of affairs that callers plan for
    """The database holds less of a log than has been shipped: to go on would be to tell another story."""


Ahead = Callable[[UUID, str, int], bool]
"""Whether more of a log was shipped than the database holds, by its id, its origin and its size."""


def seal(database: Database, signer: Signer, is_ahead: Ahead) -> Iterator[list[Noted]]:
    """Seal what was written, batch by batch, and yield after each commit what the logs say of themselves now.

    One process at a time does it, by advisory lock; others return at once. Were two to run all the same, rows are
    taken by deleting them, so that nobody takes one twice. What commits late is taken late: an event waits in
    `unsealed` from the moment it is there to be seen, whatever its id and its time.

    Raises:
        RolledBack: more of a log was shipped than is here; nothing of the batch is sealed.
    """
    with database.alone(LOCK_NUMBER) as alone:
        if not alone:
            return
        while noted := _batch(database, signer, is_ahead):
            yield noted
        while noted := _heartbeats(database, signer):
            yield noted


def newest(database: Database) -> Iterator[list[Noted]]:
    """Yield the newest checkpoint of every log, in pages: what was committed and perhaps never shipped."""
    after: UUID | None = None
    while True:
        with database.transaction() as session:
            values = {"after": after, "most": MOST_EVENTS}
            rows = session.connection().execute(NEWEST, values).all()
        if not rows:
            return
        yield [Noted(row.id, row.origin, row.size, row.note) for row in rows]
        after = rows[-1].id


def _batch(database: Database, signer: Signer, is_ahead: Ahead) -> list[Noted]:
    with database.transaction() as session:
        rows = session.connection().execute(TAKE, {"most": MOST_EVENTS, "vendor": VENDORS_LOG}).all()
        if not rows:
            return []
        reach("sealer.after_take")
        fresh: dict[UUID, list[tuple[UUID, bytes]]] = defaultdict(list)
        for row in rows:
            fresh[row.log_id].append((row.id, bytes(row.leaf)))
        return _grown(session, signer, fresh, is_ahead)


def _grown(
    session: Session, signer: Signer, fresh: Mapping[UUID, list[tuple[UUID, bytes]]], is_ahead: Ahead
) -> list[Noted]:
    """Append these events to their logs."""
    connection, at = session.connection(), now(session)
    ids = sorted(fresh)
    opened = {
        "ids": ids,
        "origins": [signer.origin(one) for one in ids],
        "vendor": VENDORS_LOG,
        "root": EMPTY_ROOT,
        "at": at,
    }
    connection.execute(OPEN, opened)
    connection.execute(LIST_KEY, {"key": signer.public.text, "at": at})
    logs = connection.execute(LOCK, {"ids": ids}).all()
    if behind := [str(row.id) for row in logs if is_ahead(row.id, row.origin, row.size)]:
        raise RolledBack(", ".join(behind))
    edges = _edges(session, {row.id: row.size for row in logs})
    places = []
    for row in logs:
        first = row.size
        places += [(row.id, first + offset, event) for offset, (event, _) in enumerate(fresh[row.id])]
        edges[row.id].extend([leaf for _, leaf in fresh[row.id]])
    connection.execute(SEAL, _columns(("log_id", "number", "event_id"), places))
    changed = [
        (row.id, *place, edges[row.id].tiles[place]) for row in logs for place in sorted(edges[row.id].changed)
    ]
    connection.execute(TILE, _columns(("log_id", "level", "number", "hashes"), changed))
    reach("sealer.after_tree")
    # What the migration began has no name until somebody is there to sign by one.
    named = {row.id: row.origin if row.size or row.generation > 1 else signer.origin(row.id) for row in logs}
    return _note(session, signer, [(id_, named[id_], edge.size, edge.root) for id_, edge in edges.items()], at)


def _note(
    session: Session, signer: Signer, logs: Sequence[tuple[UUID, str, int, bytes]], at: datetime
) -> list[Noted]:
    noted = [Noted(id_, origin, size, signer.note(origin, size, root, at)) for id_, origin, size, root in logs]
    grown = {
        "id": [one.log_id for one in noted],
        "origin": [one.origin for one in noted],
        "size": [one.size for one in noted],
        "root": [root for *_, root in logs],
        "note": [one.note for one in noted],
        "at": at,
    }
    session.connection().execute(GROWN, grown)
    reach("sealer.after_sign")
    return noted


def _edges(session: Session, sizes: Mapping[UUID, int]) -> dict[UUID, Edge]:
    """Return the growing edges of logs of these sizes."""
    wanted = [(log_id, *place) for log_id, size in sizes.items() for place in tiles.edge(size)]
    found: dict[UUID, dict[Place, bytes]] = {log_id: {} for log_id in sizes}
    if wanted:
        for row in session.connection().execute(EDGES, _columns(("log_id", "level", "number"), wanted)):
            found[row.log_id][row.level, row.number] = bytes(row.hashes)
    return {log_id: Edge(size, found[log_id]) for log_id, size in sizes.items()}


def _heartbeats(database: Database, signer: Signer) -> list[Noted]:
    """Sign anew, and keep, the checkpoint of every log that has none of the last hour: silence can be proven."""
    with database.transaction() as session:
        at = now(session)
        rows = session.connection().execute(SILENT, {"since": at - HEARTBEAT, "most": MOST_HEARTBEATS}).all()
        if not rows:
            return []
        noted = _note(session, signer, [(row.id, row.origin, row.size, bytes(row.root)) for row in rows], at)
        kept = {
            "id": [new_id() for _ in noted],
            "log_id": [one.log_id for one in noted],
            "size": [one.size for one in noted],
            "note": [one.note for one in noted],
            "at": at,
        }
        session.connection().execute(KEEP, kept)
        session.connection().execute(KEPT, {"ids": kept["log_id"], "at": at})
        reach("sealer.after_heartbeat")
        return [replace(one, is_kept=True) for one in noted]


def _columns(names: Sequence[str], rows: Sequence[tuple[object, ...]]) -> dict[str, list[object]]:
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}
