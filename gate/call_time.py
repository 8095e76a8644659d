"""How long one call at the gate may take: gateways wait for two seconds, and all steps take from the same time."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

Answer = TypeVar("Answer")

CALL_SECONDS = 1.5


def call_end() -> float:
    """Return until when a call that begins now has to be answered, on the clock that event loops have."""
    return time.monotonic() + CALL_SECONDS


async def in_time(awaited: Awaitable[Answer], ends: float | None) -> Answer:
    """Wait for something, until the call has to be answered; None is for a call that begins now.

    Raises:
        TimeoutError: it takes longer.
    """
    async with asyncio.timeout_at(call_end() if ends is None else ends):
        return await awaited
