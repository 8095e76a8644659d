"""Stories at the gate: windows that are opened, narrowed, revoked, completed, suspended or left to their deadline."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from chaos.clients import NONE, TOO_LATE_TO_BEGIN, Clients, deadline, seconds_ahead
from chaos.gate_history import GateHistory, ProbedCall
from chaos.gate_prober import GateProber
from chaos.people import CALM_SECONDS, COMMENT, ENGINEERS, REASON, SERVICES, ChaosCustomer, ChaosPeople
from harness.people import submission

STORY_SECONDS, BREATH = 1.2, 1.0
SHORT_SECONDS, LONG_SECONDS = 8, 15
OPEN_SECONDS = (0.5, 3.0)
HOT_SECONDS, AFTER_SECONDS = 5.0, 7.0
SUSPENDED_SECONDS, RESUMES = 4.0, 5
LEAVES_SECONDS = 2.0
MAILBOX = "mailbox:"
SAID = {"comment": COMMENT}
FINAL = frozenset({"revoked", "completed", "expired"})
EXTENDED, EXTENDED_REVOKED, LATER = "extended", "extended_and_revoked", "later"
LATER_SECONDS = 3
DECK = (
    *(*["revoked"] * 4, "completed", "expired", "expired", "narrowed", "narrowed", "suspended"),
    *(EXTENDED, EXTENDED, EXTENDED_REVOKED, LATER),
)
SHORT = frozenset({"expired", EXTENDED, EXTENDED_REVOKED, LATER})
Request = Mapping[str, Any]


@dataclass(frozen=True)
class ProbedWindow:
    """A requested window: by whom, at which customer, and the probed calls: it lets `mine` in, and none of `others`.

    The first of `others` is about the resource that was requested, but left out when the window was narrowed.
    """

    customer: ChaosCustomer
    who: str
    request: Request
    mine: ProbedCall
    others: Sequence[ProbedCall]

    @property
    def id(self) -> UUID:
        """The id of the window's request."""
        return UUID(self.request["id"])

    @property
    def watched(self) -> tuple[ProbedCall, ProbedCall]:
        """The calls to probe most often when the window opens and when it ends."""
        return self.mine, self.others[0]


