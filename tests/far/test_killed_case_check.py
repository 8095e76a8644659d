"""A notifications worker is killed while an engineer waits for a ticket system, as if the system were down."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from devstack.embedded import ServerAddresses
from harness.people import World
from harness.wait import within
from lockbox.notifications.circuit_breaker import FIRST_OPEN, MOST_SILENCES
from lockbox.requests import case_check
from lockbox.requests.case_check import CHANNEL
from lockbox.schedule import NOTIFICATIONS
from tests.case_adapter import SECRET, CaseAdapterServer, case_adapter, catalogue_at
from tests.whole.conftest import RunningStack, log_lines, stage_of

PROCESSES = ("api", "notifications")
PATIENCE = 6.0
CHECKS = """
SELECT count(*) AS asked, count(*) FILTER (WHERE answered_at IS NULL) AS unanswered, count(request_id) AS used
FROM case_checks WHERE tenant_id = ANY(CAST(:tenants AS uuid[]))
"""
CONFIRMED = "SELECT id FROM requests WHERE case_check = 'confirmed' AND tenant_id = :tenant"


@pytest.fixture(scope="module")
def adapter() -> Iterator[CaseAdapterServer]:
    with case_adapter() as server:
        yield server


@pytest.fixture(scope="module")
def stage(
    template: ServerAddresses, adapter: CaseAdapterServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningStack]:
    """The API and the notifications worker, which alone has the adapter's secret."""
    folder = tmp_path_factory.mktemp("checks")
    settings = {"LOCKBOX_CATALOGUE": str(catalogue_at(adapter.url, folder))}
    with stage_of(template, folder / "logs", names=("api",), settings=settings) as found:
        start_worker(found)
        yield found


def start_worker(stage: RunningStack) -> None:
    """Start the notifications worker with the adapter's secret, and wait until it takes tasks."""
    log = stage.processes.logs / "notifications.log"
    log.touch()
    before = log.stat().st_size
    stage.processes.extra["LOCKBOX_CASE_ADAPTER_SECRET"] = SECRET
    stage.processes.start("notifications")
    del stage.processes.extra["LOCKBOX_CASE_ADAPTER_SECRET"]
    assert within(60, lambda: b" ready." in log.read_bytes()[before:])


def submit(stage: RunningStack, world: World, case: str) -> tuple[httpx.Response, float]:
    """Submit a request for a case; return the answer, and how many seconds it took."""
    began = time.monotonic()
    with stage.as_(world, "erin") as client:
        body: dict[str, Any] = world.body(case_ref=case, case_system="helpdesk")
        answer = client.post("/v1/requests", json=body)
    return answer, time.monotonic() - began


def left_to_ask(stage: RunningStack) -> list[bytes]:
    """Return the case checks that are still in the schedule, claimed or not."""
    with stage.redis() as redis:
        members = [member for key in NOTIFICATIONS.keys for member in redis.zrange(key, 0, -1)]
    return [one for one in members if one.startswith(b"case_check:")]


def told_of_breakers(stage: RunningStack) -> list[str]:
    """Return what the worker has logged about circuit breakers of adapters."""
    lines = log_lines(stage.processes.logs / "notifications.log")
    return [line["event"] for line in lines if line.get("channel") == CHANNEL]


def test_an_engineer_waiting_for_a_killed_worker_gets_an_answer_in_time(
    stage: RunningStack, adapter: CaseAdapterServer
) -> None:
    world = stage.world(unconfirmed_case="refuse", approval_window=600)
    flagging = stage.world(unconfirmed_case="flag", approval_window=600)
    tenants, asked = [str(one.tenant.id) for one in (world, flagging)], len(adapter.asked)
    first, _ = submit(stage, world, "CASE-1")
    assert (first.status_code, first.json()["case_check"]) == (201, "confirmed")

    adapter.goes_on.clear()
    with ThreadPoolExecutor() as pool:
        waiting: list[Future[tuple[httpx.Response, float]]] = [
            pool.submit(submit, stage, one, "CASE-2") for one in (world, flagging)
        ]
        assert within(2.5, lambda: len(adapter.asked) == asked + 3)
        stage.processes.kill("notifications")
        (refused, took), (flagged, took_too) = (one.result(60) for one in waiting)
    adapter.goes_on.set()

    assert (refused.status_code, refused.json()["code"]) == (503, "case-system-down")
    assert (flagged.status_code, flagged.json()["case_check"]) == (201, "unconfirmed")
    assert max(took, took_too) < PATIENCE
    (row,) = stage.rows(CHECKS, tenants=tenants)
    assert (row.asked, row.unanswered, row.used) == (3, 2, 1)

    stopped, _ = submit(stage, world, "CASE-2")
    assert stopped.status_code == 503
    assert within(2, lambda: not left_to_ask(stage))

    start_worker(stage)
    again, _ = submit(stage, world, "CASE-2")
    assert (again.status_code, again.json()["case_check"]) == (201, "confirmed")
    # Nobody waits for the questions of before: the adapter hears none of them again.
    assert len(adapter.asked) == asked + 4
    (row,) = stage.rows(CHECKS, tenants=tenants)
    assert (row.asked, row.unanswered, row.used) == (5, 3, 2)
    assert len(stage.rows(CONFIRMED, tenant=str(world.tenant.id))) == 2


def test_case_checks_fail_without_redis_and_recover_when_redis_returns(
    stage: RunningStack, adapter: CaseAdapterServer
) -> None:
    world = stage.world(unconfirmed_case="refuse", approval_window=600)
    asked = len(adapter.asked)
    with stage.redis() as redis:
        redis.execute_command("CLIENT", "PAUSE", 5000, "ALL")

        refused, took = submit(stage, world, "CASE-3")

    assert (refused.status_code, refused.json()["code"]) == (503, "case-system-down")
    assert took < PATIENCE
    assert len(adapter.asked) == asked
    assert within(60, lambda: submit(stage, world, "CASE-3")[0].status_code == 201)


def test_submissions_are_refused_at_once_while_a_case_adapter_is_known_to_be_silent(
    stage: RunningStack, adapter: CaseAdapterServer
) -> None:
    world = stage.world(unconfirmed_case="refuse", approval_window=600)
    known, _ = submit(stage, world, "CASE-3")
    asked, before = len(adapter.asked), len(told_of_breakers(stage))
    cases = [f"CASE-{4 + one}" for one in range(MOST_SILENCES)]
    adapter.goes_on.clear()
    try:
        with ThreadPoolExecutor() as pool:
            waited = list(pool.map(lambda case: submit(stage, world, case), cases))
        assert within(5, lambda: told_of_breakers(stage)[before:])
        at_once, took = submit(stage, world, "CASE-20")
    finally:
        adapter.goes_on.set()

    answers = [known, *(answer for answer, _ in waited), at_once]
    assert [answer.status_code for answer in answers] == [201, *(503 for _ in cases), 503]
    assert took < case_check.SECONDS / 2
    assert len(adapter.asked) == asked + MOST_SILENCES
    time.sleep(FIRST_OPEN)
    assert within(20, lambda: submit(stage, world, "CASE-21")[0].status_code == 201, pause=0.5)
    told = told_of_breakers(stage)[before:]
    assert (told[0], told[-1]) == ("circuit_breaker.opened", "circuit_breaker.closed")
