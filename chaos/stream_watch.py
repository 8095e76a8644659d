"""The stream watch: reads the gate's change stream as a guard does, and notes when each window was first on it."""

import asyncio
import json
import time
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx

from chaos.gate_calls import OK, GateAddresses
from chaos.gate_history import GateHistory, StreamBeat

AGAIN_SECONDS = 0.3
ANSWER_SECONDS = 4.0
PATH = "/gate/v1/stream"


class StreamWatch:
    """Reads one stream, bypassing the links that are struck, and reads a new one when it ends."""

    def __init__(self, addresses: GateAddresses, history: GateHistory) -> None:
        self._addresses = addresses
        self._history = history
        self._http = httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False)

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def run(self, stopping: asyncio.Event) -> None:
        """Read until told to stop."""
        while not stopping.is_set():
            with suppress(httpx.HTTPError):
                await self._read(stopping)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _read(self, stopping: asyncio.Event) -> None:
        headers = {"lockbox-gateway": self._addresses.guard_token}
        async with self._http.stream("GET", f"{self._addresses.api}{PATH}", headers=headers) as answer:
            if answer.status_code != OK:
                return
            self._history.beats.append([])
            kind = ""
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    self._take(kind, json.loads(value), time.monotonic())
                if stopping.is_set():
                    return

    def _take(self, kind: str, said: dict[str, Any], now: float) -> None:
        """Note which windows an event names; a heartbeat shows that the gate's memory was read."""
        windows = {"snapshot": said.get("windows", ()), "open": (said,)}.get(kind, ())
        for window in windows:
            self._history.told.setdefault(UUID(window["request"]), now)
        if kind == "heartbeat":
            at = datetime.fromisoformat(said["at"]).timestamp()
            self._history.beats[-1].append(StreamBeat(now, at))
