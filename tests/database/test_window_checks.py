"""What the gate answers from memory, what it asks Postgres, and that it refuses if neither can tell."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from gate import window_checks
from gate.answers import GateReason, GrantedAccess
from gate.memory_reader import MemoryReader
from gate.window_checks import WindowChecks
from gate.window_memory import BOOT_CLOCK, FRESH_SECONDS, WindowMemory
from harness.people import World
from harness.stage import Urls
from lockbox.call_groups.groups import CallGroups
from lockbox.database import Database, UnitOfWork, make_engine
from lockbox.errors import Busy
from lockbox.requests.access_check import AccessCheck, UsingCaller
from lockbox.requests.lifecycle import Action
from tests.database.scenes import MAILBOX, write

pytestmark = pytest.mark.usefixtures("patient_gate")
Answer = TypeVar("Answer")
GATEWAY = UsingCaller(UUID(int=7))
END_READER = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'lockbox-gate-reader' AND datname = current_database()
"""


class CountedCalls:
    """Runs queries to Postgres as the API does, counts them, and fails or waits when the test says so."""

    def __init__(self, db: Database) -> None:
        self.groups = CallGroups(db, places_alone=2, in_one_round=True)
        self.count = 0
        self.error: Exception | None = None
        self.waits = 0.0
        self.meanwhile: Callable[[], None] = lambda: None
        self.is_slow = False
        self.answered, self.slow = asyncio.Event(), asyncio.Event()

    async def run(self, use_case: Callable[[UnitOfWork], Answer], *, key: str | None = None) -> Answer:
        self.count += 1
        await asyncio.sleep(self.waits)
        self.meanwhile()
        if self.error is not None:
            raise self.error
        answer = await self.groups.run(use_case, key=key)
        self.answered.set()
        if self.is_slow:
            await self.slow.wait()
        return answer


class Checked:
    """A gate's window checks in a world, with the memory that they use."""

    def __init__(self, world: World, *, compare_every: int = 1_000_000) -> None:
        self.world = world
        self.later = BOOT_CLOCK()
        self.memory = WindowMemory(self._clock)
        self.reader = MemoryReader(world.db, self.memory)
        self.calls = CountedCalls(world.db)
        self.compare_every = compare_every
        self.settle()

    def _clock(self) -> float:
        self.later += 1e-6
        return self.later

    def settle(self) -> None:
        """Read until nothing waits to be verified."""
        while self.reader.read():
            pass

    def ask(self, *resources: str) -> list[GrantedAccess | GateReason]:
        return self.run(self._in_turn(resources))

    def at_once(self, *resources: str) -> list[GrantedAccess | GateReason]:
        return self.run(self._at_once(resources))

    def run(self, asked: Coroutine[Any, Any, Answer]) -> Answer:
        """Run the checks on a new event loop, and close what the schedule has opened there."""
        self.checks = WindowChecks(self.memory, self.reader, self.calls, compare_every=self.compare_every)

        async def ended() -> Answer:
            try:
                return await asked
            finally:
                await self.world.db.schedule.followed()

        return asyncio.run(ended())

    async def _in_turn(self, resources: tuple[str, ...]) -> list[GrantedAccess | GateReason]:
        return [await self.checks.check(self.question(resource), GATEWAY) for resource in resources]

    async def _at_once(self, resources: tuple[str, ...]) -> list[GrantedAccess | GateReason]:
        return list(
            await asyncio.gather(*(self.checks.check(self.question(resource), GATEWAY) for resource in resources))
        )

    def question(self, resource: str) -> AccessCheck:
        engineer = self.world.people["erin"].person_id
        return AccessCheck(self.world.tenant.slug, "exchange-online", resource, "read", engineer)


def opened(world: World, **changes: Any) -> UUID:
    return world.act("ann", Action.APPROVE, world.submit(**changes).id).id


def granted(answer: GrantedAccess | GateReason) -> UUID:
    assert isinstance(answer, GrantedAccess)
    return answer.request_id


