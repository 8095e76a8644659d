"""Read and write the rows of a log's tree, and check that they match its signed and shipped checkpoints."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol
from uuid import UUID

from sqlalchemy import Row, TextClause, text

from lockbox.audit.log import checkpoint, merkle, proofs
from lockbox.audit.log.checkpoint import BadNote, Checkpoint, VerifierKey
from lockbox.audit.log.merkle import EMPTY_ROOT, HASH_BYTES, BadProof, Edge, Place
from lockbox.database import UnitOfWork
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
Extends = Callable[[Checkpoint], None]
"""Checks that a log, as it is now, extends what it was.

Raises:
    BadProof, KeyError: it does not, or its tree does not reach so far.
"""


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


def begin(session: UnitOfWork, origins: Mapping[UUID, str], vendor: UUID, at: datetime) -> None:
    """Create the missing logs; the vendor's own belongs to no tenant."""
    opened = {"ids": list(origins), "origins": list(origins.values()), "vendor": vendor, "root": EMPTY_ROOT, "at": at}
    session.execute(OPEN, opened)


def edges(session: UnitOfWork, sizes: Mapping[UUID, int]) -> dict[UUID, Edge]:
    """Return the growing edges of logs of these sizes."""
    wanted = [(log_id, *place) for log_id, size in sizes.items() for place in merkle.edge(size)]
    found: dict[UUID, dict[Place, bytes]] = {log_id: {} for log_id in sizes}
    if wanted:
        for row in session.execute(EDGES, _columns(("log_id", "level", "number"), wanted)):
            found[row.log_id][row.level, row.number] = bytes(row.hashes)
    return {log_id: Edge(size, found[log_id]) for log_id, size in sizes.items()}


def append(
    session: UnitOfWork, edges: Mapping[UUID, Edge], fresh: Mapping[UUID, Sequence[tuple[UUID, bytes]]]
) -> None:
    """Append events with their leaf hashes to their logs, and write the changed parts of the trees."""
    places, changed = [], []
    for log_id, events in fresh.items():
        edge = edges[log_id]
        places += [(log_id, edge.size + offset, event) for offset, (event, _) in enumerate(events)]
        edge.extend([leaf for _, leaf in events])
        changed += [(log_id, *place, edge.tiles[place]) for place in sorted(edge.changed)]
    session.execute(SEAL, _columns(("log_id", "number", "event_id"), places))
    session.execute(TILE, _columns(("log_id", "level", "number", "hashes"), changed))


def note(
    session: UnitOfWork, key: str, logs: Sequence[LatestCheckpoint], roots: Sequence[bytes], at: datetime
) -> None:
    """Write the signed checkpoints of logs, and list the key that signed them."""
    grown = _columns(("id", "origin", "size", "note"), [(one.log_id, one.origin, one.size, one.note) for one in logs])
    if logs:
        session.execute(LIST_KEY, {"key": key, "at": at})
    session.execute(GROWN, grown | {"root": roots, "at": at})


def keep(session: UnitOfWork, logs: Sequence[LatestCheckpoint], at: datetime) -> None:
    """Keep these checkpoints as the hourly ones."""
    kept = _columns(("id", "log_id", "size", "note"), [(new_id(), one.log_id, one.size, one.note) for one in logs])
    session.execute(KEEP, kept | {"at": at})
    session.execute(KEPT, {"ids": [one.log_id for one in logs], "at": at})


def _columns(names: Sequence[str], rows: Sequence[tuple[object, ...]]) -> dict[str, list[object]]:
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


class CheckpointWitness(Protocol):
    """Where checkpoints are shipped; see `witness.WitnessFolder`."""

    seen: datetime | None
    unfinished: tuple[datetime, UUID | None] | None

    def begin(self, *, is_new: bool) -> None:
        """Check that this is the same place as before, and mark it if nothing was ever signed."""

    def newest(self, log_id: UUID) -> Checkpoint | None:
        """Return the newest shipped checkpoint of a log."""

    def has(self, noted: LatestCheckpoint) -> bool:
        """Return whether this is the newest shipped checkpoint of its log."""

    def ship(self, noted: Iterable[LatestCheckpoint]) -> None:
        """Ship these checkpoints."""


