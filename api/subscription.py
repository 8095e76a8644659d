"""A page's subscription to live updates, and its format as server-sent events."""

import asyncio
import json
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

from lockbox.identity.roles import Caller
from lockbox.requests.request_reads import LiveReader

LIST, REQUEST, OPERATIONS = "list", "request:", "operations"


@dataclass(eq=False)
class Subscription:
    """A page's subscription to some requests, to any that the person may see, or to operations.

    It says that something changed, never what: updates to a slow reader are merged, so it never holds more than its
    topics. `secret` is the session's.
    """

    caller: Caller
    secret: str = field(repr=False)
    requests: frozenset[UUID] = frozenset()
    lists: bool = False
    operations: bool = False
    verified_at: float = 0.0
    is_over: bool = False
    _topics: set[str] = field(default_factory=set)
    _signals: list[str] = field(default_factory=list)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def reader(self) -> LiveReader:
        """The subscriber, as far as lists of requests go."""
        return LiveReader(self.caller.person_id, self.caller.only_at)

    @cached_property
    def _watched(self) -> frozenset[str]:
        return frozenset(map(str, self.requests))

    def tell_of(self, ids: AbstractSet[str]) -> None:
        """Note changes of these ids that the page shows."""
        if shown := self._watched & ids:
            self.tell(*(f"{REQUEST}{one}" for one in shown))

    def tell(self, *topics: str) -> None:
        """Note that these topics changed."""
        self._topics.update(topics)
        self._woken.set()

    def signal(self, name: str) -> None:
        """Send another signal: `again`, `away` or `ended`; the last of each kind is enough."""
        self._signals = [*(one for one in self._signals if one != name), name]
        self._woken.set()

    def close(self, name: str | None = None) -> None:
        """End the stream, with a last signal if there is one."""
        if name:
            self.signal(name)
        self.is_over = True
        self._woken.set()

    async def next(self, seconds: float, place: Callable[[], str]) -> bytes:
        """Return the next server-sent events; a comment if nothing happens for so long.

        `place` is called for the position of a page that has got all this.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return b": still here\n\n"
        self._woken.clear()
        signals, topics = self._signals, sorted(self._topics)
        self._signals, self._topics = [], set()
        position = place()
        said = [event(name, position, {}) for name in signals]
        if topics and "again" not in signals:
            said.append(event("news", position, {"topics": topics}))
        return b"".join(said)


def event(name: str, position: str, data: dict[str, object]) -> bytes:
    """Format one server-sent event (HTML, 9.2.6); none of the parts has a line break."""
    return f"id: {position}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()
