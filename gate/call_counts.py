"""Count the gate's answers and the uses of windows: first in memory, then in Postgres, then as events."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from gate.answers import GateReason
from gate.window_memory import BOOT_CLOCK
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.audit.report import FIRST_USED, LAST_USED, USES_SETTLE
from lockbox.database import CLOCK_TIME, Database, UnitOfWork, now, publish_after_commit
from lockbox.notifications import announcements
from lockbox.pubsub import PAGES
from lockbox.requests.access_check import AccessCheck
from lockbox.requests.models import WindowUse
from lockbox.sql import columns, new_id

log = structlog.get_logger(__name__)

MOST_WINDOWS = 100_000
"""For how many windows unwritten uses are kept. Answers are counted without this limit."""
MOST_A_BATCH = 500
"""For how many windows one batch contains uses: formatting more would block the event loop."""
MOST_REFUSED = 500
"""For how many engineers, tenants and services refused calls are counted until the next batch."""
AnswerKey = tuple[UUID | None, str, str, str]
"""The gateway (None without a valid token), its service (else empty), the decision, and a refusal's reason."""
MOST_REPORTED = 200
"""How many kinds of only-reported calls have counts of their own until the next batch."""
MOST_OF_A_PATH, MOST_OF_A_CALLER = 200, 300
UsePlace = tuple[UUID | None, str, str]
"""The gateway through which a window was used, the action and the resource."""
WRITE_SECONDS = 1.0
STOP_SECONDS = 5.0
LAST_TRIES = 2
MOST_TOLD = 100
"""Open pages are notified of uses of this many windows of a batch; other pages show the uses when loaded again."""
CLOSE_SECONDS, MOST_READS = 0.1, 3
"""If reading the database's time takes longer, the time is read again, because a use may seem that much earlier."""
NOBODY = UUID(int=0)
ADD = text("""
SELECT add_gate_counts(CAST(:process AS uuid), CAST(:batch AS bigint), CAST(:answers AS jsonb), CAST(:uses AS jsonb),
    CAST(:refused AS jsonb), CAST(:reported AS jsonb), CAST(:lost AS bigint))
""")
MOST_EVENTS = 200
CHANNEL = "gate"
# It takes the row locks that counting takes too. Postgres checks a locked row again: another process may have written
# the row's events meanwhile.
DUE_USES = text(f"""
WITH due AS MATERIALIZED (SELECT request_id FROM window_uses WHERE look_at <= :at ORDER BY look_at LIMIT :most)
SELECT {columns(WindowUse, "w")}, w.count AS times, r.tenant_id, r.requester_id, r.closed_at, r.deadline_at,
    coalesce(r.granted_resources, r.resources) AS resources,
    (SELECT p.name FROM people p WHERE p.id = w.first_gateway) AS first_name,
    (SELECT p.name FROM people p WHERE p.id = w.last_gateway) AS last_name
FROM due d JOIN window_uses w ON w.request_id = d.request_id JOIN requests r ON r.id = d.request_id
WHERE w.look_at <= :at
ORDER BY w.request_id FOR UPDATE OF w SKIP LOCKED
""")  # noqa: S608 - ours
USES_TOLD = text("""
UPDATE window_uses w SET first_told = true, look_at = t.look_at
FROM unnest(CAST(:ids AS uuid[]), CAST(:look_at AS timestamptz[])) AS t (id, look_at) WHERE w.request_id = t.id
""")


class GateDecision(StrEnum):
    ALLOW = "allow"
    NOT_APPLICABLE = "not-applicable"
    WOULD_DENY = "would-deny"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class ReportedCall:
    """A call that is admitted although an enforcing gate would deny it. Unknown parts are empty.

    `path` is a path of the catalogue, or an outline of the call without values. `caller` is a person's id, or an
    issuer and a subject.
    """

    path: str
    tenant: str = ""
    caller: str = ""


OTHER_CALLS = ReportedCall("")
"""Stands for all calls without a separate count."""


@dataclass(slots=True)
class CountedCall:
    """`ends` is the call's deadline.

    `identity` is set if no engineer is mapped to the caller; `reported` is set if the gate only reports.
    """

    gateway: UUID | None = None
    service: str = ""
    question: AccessCheck | None = None
    ends: float | None = None
    identity: str = ""
    reported: ReportedCall = OTHER_CALLS


