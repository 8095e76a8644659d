"""Gate counts in Postgres: each batch is added once, by any number of processes, and no one can lower a count."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from uuid import UUID

import pytest
import structlog
from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from api import metrics
from gate.answers import GateReason
from gate.call_counts import CallCounts, CountedCall, CountWriter, GateDecision
from gate.window_memory import BOOT_CLOCK
from harness.people import World
from harness.ports import own_port
from harness.stage import Urls
from harness.wait import wait_for
from lockbox import reconcile
from lockbox.database import Database, make_engine
from lockbox.identity.roles import Role, Scope
from lockbox.monitoring.metrics import read as read_metrics
from lockbox.monitoring.metrics import read_gate
from lockbox.pubsub import PAGES
from lockbox.requests.access_check import AccessCheck
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from lockbox.sql import new_id
from tests.database.scenes import at_once, read, write

NGINX, CADDY = UUID(int=1), UUID(int=2)
SERVICE = "exchange-online"
BOXES = ["mailbox:anna@contoso.example", "mailbox:bob@contoso.example"]
ANSWERS = "SELECT gateway_id, decision, reason, count FROM gate_answers WHERE span = :span ORDER BY decision, reason"
USED = "SELECT w.*, w.count AS number FROM window_uses w"
IN_TOTAL = "SELECT coalesce(sum(count), 0) AS n FROM gate_answers WHERE span = 'all'"


class Counting:
    """One API process: its counts and their writer; `ago` is how many seconds ago its uses happened."""

    def __init__(self, db: Database) -> None:
        self.ago = 0.0
        self.counts = CallCounts(lambda: BOOT_CLOCK() - self.ago)
        self.writer = CountWriter(db, self.counts)

    def use(self, request_id: UUID, resource: str = BOXES[0], gateway: UUID = NGINX, ago: float = 0.0) -> None:
        self.ago = ago
        question = AccessCheck("contoso", SERVICE, resource, "read", new_id())
        self.counts.count_use(CountedCall(gateway, SERVICE), question, request_id)

    def refuse(self, reason: GateReason = GateReason.NO_WINDOW) -> None:
        self.counts.count(CountedCall(NGINX, SERVICE), GateDecision.DENY, reason)


def opened(world: World) -> UUID:
    return world.act("ann", Action.APPROVE, world.submit(resources=BOXES).id).id


def total(api: Database) -> int:
    return int(read(api, IN_TOTAL)[0].n)


def test_gate_answers_are_counted_per_minute_and_per_hour_and_in_total(world: World, api: Database) -> None:
    process, request_id = Counting(api), opened(world)
    for _ in range(3):
        process.refuse()
    process.use(request_id)

    assert process.writer.round()
    process.refuse()
    assert process.writer.round()

    for span in ("minute", "hour", "all"):
        rows = read(api, ANSWERS, span=span)
        if span == "all" or len(rows) == 2:
            assert [tuple(row) for row in rows] == [(NGINX, "allow", "", 1), (NGINX, "deny", "no_window", 4)]
    assert process.writer.unwritten == 0


def test_first_and_last_use_of_a_window_are_computed_over_all_processes(world: World, api: Database) -> None:
    request_id = opened(world)
    late, early = Counting(api), Counting(api)
    late.use(request_id, BOXES[1], CADDY, ago=2)
    late.use(request_id, BOXES[1], CADDY, ago=1)
    early.use(request_id, BOXES[0], NGINX, ago=9)

    assert late.writer.round()
    assert early.writer.round()

    (row,) = read(api, USED)
    assert (row.request_id, row.number) == (request_id, 3)
    assert (row.first_gateway, row.first_action, row.first_resource) == (NGINX, "read", 1)
    assert (row.last_gateway, row.last_action, row.last_resource) == (CADDY, "read", 2)
    assert abs(row.last_at - row.first_at - timedelta(seconds=8)) < timedelta(seconds=1)


def test_the_stored_time_of_a_window_use_is_never_later_than_the_use(world: World, api: Database) -> None:
    request_id, process = opened(world), Counting(api)
    process.use(request_id)
    (after,) = read(api, "SELECT clock_timestamp() AS at")

    assert process.writer.round()

    assert read(api, USED)[0].last_at <= after.at


def test_a_batch_of_gate_counts_is_added_once_even_if_its_acknowledgement_is_lost(
    world: World, api: Database
) -> None:
    request_id, process = opened(world), Counting(api)
    process.use(request_id)

    def lose(*_: object) -> None:
        raise OperationalError("the connection was lost", None, Exception())

    event.listen(api.engine, "after_cursor_execute", _after_adding(lose))
    try:
        assert not process.writer.round()
    finally:
        event.remove(api.engine, "after_cursor_execute", _LISTENERS.pop())
    assert (total(api), process.writer.unwritten) == (1, 1)
    process.use(request_id)
    assert process.writer.round()

    assert (total(api), process.writer.unwritten) == (2, 0)
    assert read(api, USED)[0].number == 2


_LISTENERS: list[Callable[..., None]] = []


def _after_adding(act: Callable[..., None]) -> Callable[..., None]:
    def after(_: object, __: object, statement: str, *___: object) -> None:
        if "add_gate_counts" in statement:
            act()

    _LISTENERS.append(after)
    return after


@pytest.mark.far
def test_concurrent_writers_of_gate_counts_lose_no_count_and_count_nothing_twice(
    world: World, api: Database, pool: ThreadPoolExecutor
) -> None:
    windows = [opened(world) for _ in range(6)]
    processes = [Counting(api) for _ in range(6)]

    def work(number: int) -> None:
        process = processes[number]
        for turn in range(10):
            for request_id in windows if number % 2 else reversed(windows):
                process.use(request_id)
                process.refuse(list(GateReason)[(turn + number) % len(GateReason)])
            assert process.writer.round()

    at_once(pool, *(lambda number=number: work(number) for number in range(6)))

    assert total(api) == 6 * 10 * 6 * 2
    assert {row.number for row in read(api, USED)} == {60}


def test_gate_counts_are_kept_and_logged_while_postgres_is_away_and_written_later(
    world: World, api: Database, urls: Urls
) -> None:
    request_id = opened(world)
    nowhere = make_engine(str(make_url(urls.api).set(port=own_port()).render_as_string(False)), role="test")
    with closing(Schedule(urls.redis)) as schedule, structlog.testing.capture_logs() as logs:
        process = Counting(Database(nowhere, schedule))
        process.use(request_id)
        process.refuse()
        assert not process.writer.round()
        process.refuse()
        assert not process.writer.round()

    assert [(log["event"], log.get("answers")) for log in logs if "counts" in log["event"]] == [
        ("gate.counts_not_written", 2),
        ("gate.counts_not_written", 3),
    ]
    process.writer._database = api  # noqa: SLF001 - Postgres is back
    assert process.writer.round()
    assert total(api) == 3


def test_a_batch_of_gate_counts_that_postgres_refuses_does_not_block_the_next(world: World, api: Database) -> None:
    request_id, process = opened(world), Counting(api)
    process.use(request_id, gateway=NGINX)
    question = AccessCheck("contoso", SERVICE, BOXES[0], "x" * 64, new_id())
    process.counts.count_use(CountedCall(NGINX, SERVICE), question, opened(world))

    with structlog.testing.capture_logs() as logs:
        assert not process.writer.round()
    process.refuse()
    assert process.writer.round()

    assert [(log["event"], log["answers"]) for log in logs if log["log_level"] == "critical"] == [
        ("gate.counts_dropped", 2)
    ]
    assert total(api) == 1


def test_remaining_gate_counts_are_written_at_shutdown(world: World, api: Database) -> None:
    process = Counting(api)
    process.writer = CountWriter(api, process.counts, every=60)
    process.writer.start()
    process.use(opened(world))

    process.writer.stop()

    assert total(api) == 1


def test_remaining_window_uses_are_written_at_shutdown(
    world: World, api: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gate.call_counts.MOST_A_BATCH", 1)
    process = Counting(api)
    process.writer = CountWriter(api, process.counts, every=60)
    process.writer.start()
    for _ in range(3):
        process.use(opened(world))

    process.writer.stop()

    assert len(read(api, USED)) == 3


def test_a_call_that_is_only_reported_is_not_counted_as_refused(world: World, api: Database) -> None:
    window = opened(world)
    erin = world.people["erin"].person_id
    call = CountedCall(NGINX, SERVICE, question=AccessCheck(world.tenant.slug, SERVICE, "site:HR", "read", erin))
    process = Counting(api)

    for decision in (GateDecision.WOULD_DENY, GateDecision.DENY):
        process.counts.count(call, decision, GateReason.NO_WINDOW)
    assert process.writer.round()

    assert [
        (row.request_id, row.calls) for row in read(api, "SELECT request_id, count AS calls FROM window_refusals")
    ] == [(window, 1)]


def test_dropped_window_uses_are_counted_as_lost(
    world: World, api: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gate.call_counts.MOST_WINDOWS", 0)
    process = Counting(api)
    process.use(opened(world))

    assert process.writer.round()

    assert not read(api, USED)
    assert read(api, "SELECT value FROM operating_figures() WHERE name = 'uses_lost'")[0].value == 1


def test_the_gate_logs_refused_calls_as_totals_by_gateway_and_reason(api: Database) -> None:
    process = Counting(api)
    for _ in range(500):
        process.refuse()
    process.counts.count(CountedCall(), GateDecision.DENY, GateReason.NO_CREDENTIAL)

    with structlog.testing.capture_logs() as logs:
        process.writer.round()
        process.writer.round()

    assert [log for log in logs if log["event"] == "gate.refused"] == [
        {"event": "gate.refused", "log_level": "info", "gateway": str(NGINX), "reason": "no_window", "calls": 500},
        {"event": "gate.refused", "log_level": "info", "gateway": "unknown", "reason": "no_credential", "calls": 1},
    ]


def test_gate_counts_of_old_minutes_and_hours_are_deleted_but_totals_are_kept(
    api: Database, worker: Database, superuser: Engine
) -> None:
    for span, ago in (("minute", 1), ("minute", 3), ("hour", 3), ("hour", 31 * 24), ("all", 99 * 24)):
        write(
            superuser,
            "INSERT INTO gate_answers VALUES (:span, now() - :ago * interval '1 hour', :gateway, '', 'deny', '', 5)",
            span=span,
            ago=ago,
            gateway=NGINX,
        )

    list(reconcile.reconcile(worker, None))

    assert sorted(row.span for row in read(api, "SELECT span FROM gate_answers")) == ["all", "hour", "minute"]
    (figures,) = read(api, "SELECT number, of_hour, of_day FROM operating_gate()")
    assert tuple(figures) == (5, 0, 5)


def test_a_workers_database_role_cannot_delete_recent_gate_counts(worker: Database, api: Database) -> None:
    process = Counting(api)
    process.refuse()
    process.writer.round()

    write(worker.engine, "DELETE FROM gate_answers")

    assert total(api) == 1
    assert len(read(api, "SELECT FROM gate_answers")) == 3


def test_every_process_reports_the_same_total_of_gate_answers(world: World, api: Database) -> None:
    nginx = world.add("nginx", Role.SYSTEM, scopes={Scope("gate:nginx")}, services={SERVICE})
    for _ in range(2):
        process = Counting(api)
        process.use(opened(world), gateway=nginx.person_id)
        process.counts.count(CountedCall(), GateDecision.DENY, GateReason.NO_CREDENTIAL)
        assert process.writer.round()

    text = metrics.exposition(read_metrics(api), read_gate(api), 7).decode()

    labels = f'{{decision="allow",gateway="{nginx.name}",reason="",service="{SERVICE}"}}'
    assert f"lockbox_gate_answers_total{labels} 2.0\n" in text
    assert 'lockbox_gate_answers_total{decision="deny",gateway="",reason="no_credential",service=""} 2.0\n' in text
    assert "lockbox_gate_answers_unwritten 7.0\n" in text
    assert "# TYPE lockbox_gate_uses_lost_total counter\n" in text


@pytest.mark.far
def test_writing_gate_counts_sends_a_live_message_to_pages_but_not_to_gates(world: World, api: Database) -> None:
    request_id, process = opened(world), Counting(api)
    heard: list[tuple[frozenset[str], str | None]] = []
    listening = threading.Event()
    listener = api.schedule.listener(lambda ids, side: heard.append((ids, side)), lambda _: listening.set())
    listener.start()
    try:
        assert listening.wait(20)
        process.use(request_id)
        assert process.writer.round()
        wait_for("the news has come", lambda: bool(heard), 20)
    finally:
        listener.stop()

    assert heard == [(frozenset({str(request_id)}), PAGES)]
