"""Check that a log matches its signed and its shipped checkpoints, because rows alone prove nothing."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol
from uuid import UUID

from sqlalchemy import Row, TextClause
from sqlmodel import Session

from lockbox.audit.log import checkpoint, merkle, proofs
from lockbox.audit.log.checkpoint import BadNote, Checkpoint, VerifierKey
from lockbox.audit.log.merkle import HASH_BYTES, BadProof, Edge
from lockbox.audit.log.tree_rows import LatestCheckpoint

Extends = Callable[[Checkpoint], None]
"""Checks that a log, as it is now, extends what it was.

Raises:
    BadProof, KeyError: it does not, or its tree does not reach so far.
"""


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


def check_root(session: Session, claim: LogClaim, statement: TextClause) -> None:
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


def extends(session: Session, claim: LogClaim, statement: TextClause = proofs.TILES) -> Extends:
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
