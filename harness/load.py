"""Load over HTTP: one process plays stories as many clients, and takes little CPU.

`python -m harness.load` plays a script from its standard input; `play` runs it.

A script is JSON: `port`, `clients`, `stories` and `seconds`. A story is a list of calls, which a client makes one
after the other on a connection that it keeps. Stories are played over and over for `seconds`; if that is null, each
is played once. With a `rate`, this many stories begin per second, whether earlier ones have ended or not. The time of
a first call then counts from when it was due, and `clients` is ignored. A call is `method`, `path`, `token`,
`headers`, `body` and the expected `status`; `{id}` in a path stands for the id in the first answer of the story.
While stories are played over and over, a story ends at an answer 503: it is counted, but not timed. Any other
unexpected answer ends the whole run. The output is `StoryTimes` as JSON.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import uvloop

END = b"\r\n\r\n"
LENGTH = b"content-length:"
PATIENCE = 30.0
BUSY = 503
CHECKOUT = Path(__file__).resolve().parent.parent

Call = Mapping[str, Any]
Story = list[Call]


class UnexpectedAnswer(Exception):  # noqa: N818 - the name says what went wrong
    pass


class HttpConnection:
    """One kept connection, which is opened again if the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, call: Call, found: str) -> tuple[int, bytes]:
        if self._open is None or self._open[0].at_eof():
            self._open = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._open
        writer.write(written(call, found))
        head = await reader.readuntil(END)
        return int(head[9:12]), await reader.readexactly(length(head))

    def close(self) -> None:
        if self._open:
            self._open[1].close()


def written(call: Call, found: str) -> bytes:
    """`found` replaces `{id}`."""
    body = json.dumps(call["body"]).encode() if call.get("body") is not None else b""
    path = call["path"].replace("{id}", found)
    lines = [f"{call['method']} {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
    if body:
        lines.append("content-type: application/json")
    if call.get("token"):
        lines.append(f"authorization: Bearer {call['token']}")
    lines += [f"{name}: {value}" for name, value in call.get("headers", {}).items()]
    return "\r\n".join(lines).encode() + END + body


def length(head: bytes) -> int:
    """Return how many bytes the body of an answer with this head has."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(LENGTH):
            return int(line[len(LENGTH) :])
    raise UnexpectedAnswer(f"an answer without a length: {head[:200]!r}")


class StoryTimes:
    """The seconds of accepted calls by their place in a story, and the id of each story."""

    def __init__(self, most: int, *, may_be_busy: bool) -> None:
        self.may_be_busy = may_be_busy
        self.taken: list[list[float]] = [[] for _ in range(most)]
        self.ids: dict[int, str] = {}
        self.busy = 0

    async def story(self, connection: HttpConnection, number: int, story: Story, at: float | None = None) -> None:
        """`at` is when the story was due to begin.

        Raises:
            UnexpectedAnswer: an answer has another status than expected.
        """
        found = ""
        for place, call in enumerate(story):
            began = time.perf_counter() if at is None or place else at
            status, body = await connection.call(call, found)
            took = time.perf_counter() - began
            if status == BUSY and self.may_be_busy:
                self.busy += 1
                return
            if status != call["status"]:
                raise UnexpectedAnswer(
                    f"{call['method']} {call['path']}: {status} {body[:500].decode(errors='replace')}"
                )
            self.taken[place].append(took)
            if not place and call["method"] == "POST":
                found = self.ids[number] = json.loads(body)["id"]


async def perform(script: Mapping[str, Any]) -> dict[str, Any]:
    stories: list[Story] = script["stories"]
    played = StoryTimes(max(map(len, stories)), may_be_busy=script["seconds"] is not None)
    began = time.perf_counter()
    await (_paced if script.get("rate") else _in_turn)(script, played, began)
    return {
        "seconds": time.perf_counter() - began,
        "taken": played.taken,
        "busy": played.busy,
        "ids": [played.ids[number] for number in sorted(played.ids)],
    }


async def _in_turn(script: Mapping[str, Any], played: StoryTimes, began: float) -> None:
    """Let each client play one story after the other."""
    until = None if script["seconds"] is None else began + script["seconds"]
    waiting = enumerate(script["stories"] if until is None else cycle(script["stories"]))

    async def client() -> None:
        connection = HttpConnection(script["port"])
        try:
            for number, story in waiting:
                if until is not None and time.perf_counter() >= until:
                    break
                async with asyncio.timeout(PATIENCE):
                    await played.story(connection, number, story)
        finally:
            connection.close()

    async with asyncio.TaskGroup() as clients:
        for _ in range(script["clients"]):
            clients.create_task(client())


async def _paced(script: Mapping[str, Any], played: StoryTimes, began: float) -> None:
    """Begin a story at each tick, on a free connection."""
    idle: list[HttpConnection] = []

    async def tick(number: int, story: Story, at: float) -> None:
        connection = idle.pop() if idle else HttpConnection(script["port"])
        async with asyncio.timeout(PATIENCE):
            await played.story(connection, number, story, at)
        idle.append(connection)

    async with asyncio.TaskGroup() as ticks:
        for number, story in islice(enumerate(cycle(script["stories"])), int(script["seconds"] * script["rate"])):
            at = began + number / script["rate"]
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            ticks.create_task(tick(number, story, at))
    for connection in idle:
        connection.close()


def play(
    port: int, stories: Iterable[object], clients: int, seconds: float | None, rate: float | None = None
) -> dict[str, Any]:
    """Play stories in a separate process.

    Raises:
        RuntimeError: an answer was not the expected one.
    """
    told = {"port": port, "clients": clients, "stories": list(stories), "seconds": seconds, "rate": rate}
    script = json.dumps(told)
    command = [sys.executable, "-m", "harness.load"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, cwd=CHECKOUT)  # noqa: S603 - ours
    if done.returncode:
        raise RuntimeError(f"the clients gave up: {done.stderr[-2000:]}")
    played: dict[str, Any] = json.loads(done.stdout)
    return played


if __name__ == "__main__":
    json.dump(uvloop.run(perform(json.load(sys.stdin))), sys.stdout)
