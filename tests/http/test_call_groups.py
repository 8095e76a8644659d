"""Calls that share a transaction on the event loop are answered as if each had come alone."""

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from importlib.resources import files
from itertools import permutations
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

import pytest
from greenlet import getcurrent, greenlet
from httpx import Response
from sqlalchemy import Result, text
from structlog.contextvars import bind_contextvars, get_contextvars

from config.server_urls import postgres_url
from harness.network import HOST
from harness.people import World
from harness.ports import own_port
from lockbox.call_groups import pipelines
from lockbox.call_groups.groups import CallGroups, LoopConnections
from lockbox.call_groups.pipelines import SET_CONTEXT, VARIABLES, GroupMember, SharedTransaction
from lockbox.database import Database, UnitOfWork, arm_after_commit, make_engine
from lockbox.requests import transition
from lockbox.requests.policy_rules import Match, Overrides, Policy, Rule
from lockbox.schedule import NOTIFICATIONS, IndexEntry
from lockbox.sql import new_id
from tests.http.door import Door, OpenDoor, facts, until_served

KEY = {"idempotency-key": "twins"}
ONE = text("SELECT 1")
SLACK = 1.5
"""Seconds by which a call may take longer than usual on a busy machine.

A call that waits for a locked row waits for two seconds.
"""
SETTING = re.compile(r"(?:current_setting|set_config)\('lockbox\.(\w+)'")


def codes(answers: Sequence[Response]) -> list[tuple[int, str | None]]:
    return [(answer.status_code, answer.json().get("code")) for answer in answers]


@pytest.fixture
def other(open_door: OpenDoor) -> World:
    """Another customer of the same vendor, with people of its own."""
    return open_door().world


def test_each_call_of_a_group_sets_every_session_variable_of_the_schema() -> None:
    schema = "".join(one.read_text() for one in files("lockbox.schema").iterdir() if one.name.endswith(".sql"))

    assert set(SETTING.findall(schema)) == set(VARIABLES)
    assert SETTING.findall(str(SET_CONTEXT)) == list(VARIABLES)


async def _begun(use_case: Callable[[UnitOfWork], str]) -> GroupMember[str]:
    member = GroupMember(use_case, None)
    member.begin(cast("Database", SimpleNamespace(clock=None, keys=None)))
    return member


def test_a_call_gets_its_own_answer_even_if_the_greenlet_of_another_call_dies() -> None:
    """A greenlet whose last reference another thread drops dies in our thread, at the next switch there."""

    def rest() -> None:
        getcurrent().parent.switch()

    def use_case(session: UnitOfWork) -> str:
        session.execute(ONE)
        thread = threading.Thread(target=dying.clear)
        thread.start()
        thread.join()
        return "mine"

    async def play() -> str:
        dying[0].switch()
        member = await _begun(use_case)
        member.go_on([cast("Result[*tuple[Any, ...]]", [(1,)])])
        member.tell()
        return await member.answer

    dying = [greenlet(rest)]

    assert asyncio.run(play()) == "mine"


def test_a_dropped_use_case_cannot_read_the_database_again() -> None:
    ended = []

    def use_case(session: UnitOfWork) -> str:
        try:
            session.execute(ONE)
        finally:
            ended.append("paused")
            session.execute(ONE)
            ended.append("read again")
        return "never"

    member = asyncio.run(_begun(use_case))
    rested = member.rests
    member.drop()

    assert (rested, member.rests, member.is_refused, ended) == (True, False, False, ["paused"])


@pytest.mark.far
def test_calls_of_a_group_are_answered_as_if_each_call_ran_separately(door: Door, other: World) -> None:
    """In every order: a permitted caller, one of another tenant, one asking about another person, and a stranger."""
    door.active()
    world = door.world
    calls = {
        "gate": (world.tokens["gate"], world.question("erin"), (200, None)),
        "theirs": (other.tokens["gate"], other.question("erin"), (403, "no-open-window")),
        "erin": (world.tokens["erin"], world.question("erin"), (200, None)),
        "ann": (world.tokens["ann"], world.question("erin"), (403, "wrong-role")),
        "nobody": ("lbx_test_unknown", world.question("erin"), (401, "invalid-token")),
    }

    for order in permutations(calls):
        answers = door.together(
            *(
                until_served(
                    door.client.get,
                    "/v1/access",
                    params=calls[name][1],
                    headers={"authorization": f"Bearer {calls[name][0]}"},
                )
                for name in order
            )
        )
        assert codes(answers) == [calls[name][2] for name in order]