class LogMismatch(Exception):  # noqa: N818 - a state of affairs that callers plan for
    """A log does not match its checkpoints; the message says how."""


@dataclass(frozen=True)
class LogClaim:
    """What the database says about a log; `note` is empty if nothing was signed in this generation yet."""

    id: UUID
    origin: str
    generation: int
    size: int
    root: bytes
    note: str

    @classmethod
    def of(cls, row: Row[tuple[UUID, str, int, int, bytes, str]]) -> "LogClaim":
        """Return what a row says about a log."""
        return cls(row.id, row.origin, row.generation, row.size, bytes(row.root), row.note)


def check(
    claim: LogClaim, shipped: Checkpoint | None, trusted: Mapping[bytes, VerifierKey], extends: Extends
) -> None:
    """Check that a log matches its own note, that a trusted key signed it, and that it extends what was shipped.

    Raises:
        LogMismatch: it is not.
    """
    try:
        _is_signed(claim, trusted)
        if shipped:
            _goes_on(claim, shipped, extends)
    except BadNote as bad:
        raise LogMismatch(f"its newest checkpoint: {bad}") from None


def check_edge(claim: LogClaim, edge: Edge) -> None:
    """Check that a log's root follows from its tiles, and that these hold nothing beyond it.

    Raises:
        LogMismatch: it is not, or they do.
    """
    for level, number in merkle.edge(claim.size):
        count = (claim.size >> level * merkle.WIDTH_BITS) % merkle.WIDTH
        if len(edge.tiles.get((level, number), b"")) != count * HASH_BYTES:
            raise LogMismatch("its tiles do not match its size")
    if edge.root != claim.root:
        raise LogMismatch("its root does not match its tiles")


def check_root(session: UnitOfWork, claim: LogClaim, statement: TextClause) -> None:
    """Check that a log's root follows from its tiles, which the statement reads.

    Raises:
        LogMismatch: it is not.
    """
    make = partial(merkle.range_hash, start=0, end=claim.size)
    try:
        root = proofs.proven(session, claim.id, make, statement)
    except KeyError:
        root = b""
    if root != claim.root:
        raise LogMismatch("its root does not match its tiles")


def extends(session: UnitOfWork, claim: LogClaim, statement: TextClause = proofs.TILES) -> Extends:
    """Return a function that checks by the tiles that a log extends an older state."""

    def by_tiles(old: Checkpoint) -> None:
        make = partial(merkle.consistency, old=old.size, new=claim.size)
        path = proofs.proven(session, claim.id, make, statement)
        merkle.check_consistency(old.size, claim.size, old.root, claim.root, path)

    return by_tiles


def _is_signed(claim: LogClaim, trusted: Mapping[bytes, VerifierKey]) -> None:
    if not claim.note:
        if claim.size and claim.generation == 1:
            raise LogMismatch("it has events but no signed checkpoint")
        return
    said, _ = checkpoint.verify(claim.note, trusted)
    if (said.origin, said.size, said.root) != (claim.origin, claim.size, claim.root):
        raise LogMismatch("its newest checkpoint does not match its row")


def _goes_on(claim: LogClaim, shipped: Checkpoint, extends: Extends) -> None:
    if shipped.size > claim.size:
        raise LogMismatch(f"{shipped.size} events of it were shipped, and {claim.size} are here")
    if claim.size and shipped.origin != claim.origin:
        raise LogMismatch(f"it was shipped as {shipped.origin}, and is {claim.origin} here")
    try:
        extends(shipped)
    except (BadProof, KeyError):
        raise LogMismatch("it does not extend its shipped checkpoint") from None