class GateStories:
    """The stories of everyone at the gated customers; the standing windows are open throughout."""

    def __init__(
        self, seed: int, cast: ChaosPeople, clients: Clients, prober: GateProber, history: GateHistory
    ) -> None:
        self.standing: list[Request] = []
        self._cast = cast
        self._clients = clients
        self._prober = prober
        self._history = history
        self._chance = random.Random(f"gate {seed}")  # noqa: S311 - a seed must replay
        self._deck: list[str] = []
        self._suspending = asyncio.Lock()
        # A suspension whose answer was lost may come into force at any later time.
        self._may_be_suspended = False
        self._windows: list[ProbedWindow] = []
        self._endings: dict[str, Callable[[ProbedWindow], Awaitable[object]]] = {
            "revoked": self._by("tara", "revoke"),
            "narrowed": self._by("tara", "revoke"),
            "completed": self._by("", "complete"),
            "expired": self._left,
            "suspended": self._suspended,
            EXTENDED: self._extended,
            EXTENDED_REVOKED: self._extended_and_revoked,
            LATER: self._left,
        }

    async def settle_in(self) -> None:
        """Open the windows that stay open throughout, one for each engineer."""
        for who in ENGINEERS:
            if window := await self._opened(self._cast.gated[0], who, CALM_SECONDS, is_narrowed=False):
                self._prober.heat([window.mine], CALM_SECONDS)
                self._windows.append(window)
                self.standing.append(window.request)

    async def run(self, stopping: asyncio.Event) -> None:
        """Begin stories at intervals until told to stop; then let all of them end."""
        stories = set[asyncio.Task[None]]()
        while not stopping.is_set():
            if not self._deck:
                self._deck = self._chance.sample(DECK, len(DECK))
            task = asyncio.create_task(self._story(self._deck.pop(), self._chance.choice(ENGINEERS)))
            stories.add(task)
            task.add_done_callback(stories.discard)
            await asyncio.sleep(STORY_SECONDS + BREATH * self._clients.usual)
        await asyncio.gather(*stories)

    async def leave(self) -> None:
        """Complete the windows that have stayed open, and probe them for a moment more."""
        for window in self._windows:
            await self._by("", "complete")(window)
        await asyncio.sleep(LEAVES_SECONDS)

    async def _story(self, ending: str, who: str) -> None:
        if ending != "suspended":
            await self._told(ending, self._cast.gated[0], who)
            return
        async with self._suspending:
            await self._told(ending, self._cast.gated[1], who)

    async def _told(self, ending: str, customer: ChaosCustomer, who: str) -> None:
        seconds = SHORT_SECONDS if ending in SHORT else LONG_SECONDS
        ahead = LATER_SECONDS if ending == LATER else 0
        if window := await self._opened(customer, who, seconds, is_narrowed=ending == "narrowed", ahead=ahead):
            await self._endings[ending](window)

    async def _opened(
        self, customer: ChaosCustomer, who: str, seconds: int, *, is_narrowed: bool, ahead: int = 0
    ) -> ProbedWindow | None:
        """Request a window that begins `ahead` seconds later, and have it approved; None if that is unknown."""
        key = uuid4().hex
        resource, other = (f"{MAILBOX}{one}@{customer.slug}.example" for one in (key, f"other-{key}"))
        asked = [resource, other] if is_narrowed else [resource]
        starts = {"not_before": seconds_ahead(ahead)} if ahead else {}
        body = submission(customer.slug, resources=asked, justification=REASON, access_window=seconds, **starts)
        refusals = TOO_LATE_TO_BEGIN if ahead else NONE
        request = await self._clients.file(customer, resource, body, key, who, refusals)
        if request is None:
            return None
        mine = ProbedCall(customer.slug, body["service"], resource, "read", customer.people[who])
        others = [replace(mine, resource=other), *self._others(customer, mine)]
        window = ProbedWindow(customer, who, request, mine, others)
        self._prober.follow((window.mine, *window.others), time.monotonic() + ahead + seconds + AFTER_SECONDS)
        self._prober.heat(window.watched, HOT_SECONDS)
        kept = {"resources": [resource]} if is_narrowed else {}
        if is_narrowed:
            self._history.withheld[window.id] = other
        found = await self._clients.act(customer, "ann", "approve", request, SAID | kept)
        if found is None:
            return None
        self._history.opened[window.id] = time.monotonic()
        if customer.is_suspended_at_times and self._may_be_suspended:
            self._history.ending[window.id] = self._history.opened[window.id]
        return replace(window, request=found)

    def _others(self, customer: ChaosCustomer, mine: ProbedCall) -> Iterator[ProbedCall]:
        """Yield calls that each differ in one thing from a call that is let in."""
        yield replace(mine, action="change")
        yield replace(mine, service=next(one for one in SERVICES if one != mine.service))
        yield replace(mine, tenant=next(one.slug for one in self._cast.gated if one is not customer))
        yield replace(
            mine, engineer=next(engineer for engineer in self._cast.engineers() if engineer != mine.engineer)
        )

    def _by(self, who: str, action: str) -> Callable[[ProbedWindow], Awaitable[str]]:
        """Make an ending that acts on a window, as `who` or else its requester, and returns the request's state."""

        async def ending(window: ProbedWindow) -> str:
            await asyncio.sleep(self._chance.uniform(*OPEN_SECONDS))
            self._history.ending[window.id] = time.monotonic()
            found = await self._clients.act(window.customer, who or window.who, action, window.request, SAID)
            if found is None:
                path = f"/v1/requests/{window.id}"
                found = await self._clients.call(window.customer, "tara", "GET", path) or {}
            state: str = found.get("state", "")
            if state in FINAL:
                self._ended(window)
            return state

        return ending

    async def _left(self, window: ProbedWindow) -> None:
        await asyncio.sleep(SHORT_SECONDS - 1)
        self._prober.heat([window.mine], HOT_SECONDS)

    async def _more_time(self, window: ProbedWindow) -> UUID | None:
        """Have more time approved; return the extension, or None if it is unknown whether it was."""
        more = await self._clients.extend(window.customer, window.request, SHORT_SECONDS, uuid4().hex, who=window.who)
        if more is None or await self._clients.act(window.customer, "ann", "approve", more, SAID) is None:
            return None
        extension = UUID(more["id"])
        self._history.opened[extension] = time.monotonic()
        self._prober.follow((window.mine, *window.others), time.monotonic() + 2 * SHORT_SECONDS + AFTER_SECONDS)
        return extension

    async def _extended(self, window: ProbedWindow) -> None:
        """Probe most often when the extended window ends, and when its extension ends."""
        if await self._more_time(window):
            ends = deadline(window.request)
            for moment in (ends, ends + SHORT_SECONDS):
                await asyncio.sleep(max(0.0, moment - 1 - time.time()))
                self._prober.heat([window.mine], HOT_SECONDS)

    async def _extended_and_revoked(self, window: ProbedWindow) -> None:
        """Revoke the extended window; nobody is let in when its extension would have begun.

        If the window had already run out, the extension does not end: it is open.
        """
        extension = await self._more_time(window)
        if extension:
            self._history.ending[extension] = time.monotonic()
        state = await self._by("tara", "revoke")(window)
        if extension and state == "revoked":
            self._history.ended[extension] = self._history.ended[window.id]
            await asyncio.sleep(max(0.0, deadline(window.request) - 1 - time.time()))
            self._prober.heat([window.mine], HOT_SECONDS)

    async def _suspended(self, window: ProbedWindow) -> None:
        """Have an operator suspend the tenant, which ends its windows, and resume it."""
        customer = window.customer
        await asyncio.sleep(self._chance.uniform(*OPEN_SECONDS))
        self._history.ending[window.id] = time.monotonic()
        if await self._clients.call(customer, "olga", "POST", f"/v1/tenants/{customer.slug}/suspend"):
            self._ended(window)
        else:
            self._may_be_suspended = True
        await asyncio.sleep(SUSPENDED_SECONDS)
        for _ in range(RESUMES):
            if await self._clients.call(customer, "olga", "POST", f"/v1/tenants/{customer.slug}/resume"):
                break

    def _ended(self, window: ProbedWindow) -> None:
        self._history.ended[window.id] = time.monotonic()
        self._prober.heat([window.mine], HOT_SECONDS)