def test_the_gate_answers_for_a_remembered_window_without_postgres(world: World) -> None:
    request_id = opened(world)
    checked = Checked(world)

    assert [granted(one) for one in checked.ask(MAILBOX, MAILBOX)] == [request_id, request_id]
    assert checked.calls.count == 0


def test_the_gate_asks_postgres_about_a_window_it_does_not_remember(world: World) -> None:
    checked = Checked(world)
    request_id = opened(world)

    (answer,) = checked.ask(MAILBOX)

    assert granted(answer) == request_id
    assert checked.calls.count == 1


def test_a_refusal_is_checked_in_postgres_and_cached_for_a_second(world: World) -> None:
    checked = Checked(world)

    async def asked() -> list[GrantedAccess | GateReason]:
        question = checked.question(MAILBOX)
        before = [await checked.checks.check(question, GATEWAY) for _ in range(3)]
        assert checked.calls.count == 1
        opened(world)
        checked.later += 1.0
        return [*before, await checked.checks.check(question, GATEWAY)]

    *before, after = checked.run(asked())

    assert before == [GateReason.NO_WINDOW] * 3
    assert isinstance(after, GrantedAccess)


def test_identical_concurrent_window_checks_ask_postgres_once(world: World) -> None:
    checked = Checked(world)

    assert checked.at_once(*[MAILBOX] * 40, "site:HR") == [GateReason.NO_WINDOW] * 41

    assert checked.calls.count == 2


def test_a_refused_window_check_states_the_reason(world: World, superuser: Engine) -> None:
    request = world.submit(resources=[MAILBOX, "site:HR"])
    world.act("ann", Action.APPROVE, request.id, resources=["site:HR"])
    checked = Checked(world)

    narrowed, none, some = checked.ask(MAILBOX, "site:IT", "site:HR")
    assert (narrowed, none) == (GateReason.NARROWED, GateReason.NO_WINDOW)
    assert isinstance(some, GrantedAccess)
    write(superuser, "UPDATE tenants SET suspended = true")
    assert checked.ask("site:IT") == [GateReason.SUSPENDED]


def test_the_gate_queries_postgres_when_its_own_memory_of_windows_is_stale(world: World) -> None:
    request_id = opened(world)
    checked = Checked(world)
    checked.later += 1.0

    assert [granted(one) for one in checked.ask(MAILBOX)] == [request_id]
    assert checked.calls.count == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OperationalError("SELECT", {}, Exception("gone")), GateReason.BEHIND),
        (ZeroDivisionError(), GateReason.BEHIND),
        (Busy("Others wait."), GateReason.BUSY),
    ],
    ids=["away", "bug", "busy"],
)
def test_the_window_memory_answers_for_a_second_after_postgres_is_lost_and_then_refuses(
    world: World, error: Exception, reason: GateReason
) -> None:
    opened(world)
    checked = Checked(world)
    checked.calls.error = error

    yes, no = checked.ask(MAILBOX, "site:HR")
    assert (isinstance(yes, GrantedAccess), no) == (True, reason)
    checked.later += 1.0
    assert checked.ask(MAILBOX) == [reason]
    assert checked.reader.read() is False
    assert isinstance(checked.ask(MAILBOX)[0], GrantedAccess)


