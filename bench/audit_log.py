"""Measure sealing, exporting and verifying an audit log of a million events, and how late sealing is."""

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, text
from sqlalchemy.engine import URL

from devstack.stack import AUDIT_KEY, StackPlan
from harness.people import World
from harness.stage import approval_keys, on_database, superuser_at
from lockbox.audit import export
from lockbox.audit.event_search import EventFilter, EventScope
from lockbox.audit.export import Export
from lockbox.audit.log import proofs, sealer, signing_keys
from lockbox.audit.log.proofs import LogHead
from lockbox.audit.log.sealer import Signer
from lockbox.database import Database, ProcessKeys, make_engine
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule

COPY = "lockbox_audit_log"
A_LOAD = 50_000
PROOFS = 300
STEADY = 500
STEADY_SECONDS = 20
A_SECOND = 20
ROUNDS = 16
A_ROUND = 40
EVERYTHING = EventScope()

# Sign-in events with one personal value each. Their bodies are like those that `lockbox.audit.events` writes.
LOAD = text("""
WITH fresh AS MATERIALIZED (
    SELECT uuidv7() AS id, 'Ann Adler ' || n AS name, uuid_send(gen_random_uuid()) AS salt, clock_timestamp() AS at
    FROM generate_series(1, :count) AS n
), new_events AS (
    INSERT INTO events (id, tenant_id, at, action, actor_id, actor_role, body)
    SELECT id, :tenant, at, 'signed_in', :person, 'approver', convert_to(
        '{"action":"signed_in","actor_id":"' || CAST(:person AS text) || '","actor_role":"approver","at":"'
        || to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        || '","channel":"api","deadline_at"\\:null,"format"\\:1,"from_state"\\:null,"id":"' || id
        || '","log":"' || CAST(:tenant AS text)
        || '","on_behalf_of"\\:null,"personal":{"name":"' || encode(sha256(salt || convert_to(name, 'UTF8')), 'hex')
        || '"},"policy_version"\\:null,"request_id"\\:null,"seq"\\:null,"side":"customer","tenant_id":"'
        || CAST(:tenant AS text) || '","to_state"\\:null}', 'UTF8')
    FROM fresh
)
INSERT INTO event_details (event_id, fields)
SELECT id, jsonb_build_object('name', jsonb_build_array(encode(salt, 'base64'), name)) FROM fresh RETURNING event_id
""")
UNSEALED = text("SELECT event_id FROM unsealed")
MISSED = text("SELECT count(*) FROM events WHERE tenant_id = :tenant AND at >= :since")


@dataclass(frozen=True)
class AuditLogBench:
    """A database of its own with a sealer's tools, and the folder for files."""

    engine: Engine
    worker: Database
    signer: Signer
    tenant: UUID
    person: UUID
    folder: Path


@dataclass
class SealWatch:
    """When each event was written, and how much later it was seen to be sealed."""

    written: dict[UUID, float] = field(default_factory=dict)
    lags: list[float] = field(default_factory=list)

    def look(self, engine: Engine) -> None:
        """Note which events are sealed by now."""
        with engine.connect() as connection:
            waiting = set(connection.execute(UNSEALED).scalars())
        at = time.monotonic()
        for event in [event for event in self.written if event not in waiting]:
            self.lags.append(at - self.written.pop(event))


def measure(superuser: URL, plan: StackPlan, world: World, folder: Path, events: int) -> dict[str, float]:
    """Measure on a copy: events sealed a second, seconds to verify, milliseconds of a proof, lag and cost."""
    schedule, worker = Schedule(plan.redis_url), on_database(plan.worker_database_url, COPY)
    db = Database(make_engine(worker, role="bench"), schedule)
    engine = make_engine(on_database(plan.database_url, COPY), role="bench")
    asking = Database(engine, schedule, keys=ProcessKeys(approval_keys(plan)))
    try:
        with superuser_at(superuser.set(database=COPY)) as root:
            signer = Signer(plan.audit_key.name, signing_keys.read([plan.keys / AUDIT_KEY]))
            sealer = (worker, signer.name, str(plan.keys / AUDIT_KEY))
            audit_log = AuditLogBench(root, db, signer, world.tenant.id, world.people["ann"].person_id, folder)
            cost = _cost(asking, world, sealer)
            lag = _lag(audit_log, sealer)
            for _ in range(events // A_LOAD):
                _load(audit_log, A_LOAD)
            sealed = _seal(audit_log, events)
            return cost | lag | sealed | _verify(audit_log, plan) | _prove(audit_log)
    finally:
        asking.dispose()
        db.dispose()


def _load(audit_log: AuditLogBench, count: int) -> list[UUID]:
    with audit_log.engine.connect() as connection:
        values = {"count": count, "tenant": audit_log.tenant, "person": audit_log.person}
        return list(connection.execute(LOAD, values).scalars())


def _seal(audit_log: AuditLogBench, events: int) -> dict[str, float]:
    with audit_log.engine.connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))
    began = time.monotonic()
    for _ in sealer.seal(audit_log.worker, audit_log.signer):
        pass
    seconds = time.monotonic() - began
    return {"sealed_a_second": events / seconds, "seal_seconds": seconds}


