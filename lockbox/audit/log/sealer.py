"""Sealing: append events to their Merkle logs, sign checkpoints, and sign an hourly heartbeat for each log."""

from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from lockbox.audit.canonical import instant
from lockbox.audit.events import VENDORS_LOG
from lockbox.audit.log import checkpoint, rollback
from lockbox.audit.log.checkpoint import BadNote, Checkpoint, VerifierKey
from lockbox.audit.log.merkle import Edge
from lockbox.audit.log.rollback import CheckpointWitness, LatestCheckpoint, LogClaim, LogMismatch
from lockbox.audit.models import AuditLog
from lockbox.database import Database, UnitOfWork, now
from lockbox.failpoints import failpoint
from lockbox.sql import columns

MOST_EVENTS = 5_000
MOST_HEARTBEATS = 500
MOST_NAMED = 5
MOST_SHIPPED = 100
HEARTBEAT = timedelta(hours=1)
CLOCK_STEPS = timedelta(seconds=10)
TURN = "seal"

# A plan that was made while there were no events would scan all of them for each row.
PLANNED_ANEW = text("SET LOCAL plan_cache_mode = force_custom_plan")
# The array is computed once and then looked up. A join might be planned as a loop over both sides, which never ends.
TAKE = text("""
SELECT e.id, e.log_id, sha256('\\x00'::bytea || e.body) AS leaf FROM events e
WHERE e.id = ANY (ARRAY(SELECT take_unsealed(CAST(:held AS uuid[]), :most))) ORDER BY e.log_id, e.at, e.id
""")
FORGET = text("SELECT forget_sealed(CAST(:ids AS uuid[]))")
# No server queues sealed events. If the owner queued some, nothing more would be sealed.
SEALED_BEFORE = text("SELECT forget_sealed(ARRAY(SELECT event_id FROM unsealed))")
LOG_CLAIM = columns(AuditLog, "logs", *(one.name for one in fields(LogClaim)))
LOCK = text(f"SELECT {LOG_CLAIM} FROM logs WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE")  # noqa: S608 - ours
SILENT = text(f"""
SELECT {LOG_CLAIM} FROM logs
WHERE kept_at <= :since AND size > 0 AND id <> ALL(CAST(:held AS uuid[])) ORDER BY kept_at LIMIT :most
FOR NO KEY UPDATE SKIP LOCKED
""")  # noqa: S608 - ours
IS_DUE = text("SELECT EXISTS (SELECT FROM unsealed)")
IS_NEW = text("SELECT NOT EXISTS (SELECT FROM logs WHERE note <> '')")
NEWEST = text(f"""
SELECT {LOG_CLAIM} FROM logs WHERE note <> ''
    AND (CAST(:since AS timestamptz) IS NULL OR noted_at >= :since) AND (CAST(:after AS uuid) IS NULL OR id > :after)
ORDER BY id LIMIT :most
""")  # noqa: S608 - ours


@dataclass(frozen=True)
class Signer:
    """Every origin begins with `name`; `keys` are the signing keys, newest first.

    `earlier` are public keys that signed logs before, possibly under an earlier name.
    """

    name: str
    keys: Sequence[Ed25519PrivateKey]
    earlier: Sequence[VerifierKey] = ()

    @property
    def public(self) -> VerifierKey:
        return VerifierKey(self.name, self.keys[0].public_key().public_bytes_raw())

    @property
    def trusted(self) -> dict[bytes, VerifierKey]:
        """All keys that may have signed a log, by their four-byte ids."""
        own = [VerifierKey(self.name, key.public_key().public_bytes_raw()) for key in self.keys]
        return {key.id: key for key in (*self.earlier, *own)}

    def origin(self, log_id: UUID, generation: int = 1) -> str:
        """Return a log's name in its checkpoints, unique across installations and restored back-ups."""
        whose = "vendor" if log_id == VENDORS_LOG else str(log_id)
        return f"{self.name}/audit/{whose}" + (f"/{generation}" if generation > 1 else "")

    def note(self, origin: str, size: int, root: bytes, at: datetime) -> str:
        return checkpoint.sign(Checkpoint(origin, size, root, instant(at)), self.name, self.keys)