def test_the_gate_allows_nothing_while_connected_to_a_standby(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(world)
    checked = Checked(world)
    checked.memory.clear()
    monkeypatch.setattr(window_checks, "IN_RECOVERY", text("SELECT true"))

    assert checked.ask(MAILBOX) == [GateReason.BEHIND]


def test_a_postgres_timeout_makes_the_gate_refuse(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(world)
    checked = Checked(world)
    checked.later += 1.0
    checked.calls.waits = 30.0
    monkeypatch.setattr(window_checks, "ASK_SECONDS", 0.1)

    assert checked.ask(MAILBOX) == [GateReason.BEHIND]


def test_window_checks_beyond_the_limit_are_refused_as_busy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_checks, "MOST_ASKED", 3)

    answers = Checked(world).at_once("site:1", "site:2", "site:3", "site:4", "site:3")

    assert answers == [*[GateReason.NO_WINDOW] * 3, GateReason.BUSY, GateReason.NO_WINDOW]


def test_while_postgres_is_away_few_window_checks_wait_and_all_checks_are_refused(world: World) -> None:
    checked = Checked(world)
    checked.later += 4.0
    checked.calls.error = OSError()

    answers = checked.at_once(*(f"site:{number}" for number in range(40)))

    assert answers == [GateReason.BEHIND] * 40
    assert checked.calls.count == window_checks.MOST_ASKED_AWAY


def test_an_answer_from_memory_that_differs_from_postgres_is_refused_and_raises_an_alarm(
    world: World, superuser: Engine
) -> None:
    opened(world)
    checked = Checked(world, compare_every=1)
    assert isinstance(checked.ask(MAILBOX)[0], GrantedAccess)
    write(superuser, "UPDATE people SET disabled_at = now() WHERE id = :id", id=world.people["erin"].person_id)

    assert checked.ask(MAILBOX) == [GateReason.NO_WINDOW]
    checked.settle()

    assert checked.reader.differs()
    assert len(checked.memory) == 0


def test_a_window_check_that_cannot_be_compared_is_answered_from_memory(world: World) -> None:
    opened(world)
    checked = Checked(world, compare_every=1)
    checked.calls.error = OSError()

    assert isinstance(checked.ask(MAILBOX)[0], GrantedAccess)
    assert not checked.reader.differs()


def test_a_pause_of_postgres_is_not_reported_as_a_difference_between_memory_and_postgres(world: World) -> None:
    opened(world)
    checked = Checked(world, compare_every=1)
    checked.calls.error = OSError()

    def wait_longer_than_memory_counts() -> None:
        checked.later += FRESH_SECONDS

    checked.calls.meanwhile = wait_longer_than_memory_counts
    assert checked.ask(MAILBOX) == [GateReason.BEHIND]
    checked.settle()

    assert not checked.reader.differs()
    assert len(checked.memory) == 1


def test_a_refusal_computed_before_the_window_opened_is_not_reported_as_a_difference(world: World) -> None:
    checked = Checked(world, compare_every=1)

    async def overtaken() -> list[GrantedAccess | GateReason]:
        checked.calls.is_slow = True
        early = asyncio.create_task(checked.checks.check(checked.question(MAILBOX), GATEWAY))
        await checked.calls.answered.wait()
        opened(world)
        checked.settle()
        late = asyncio.create_task(checked.checks.check(checked.question(MAILBOX), GATEWAY))
        await asyncio.sleep(0.05)
        checked.calls.slow.set()
        return list(await asyncio.gather(early, late))

    early, late = checked.run(overtaken())
    checked.settle()

    assert early is GateReason.NO_WINDOW
    assert isinstance(late, GrantedAccess)
    assert not checked.reader.differs()
    assert len(checked.memory) == 1


def test_the_thread_that_reads_the_window_memory_survives_a_lost_connection(
    world: World, urls: Urls, superuser: Engine
) -> None:
    engine = make_engine(urls.api, role="gate-reader", pool_size=1, overflow=0)
    memory = WindowMemory()
    reader = MemoryReader(world.db.beside(engine), memory, every=0.05)
    reader.start()
    try:
        request_id = opened(world)
        _until(lambda: len(memory) == 1)
        with superuser.connect() as connection:
            ended = connection.execute(text(END_READER)).all()
        assert ended
        world.act("tara", Action.REVOKE, request_id)
        _until(lambda: len(memory) == 0)
        assert memory.age < 1
    finally:
        reader.stop()
        engine.dispose()
    assert not reader.is_alive()


def _until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)
