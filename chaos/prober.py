"""The prober: asks up to twenty times a second whether each hot resource is open."""

import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass
from uuid import UUID

from chaos.clients import UNAVAILABLE, Clients
from chaos.journal import ClosedAnswer, Journal, OpenAnswer
from chaos.people import ACCESS_SECONDS, ANSWER_SECONDS, ChaosCustomer

PERIOD = 0.05
HOT_SECONDS = ANSWER_SECONDS + ACCESS_SECONDS + 2.0
AFTER_SECONDS = ACCESS_SECONDS + 1.5
MOST_AT_ONCE = 6
MOST_AT_A_DOOR = 2
OPEN, CLOSED = 200, 403


@dataclass
class ProbedResource:
    """One resource to which somebody requested access; until `hot_until` it is probed at each turn.

    `asking` is how many questions about it are not answered yet: a slow API must not be flooded. `was_open` is
    whether it was ever found open.
    """

    customer: ChaosCustomer
    resource: str
    hot_until: float = 0.0
    asking: int = 0
    was_open: bool = False


class Prober:
    """Probes resources that are or were just open at every turn, and one of all others at each turn, in a circle."""

    def __init__(self, clients: Clients, journal: Journal) -> None:
        self._clients = clients
        self._journal = journal
        self._doors: dict[str, ProbedResource] = {}
        self._circle: deque[ProbedResource] = deque()
        self._asking = 0

    def follow(self, customer: ChaosCustomer, resource: str) -> None:
        """Probe this resource from now on."""
        if resource not in self._doors:
            door = self._doors[resource] = ProbedResource(customer, resource)
            self._circle.append(door)

    def heat(self, resource: str) -> None:
        """Probe this resource at each turn, because it may soon be open."""
        self._doors[resource].hot_until = time.monotonic() + HOT_SECONDS

    def cool(self, resource: str) -> None:
        """Probe for a little more than a window's length: by then, anything that lets somebody in has done so."""
        door = self._doors[resource]
        if door.hot_until:
            door.hot_until = time.monotonic() + AFTER_SECONDS

    async def run(self, stopping: asyncio.Event) -> None:
        """Probe until told to stop."""
        asking = set[asyncio.Task[None]]()
        while not stopping.is_set():
            began = time.monotonic()
            for door in self._turn(began):
                if self._asking < MOST_AT_ONCE and door.asking < MOST_AT_A_DOOR:
                    self._asking += 1
                    door.asking += 1
                    task = asyncio.create_task(self._try(door))
                    asking.add(task)
                    task.add_done_callback(asking.discard)
            await asyncio.sleep(max(0.0, began + PERIOD - time.monotonic()))
        await asyncio.gather(*asking)

    def _turn(self, now: float) -> list[ProbedResource]:
        hot = [door for door in self._doors.values() if door.hot_until > now]
        self._circle.rotate(-1)
        return [*hot, *([self._circle[0]] if self._circle and self._circle[0] not in hot else [])]

    async def _try(self, door: ProbedResource) -> None:
        sent = time.time()
        try:
            status, said = await self._clients.ask(door.customer, door.resource)
        finally:
            self._asking -= 1
            door.asking -= 1
        self._journal.checks[status] += 1
        if status == OPEN:
            door.was_open = True
            found = UUID(json.loads(said)["request_id"])
            self._journal.opened.append(OpenAnswer(door.resource, found, sent, time.time()))
        elif status == CLOSED and door.was_open:
            self._journal.closed.append(ClosedAnswer(door.resource, sent, time.time()))
        elif status not in {0, CLOSED, UNAVAILABLE}:
            self._journal.surprises.append(f"GET /v1/access: {status} {said[:200]}")
