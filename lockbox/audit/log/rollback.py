"""The rows of a log's tree, and their comparison with its signed and shipped checkpoints."""

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
from lockbox.audit.models import AuditKey, AuditLog, HourlyCheckpoint, Seal, Tile
from lockbox.database import UnitOfWork
from lockbox.sql import columns, insert, insert_rows, new_id, unnested

LATER = {"kept_from", "cleared_to", "kept_since", "stated_for", "unstated_at"}
OPEN_LOG = insert_rows(
    AuditLog,
    but=LATER,
    tenant_id="nullif(n.id, CAST(:vendor AS uuid))",
    generation="1",
    size="0",
    root=":root",
    unproven="0",
    note="''",
    noted_at=":at",
    kept_at="'-infinity'",
    digest_at=":at",
)
OPEN = text(f"{OPEN_LOG} ON CONFLICT DO NOTHING")
PLACE = ("log_id", "level", "number")
EDGES = text(f"""
SELECT {columns(Tile, "t")} FROM tiles t
JOIN {unnested(Tile, "w", *PLACE)} USING ({", ".join(PLACE)})
""")  # noqa: S608 - ours
SEAL = text(insert_rows(Seal))
TILE = text(f"{insert_rows(Tile)} ON CONFLICT ({', '.join(PLACE)}) DO UPDATE SET hashes = EXCLUDED.hashes")
GROWTH = ("origin", "size", "root", "note")
GROWN = text(f"""
UPDATE logs l SET {", ".join(f"{name} = n.{name}" for name in GROWTH)}, noted_at = :at
FROM {unnested(AuditLog, "n", "id", *GROWTH)}
WHERE l.id = n.id
""")  # noqa: S608 - ours
KEPT = text("UPDATE logs SET kept_at = :at WHERE id = ANY(:ids)")
KEEP = text(insert_rows(HourlyCheckpoint, but={"notified_at"}, at=":at"))
LIST_KEY = text(f"{insert(AuditKey, purpose=repr('log'), first_used_at=':at')} ON CONFLICT DO NOTHING")
Extends = Callable[[Checkpoint], None]
"""Checks that a log, as it is now, extends an older checkpoint.

Raises:
    BadProof, KeyError: the log does not extend the checkpoint, or its tree is smaller.
"""


@dataclass(frozen=True)
class LatestCheckpoint:
    """A log's newest checkpoint once the transaction is committed.

    `is_kept` is whether it is the hourly checkpoint. `grown` counts the events that the checkpoint added.
    """

    log_id: UUID
    origin: str
    size: int
    note: str
    is_kept: bool = False
    grown: int = 0


def begin(session: UnitOfWork, origins: Mapping[UUID, str], vendor: UUID, at: datetime) -> None:
    opened = {"id": list(origins), "origin": list(origins.values()), "vendor": vendor, "root": EMPTY_ROOT, "at": at}
    session.execute(OPEN, opened)


def edges(session: UnitOfWork, sizes: Mapping[UUID, int]) -> dict[UUID, Edge]:
    wanted = [(log_id, *place) for log_id, size in sizes.items() for place in merkle.edge(size)]
    found: dict[UUID, dict[Place, bytes]] = {log_id: {} for log_id in sizes}
    if wanted:
        for row in session.execute(EDGES, _columns(PLACE, wanted)):
            found[row.log_id][row.level, row.number] = bytes(row.hashes)
    return {log_id: Edge(size, found[log_id]) for log_id, size in sizes.items()}


def append(
    session: UnitOfWork, edges: Mapping[UUID, Edge], fresh: Mapping[UUID, Sequence[tuple[UUID, bytes]]]
) -> None:
    places, changed = [], []
    for log_id, events in fresh.items():
        edge = edges[log_id]
        places += [(log_id, edge.size + offset, event) for offset, (event, _) in enumerate(events)]
        edge.extend([leaf for _, leaf in events])
        changed += [(log_id, *place, edge.tiles[place]) for place in sorted(edge.changed)]
    session.execute(SEAL, _columns(Seal.model_fields, places))
    session.execute(TILE, _columns(Tile.model_fields, changed))


