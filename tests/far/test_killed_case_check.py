"""A notifications worker is killed while an engineer waits for a ticket system, as if the system were down."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count, islice
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import make_url

from devstack.embedded import ServerAddresses
from harness.network import EventLoopThread, Proxy, ProxyMode
from harness.people import World
from harness.wait import within
from lockbox.notifications.circuit_breaker import FIRST_OPEN, MOST_SILENCES
from lockbox.requests import case_check
from lockbox.requests.case_check import CHANNEL
from lockbox.schedule import NOTIFICATIONS
from tests.case_adapter import SECRET, CaseAdapterServer, case_adapter, catalogue_at
from tests.whole.conftest import RunningStack, log_lines, stage_of

# The proxy is cut off in the midst of what it carries: what asyncio says of its sockets is no fault.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
PATIENCE, ROUNDS = 20.0, 10
CASES = (f"CASE-{number}" for number in count(1))
QUESTIONS = "SELECT id, answered_at, request_id FROM case_checks WHERE case_ref = :case"
CONFIRMED = "SELECT id FROM requests WHERE case_check = 'confirmed' AND tenant_id = :tenant"


@pytest.fixture(scope="module")
def adapter() -> Iterator[CaseAdapterServer]:
    with case_adapter() as server:
        yield server


@pytest.fixture(scope="module")
def loop() -> Iterator[EventLoopThread]:
    with closing(EventLoopThread()) as found:
        yield found


@pytest.fixture(scope="module")
def proxy(template: ServerAddresses, loop: EventLoopThread) -> Iterator[Proxy]:
    """A way to Redis for the processes of this file alone: others use the same server."""
    found = Proxy(int(make_url(template.redis_url).port or 0))
    loop.do(found.open())
    yield found
    loop.do(found.leave())


@pytest.fixture(scope="module")
def stage(
    template: ServerAddresses, proxy: Proxy, adapter: CaseAdapterServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningStack]:
    """The API and the notifications worker, which alone has the adapter's secret."""
    folder = tmp_path_factory.mktemp("checks")
    settings = {
        "LOCKBOX_CATALOGUE": str(catalogue_at(adapter.url, folder)),
        "LOCKBOX_REDIS_URL": make_url(template.redis_url).set(port=proxy.port).render_as_string(hide_password=False),
    }
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


def is_confirmed(stage: RunningStack, world: World, case: str) -> bool:
    answer, _ = submit(stage, world, case)
    return answer.status_code == 201 and answer.json()["case_check"] == "confirmed"


def confirm_one(stage: RunningStack, world: World) -> None:
    """Submit for new cases until one is confirmed: on a busy machine, an answer may come too late for its request."""
    assert within(120, lambda: is_confirmed(stage, world, next(CASES)), pause=1)


def questions(stage: RunningStack, case: str) -> dict[str, Any]:
    """Return the rows of all questions about a case, by their ids."""
    return {str(row.id): row for row in stage.rows(QUESTIONS, case=case)}


def left_to_ask(stage: RunningStack) -> set[str]:
    """Return the ids of the questions that are still in the schedule, claimed or not."""
    with stage.redis() as redis:
        members = [member.decode() for key in NOTIFICATIONS.keys for member in redis.zrange(key, 0, -1)]
    return {one.removeprefix("case_check:") for one in members if one.startswith("case_check:")}


def told_of_breakers(stage: RunningStack) -> list[str]:
    """Return what the worker has logged about circuit breakers of adapters."""
    lines = log_lines(stage.processes.logs / "notifications.log")
    return [line["event"] for line in lines if line.get("channel") == CHANNEL]


