"""More at once than can be worked on: the API goes on, and turns away only who would wait too long."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.admission import Admission
from tests.http.door import Door

CROWD = 120


class Slow:
    """An app that begins its answer when it is told to, and ends it when it is told so."""

    def __init__(self) -> None:
        self.inside = self.most_inside = 0
        self.may_answer = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        await receive()
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        await self.may_answer.wait()
        self.inside -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await self.may_end.wait()
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def slow() -> Slow:
    return Slow()


async def statuses(app: Admission, path: str = "/", count: int = 1) -> AsyncIterator[int]:
    """Call it so many times at once, and yield how each call is answered, in the order in which they are."""
    answers: asyncio.Queue[int] = asyncio.Queue()

    async def call() -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answers.put_nowait(message["status"])

        await app({"type": "http", "path": path, "headers": []}, receive, send)

    calls = [asyncio.create_task(call()) for _ in range(count)]
    for _ in calls:
        yield await answers.get()
    await asyncio.gather(*calls)


def test_whoever_waits_too_long_is_turned_away_and_nobody_else(slow: Slow, runner: asyncio.Runner) -> None:
    app = Admission(slow, most=2, seconds=0.1)

    async def told() -> list[int]:
        found = []
        async for status in statuses(app, count=5):
            found.append(status)
            if found == [503] * 3:
                slow.may_answer.set()
                slow.may_end.set()
        return found

    assert runner.run(told()) == [503, 503, 503, 200, 200]
    assert slow.most_inside == 2


def test_a_place_is_free_as_soon_as_the_answer_begins(slow: Slow, runner: asyncio.Runner) -> None:
    app = Admission(slow, most=1, seconds=30)
    slow.may_answer.set()

    async def told() -> list[int]:
        found = []
        async for status in statuses(app, count=3):
            found.append(status)
            if len(found) == 3:
                slow.may_end.set()
        return found

    assert runner.run(told()) == [200, 200, 200]
    assert slow.most_inside == 1


def test_whether_it_lives_is_answered_whatever_else_waits(slow: Slow, runner: asyncio.Runner) -> None:
    app = Admission(slow, most=0, seconds=0.01)
    slow.may_answer.set()
    slow.may_end.set()

    async def told(path: str) -> list[int]:
        return [status async for status in statuses(app, path)]

    assert runner.run(told("/livez")) == [200]
    assert runner.run(told("/v1/requests")) == [503]


def test_a_crowd_takes_no_thread_from_whoever_has_a_connection(door: Door) -> None:
    """Without a limit nobody gets on until connections are waited for in vain: that was answered `unavailable`."""
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