def note(
    session: UnitOfWork, key: str, logs: Sequence[LatestCheckpoint], roots: Sequence[bytes], at: datetime
) -> None:
    grown = [(one.log_id, one.origin, one.size, root, one.note) for one, root in zip(logs, roots, strict=True)]
    if logs:
        session.execute(LIST_KEY, {"key": key, "at": at})
    session.execute(GROWN, _columns(("id", *GROWTH), grown) | {"at": at})


def keep(session: UnitOfWork, logs: Sequence[LatestCheckpoint], at: datetime) -> None:
    ids = [log.log_id for log in logs]
    kept = {"log_id": ids, "size": [log.size for log in logs], "note": [log.note for log in logs]}
    session.execute(KEEP, kept | {"id": [new_id() for _ in logs], "at": at})
    session.execute(KEPT, {"ids": ids, "at": at})


def _columns(names: Iterable[str], rows: Sequence[tuple[object, ...]]) -> dict[str, list[object]]:
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


class CheckpointWitness(Protocol):
    """The place to which checkpoints are shipped: `checkpoint_folder.WitnessFolder`."""

    seen: datetime | None
    unfinished: tuple[datetime, UUID | None] | None

    def begin(self, *, is_new: bool) -> None:
        """`is_new` is whether nothing was ever signed."""

    def newest(self, log_id: UUID) -> Checkpoint | None: ...
    def has(self, noted: LatestCheckpoint) -> bool: ...
    def ship(self, noted: Iterable[LatestCheckpoint]) -> None: ...


class LogMismatch(Exception):  # noqa: N818 - a state of affairs that callers plan for
    """The message says how the log differs from its checkpoints."""


@dataclass(frozen=True)
class LogClaim:
    """What the database states about a log; `note` is empty if this generation has no signature yet."""

    id: UUID
    origin: str
    generation: int
    size: int
    root: bytes
    note: str

    @classmethod
    def of(cls, row: Row[tuple[UUID, str, int, int, bytes, str]]) -> "LogClaim":
        return cls(row.id, row.origin, row.generation, row.size, bytes(row.root), row.note)


def check(
    claim: LogClaim, shipped: Checkpoint | None, trusted: Mapping[bytes, VerifierKey], extends: Extends
) -> None:
    """Check a log against its own note, the trusted keys, and the shipped checkpoint; raises LogMismatch."""
    try:
        _is_signed(claim, trusted)
        if shipped:
            _goes_on(claim, shipped, extends)
    except BadNote as bad:
        raise LogMismatch(f"its newest checkpoint: {bad}") from None


def check_edge(claim: LogClaim, edge: Edge) -> None:
    """Check that a log's root follows from its tiles, and that the tiles hold no hashes beyond the log's size."""
    for level, number in merkle.edge(claim.size):
        count = (claim.size >> level * merkle.WIDTH_BITS) % merkle.WIDTH
        if len(edge.tiles.get((level, number), b"")) != count * HASH_BYTES:
            raise LogMismatch("its tiles do not match its size")
    if edge.root != claim.root:
        raise LogMismatch("its root does not match its tiles")


def check_root(session: UnitOfWork, claim: LogClaim, statement: TextClause) -> None:
    """Check that a log's root follows from its tiles; `statement` reads the tiles."""
    make = partial(merkle.range_hash, start=0, end=claim.size)
    try:
        root = proofs.proven(session, claim.id, make, statement)
    except KeyError:
        root = b""
    if root != claim.root:
        raise LogMismatch("its root does not match its tiles")


def extends(session: UnitOfWork, claim: LogClaim, statement: TextClause = proofs.TILES) -> Extends:
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
