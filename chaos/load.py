"""The load: stories that people play through the API, begun at a steady pace whatever else happens."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from chaos.clients import Clients
from chaos.journal import Journal
from chaos.people import ACCESS_SECONDS, COMMENT, REASON, SERVICE, Cast, House
from chaos.prober import Prober

STORY_SECONDS = 0.6
CALM_REQUESTS = 4
ENDINGS = (
    "left",
    "expired",
    "expired",
    "completed",
    "completed",
    "revoked",
    "revoked",
    "denied",
    "cancelled",
    "at_the_last_moment",
    "all_at_once",
    "five_times",
    "nosy",
)
SAID = {"comment": COMMENT}
SEEN, NOT_THERE = 200, 404

Request = Mapping[str, Any]
Ending = Callable[[House, Request], Awaitable[object]]


class Load:
    """Everybody's stories; each is a function of the seed and its number."""

    def __init__(self, seed: int, cast: Cast, clients: Clients, prober: Prober, journal: Journal) -> None:
        self.calm: list[Request] = []
        self._seed = seed
        self._cast = cast
        self._clients = clients
        self._prober = prober
        self._journal = journal
        self._number = 0
        self._endings: dict[str, Ending] = {
            "left": self._left,
            "expired": self._open,
            "completed": self._completed,
            "revoked": self._revoked,
            "denied": self._denied,
            "cancelled": self._cancelled,
            "at_the_last_moment": self._at_the_last_moment,
            "all_at_once": self._all_at_once,
            "five_times": self._left,
            "nosy": self._nosy,
        }

    async def settle_in(self) -> None:
        """File what stays open all along."""
        for _ in range(CALM_REQUESTS):
            filed = await self._file(self._cast.calm, uuid4().hex)
            if filed:
                self.calm.append(filed)

    async def run(self, stopping: asyncio.Event) -> None:
        """Begin a story every so often, until told to stop; then let all of them end."""
        stories = set[asyncio.Task[None]]()
        while not stopping.is_set():
            self._number += 1
            task = asyncio.create_task(self._told(self._number))
            stories.add(task)
            task.add_done_callback(stories.discard)
            await asyncio.sleep(STORY_SECONDS)
        await asyncio.gather(*stories)

    async def leave(self) -> None:
        """Cancel what has stayed open."""
        for request in self.calm:
            await self._clients.act(self._cast.calm, "erin", "cancel", request)

    async def _told(self, number: int) -> None:
        try:
            await self._story(number)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a story is a finding, and ends no other
            self._journal.surprises.append(f"story {number} ended with {error!r}")

    async def _story(self, number: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")  # noqa: S311 - it replays
        house, ending = chance.choice(self._cast.quick), chance.choice(ENDINGS)
        key = f"{self._seed}-{number}-{uuid4().hex}"
        times = 5 if ending == "five_times" else 1
        answers = await asyncio.gather(*(self._file(house, key) for _ in range(times)))
        ids = {one["id"] for one in answers if one}
        if len(ids) > 1:
            self._journal.surprises.append(f"one key filed {len(ids)} requests")
        if request := next(filter(None, answers), None):
            await self._endings[ending](house, request)
            self._prober.cool(request["resources"][0])

    async def _file(self, house: House, key: str) -> Request | None:
        resource = f"mailbox:{key}@{house.slug}.example"
        body = {
            "tenant": house.slug,
            "service": SERVICE,
            "resources": [resource],
            "actions": ["read"],
            "reason_code": "support_case",
            "justification": REASON,
            "case_ref": "CASE-1",
            "access_window": ACCESS_SECONDS,
        }
        filed = await self._clients.file(house, resource, body, key)
        self._prober.follow(house, resource)
        return filed

    async def _left(self, _: House, __: Request) -> None:
        await asyncio.sleep(0)

    async def _endorsed(self, house: House, request: Request) -> bool:
        return not house.is_reviewed or bool(await self._clients.act(house, "max", "endorse", request, SAID))

    async def _open(self, house: House, request: Request) -> bool:
        """Give every yes that it takes; whether all of them were acknowledged."""
        self._prober.heat(request["resources"][0])
        if not await self._endorsed(house, request):
            return False
        for who in house.approvers:
            if not await self._clients.act(house, who, "approve", request, SAID):
                return False
        return True

    async def _opened(self, house: House, request: Request) -> bool:
        is_open = await self._open(house, request)
        await asyncio.sleep(1)
        return is_open

    async def _completed(self, house: House, request: Request) -> None:
        if await self._opened(house, request):
            await self._clients.act(house, "erin", "complete", request, SAID)

    async def _revoked(self, house: House, request: Request) -> None:
        if await self._opened(house, request):
            await self._clients.act(house, "tara", "revoke", request, SAID)

    async def _denied(self, house: House, request: Request) -> None:
        await self._clients.act(house, "max" if house.is_reviewed else "amir", "deny", request, SAID)

    async def _cancelled(self, house: House, request: Request) -> None:
        await self._clients.act(house, "erin", "cancel", request, SAID)

    async def _at_the_last_moment(self, house: House, request: Request) -> None:
        """Say the first yes within a few milliseconds of the deadline."""
        chance = random.Random(request["id"])  # noqa: S311 - it replays
        left = datetime.fromisoformat(request["deadline_at"]).timestamp() - time.time()
        await asyncio.sleep(max(0, left - 0.03 + chance.uniform(-0.03, 0.03)))
        await self._open(house, request)

    async def _all_at_once(self, house: House, request: Request) -> None:
        """Approve, deny, cancel and endorse at one instant."""
        self._prober.heat(request["resources"][0])
        first = [] if house.is_reviewed else [("ann", "approve"), ("amir", "deny"), ("tara", "deny")]
        review = [("max", "endorse"), ("max", "deny")] if house.is_reviewed else []
        acts = [*first, *review, ("erin", "cancel")]
        await asyncio.gather(*(self._clients.act(house, who, action, request, SAID) for who, action in acts))

    async def _nosy(self, house: House, request: Request) -> None:
        """Look at all that there is to see, and for what another customer was asked."""
        for who in ("ann", "aude", "tara"):
            await self._clients.look(house, who, "/v1/requests")
        await self._clients.look(house, "ann", "/v1/tenants")
        await self._clients.look(house, "tara", f"/v1/requests/{request['id']}/events", (SEEN, NOT_THERE))
        other = next(one for one in self._cast.quick if one is not house)
        await self._clients.look(other, "ann", f"/v1/requests/{request['id']}", (NOT_THERE,))
