"""Overload: vital calls are still answered, and the others queue."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from httpx import Response
from sqlalchemy import event, text
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from api import middleware
from api.app import OVERFLOW, make_app
from api.incoming_request import (
    CHECKS,
    CLOSING_MOVES,
    CLOSINGS,
    ENTRY,
    KNOWN,
    MOST_COMMON,
    MOST_VITAL,
    OPENING_MOVES,
    READS,
    STRANGERS,
    SUBMITS,
    UPLOADS,
    WRITES,
    Budget,
    budget_of,
    vouch,
)
from api.middleware import PER_ADDRESS, HttpGuard
from harness.people import SETTINGS, World
from lockbox.database import Database, make_engine
from tests.each import each
from tests.http.door import Door, LoopThread, client

CROWD = 120
LIVENESS_SECONDS = 60
BLOCKED = text("""
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'lockbox-common' AND wait_event_type = 'Lock'
""")


class SlowApp:
    """An app that begins and ends its answers when the test says so."""

    def __init__(self) -> None:
        self.inside = self.most_inside = 0
        self.status = 200
        self.vouches_first = False
        self.may_answer = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        if self.vouches_first:
            await asyncio.to_thread(vouch, HTTPConnection(scope))
        await self.may_answer.wait()
        self.inside -= 1
        if (b"authorization", b"good") in scope["headers"]:
            vouch(HTTPConnection(scope))
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await self.may_end.wait()
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def slow() -> SlowApp:
    return SlowApp()


@pytest.fixture
def app(slow: SlowApp, monkeypatch: pytest.MonkeyPatch) -> HttpGuard:
    """The slow app behind the admission, where calls may queue for as long as a test lasts."""

    def patient(budget: Budget) -> Budget:
        return replace(budget, seconds=LIVENESS_SECONDS)

    monkeypatch.setattr(middleware, "KNOWN", tuple(map(patient, KNOWN)))
    monkeypatch.setattr(middleware, "budget_of", lambda method, path: patient(budget_of(method, path)))
    return HttpGuard(slow, settings=SETTINGS)


async def statuses(
    app: HttpGuard, path: str = "/", count: int = 1, *, shown: str = "", spread: bool = False, address: str = "a"
) -> AsyncIterator[int]:
    """Make so many calls at once, and yield the status of each answer as it comes."""
    answers: asyncio.Queue[int] = asyncio.Queue()
    headers = [(b"host", b"lockbox.example"), *([(b"authorization", shown.encode())] if shown else [])]

    async def call(number: int) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answers.put_nowait(message["status"])

        host = f"{address}{number:x}" if spread else address
        await app(
            {"type": "http", "method": "GET", "path": path, "headers": headers, "client": (host, 1)}, receive, send
        )

    calls = [asyncio.create_task(call(number)) for number in range(count)]
    for _ in calls:
        yield await answers.get()
    await asyncio.gather(*calls)


async def known(app: HttpGuard, slow: SlowApp) -> None:
    """Let the process verify the credential once."""
    slow.may_answer.set()
    slow.may_end.set()
    assert [status async for status in statuses(app, shown="good")] == [200]
    slow.may_answer.clear()
    slow.may_end.clear()
    slow.most_inside = 0


@pytest.mark.far
def test_a_call_that_waits_too_long_for_admission_is_refused_and_other_calls_are_not(
    slow: SlowApp, runner: LoopThread
) -> None:
    app = HttpGuard(slow, settings=SETTINGS)

    async def told() -> list[int]:
        await known(app, slow)
        found = []
        async for status in statuses(app, count=READS.most + 3, shown="good"):
            found.append(status)
            if found == [503] * 3:
                slow.may_answer.set()
                slow.may_end.set()
        return found

    assert runner.run(told()) == [503] * 3 + [200] * READS.most
    assert slow.most_inside == READS.most


def test_an_admission_slot_is_free_once_the_answer_begins(app: HttpGuard, slow: SlowApp, runner: LoopThread) -> None:
    async def told() -> list[int]:
        await known(app, slow)
        slow.may_answer.set()
        found = []
        async for status in statuses(app, count=3 * READS.most, shown="good"):
            found.append(status)
            if len(found) == 3 * READS.most:
                slow.may_end.set()
        return found

    assert runner.run(told()) == [200] * 3 * READS.most
    assert slow.most_inside <= READS.most


def test_livez_answers_however_busy_the_process_is(app: HttpGuard, slow: SlowApp, runner: LoopThread) -> None:
    async def told() -> list[int]:
        held = asyncio.create_task(_all(statuses(app, "/v1/requests", STRANGERS.most, spread=True)))
        await until(lambda: slow.inside >= STRANGERS.most)
        slow.may_answer.set()
        slow.may_end.set()
        found = [status async for status in statuses(app, "/livez")]
        return [*found, *await held]

    assert runner.run(told()) == [200] * (1 + STRANGERS.most)


def test_calls_with_wrong_credentials_share_few_slots_and_block_no_verified_callers(
    app: HttpGuard, slow: SlowApp, runner: LoopThread
) -> None:
    async def told() -> tuple[int, list[int]]:
        await known(app, slow)
        wrong = asyncio.create_task(_all(statuses(app, count=20, shown="wrong")))
        await until(lambda: slow.inside >= PER_ADDRESS)
        others = asyncio.create_task(_all(statuses(app, count=20, shown="guess", spread=True, address="b")))
        await until(lambda: slow.inside >= STRANGERS.most)
        await asyncio.sleep(0.1)
        taken = slow.inside
        right = asyncio.create_task(_all(statuses(app, count=READS.most, shown="good")))
        await until(lambda: slow.inside >= STRANGERS.most + READS.most)
        slow.may_answer.set()
        slow.may_end.set()
        await asyncio.gather(wrong, others)
        return taken, await right

    assert runner.run(asyncio.wait_for(told(), LIVENESS_SECONDS)) == (STRANGERS.most, [200] * READS.most)


def test_a_call_leaves_the_slots_of_unverified_callers_once_its_credential_is_verified(
    app: HttpGuard, slow: SlowApp, runner: LoopThread
) -> None:
    """This helps engineers behind one address, right after a restart, while a slow ticket system is asked."""
    slow.vouches_first = True

    async def told() -> list[int]:
        calls = asyncio.create_task(_all(statuses(app, count=READS.most + PER_ADDRESS + 1, shown="good")))
        await until(lambda: slow.inside >= READS.most + PER_ADDRESS)
        slow.may_answer.set()
        slow.may_end.set()
        return await calls

    answers = runner.run(asyncio.wait_for(told(), LIVENESS_SECONDS))
    assert answers == [200] * (READS.most + PER_ADDRESS + 1)
    assert slow.most_inside == READS.most + PER_ADDRESS


def test_an_ipv6_network_counts_as_one_address_in_admission(
    app: HttpGuard, slow: SlowApp, runner: LoopThread
) -> None:
    """Such a network has 2^64 addresses."""

    async def told() -> int:
        calls = asyncio.create_task(_all(statuses(app, count=20, spread=True, address="2001:db8::")))
        await until(lambda: slow.inside >= PER_ADDRESS)
        await asyncio.sleep(0.1)
        slow.may_answer.set()
        slow.may_end.set()
        await calls
        return slow.most_inside

    assert runner.run(asyncio.wait_for(told(), LIVENESS_SECONDS)) == PER_ADDRESS


def test_a_verified_credential_that_is_later_refused_counts_as_unverified(
    app: HttpGuard, slow: SlowApp, runner: LoopThread
) -> None:
    async def told() -> int:
        await known(app, slow)
        slow.status = 401
        slow.may_end.set()
        calls = asyncio.create_task(_all(statuses(app, count=READS.most, shown="good")))
        await until(lambda: slow.inside >= READS.most)
        slow.may_answer.set()
        await calls
        slow.may_answer.clear()
        slow.most_inside = 0
        again = asyncio.create_task(_all(statuses(app, count=READS.most, shown="good")))
        await asyncio.sleep(0.1)
        slow.may_answer.set()
        await again
        return slow.most_inside

    # `SlowApp` vouches before it answers; a route that refuses a credential does not.
    slow_vouches = SlowApp.__call__

    async def refusing(self: SlowApp, scope: Scope, receive: Receive, send: Send) -> None:
        if self.status == 401:
            scope = {name: value for name, value in scope.items() if name != ENTRY}
        await slow_vouches(self, scope, receive, send)

    app.app = lambda scope, receive, send: refusing(slow, scope, receive, send)
    assert runner.run(asyncio.wait_for(told(), LIVENESS_SECONDS)) == PER_ADDRESS


async def until(met: Callable[[], bool]) -> None:
    """Wait until the condition is met."""
    while not met():  # noqa: ASYNC110 - what is waited for happens elsewhere, and sets no event
        await asyncio.sleep(0.01)


async def _all(found: AsyncIterator[int]) -> list[int]:
    return [one async for one in found]


@each(
    ("method", "path", "budget"),
    [
        ("GET", "/v1/access", CHECKS),
        ("POST", "/v1/requests/x/revoke", CLOSING_MOVES),
        ("POST", "/v1/requests/x/deny", CLOSING_MOVES),
        ("POST", "/v1/requests/x/cancel", CLOSING_MOVES),
        ("POST", "/v1/requests/x/complete", CLOSING_MOVES),
        ("POST", "/requests/x/revoke", CLOSINGS),
        ("POST", "/mine/x/cancel", CLOSINGS),
        ("POST", "/review/x/deny", CLOSINGS),
        ("POST", "/tenants/contoso/emergency-stop", CLOSINGS),
        ("POST", "/v1/tenants/contoso/emergency-stop", CLOSINGS),
        ("POST", "/v1/tenants/contoso/suspend", CLOSINGS),
        ("GET", "/tenants/contoso/emergency-stop", READS),
        ("GET", "/requests/x", READS),
        ("POST", "/v1/requests/x/approve", OPENING_MOVES),
        ("POST", "/v1/requests/x/endorse", OPENING_MOVES),
        ("POST", "/v1/requests/x/approve/challenge", WRITES),
        ("POST", "/requests/x/approve", WRITES),
        ("POST", "/v1/requests/x/revoke/y", WRITES),
        ("POST", "/v1/requests", SUBMITS),
        ("POST", "/ask", SUBMITS),
        ("POST", "/ask/preview", WRITES),
        ("PUT", "/v1/requests", WRITES),
        ("GET", "/v1/requests", READS),
        ("POST", "/audit-log/verify", UPLOADS),
        ("GET", "/audit-log/verify", READS),
        ("DELETE", "/v1/tenants/contoso/members/x", WRITES),
    ],
)
def test_method_and_path_of_an_http_request_select_its_admission_budget(method: str, path: str, budget: Any) -> None:
    assert budget_of(method, path) is budget


def test_the_app_has_all_routes_named_in_the_admission_budgets(door: Door) -> None:
    """A route that moves would otherwise lose its budget unnoticed."""
    paths = {route.path for route in iter_route_contexts(make_app(SETTINGS, door.db).routes)}

    assert {"/v1/access", "/v1/requests/{request_id}/revoke", "/v1/tenants/{slug}/emergency-stop"} <= paths
    assert {"/v1/tenants/{slug}/suspend", "/v1/vendor/members/{person_id}/disable", "/readyz", "/metrics"} <= paths


@pytest.mark.far
def test_each_of_many_simultaneous_access_checks_is_answered_or_refused_as_busy(door: Door) -> None:
    """Without a limit, calls would wait for connections in vain, and would be answered `unavailable`."""
    asked = {
        "tenant": door.world.tenant.slug,
        "service": "exchange-online",
        "resource": "mailbox:anna@contoso.example",
        "action": "read",
        "engineer": str(door.world.people["erin"].person_id),
    }

    answers = door.together(*(door.coming("gate", "GET", "/v1/access", params=asked) for _ in range(CROWD)))

    said = [(answer.status_code, answer.json()["code"]) for answer in answers]
    assert set(said) <= {(403, "no-open-window"), (503, "busy")}
    assert (403, "no-open-window") in said


@pytest.fixture
def narrow(own_door: Door) -> Iterator[Door]:
    """A door with the pools of a real API, whose common connections wait for locks without a limit."""
    url = own_door.db.engine.url.render_as_string(hide_password=False)
    common = make_engine(url, role="common", pool_size=MOST_COMMON, overflow=OVERFLOW)
    event.listen(common, "connect", _patiently)
    db = Database(common, own_door.db.schedule)
    vital = db.beside(make_engine(url, role="vital", pool_size=MOST_VITAL))
    door = Door(own_door.world, db, own_door.root, own_door.runner)
    door.client = client(make_app(SETTINGS, db, vital))
    yield door
    common.dispose()
    vital.engine.dispose()


def _patiently(connection: Any, _: object) -> None:
    connection.execute("SET lock_timeout = 0")
    connection.execute("SET statement_timeout = 0")
    connection.commit()


def _vital(door: Door) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Return the vital calls: who makes them, with which method, path and input."""
    open_, denied = door.active(), door.pending()
    question = {
        "tenant": door.world.tenant.slug,
        "service": "exchange-online",
        "resource": "mailbox:anna@contoso.example",
        "action": "read",
        "engineer": str(door.world.people["erin"].person_id),
    }
    said = {"json": {"comment": "Not like this"}}
    return [
        ("gate", "GET", "/v1/access", {"params": question}),
        ("ann", "POST", f"/v1/requests/{denied}/deny", said),
        ("ann", "POST", f"/v1/requests/{open_}/revoke", said),
        ("tara", "POST", f"/v1/tenants/{door.world.tenant.slug}/emergency-stop", said),
    ]


