"""The gate prober: asks the gate and the guard all the time about calls that a window lets in, and about others."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from chaos.gate_calls import ProbeClient
from chaos.gate_history import DOORS, GateHistory, ProbedCall

PERIOD = 0.05
HOT_AT_ONCE = 2
MOST_AT_A_DOOR = 8


@dataclass
class FollowedCall:
    """A call to ask about until `until` on the monotonic clock; while it is hot, at each turn."""

    call: ProbedCall
    until: float
    hot_until: float = 0.0
    asking: set[str] = field(default_factory=set)


class GateProber:
    """Asks each door at each turn about calls whose window may just have changed, and about one of all others.

    A door is not flooded: only one question about each call, and only a few in all, wait for an answer.
    """

    def __init__(self, client: ProbeClient, history: GateHistory) -> None:
        self._client = client
        self._history = history
        self._followed: dict[ProbedCall, FollowedCall] = {}
        self._circle: deque[FollowedCall] = deque()
        self._hot: deque[FollowedCall] = deque()
        self._asking = Counter[str]()

    def follow(self, calls: Iterable[ProbedCall], until: float) -> None:
        """Ask about these calls until `until`."""
        for call in calls:
            followed = self._followed.get(call)
            if followed is None:
                followed = self._followed[call] = FollowedCall(call, until)
                self._circle.append(followed)
            followed.until = max(followed.until, until)

    def heat(self, calls: Iterable[ProbedCall], seconds: float) -> None:
        """Ask most often about these calls from now on; they are followed already."""
        for call in calls:
            if followed := self._followed.get(call):
                if followed not in self._hot:
                    self._hot.append(followed)
                followed.hot_until = time.monotonic() + seconds

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask until told to stop."""
        asking = set[asyncio.Task[None]]()
        while not stopping.is_set():
            began = time.monotonic()
            for followed in self._turn(began):
                for door in DOORS:
                    if self._asking[door] < MOST_AT_A_DOOR and door not in followed.asking:
                        self._asking[door] += 1
                        followed.asking.add(door)
                        task = asyncio.create_task(self._ask(door, followed))
                        asking.add(task)
                        task.add_done_callback(asking.discard)
            await asyncio.sleep(max(0.0, began + PERIOD - time.monotonic()))
        await asyncio.gather(*asking)

    async def _ask(self, door: str, followed: FollowedCall) -> None:
        try:
            self._history.answers.append(await self._client.ask(door, followed.call))
        finally:
            self._asking[door] -= 1
            followed.asking.discard(door)

    def _turn(self, now: float) -> list[FollowedCall]:
        while self._circle and self._circle[0].until <= now:
            del self._followed[self._circle.popleft().call]
        self._hot = deque(one for one in self._hot if one.hot_until > now)
        self._circle.rotate(-1)
        self._hot.rotate(-1)
        chosen = [*list(self._hot)[:HOT_AT_ONCE], *list(self._circle)[:1]]
        return list({id(one): one for one in chosen}.values())
