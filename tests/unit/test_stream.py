"""Snapshots for guards: how often a token may ask for them, one at a time for each token, and tokens in turn."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from gate import stream
from gate.answers import Denial, GateReason, RefusedCall
from gate.call import Message
from gate.credentials import GatewayCredential, GatewayCredentials
from gate.dialects import Dialect
from gate.stream import StreamLimits, StreamPace, WindowStreams
from gate.window_memory import BOOT_CLOCK, ChangeKind, WindowMemory
from tests.unit.gate_examples import open_window

WINDOWS = 1_000
PARTS = 5
SCOPE: dict[str, Any] = {"headers": []}


class OpenedStreams:
    """Streams of a memory with a thousand windows, and what they sent, in order, with the number of each guard."""

    def __init__(self, most_a_token: int = 50) -> None:
        self.memory = WindowMemory()
        self.memory.put([open_window(number, "files") for number in range(WINDOWS)])
        self.memory.note_read(BOOT_CLOCK(), datetime.now(UTC))
        self.memory.note_loaded()
        credentials = cast("GatewayCredentials", SimpleNamespace(find=self._never))
        limits = StreamLimits(most=100, most_a_token=most_a_token)
        self.streams = WindowStreams(self.memory, credentials, limits, lambda: None)
        self.sent: list[tuple[int, str]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.changed = asyncio.Event()
        self.frozen: set[int] = set()

    async def _never(self, *_: object) -> None:
        await asyncio.Event().wait()

    def begin(self, token: int) -> asyncio.Task[None]:
        credential = GatewayCredential(UUID(int=token), UUID(int=9), frozenset({"files"}), Dialect.GUARD)
        number = len(self.tasks)

        async def send(message: Message) -> None:
            self.changed.set()
            body = message.get("body", b"")
            if body.startswith(b":"):
                self.sent.append((number, "waits"))
            elif body:
                more = json.loads(body.split(b"data: ")[1])["more"]
                self.sent.append((number, "part" if more else "last"))
                if number in self.frozen:
                    await asyncio.Event().wait()

        served = self.streams.serve(SCOPE, _stays, send, credential=credential, shown=b"")
        self.tasks.append(asyncio.create_task(served))
        return self.tasks[-1]

    async def until_whole(self, *numbers: int) -> None:
        """Wait until these guards have a whole snapshot."""
        async with asyncio.timeout(20):
            while not {(number, "last") for number in numbers} <= set(self.sent):
                self.changed.clear()
                await self.changed.wait()

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def run(play: Callable[[OpenedStreams], Awaitable[None]], **how: Any) -> OpenedStreams:
    async def played() -> OpenedStreams:
        opened = OpenedStreams(**how)
        try:
            await play(opened)
        finally:
            await opened.end()
        return opened

    return asyncio.run(played())


async def _stays() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def test_guards_with_the_same_token_get_snapshots_in_turn() -> None:
    async def play(opened: OpenedStreams) -> None:
        for _ in range(4):
            opened.begin(1)
        await opened.until_whole(0, 1, 2, 3)

    parts = ["part"] * (PARTS - 1) + ["last"]

    assert run(play).sent == [(number, kind) for number in range(4) for kind in parts]


def test_snapshot_parts_of_two_tokens_alternate_however_many_guards_share_a_token() -> None:
    async def play(opened: OpenedStreams) -> None:
        for _ in range(10):
            opened.begin(1)
        opened.begin(2)
        await opened.until_whole(10)

    sent = run(play).sent

    between = [number for number, _ in sent[: sent.index((10, "last"))] if number != 10]
    assert len(between) <= PARTS + 1


def test_at_most_half_of_the_time_is_spent_on_guard_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's clock advances by a second with each part, and each pause is as long."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    clock = iter(range(10_000))
    monkeypatch.setattr(
        stream, "time", SimpleNamespace(perf_counter=lambda: float(next(clock)), monotonic=BOOT_CLOCK)
    )
    monkeypatch.setattr(stream, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": note}))

    async def play(opened: OpenedStreams) -> None:
        opened.begin(1)
        await opened.until_whole(0)

    run(play)

    assert sum(one >= 1 for one in slept) > PARTS


def test_a_guard_waiting_for_its_snapshot_turn_gets_stream_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "WAITING_SECONDS", 0.01)

    async def play(opened: OpenedStreams) -> None:
        async with opened.streams._turns.of(UUID(int=1)):  # noqa: SLF001 - as another guard with this token
            opened.begin(1)
            await asyncio.sleep(0.2)
        await opened.until_whole(0)

    sent = run(play).sent

    assert sent[0] == (0, "waits")
    assert [kind for _, kind in sent if kind != "waits"] == ["part"] * (PARTS - 1) + ["last"]


def test_the_snapshot_turn_of_a_guard_that_disconnects_goes_to_the_next_guard() -> None:
    async def play(opened: OpenedStreams) -> None:
        first, second = opened.begin(1), opened.begin(1)
        third = opened.begin(1)
        while not opened.sent:
            opened.changed.clear()
            await opened.changed.wait()
        for gone in (second, first):
            gone.cancel()
        await opened.until_whole(2)
        assert not third.done()

    assert (0, "last") not in run(play).sent


def test_a_stalled_guard_keeps_its_snapshot_turn_for_one_part_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "PART_SECONDS", 0.05)
    monkeypatch.setattr(stream, "FAREWELL_SECONDS", 0.05)

    async def play(opened: OpenedStreams) -> None:
        opened.frozen.add(0)
        frozen, _ = opened.begin(1), opened.begin(1)
        await opened.until_whole(1)
        async with asyncio.timeout(20):
            await frozen

    sent = run(play).sent

    assert [kind for number, kind in sent if number == 0] == ["part"]


def test_starts_of_guard_streams_are_limited_for_each_token() -> None:
    at = 0.0
    pace = StreamPace(3, lambda: at)

    assert [pace.begin(UUID(int=1)) for _ in range(8)] == [True] * 6 + [False] * 2
    assert pace.begin(UUID(int=2))
    at = 1 / stream.BEGUN_A_SECOND
    assert [pace.begin(UUID(int=1)) for _ in range(2)] == [True, False]
    at = 60.0
    assert [pace.begin(UUID(int=1)) for _ in range(8)] == [True] * 6 + [False] * 2


def test_a_guard_that_starts_streams_too_often_gets_retry_after() -> None:
    async def play(opened: OpenedStreams) -> None:
        for _ in range(2):
            gone = opened.begin(1)
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        with pytest.raises(RefusedCall) as refused:
            await opened.begin(1)
        assert (refused.value.denial.reason, refused.value.denial.retry_after) == ("busy", 1)

    run(play, most_a_token=1)


FIRST, SECOND = (open_window(number, "files") for number in (1, 2))
CREDENTIAL = GatewayCredential(UUID(int=1), UUID(int=9), frozenset({"files"}), Dialect.GUARD)


class OneStream:
    """Streams of a memory, one at a time, and the events of the last one."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.memory = WindowMemory(lambda: self.now)
        self.memory.note_read(self.now, datetime.now(UTC))
        self.memory.note_loaded()
        credentials = cast("GatewayCredentials", SimpleNamespace(find=self._never))
        self.streams = WindowStreams(self.memory, credentials, StreamLimits(10, 10), lambda: None)
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    async def _never(self, *_: object) -> None:
        await asyncio.Event().wait()

    async def until(self, last: str | None, kind: str) -> list[tuple[str, str, dict[str, Any]]]:
        """Listen from an event on until one of this kind comes; return id, kind and data of each."""
        found: list[tuple[str, str, dict[str, Any]]] = []
        has_come = asyncio.Event()

        async def send(message: Message) -> None:
            for event in message.get("body", b"").decode().split("\n\n"):
                if event:
                    parts = dict(line.split(": ", 1) for line in event.split("\n"))
                    found.append((parts["id"], parts["event"], json.loads(parts["data"])))
            if any(one[1] == kind for one in found):
                has_come.set()

        headers = [(b"last-event-id", last.encode())] if last else []
        served = self.streams.serve({"headers": headers}, _stays, send, credential=CREDENTIAL, shown=b"")
        task = asyncio.create_task(served)
        waits = asyncio.create_task(has_come.wait())
        await asyncio.wait({task, waits}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        for one in (task, waits):
            one.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert has_come.is_set()
        return found


@pytest.mark.parametrize("how", ["forgotten", "doubted", "verified"])
def test_windows_closed_while_a_guard_was_disconnected_are_sent_when_the_guard_resumes(how: str) -> None:
    async def play() -> list[tuple[str, dict[str, Any]]]:
        one = OneStream()
        one.streams.listen()
        one.memory.put([FIRST])
        await asyncio.sleep(0)
        last = (await one.until(None, "snapshot"))[-1][0]
        if how == "forgotten":
            one.memory.forget([FIRST.request.id])
        elif how == "doubted":
            one.memory.doubt([FIRST.request.tenant_id], [FIRST.request.tenant_id])
            one.memory.doubt([FIRST.request.tenant_id], [])
            one.memory.forget([FIRST.request.id])
        else:
            one.memory.begin_round()
            one.memory.put([], [FIRST.request.id])
        one.memory.put([SECOND])
        await asyncio.sleep(0)
        told = await one.until(last, "open" if how != "doubted" else "close")
        return [(kind, said) for _, kind, said in told]

    told = asyncio.run(play())

    assert told[0] == ("close", {"request": str(FIRST.request.id)})
    assert [kind for kind, _ in told] == (
        ["close", "open"] if how != "doubted" else ["close", "open", "close", "open"]
    )
    assert told[-1][1]["request"] == str(SECOND.request.id)


def test_windows_of_a_tenant_with_a_rolled_back_log_are_in_no_guard_snapshot() -> None:
    memory = OneStream().memory
    memory.put([FIRST, SECOND])
    tenant = FIRST.request.tenant_id

    def told() -> list[UUID]:
        snapshot = memory.snapshot()
        assert snapshot is not None
        return [one.request_id for one in snapshot[1]]

    whole = told()
    memory.doubt([tenant], [tenant])
    doubted = told()
    memory.doubt([tenant], [])

    assert whole == told() == [FIRST.request.id, SECOND.request.id]
    assert doubted == []


def test_a_window_memory_that_is_loading_gives_no_guard_snapshot() -> None:
    """From a part of the open windows, a guard would conclude that the others are closed."""

    async def play() -> tuple[Denial, list[str]]:
        one = OneStream()
        one.streams.listen()
        one.memory.put([FIRST])
        await asyncio.sleep(0)
        last = (await one.until(None, "snapshot"))[-1][0]
        one.memory.put([SECOND])
        await asyncio.sleep(0)
        one.memory.clear()
        one.memory.put([FIRST])
        with pytest.raises(RefusedCall) as refused:
            await one.until(last, "snapshot")
        one.memory.put([SECOND])
        one.memory.note_loaded()
        (whole,) = [said for _, _, said in await one.until(last, "snapshot")]
        return refused.value.denial, [window["request"] for window in whole["windows"]]

    denial, windows = asyncio.run(play())

    assert (denial.reason, denial.retry_after) == (GateReason.BEHIND, 1)
    assert windows == [str(one.request.id) for one in (FIRST, SECOND)]


@pytest.mark.parametrize("is_in_doubt", [False, True])
def test_a_returning_guard_resumes_its_stream_while_windows_are_in_doubt(*, is_in_doubt: bool) -> None:
    async def play() -> list[tuple[str, dict[str, Any]]]:
        one = OneStream()
        one.streams.listen()
        one.memory.put([FIRST, SECOND])
        await asyncio.sleep(0)
        last = (await one.until(None, "snapshot"))[-1][0]
        one.now += 2
        one.memory.note_read(one.now, datetime.now(UTC), [SECOND.request.id] if is_in_doubt else [])
        one.memory.forget([FIRST.request.id])
        await asyncio.sleep(0)
        if is_in_doubt:
            with pytest.raises(RefusedCall):
                await one.until(None, "snapshot")
        return [(kind, said) for _, kind, said in await one.until(last, "close")]

    assert asyncio.run(play()) == [("close", {"request": str(FIRST.request.id)})]


def test_a_new_guard_gets_no_window_of_a_tenant_with_a_rolled_back_log() -> None:
    async def play() -> list[dict[str, Any]]:
        one = OneStream()
        one.memory.put([FIRST])
        one.memory.doubt([FIRST.request.tenant_id], [FIRST.request.tenant_id])
        return [said for _, _, said in await one.until(None, ChangeKind.ANEW)]

    assert [said["windows"] for said in asyncio.run(play())] == [[]]