def test_an_engineer_waiting_for_a_killed_worker_gets_an_answer_in_time(
    stage: RunningStack, adapter: CaseAdapterServer
) -> None:
    world = stage.world(unconfirmed_case="refuse", approval_window=600)
    flagging = stage.world(unconfirmed_case="flag", approval_window=600)
    confirm_one(stage, world)

    def has_heard(number: int) -> bool:
        return len(adapter.asked) == number

    def are_withdrawn(case: str) -> bool:
        rows = questions(stage, case)
        return not any(row.answered_at for row in rows.values()) and not rows.keys() & left_to_ask(stage)

    # A busy machine may ask or withdraw too late; then all begins again with another case.
    for _ in range(ROUNDS):
        case, asked = next(CASES), len(adapter.asked)
        adapter.goes_on.clear()
        with ThreadPoolExecutor() as pool:
            waiting: list[Future[tuple[httpx.Response, float]]] = [
                pool.submit(submit, stage, one, case) for one in (world, flagging)
            ]
            is_asked = within(case_check.SECONDS, partial(has_heard, asked + 2))
            stage.processes.kill("notifications")
            (refused, took), (flagged, took_too) = (one.result(60) for one in waiting)
        adapter.goes_on.set()
        stopped, _ = submit(stage, world, case)

        assert (refused.status_code, refused.json()["code"]) == (503, "case-system-down")
        assert (flagged.status_code, flagged.json()["case_check"]) == (201, "unconfirmed")
        assert max(took, took_too) < PATIENCE
        assert stopped.status_code == 503
        if is_asked and within(5, partial(are_withdrawn, case)):
            break
        start_worker(stage)
    else:
        pytest.fail("in no round was everything asked and withdrawn")

    unanswered = questions(stage, case)
    assert len(unanswered) == 3
    start_worker(stage)
    assert within(120, lambda: is_confirmed(stage, world, case), pause=1)
    # Nobody waits for the questions of before: the adapter hears none of them again.
    assert not unanswered.keys() & {one["id"] for one in adapter.asked[asked + 2 :]}
    rows = questions(stage, case)
    assert not any(rows[one].answered_at or rows[one].request_id for one in unanswered)
    assert sum(row.request_id is not None for row in rows.values()) == 1
    assert len(stage.rows(CONFIRMED, tenant=str(world.tenant.id))) == 2


def test_case_checks_fail_without_redis_and_recover_when_redis_returns(
    stage: RunningStack, adapter: CaseAdapterServer, loop: EventLoopThread, proxy: Proxy
) -> None:
    world = stage.world(unconfirmed_case="refuse", approval_window=600)
    case, asked = next(CASES), len(adapter.asked)
    loop.do(proxy.turn(ProxyMode.BLACK_HOLE))
    try:
        refused, took = submit(stage, world, case)
    finally:
        loop.do(proxy.turn(ProxyMode.PASS))

    assert (refused.status_code, refused.json()["code"]) == (503, "case-system-down")
    assert took < PATIENCE
    confirm_one(stage, world)
    assert case not in {one["data"]["case_ref"] for one in adapter.asked[asked:]}


def test_submissions_are_refused_at_once_while_a_case_adapter_is_known_to_be_silent(
    stage: RunningStack, adapter: CaseAdapterServer
) -> None:
    world = stage.world(unconfirmed_case="refuse", approval_window=600)
    confirm_one(stage, world)
    asked, before = len(adapter.asked), len(told_of_breakers(stage))

    def is_found_silent() -> bool:
        with ThreadPoolExecutor() as pool:
            waited = list(pool.map(lambda case: submit(stage, world, case), islice(CASES, MOST_SILENCES)))
        assert {answer.status_code for answer, _ in waited} == {503}
        return within(5, lambda: told_of_breakers(stage)[before:])

    def is_refused_at_once() -> bool:
        heard = len(adapter.asked)
        answer, took = submit(stage, world, next(CASES))
        assert (answer.status_code, answer.json()["code"]) == (503, "case-system-down")
        return took < case_check.SECONDS / 2 and len(adapter.asked) == heard

    adapter.goes_on.clear()
    try:
        # On a busy machine, some questions come too late to count, and the circuit may have closed for a trial.
        assert within(60, is_found_silent)
        assert len(adapter.asked) >= asked + MOST_SILENCES
        assert within(60, is_refused_at_once)
    finally:
        adapter.goes_on.set()

    time.sleep(FIRST_OPEN)
    confirm_one(stage, world)
    assert told_of_breakers(stage)[before] == "circuit_breaker.opened"
    assert within(20, lambda: told_of_breakers(stage)[-1] == "circuit_breaker.closed")