def is_due(database: Database) -> bool:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return bool(connection.execute(IS_DUE).scalar_one())


class RollbackDetected(Exception):  # noqa: N818 - a state of affairs that callers plan for
    """The database lacks signed or shipped parts of a log; signing would fork the log.

    The message names each log and the reason, which may be that the check was impossible.
    """


class IncompleteSeal(Exception):  # noqa: N818 - it ends a transaction before anything is signed
    """An event of the batch did not get into any log; nothing of the batch is sealed."""


class _UnsealableLog(Exception):  # noqa: N818 - it ends a transaction; the code that began the transaction catches it
    """A log of the batch does not match its checkpoints; the next batch takes the other logs' events again."""


def seal(
    database: Database,
    signer: Signer,
    shipping: CheckpointWitness | None = None,
    held: dict[UUID, str] | None = None,
) -> Generator[list[LatestCheckpoint], None, None]:
    """Seal written events in batches; after each commit, ship and yield the new checkpoints.

    One process at a time seals; in others, this function returns at once. An event waits in `unsealed` from the
    moment it is visible until it is sealed. Events of late commits are therefore sealed late, but never missed.
    `held` receives each log that is not signed, and the reason.

    Raises:
        RollbackDetected: some logs differ from their signed or shipped checkpoints, or cannot be shipped; others are
            sealed.
        OSError: nothing at all can be read or shipped.
    """
    with database.turn(TURN) as is_held:
        if not is_held:
            return
        yield []
        turn = SealPass(database, signer, shipping, {} if held is None else held)
        yield from turn.left_over()
        for work in (turn.batch, turn.heartbeats):
            while (noted := work()) is not None:
                yield from turn.ship_in_parts(noted)
        if turn.held:
            raise RollbackDetected(held_logs(turn.held))


def held_logs(held: Mapping[UUID, str]) -> str:
    named = [f"{log_id}: {why}" for log_id, why in islice(held.items(), MOST_NAMED)]
    more = len(held) - len(named)
    return "; ".join([*named, f"and {more} more"] if more else named)


