"""A guard that was away for a moment: it is told all that it missed, above all what was closed."""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from gate.answers import Denial, RefusedCall
from gate.asgi import Message
from gate.credentials import GatewayCredential, GatewayCredentials
from gate.dialects import Dialect
from gate.reasons import GateReason
from gate.stream import StreamLimits, WindowStreams
from gate.window_memory import ChangeKind, WindowMemory
from tests.unit.gate_examples import open_window

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


async def _stays() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("how", ["forgotten", "doubted", "verified"])
def test_what_was_closed_while_a_guard_was_away_is_told_when_it_resumes(how: str) -> None:
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


def test_windows_of_a_tenant_whose_log_was_rolled_back_are_in_no_snapshot() -> None:
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


def test_a_guard_gets_no_snapshot_of_a_memory_that_is_still_being_filled() -> None:
    """By a part of what is open it would cut the rest."""

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
def test_a_guard_that_was_away_resumes_while_windows_are_in_doubt(*, is_in_doubt: bool) -> None:
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


def test_a_guard_that_begins_learns_of_no_window_of_a_rolled_back_tenant() -> None:
    async def play() -> list[dict[str, Any]]:
        one = OneStream()
        one.memory.put([FIRST])
        one.memory.doubt([FIRST.request.tenant_id], [FIRST.request.tenant_id])
        return [said for _, _, said in await one.until(None, ChangeKind.ANEW)]

    assert [said["windows"] for said in asyncio.run(play())] == [[]]