@pytest.mark.far
def test_a_call_group_of_two_tenants_submits_for_each_tenant(door: Door, other: World) -> None:
    """In both orders, and beside refused calls; each call may read only its own tenant."""
    theirs = replace(door, world=other)
    door.file()
    theirs.file()
    kinds: list[tuple[Door, str, dict[str, Any]]] = [
        (door, "erin", {}),
        (theirs, "erin", {}),
        (door, "ann", {}),
        (theirs, "erin", {"tenant": "nobody-of-that-name"}),
    ]

    for order in permutations(kinds):
        answers = door.together(*(until_served(_file, one, who, **changes) for one, who, changes in order))
        for (one, who, changes), answer in zip(order, answers, strict=True):
            refused = {"ann": "wrong-role"}.get(who) or ("unknown-tenant" if changes else None)
            assert answer.json().get("code") == refused, answer.text
            if refused is None:
                view, erin = answer.json(), str(one.world.people["erin"].person_id)
                assert (view["tenant"], view["requester"]["id"]) == (one.world.tenant.slug, erin)


def test_concurrent_identical_submissions_submit_one_request(door: Door) -> None:
    before = door.rows()["requests"]

    answers = door.together(*(until_served(_file, door, "erin", key="twins") for _ in range(24)))

    assert door.rows()["requests"] == before + 1
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"key-in-use"}
    assert door.call("erin", "POST", "/v1/requests", json=door.world.body(), headers=KEY).status_code == 201
    assert door.rows()["requests"] == before + 1


@pytest.mark.far
def test_a_submission_limit_is_exact_for_concurrent_calls(door: Door, other: World) -> None:
    narrow = replace(door, world=other).with_settings(submissions_per_person=10)

    answers = narrow.together(*(until_served(_file, narrow, "erin") for _ in range(64)))

    assert Counter(answer.status_code for answer in answers) == {201: 10, 429: 54}


@pytest.mark.far
def test_a_locked_row_delays_only_calls_that_need_that_row(door: Door, other: World) -> None:
    """Its tenant is locked, as by a change of the mode: submissions to this tenant wait, those to others do not."""
    theirs = replace(door, world=other)
    for one in (door, theirs):
        one.file()
    usual = median(_seconds(theirs) for _ in range(5))

    with door.root.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        holder.execute(text("SELECT FROM tenants WHERE id = :id FOR UPDATE"), {"id": door.world.tenant.id})
        held, others = door.runner.run(_beside(door, theirs))
        holder.rollback()

    assert [one.status_code for one in held] == [503] * len(held), held[0].text
    assert max(others) < usual + SLACK


@pytest.mark.far
@pytest.mark.parametrize("action", ["approve", "deny"])
def test_a_locked_request_delays_no_other_decision(door: Door, action: str) -> None:
    """More calls wait for it than run at once, on the event loop and in threads."""
    held, others = door.pending(), [door.pending() for _ in range(14)]
    usual = median(_decided(door, action, one) for one in others[:4])

    async def beside() -> tuple[list[Response], list[float]]:
        waiting = [asyncio.create_task(_decide(door, "ann", action, held)) for _ in range(8)]
        took = []
        for one in others[4:]:
            began = time.monotonic()
            assert (await _decide(door, "ann", action, one)).status_code == 200
            took.append(time.monotonic() - began)
        return list(await asyncio.gather(*waiting)), took

    with door.root.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        holder.execute(text("SELECT FROM requests WHERE id = :id FOR UPDATE"), {"id": held})
        waited, took = door.runner.run(beside())
        holder.rollback()

    assert {one.status_code for one in waited} == {503}, codes(waited)
    assert max(took) < usual + SLACK
    assert door.act("ann", action, held).status_code == 200


