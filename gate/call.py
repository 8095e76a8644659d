"""One call at the gate: its ASGI types, its headers and its deadline."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, TypeVar

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Answer = TypeVar("Answer")

CALL_SECONDS = 1.5
"""How long a call may take in total: gateways wait for two seconds."""
NONE: frozenset[bytes] = frozenset()


class SentHeaders:
    """Headers by lower-case name.

    `values` has one value of each header. Check `repeated` if a second value would matter.
    """

    __slots__ = ("repeated", "values")

    def __init__(self, sent: Collection[tuple[bytes, bytes]]) -> None:
        self.values = dict(sent)
        self.repeated = NONE if len(self.values) == len(sent) else _repeated(sent)

    def once(self, name: bytes) -> bytes | None:
        """Return the header's value if the header was sent exactly once."""
        return None if name in self.repeated else self.values.get(name)


def _repeated(sent: Collection[tuple[bytes, bytes]]) -> frozenset[bytes]:
    return frozenset(name for name, times in Counter(name for name, _ in sent).items() if times > 1)


def call_end() -> float:
    """Return the deadline of a call that begins now, in `time.monotonic()` seconds."""
    return time.monotonic() + CALL_SECONDS


async def in_time(awaited: Awaitable[Answer], ends: float | None) -> Answer:
    """Raise TimeoutError at the deadline `ends`; None means the deadline of a call that begins now."""
    async with asyncio.timeout_at(call_end() if ends is None else ends):
        return await awaited