def _verify(audit_log: AuditLogBench, plan: StackPlan) -> dict[str, float]:
    """Export the log, and let the command that anybody would run verify the file."""
    file, note, keys = (audit_log.folder / name for name in ("audit-log.ndjson", "checkpoint", "keys"))
    keys.write_text(f"{audit_log.signer.public.text}\n{plan.approval_key.text}\n")
    head = _head(audit_log)
    note.write_text(head.note)
    whole = Export(head, EVERYTHING, EventFilter(), {}, {})
    began = time.monotonic()
    with file.open("wb") as out:
        out.writelines(export.lines(audit_log.worker.transaction, whole))
    exported = time.monotonic() - began
    memory = ("--memory", str(audit_log.folder / "verified"))
    words = ("audit", "verify", str(file), "--checkpoint", str(note), "--key", str(keys), *memory)
    began = time.monotonic()
    said = subprocess.run([sys.executable, "-m", "cli", *words], check=True, capture_output=True, text=True).stdout
    if not said.startswith("Intact, ") or f" {head.size} events" not in said:
        raise RuntimeError(f"the export does not verify: {said}")
    return {"verify_seconds": time.monotonic() - began, "export_seconds": exported, "events": head.size}


def _prove(audit_log: AuditLogBench) -> dict[str, float]:
    head, taken = _head(audit_log), []
    for _ in range(PROOFS):
        number = random.randrange(head.size)  # noqa: S311 - a sample
        began = time.perf_counter()
        with audit_log.worker.transaction() as session:
            proofs.inclusion(session, head, [number])
        taken.append((time.perf_counter() - began) * 1000)
    return {"proof_ms": statistics.median(taken), "proof_p99_ms": sorted(taken)[int(PROOFS * 0.99)]}


def _head(audit_log: AuditLogBench) -> LogHead:
    with audit_log.worker.transaction() as session:
        head = proofs.head(session, audit_log.tenant)
    if head is None:
        raise RuntimeError("nothing was sealed")
    return head


def _lag(audit_log: AuditLogBench, sealer: Sequence[str]) -> dict[str, float]:
    """Write 500 events a second while a sealer runs; return how much later each was seen to be sealed."""
    watch = SealWatch()
    with _sealer(sealer):
        began = time.monotonic()
        for step in range(STEADY_SECONDS * A_SECOND):
            for event in _load(audit_log, STEADY // A_SECOND):
                watch.written[event] = time.monotonic()
            watch.look(audit_log.engine)
            time.sleep(max(0.0, began + (step + 1) / A_SECOND - time.monotonic()))
        until = time.monotonic() + STEADY_SECONDS
        while watch.written and time.monotonic() < until:
            watch.look(audit_log.engine)
            time.sleep(1 / A_SECOND)
    if watch.written:
        raise RuntimeError(f"{len(watch.written)} events were never sealed")
    lags = sorted(watch.lags)
    return {"lag_p50_seconds": lags[len(lags) // 2], "lag_p99_seconds": lags[int(len(lags) * 0.99)]}


def _cost(asking: Database, world: World, sealer: Sequence[str]) -> dict[str, float]:
    """Submit and approve in turns with and without a running sealer; return the ratio of the medians."""
    moves = partial(_moves, asking, world)
    moves()
    taken: dict[bool, list[float]] = {True: [], False: []}
    for number in range(ROUNDS):
        for beside in (True, False) if number % 2 else (False, True):
            taken[beside].append(_beside(sealer, moves) if beside else moves())
    alone, sealed = statistics.median(taken[False]), statistics.median(taken[True])
    return {"moves_a_second": 3 * A_ROUND / alone, "cost_ratio": sealed / alone}


def _beside(sealer: Sequence[str], moves: Callable[[], float]) -> float:
    with _sealer(sealer):
        return moves()


def _moves(db: Database, world: World) -> float:
    """Return the seconds that a number of requests took to be submitted, endorsed and approved."""
    began = time.perf_counter()
    for _ in range(A_ROUND):
        request = world.submit(db=db)
        world.act("max", Action.ENDORSE, request.id, db)
        world.act("ann", Action.APPROVE, request.id, db)
    return time.perf_counter() - began


@contextmanager
def _sealer(sealer: Sequence[str]) -> Iterator[None]:
    """Run a sealer as a process beside this one."""
    command = [sys.executable, "-m", "bench.sealer", *sealer]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None  # noqa: S101 - both streams are pipes
        assert child.stdout is not None  # noqa: S101
        child.stdout.readline()
        try:
            yield
        finally:
            child.stdin.close()
            child.wait(30)