def kept(text: str, most: int) -> str:
    """Cut a text to `most` characters, and replace each unprintable character by `?`."""
    shown = "".join(mark if mark.isprintable() else "?" for mark in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


@dataclass(slots=True)
class UseCount:
    """Times are read from the timer of `CallCounts`."""

    count: int
    first_at: float
    first: UsePlace
    last_at: float
    last: UsePlace


@dataclass(frozen=True)
class CountBatch:
    """`refused` is by tenant, service and engineer. `lost` counts the uses that exceeded the bound."""

    answers: dict[AnswerKey, int]
    uses: dict[UUID, UseCount]
    refused: dict[tuple[str, str, UUID], int]
    reported: dict[tuple[str, str, ReportedCall], int]
    lost: int


class CallCounts:
    """The counts of one process until they are written, bounded in size.

    Any thread may count; only one thread takes the counts.
    """

    def __init__(self, clock: Callable[[], float] = BOOT_CLOCK) -> None:
        self._clock = clock
        self._changing = threading.Lock()
        self._answers: dict[AnswerKey, int] = {}
        self._uses: dict[UUID, UseCount] = {}
        self._refused = Counter[tuple[UUID | None, str]]()
        self._refused_calls: dict[tuple[str, str, UUID], int] = {}
        self._reported: dict[tuple[str, str, ReportedCall], int] = {}
        self._lost = 0

    def count(self, call: CountedCall, decision: GateDecision, reason: GateReason | None = None) -> None:
        key = (call.gateway, call.service, decision.value, reason.value if reason else "")
        with self._changing:
            self._answers[key] = self._answers.get(key, 0) + 1
            if reason is not None:
                self._refused[call.gateway, reason.value] += 1
                if decision is GateDecision.DENY:
                    self._count_refused(call.question)
                elif decision is GateDecision.WOULD_DENY:
                    self._count_reported(call, reason)

    def count_use(
        self, call: CountedCall, question: AccessCheck, request_id: UUID, *, is_same_use: bool = False
    ) -> None:
        at, place = self._clock(), (call.gateway, question.action, question.resource)
        key = (call.gateway, call.service, GateDecision.ALLOW.value, "")
        with self._changing:
            self._answers[key] = self._answers.get(key, 0) + 1
            use = self._uses.get(request_id)
            if is_same_use:
                return
            if use is not None:
                use.count += 1
                use.last_at, use.last = at, place
            elif len(self._uses) < MOST_WINDOWS:
                self._uses[request_id] = UseCount(1, at, place, at, place)
            else:
                self._lost += 1

    def _count_refused(self, question: AccessCheck | None) -> None:
        if question is None:
            return
        whose = (question.tenant, question.service, question.engineer)
        if whose in self._refused_calls or len(self._refused_calls) < MOST_REFUSED:
            self._refused_calls[whose] = self._refused_calls.get(whose, 0) + 1

    def _count_reported(self, call: CountedCall, reason: GateReason) -> None:
        kind = (call.service, reason.value, call.reported)
        if kind not in self._reported and len(self._reported) >= MOST_REPORTED:
            kind = (call.service, reason.value, OTHER_CALLS)
        self._reported[kind] = self._reported.get(kind, 0) + 1

    @property
    def is_empty(self) -> bool:
        return not (self._answers or self._uses)

    @property
    def has_many(self) -> bool:
        return len(self._uses) >= MOST_A_BATCH

    @property
    def total(self) -> int:
        with self._changing:
            return sum(self._answers.values())

    def take(self) -> CountBatch:
        with self._changing:
            some = list(islice(self._uses, MOST_A_BATCH))
            uses = {one: self._uses.pop(one) for one in some}
            batch = CountBatch(self._answers, uses, self._refused_calls, self._reported, self._lost)
            self._answers, self._refused_calls, self._reported, self._lost = {}, {}, {}, 0
        return batch

    def take_refused(self) -> Counter[tuple[UUID | None, str]]:
        with self._changing:
            refused, self._refused = self._refused, Counter()
        return refused


@dataclass(frozen=True)
class NumberedBatch:
    batch: int
    answers: str
    uses: str
    refused: str
    reported: str
    lost: int
    total: int
    told: tuple[str, ...]


class CountWriter(threading.Thread):
    """Writes every second. Without Postgres it keeps the counts and retries.

    Postgres stores each process's last batch number, so a batch that is sent twice counts once. A process that dies
    loses about a second of counts.
    """

    def __init__(self, database: Database, counts: CallCounts, *, every: float = WRITE_SECONDS) -> None:
        super().__init__(name="gate-counts", daemon=True)
        self._database = database
        self._counts = counts
        self._every = every
        self._process = new_id()
        self._stopping = threading.Event()
        self._batch: NumberedBatch | None = None
        self._number = 0

    @property
    def unwritten(self) -> int:
        batch = self._batch
        return self._counts.total + (batch.total if batch else 0)

    def run(self) -> None:
        while not self._stopping.wait(self._every):
            self.round()
        failed = 0
        while failed < LAST_TRIES:
            if not self.round():
                failed += 1
            elif self._counts.is_empty:
                break

    def stop(self) -> None:
        self._stopping.set()
        if self.is_alive():
            self.join(STOP_SECONDS)

    def round(self) -> bool:
        for (gateway, reason), number in self._counts.take_refused().items():
            log.info("gate.refused", gateway=str(gateway) if gateway else "unknown", reason=reason, calls=number)
        try:
            self._write()
        except (DataError, IntegrityError) as error:
            # Drop the batch: Postgres would refuse it again, and no later batch would be written.
            log.critical("gate.counts_dropped", error=type(error).__name__, answers=self._batch and self._batch.total)
            self._batch = None
            return False
        except SQLAlchemyError as error:
            log.warning("gate.counts_not_written", error=type(error).__name__, answers=self.unwritten)
            return False
        except Exception:
            log.exception("gate.counts_failed", answers=self.unwritten)
            return False
        return True

    def _write(self) -> None:
        if self._batch is None and self._counts.is_empty:
            return
        with self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            clock = _clock_of(connection)
            if self._batch is not None:
                self._send(connection, self._batch)
            has_more = not self._counts.is_empty
            while has_more:
                self._batch = self._taken(*clock)
                self._send(connection, self._batch)
                has_more = self._counts.has_many

    def _send(self, connection: Connection, batch: NumberedBatch) -> None:
        connection.execute(ADD, {"process": self._process, **vars(batch)})
        self._batch = None
        if batch.told:
            self._database.schedule.tell(batch.told, PAGES)

    def _taken(self, at: datetime, ours: float) -> NumberedBatch:
        """`at` is the database's time at the moment when the process's timer read `ours`."""
        taken = self._counts.take()
        self._number += 1
        uses = [
            {
                "request_id": str(request_id),
                "count": one.count,
                "first_at": _time(at, one.first_at - ours),
                "first_gateway": str(one.first[0]),
                "first_action": one.first[1],
                "first_resource": one.first[2],
                "last_at": _time(at, one.last_at - ours),
                "last_gateway": str(one.last[0]),
                "last_action": one.last[1],
                "last_resource": one.last[2],
            }
            for request_id, one in taken.uses.items()
        ]
        total = sum(taken.answers.values())
        return NumberedBatch(
            self._number,
            _answers(taken),
            json.dumps(uses),
            _refused(taken),
            _reported(taken),
            taken.lost,
            total,
            tuple(str(one) for one in islice(taken.uses, MOST_TOLD)),
        )


def _clock_of(connection: Connection) -> tuple[datetime, float]:
    """Return the database's time, and then the process's timer, so that no use seems later than it was."""
    reads: list[tuple[float, datetime, float]] = []
    while len(reads) < MOST_READS and not (reads and min(reads)[0] <= CLOSE_SECONDS):
        began = BOOT_CLOCK()
        at = connection.execute(CLOCK_TIME).scalar_one()
        ended = BOOT_CLOCK()
        reads.append((ended - began, at, ended))
    return min(reads)[1:]


def _time(at: datetime, seconds: float) -> str:
    return (at + timedelta(seconds=seconds)).isoformat()


def _answers(taken: CountBatch) -> str:
    names = ("gateway_id", "service", "decision", "reason")
    return json.dumps(
        [
            dict(zip(names, (str(gateway or NOBODY), *rest), strict=True), count=count)
            for (gateway, *rest), count in taken.answers.items()
        ]
    )


def _refused(taken: CountBatch) -> str:
    return json.dumps(
        [
            {"tenant": tenant, "service": service, "engineer": str(engineer), "count": count}
            for (tenant, service, engineer), count in taken.refused.items()
        ]
    )


def _reported(taken: CountBatch) -> str:
    return json.dumps(
        [
            {"service": service, "reason": reason, **asdict(kind), "count": count}
            for (service, reason, kind), count in taken.reported.items()
        ]
    )


def record_uses(db: Database) -> Iterator[int]:
    """Write the events of first and last uses that are due. Yield the number of events of each batch.

    Safe to run concurrently. A last use is due `USES_SETTLE` after the window's end, when all counts are written.
    """
    while True:
        with db.transaction() as session:
            read, written = _record_due(session)
        if written:
            yield written
        if read < MOST_EVENTS:
            return


def _record_due(session: UnitOfWork) -> tuple[int, int]:
    at = now(session)
    rows = session.execute(DUE_USES, {"at": at, "most": MOST_EVENTS}).all()
    if not rows:
        return 0, 0
    audit_events: list[AuditEvent] = []
    look_at = []
    for row in rows:
        ends = min(row.closed_at or row.deadline_at, row.deadline_at) + USES_SETTLE
        is_over = ends <= at
        if not row.first_told:
            audit_events.append(_use_event(row, at, FIRST_USED))
        if is_over:
            audit_events.append(_use_event(row, at, LAST_USED))
        look_at.append(None if is_over else ends)
    announcements.record(session, *audit_events)
    session.write(USES_TOLD, {"ids": [row.request_id for row in rows], "look_at": look_at})
    publish_after_commit(session, [row.request_id for row in rows], PAGES)
    return len(rows), len(audit_events)


def _use_event(row: Row[Any], at: datetime, action: str) -> AuditEvent:
    which = "first" if action == FIRST_USED else "last"
    found = {name: getattr(row, f"{which}_{name}") for name in ("gateway", "action", "resource", "name")}
    facts = {"gateway": found["gateway"], "did": found["action"], "first_at": row.first_at}
    return AuditEvent(
        at=at,
        action=action,
        actor=replace(THE_CLOCK, channel=CHANNEL),
        tenant_id=row.tenant_id,
        request_id=row.request_id,
        facts=facts if action == FIRST_USED else facts | {"last_at": row.last_at, "count": row.times},
        personal={
            "resource": row.resources[found["resource"] - 1] if found["resource"] else None,
            "gateway_name": found["name"],
        },
    )