@dataclass
class SealPass:
    """`held` maps each log that is not signed to the reason."""

    database: Database
    signer: Signer
    shipping: CheckpointWitness | None = None
    held: dict[UUID, str] = field(default_factory=dict)

    def left_over(self) -> Iterator[list[LatestCheckpoint]]:
        """Ship and yield, in pages, the unshipped checkpoints that were signed since this process last looked."""
        if self.shipping is None:
            return
        with self.database.transaction() as session:
            at = now(session)
            is_new = session.execute(IS_NEW).scalar_one()
        self.shipping.begin(is_new=is_new)
        since = self.shipping.seen - CLOCK_STEPS if self.shipping.seen else None
        began, after = self.shipping.unfinished or (at, None)
        while claims := self._signed(since, after):
            noted = [LatestCheckpoint(claim.id, claim.origin, claim.size, claim.note) for claim in claims]
            unshipped = {one.log_id for one in noted if not self.shipping.has(one)}
            if unshipped:
                with self.database.transaction() as session:
                    good = self._good(session, [claim for claim in claims if claim.id in unshipped])
                yield from self.ship_in_parts([one for one in noted if one.log_id in good])
            after = claims[-1].id
            self.shipping.unfinished = None if self.held else (began, after)
            yield []
        self.shipping.unfinished = None
        if not self.held:
            self.shipping.seen = began

    def batch(self) -> list[LatestCheckpoint] | None:
        """Seal some events.

        Return None if only logs in `held` have events left, or an empty list if the caller should call again.
        """
        try:
            return self._batch()
        except IntegrityError:
            with self.database.transaction() as session:
                if not session.execute(SEALED_BEFORE).scalar_one():
                    raise
            return []

    def _batch(self) -> list[LatestCheckpoint] | None:
        values = {"most": MOST_EVENTS, "held": list(self.held)}
        with suppress(_UnsealableLog), self.database.transaction() as session:
            session.execute(PLANNED_ANEW)
            rows = session.execute(TAKE, values).all()
            if not rows:
                return None
            failpoint("sealer.after_take")
            fresh: dict[UUID, list[tuple[UUID, bytes]]] = defaultdict(list)
            for row in rows:
                fresh[row.log_id].append((row.id, bytes(row.leaf)))
            noted = self._grown(session, fresh)
            if session.execute(FORGET, {"ids": [row.id for row in rows]}).scalar_one() != len(rows):
                raise IncompleteSeal
            return noted
        return []

    def heartbeats(self) -> list[LatestCheckpoint] | None:
        """Sign and keep a checkpoint for each log without one in the last hour, to prove that the log is idle."""
        with self.database.transaction() as session:
            at = now(session)
            values = {"since": at - HEARTBEAT, "most": MOST_HEARTBEATS, "held": list(self.held)}
            claims = [LogClaim.of(row) for row in session.execute(SILENT, values)]
            if not claims:
                return None
            good = self._good(session, claims)
            silent = [(claim.id, claim.origin, claim.size, claim.root) for claim in claims if claim.id in good]
            kept = [replace(one, is_kept=True) for one in self._note(session, silent, at)]
            rollback.keep(session, kept, at)
            failpoint("sealer.after_heartbeat")
            return kept

    def ship(self, noted: Iterable[LatestCheckpoint]) -> None:
        """A log that cannot be shipped is put in `held`; the other logs are still shipped."""
        if self.shipping is None:
            return
        for one in noted:
            try:
                self.shipping.ship([one])
            except (RollbackDetected, BadNote, OSError) as bad:
                self.held[one.log_id] = str(bad)

    def ship_in_parts(self, noted: Sequence[LatestCheckpoint]) -> Iterator[list[LatestCheckpoint]]:
        """Ship and yield a few checkpoints at a time, because the caller may be interrupted."""
        for start in range(0, max(len(noted), 1), MOST_SHIPPED):
            part = list(noted[start : start + MOST_SHIPPED])
            failpoint("sealer.before_ship")
            self.ship(part)
            failpoint("sealer.after_ship")
            yield part

    def _signed(self, since: datetime | None, after: UUID | None) -> list[LogClaim]:
        with self.database.transaction() as session:
            values = {"since": since, "after": after, "most": MOST_EVENTS}
            return [LogClaim.of(row) for row in session.execute(NEWEST, values)]

    def _grown(self, session: UnitOfWork, fresh: Mapping[UUID, list[tuple[UUID, bytes]]]) -> list[LatestCheckpoint]:
        at, ids = now(session), sorted(fresh)
        rollback.begin(session, {one: self.signer.origin(one) for one in ids}, VENDORS_LOG, at)
        claims = [LogClaim.of(row) for row in session.execute(LOCK, {"ids": ids})]
        edges = self._good(session, claims)
        if len(edges) < len(claims):
            raise _UnsealableLog
        rollback.append(session, edges, fresh)
        failpoint("sealer.after_tree")
        # A log that the migration created gets its name once a signer exists.
        named = {
            claim.id: claim.origin if claim.size or claim.generation > 1 else self.signer.origin(claim.id)
            for claim in claims
        }
        noted = self._note(session, [(id_, named[id_], edge.size, edge.root) for id_, edge in edges.items()], at)
        return [replace(one, grown=len(fresh[one.log_id])) for one in noted]

    def _good(self, session: UnitOfWork, claims: Sequence[LogClaim]) -> dict[UUID, Edge]:
        edges = rollback.edges(session, {claim.id: claim.size for claim in claims})
        trusted = self.signer.trusted
        for one in claims:
            try:
                shipped = self.shipping.newest(one.id) if self.shipping else None
                rollback.check(one, shipped, trusted, rollback.extends(session, one))
                rollback.check_edge(one, edges[one.id])
            except (LogMismatch, BadNote, OSError) as doubt:
                self.held[one.id] = str(doubt)
                del edges[one.id]
        return edges

    def _note(
        self, session: UnitOfWork, logs: Sequence[tuple[UUID, str, int, bytes]], at: datetime
    ) -> list[LatestCheckpoint]:
        noted = [
            LatestCheckpoint(id_, origin, size, self.signer.note(origin, size, root, at))
            for id_, origin, size, root in logs
        ]
        rollback.note(session, self.signer.public.text, noted, [root for *_, root in logs], at)
        failpoint("sealer.after_sign")
        return noted