def test_only_one_of_several_concurrent_decisions_in_a_call_group_is_accepted(door: Door) -> None:
    request = door.pending()
    before = door.rows()["decisions"]

    answers = door.together(*(until_served(_decide, door, who, "approve", request) for who in ("ann", "amir") * 4))

    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 7}, codes(answers)
    assert door.rows()["decisions"] == before + 1


@pytest.mark.far
def test_concurrent_decisions_in_two_tenants_get_the_answers_of_separate_calls(door: Door, other: World) -> None:
    """In every order; neither tenant may learn that the other's requests exist."""
    theirs = replace(door, world=other)
    kinds: list[tuple[Door, str, Door, tuple[int, str | None]]] = [
        (door, "ann", door, (200, None)),
        (theirs, "ann", theirs, (200, None)),
        (theirs, "ann", door, (404, "not-found")),
        (door, "erin", door, (403, "own-request")),
    ]

    for order in permutations(kinds):
        asked = [at.pending() for _, _, at, _ in order]
        calls = (
            until_served(_decide, one, who, "approve", request)
            for (one, who, *_), request in zip(order, asked, strict=True)
        )
        assert codes(door.together(*calls)) == [expected for *_, expected in order]


def test_a_refused_decision_writes_nothing(fresh_door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ROLLBACK would make the driver forget its prepared statements."""
    request = fresh_door.pending()
    fresh_door.get("erin", "/v1/me")
    sent: list[object] = []
    send = pipelines.SharedTransaction.send

    async def noted(shared: pipelines.SharedTransaction, statements: Any) -> Any:
        sent.extend(statement.statement for statement in statements)
        return await send(shared, statements)

    monkeypatch.setattr(pipelines.SharedTransaction, "send", noted)
    answer = fresh_door.act("erin", "approve", request)

    assert facts(answer, 403, "own-request")
    assert (sent[0], sent[-1]) == (pipelines.BEGIN, pipelines.COMMIT)
    assert not {transition.MOVED_ALONE, transition.MOVED_BY_DECISION, pipelines.ROLLBACK} & set(sent)


async def _decide(door: Door, who: str, action: str, request: str) -> Response:
    return await door.coming(who, "POST", f"/v1/requests/{request}/{action}", json={"comment": "As told"})


def _decided(door: Door, action: str, request: str) -> float:
    began = time.monotonic()
    assert door.act("ann", action, request).status_code == 200
    return time.monotonic() - began


async def _file(door: Door, who: str, key: str | None = None, **changes: Any) -> Response:
    headers = {"idempotency-key": key} if key else {}
    return await door.coming(who, "POST", "/v1/requests", json=door.world.body(**changes), headers=headers)


def _seconds(door: Door) -> float:
    began = time.monotonic()
    assert door.file().status_code == 201
    return time.monotonic() - began


async def _beside(held: Door, others: Door) -> tuple[list[Response], list[float]]:
    """Submit to a locked tenant, and repeatedly to another meanwhile; return its answers, and times of the other."""
    waiting = [asyncio.create_task(_file(held, "erin")) for _ in range(3)]
    took = []
    for _ in range(10):
        began = time.monotonic()
        assert (await _file(others, "erin")).status_code == 201
        took.append(time.monotonic() - began)
    return list(await asyncio.gather(*waiting)), took


@pytest.mark.parametrize(("patterns", "is_alone"), [(40, False), (50, True)])
def test_a_slow_policy_comparison_delays_no_other_call(
    open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch, patterns: int, *, is_alone: bool
) -> None:
    match = Match(resources=[f"mailbox:*{number}@fabrikam.example" for number in range(patterns)])
    rule = Rule(name="Others", match=match, terms=Overrides(quorum=2))
    door = open_door(Policy(vendor_review=False, rules=[rule]))
    door.file()
    alone: list[object] = []
    run = CallGroups._run_alone  # noqa: SLF001 - the way that is meant

    async def running(groups: CallGroups, member: GroupMember[Any]) -> None:
        alone.append(member)
        await run(groups, member)

    monkeypatch.setattr(CallGroups, "_run_alone", running)

    answer = door.file(resources=[f"mailbox:{number}@contoso.example" for number in range(50)])
    approved = door.act("ann", "approve", answer.json()["id"])

    assert (answer.status_code, approved.status_code) == (201, 200), answer.text
    assert len(alone) == (2 if is_alone else 0)


def test_a_call_group_whose_statement_fails_leaves_no_notice_handler_on_its_connection(door: Door) -> None:
    def refused(session: UnitOfWork) -> None:
        session.execute(ONE)
        session.write(text("SELECT 1 / 0"), {})

    async def run() -> tuple[bool, list[object]]:
        connection = await LoopConnections(door.db.engine).take()
        member = GroupMember(refused, None)
        async with connection:
            await SharedTransaction(door.db, connection, in_one_round=False).run([member])
            return member.needs_alone, list(connection._notice_handlers)  # noqa: SLF001 - psycopg names them nowhere else

    assert door.runner.run(run()) == (True, [])


def test_the_event_loop_connects_to_the_writable_postgres_host(door: Door) -> None:
    one = door.db.engine.url
    several = f"postgresql://{one.username}:{one.password}@{HOST}:{own_port()},{HOST}:{one.port}/{one.database}"
    engine = make_engine(postgres_url(several), role="test")

    async def reached() -> int:
        async with await LoopConnections(engine).take() as connection:
            return connection.info.port

    assert door.runner.run(reached()) == one.port


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_call_that_arrives_while_the_last_call_group_ends_is_answered(door: Door, turns: int) -> None:
    groups = CallGroups(door.db, places_alone=1)

    async def late() -> str:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await groups.run(lambda _: "late")

    async def calls() -> list[str]:
        # So that there are connections: these groups then end without a wait.
        await asyncio.gather(*(groups.run(lambda session: session.execute(ONE).scalar_one()) for _ in "ab"))
        async with asyncio.timeout(5):
            return await asyncio.gather(*(groups.run(lambda _: "first") for _ in "ab"), late())

    assert door.runner.run(calls()) == ["first", "first", "late"]


@pytest.mark.parametrize("alone", [False, True])
def test_log_lines_of_a_call_group_name_the_call_they_belong_to(door: Door, *, alone: bool) -> None:
    groups = CallGroups(door.db, places_alone=1)

    def use_case(session: UnitOfWork) -> tuple[Any, Any]:
        before = get_contextvars().get("call")
        if alone:
            session.orm  # noqa: B018 - a group has none
        session.execute(ONE)
        return before, get_contextvars().get("call")

    async def call(name: str) -> tuple[Any, Any]:
        bind_contextvars(call=name)
        return await groups.run(use_case)

    async def calls() -> list[tuple[Any, Any]]:
        return await asyncio.gather(*(asyncio.create_task(call(name)) for name in "abcdef"))

    assert door.runner.run(calls()) == [(name, name) for name in "abcdef"]


def test_a_call_that_writes_no_rows_still_stores_its_schedule_entries_in_redis(door: Door) -> None:
    groups, schedule = CallGroups(door.db, places_alone=1), door.db.schedule
    promised = IndexEntry(str(new_id()), "notify", timedelta(hours=1))

    def use_case(session: UnitOfWork) -> None:
        session.execute(ONE)
        arm_after_commit(session, NOTIFICATIONS, [promised])

    async def call() -> None:
        await groups.run(use_case)
        async with asyncio.timeout(5):
            while f"notify:{promised.id}" not in schedule.members(NOTIFICATIONS):  # noqa: ASYNC110 - it is Redis
                await asyncio.sleep(0.005)

    door.runner.run(call())


def test_a_client_that_hangs_up_loses_only_the_answer_to_its_own_call(door: Door) -> None:
    door.active()

    async def calls() -> list[Response]:
        asked = [asyncio.create_task(door.coming("gate", "GET", "/v1/access", params=door.question())) for _ in "ab"]
        gone = asyncio.create_task(door.coming("gate", "GET", "/v1/access", params=door.question()))
        await asyncio.sleep(0.002)
        gone.cancel()
        return list(await asyncio.gather(*asked))

    assert codes(door.runner.run(calls())) == [(200, None)] * 2
