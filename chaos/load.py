"""The load: stories that people play through the API, begun at a steady pace, whatever else happens."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from chaos import cards
from chaos.clients import NONE, Clients, Refusals, deadline
from chaos.further_stories import FurtherStories
from chaos.journal import Journal
from chaos.people import ACCESS_SECONDS, COMMENT, REASON, ChaosCustomer, ChaosPeople
from chaos.prober import Prober
from harness.people import submission

STORY_SECONDS, BREATH = 0.6, 1.0
"""Seconds from one story to the next, plus the time of this many acts, so that a slow API is not overloaded."""
CALM_REQUESTS = 4
SAID = {"comment": COMMENT}
SEEN, NOT_THERE = 200, 404
AIM = (-0.08, 0.08)
"""The range of times at which acts are aimed, in seconds from a deadline."""
YESES, FIRST_YES, APART = 5, (-0.02, 0.03), 0.016
"""How many approvals are sent around a deadline, when the first is to arrive, and the seconds between two of them."""
AT_ONCE = 0.004

Request = Mapping[str, Any]
Ending = Callable[[ChaosCustomer, Request], Awaitable[object]]
Shot = tuple[str, str]
"""A person, and what they do."""


class Load:
    """The stories of everyone; each is a function of the seed and the story's number."""

    def __init__(self, seed: int, cast: ChaosPeople, clients: Clients, prober: Prober, journal: Journal) -> None:
        self.calm: list[Request] = []
        self._seed = seed
        self._cast = cast
        self._clients = clients
        self._prober = prober
        self._journal = journal
        self._number = 0
        self._endings: dict[str, Ending] = {
            "left": self._left,
            "expired": self.open,
            "completed": self._completed,
            "revoked": self._revoked,
            "denied": self._denied,
            "cancelled": self._cancelled,
            "nosy": self._nosy,
            "five_times": self._left,
            "late_yes": self._late_yes,
            "late_endorsement": self._late_endorsement,
            "late_no": self._late("deny"),
            "late_cancel": self._late("cancel"),
            "revoke_at_the_end": self._at_the_end("tara", "revoke"),
            "complete_at_the_end": self._at_the_end("erin", "complete"),
            "yes_and_no": self._at_once(("ann", "approve"), ("amir", "deny")),
            "yes_and_cancel": self._at_once(("ann", "approve"), ("erin", "cancel")),
            "no_and_cancel": self._no_and_cancel,
            "endorse_and_cancel": self._at_once(("max", "endorse"), ("erin", "cancel")),
            "revoke_and_complete": self._revoke_and_complete,
            "two_yeses": self._two_yeses,
            "yes_twice": self._at_once(("ann", "approve"), ("ann", "approve")),
        }
        self._further = FurtherStories(self, clients, prober, journal)
        self._endings |= self._further.endings

    async def settle_in(self) -> None:
        """Submit the requests that stay open throughout the run."""
        for _ in range(CALM_REQUESTS):
            submitted = await self.submit(self._cast.calm, uuid4().hex)
            if submitted:
                self.calm.append(submitted)
        await self._further.owe(self._cast.quick[cards.OWING])

    async def run(self, stopping: asyncio.Event) -> None:
        """Begin stories at intervals until told to stop; then let all of them end."""
        stories = set[asyncio.Task[None]]()
        while not stopping.is_set():
            task = asyncio.create_task(self._told(self._number))
            self._number += 1
            stories.add(task)
            task.add_done_callback(stories.discard)
            await asyncio.sleep(STORY_SECONDS + BREATH * self._clients.usual)
        await asyncio.gather(*stories)

    async def leave(self) -> None:
        """Cancel the requests that have stayed open."""
        for request in self.calm:
            await self._clients.act(self._cast.calm, "erin", "cancel", request)
        await self._further.settle(self._cast.quick[cards.OWING])

    async def _told(self, number: int) -> None:
        try:
            await self._story(number)
        except Exception as error:  # noqa: BLE001 - any error in a story is a finding, and ends no other story
            self._journal.surprises.append(f"story {number} ended with {error!r}")

    async def _story(self, number: int) -> None:
        place, ending = cards.dealt(self._seed, number)
        customer = self._cast.quick[place]
        key = f"{self._seed}-{number}-{uuid4().hex}"
        times = 5 if ending == "five_times" else 1
        answers = await asyncio.gather(*(self.submit(customer, key) for _ in range(times)))
        ids = {answer["id"] for answer in answers if answer}
        if len(ids) > 1:
            self._journal.surprises.append(f"one key submitted {len(ids)} requests")
        if request := next(filter(None, answers), None):
            await self._endings[ending](customer, request)
            self._prober.cool(request["resources"][0])

    async def submit(
        self, customer: ChaosCustomer, key: str, *, refusals: Refusals = NONE, **changes: object
    ) -> Request | None:
        """Submit a request with a key, and probe its resource from now on."""
        resource = f"mailbox:{key}@{customer.slug}.example"
        facts = {"justification": REASON, "access_window": ACCESS_SECONDS} | changes
        body = submission(customer.slug, resources=[resource], **facts)
        submitted = await self._clients.file(customer, resource, body, key, refusals=refusals)
        self._prober.follow(customer, resource)
        return submitted

    async def _left(self, _: ChaosCustomer, __: Request) -> None:
        await asyncio.sleep(0)

    async def _endorsed(self, customer: ChaosCustomer, request: Request) -> Request | None:
        """Have the request endorsed if the vendor reviews it; return it as it is then."""
        return await self._clients.act(customer, "max", "endorse", request, SAID) if customer.is_reviewed else request

    async def open(self, customer: ChaosCustomer, request: Request) -> Request | None:
        """Give all necessary approvals; return the open request if all of them were acknowledged."""
        self._prober.heat(request["resources"][0])
        found = await self._endorsed(customer, request)
        for who in customer.approvers:
            found = found and await self._clients.act(customer, who, "approve", found, SAID)
        return found

    async def _opened(self, customer: ChaosCustomer, request: Request) -> Request | None:
        found = await self.open(customer, request)
        await asyncio.sleep(1)
        return found

    async def _completed(self, customer: ChaosCustomer, request: Request) -> None:
        if found := await self._opened(customer, request):
            await self._clients.act(customer, "erin", "complete", found, SAID)

    async def _revoked(self, customer: ChaosCustomer, request: Request) -> None:
        if found := await self._opened(customer, request):
            await self._clients.act(customer, "tara", "revoke", found, SAID)

    async def _denied(self, customer: ChaosCustomer, request: Request) -> None:
        await self._clients.act(customer, "max" if customer.is_reviewed else "amir", "deny", request, SAID)

    async def _cancelled(self, customer: ChaosCustomer, request: Request) -> None:
        await self._clients.act(customer, "erin", "cancel", request, SAID)

    async def _late_yes(self, customer: ChaosCustomer, request: Request) -> None:
        """Send the last missing approval again and again around the deadline."""
        found = await self._endorsed(customer, request)
        *first, last = customer.approvers
        for who in first:
            found = found and await self._clients.act(customer, who, "approve", found, SAID)
        if found:
            self._prober.heat(request["resources"][0])
            await self._at_the_deadline(customer, found, [(last, "approve")] * YESES, FIRST_YES)

    async def _late_endorsement(self, customer: ChaosCustomer, request: Request) -> None:
        await self._at_the_deadline(customer, request, [("max", "endorse")] * YESES, FIRST_YES)

    def _late(self, action: str) -> Ending:
        async def ending(customer: ChaosCustomer, request: Request) -> None:
            who = "erin" if action == "cancel" else "max" if customer.is_reviewed else "amir"
            await self._at_the_deadline(customer, request, [(who, action)])

        return ending

    def _at_the_end(self, who: str, action: str) -> Ending:
        async def ending(customer: ChaosCustomer, request: Request) -> None:
            if found := await self.open(customer, request):
                await self._at_the_deadline(customer, found, [(who, action)])

        return ending

    async def _at_the_deadline(
        self, customer: ChaosCustomer, request: Request, shots: Sequence[Shot], aim: tuple[float, float] = AIM
    ) -> None:
        """Make the first act arrive this many seconds from the deadline, and the others right after it."""
        chance = random.Random(request["id"])  # noqa: S311 - a different one each time
        left = deadline(request) - time.time() - self._clients.usual + chance.uniform(*aim)
        await asyncio.sleep(max(0.0, left))
        await self._volley(customer, request, shots, APART)

    async def _volley(self, customer: ChaosCustomer, request: Request, shots: Sequence[Shot], apart: float) -> None:
        async def shoot(place: int, who: str, action: str) -> None:
            await asyncio.sleep(place * apart)
            await self._clients.act(customer, who, action, request, SAID)

        await asyncio.gather(*(shoot(place, *shot) for place, shot in enumerate(shots)))

    def _at_once(self, *shots: Shot) -> Ending:
        async def ending(customer: ChaosCustomer, request: Request) -> None:
            self._prober.heat(request["resources"][0])
            order = random.Random(request["id"]).sample(shots, len(shots))  # noqa: S311 - a different one each time
            await self._volley(customer, request, order, AT_ONCE)

        return ending

    async def _no_and_cancel(self, customer: ChaosCustomer, request: Request) -> None:
        who = "max" if customer.is_reviewed else "amir"
        await self._at_once((who, "deny"), ("erin", "cancel"))(customer, request)

    async def _revoke_and_complete(self, customer: ChaosCustomer, request: Request) -> None:
        if found := await self._opened(customer, request):
            await self._at_once(("tara", "revoke"), ("erin", "complete"))(customer, found)

    async def _two_yeses(self, customer: ChaosCustomer, request: Request) -> None:
        if found := await self._endorsed(customer, request):
            await self._at_once(("ann", "approve"), ("amir", "approve"))(customer, found)

    async def _nosy(self, customer: ChaosCustomer, request: Request) -> None:
        """Look at everything that there is to see, and look for a request of another customer."""
        for who in ("ann", "aude", "tara"):
            await self._clients.look(customer, who, "/v1/requests")
        await self._clients.look(customer, "ann", "/v1/tenants")
        await self._clients.look(customer, "tara", f"/v1/requests/{request['id']}/events", (SEEN, NOT_THERE))
        other = next(one for one in self._cast.quick if one is not customer)
        await self._clients.look(other, "ann", f"/v1/requests/{request['id']}", (NOT_THERE,))
