"""A guard that was away for a moment: it is told all that it missed, above all what was closed."""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from gate.asgi import Message
from gate.credentials import GatewayCredential, GatewayCredentials
from gate.dialects import Dialect
from gate.stream import StreamLimits, WindowStreams
from gate.window_memory import BOOT_CLOCK, ChangeKind, WindowMemory
from tests.unit.gate_examples import open_window

FIRST, SECOND = (open_window(number, "files") for number in (1, 2))
CREDENTIAL = GatewayCredential(UUID(int=1), UUID(int=9), frozenset({"files"}), Dialect.GUARD)


class OneStream:
    """Streams of a memory, one at a time, and the events of the last one."""

    def __init__(self) -> None:
        self.memory = WindowMemory()
        self.memory.note_read(BOOT_CLOCK(), datetime.now(UTC))
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
        async with asyncio.timeout(20):
            await has_come.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
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
    memory = WindowMemory()
    memory.put([FIRST, SECOND])
    tenant = FIRST.request.tenant_id
    whole = memory.snapshot()[1]

    memory.doubt([tenant], [tenant])
    doubted = memory.snapshot()[1]
    memory.doubt([tenant], [])

    assert [one.request_id for one in whole] == [FIRST.request.id, SECOND.request.id]
    assert doubted == []
    assert memory.snapshot()[1] == whole


def test_a_guard_that_begins_learns_of_no_window_of_a_rolled_back_tenant() -> None:
    async def play() -> list[dict[str, Any]]:
        one = OneStream()
        one.memory.put([FIRST])
        one.memory.doubt([FIRST.request.tenant_id], [FIRST.request.tenant_id])
        return [said for _, _, said in await one.until(None, ChangeKind.ANEW)]

    assert [said["windows"] for said in asyncio.run(play())] == [[]]