def test_access_checks_and_closing_moves_are_answered_while_other_calls_wait_for_locks(narrow: Door) -> None:
    other, calls = World.make(narrow.db), _vital(narrow)
    elsewhere = str(other.fresh().id)
    token = {"authorization": f"Bearer {other.tokens['ann']}"}
    reader = {"authorization": f"Bearer {other.tokens['tara']}"}

    async def told() -> list[Response]:
        # Each of them is known from now on.
        for headers, path in ((token, "/v1/me"), (reader, "/v1/me")):
            assert (await narrow.client.get(path, headers=headers)).status_code == 200
        with ExitStack() as held:
            locks = held.enter_context(narrow.root.connect().execution_options(isolation_level="READ COMMITTED"))
            held.enter_context(locks.begin())
            locks.execute(text("SELECT FROM requests WHERE id = :id FOR UPDATE"), {"id": elsewhere})
            locks.execute(text("LOCK TABLE invitations IN ACCESS EXCLUSIVE MODE"))
            waiting = [
                asyncio.create_task(narrow.client.post(f"/v1/requests/{elsewhere}/approve", headers=token))
                for _ in range(3 * OPENING_MOVES.alone)
            ] + [
                asyncio.create_task(narrow.client.get(f"/v1/tenants/{other.tenant.slug}/invitations", headers=reader))
                for _ in range(3 * READS.most)
            ]
            await until(lambda: _count(narrow) >= OPENING_MOVES.alone + READS.most)
            answers = [await narrow.coming(who, method, path, **parts) for who, method, path, parts in calls]
            assert _count(narrow) == OPENING_MOVES.alone + READS.most
        await asyncio.gather(*waiting)
        return answers

    answers = narrow.runner.run(asyncio.wait_for(told(), LIVENESS_SECONDS))

    assert [answer.status_code for answer in answers] == [200] * len(calls), [answer.text for answer in answers]


def test_access_checks_and_closing_moves_are_answered_when_common_connections_run_out(narrow: Door) -> None:
    calls = _vital(narrow)

    with ExitStack() as held:
        for _ in range(MOST_COMMON + OVERFLOW):
            held.enter_context(narrow.db.engine.connect())
        answers = [narrow.call(who, method, path, **parts) for who, method, path, parts in calls]
        ready = narrow.get(None, "/readyz")

    assert [answer.status_code for answer in answers] == [200] * len(calls), [answer.text for answer in answers]
    assert ready.status_code == 200


def _count(door: Door) -> int:
    with door.root.connect() as connection:
        return int(connection.execute(BLOCKED).scalar_one())
