"""Stories of further ways to access: more time, a later start, cases, pre-approvals, break-glass and steps."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from uuid import UUID, uuid4

from chaos.clients import NONE, TOO_LATE_TO_BEGIN, Clients, Refusals, deadline, seconds_ahead
from chaos.journal import Journal, Sight
from chaos.people import ACCESS_SECONDS, COMMENT, DESK, EXCLUSIONS, HELPDESK, ChaosCustomer
from chaos.prober import Prober
from harness.people import SERVICE

LATER_SECONDS, ENDS_SECONDS = 3, 3600
USES = 2
OPEN = frozenset({"reviewing", "pending", "active"})
SAID = {"comment": COMMENT}
FINDING = {"finding": "justified", **SAID}
BY_CASE = {"cancelled": Sight.CASE_CANCELLED, "revoked": Sight.CASE_REVOKED}
NOT_MET, EARLIER_STEP = "policy-not-met", "earlier-step-first"
TOO_OFTEN: Refusals = {NOT_MET: Sight.GLASS_TOO_OFTEN}
NO_STOP: Refusals = {"not-found": None}
"""Ending a stop is tried again if the answer was lost, and may then find no stop."""
Request = Mapping[str, Any]
Ending = Callable[[ChaosCustomer, Request], Awaitable[object]]


class Opener(Protocol):
    """Submits requests and has them approved, as all stories do."""

    async def submit(
        self, customer: ChaosCustomer, key: str, *, refusals: Refusals = NONE, **changes: object
    ) -> Request | None:
        """Submit a request, and return it once it is acknowledged."""
        ...

    async def open(self, customer: ChaosCustomer, request: Request) -> Request | None:
        """Give all necessary approvals, and return the open request."""
        ...


class FurtherStories:
    """How these stories continue from a request; the journal notes each story that comes as far as it should."""

    def __init__(self, opener: Opener, clients: Clients, prober: Prober, journal: Journal) -> None:
        self._opener = opener
        self._clients = clients
        self._prober = prober
        self._journal = journal
        self._stopping = asyncio.Lock()
        self.endings: dict[str, Ending] = {
            "extended": self._extended,
            "more_and_revoke": self._more_and_revoke,
            "later": self._later,
            "case_closed": self._case_closed,
            "pre_approved": self._pre_approved,
            "broken_glass": self._broken_glass,
            "owing": self._owing,
            "stopped": self._stopped,
            "steps": self._steps,
            "acknowledged": self._acknowledged,
        }

    async def owe(self, customer: ChaosCustomer) -> None:
        """Open a window by break-glass, and leave its finding due."""
        await self._glass(customer)

    async def settle(self, customer: ChaosCustomer) -> None:
        """Give the findings that are due; after that, break-glass is possible again."""
        due = await self._clients.call(customer, "ann", "GET", "/v1/requests?limit=50")
        for request in (due or {"items": []})["items"]:
            await self._found(customer, request)
        if await self._glass(customer):
            self._journal.seen[Sight.GLASS_AFTER_FINDING] += 1

    async def _more_time(self, customer: ChaosCustomer, request: Request) -> tuple[Request, Request] | None:
        """Open the request and request more time; return the window and its extension, None if either is missing."""
        window = await self._opener.open(customer, request)
        more = window and await self._clients.extend(customer, window, ACCESS_SECONDS, uuid4().hex)
        return (window, more) if window and more else None

    async def _extended(self, customer: ChaosCustomer, request: Request) -> None:
        """Have more time approved, and wait until it begins."""
        if (both := await self._more_time(customer, request)) and await self._opener.open(customer, both[1]):
            self._journal.seen[Sight.EXTENDED] += 1
            await asyncio.sleep(max(0.0, deadline(both[0]) - time.time()))

    async def _more_and_revoke(self, customer: ChaosCustomer, request: Request) -> None:
        """Approve more time at the moment at which the window is revoked: the extension must let nobody in."""
        if (both := await self._more_time(customer, request)) is None:
            return
        window, more = both
        approving = self._clients.act(customer, customer.approvers[-1], "approve", more, SAID)
        revoking = self._clients.act(customer, "tara", "revoke", window, SAID)
        done = await asyncio.gather(revoking, approving)
        if done[0] is None:
            return
        self._ended(more)
        found = await self._clients.call(customer, "tara", "GET", f"/v1/requests/{more['id']}")
        if found and found["state"] == "active":
            self._journal.surprises.append(f"{more['id']} is open, and what it extends was revoked")
        elif found:
            self._journal.seen[Sight.EXTENSION_ENDED] += 1

    async def _later(self, customer: ChaosCustomer, _: Request) -> None:
        begins = seconds_ahead(LATER_SECONDS)
        request = await self._opener.submit(customer, uuid4().hex, refusals=TOO_LATE_TO_BEGIN, not_before=begins)
        if request and await self._opener.open(customer, request):
            self._journal.seen[Sight.LATER] += 1
            await asyncio.sleep(LATER_SECONDS)

    async def _case_closed(self, customer: ChaosCustomer, _: Request) -> None:
        """Close a case that has a window and a request, while the request is being approved; both end."""
        case = uuid4().hex
        of_case: dict[str, Any] = {"case_ref": case, "case_system": HELPDESK}
        one, other = [await self._opener.submit(customer, uuid4().hex, **of_case) for _ in range(2)]
        if not (one and other):
            return
        await self._opener.open(customer, one)
        closing = self._clients.call(customer, DESK, "POST", f"/v1/cases/{HELPDESK}/{case}/closed")
        answer, _approved = await asyncio.gather(
            closing, self._clients.act(customer, customer.approvers[-1], "approve", other, SAID)
        )
        for request in (one, other) if answer else ():
            self._ended(request)
            found = await self._clients.call(customer, "tara", "GET", f"/v1/requests/{request['id']}")
            if found and found["state"] in OPEN and deadline(found) > time.time():
                self._journal.surprises.append(f"{request['id']} is open, and its case was closed")
            elif found and found["state"] in BY_CASE:
                self._journal.seen[BY_CASE[found["state"]]] += 1

    async def _pre_approved(self, customer: ChaosCustomer, _: Request) -> None:
        """Use a pre-approval more often at once than it allows, and revoke it while a request is submitted."""
        key, at = uuid4().hex, f"/v1/tenants/{customer.slug}/pre-approvals"
        rule = {
            "service": SERVICE,
            "resource": f"mailbox:{key}-*",
            "actions": ["read"],
            "reason_code": "support_case",
            "access_window": ACCESS_SECONDS,
            "max_uses": USES,
            "ends_at": seconds_ahead(ENDS_SECONDS),
        }
        made = await self._clients.call(customer, "tara", "POST", at, rule)
        if not made or not await self._clients.call(customer, "ann", "POST", f"{at}/{made['id']}/approve", SAID):
            return
        tries = (self._opener.submit(customer, f"{key}-{number}") for number in range(USES + 1))
        found = [one for one in await asyncio.gather(*tries) if one]
        by_it = [one for one in found if one["state"] == "active"]
        if len(by_it) > USES:
            self._journal.surprises.append(f"pre-approval {made['id']} was used {len(by_it)} times")
        self._journal.seen[Sight.PRE_APPROVED] += len(by_it)
        self._journal.seen[Sight.USED_UP] += len(by_it) == USES < len(found)
        for one in by_it:
            self._prober.heat(one["resources"][0])
        await asyncio.sleep(1)
        revoking = self._clients.call(customer, "ann", "POST", f"{at}/{made['id']}/revoke", SAID)
        revoked, _again = await asyncio.gather(revoking, self._opener.submit(customer, f"{key}-again"))
        if revoked:
            self._journal.seen[Sight.PRE_APPROVAL_REVOKED] += bool(by_it)
            for one in by_it:
                self._ended(one)

    async def _broken_glass(self, customer: ChaosCustomer, _: Request) -> None:
        """Open a window by break-glass, revoke it, and give the finding that it was justified."""
        if window := await self._glass(customer):
            self._prober.heat(window["resources"][0])
            await asyncio.sleep(1)
            await self._clients.act(customer, "ann", "revoke", window, SAID)
            await self._found(customer, window)

    async def _owing(self, customer: ChaosCustomer, _: Request) -> None:
        """Request break-glass while a finding is overdue."""
        refusals = {NOT_MET: Sight.GLASS_OVERDUE}
        asked = await self._opener.submit(customer, uuid4().hex, refusals=refusals, break_glass=True)
        if asked:
            self._journal.surprises.append(f"{asked['id']} was taken for break-glass though a finding is overdue")

    async def _stopped(self, customer: ChaosCustomer, _: Request) -> None:
        """Begin an emergency stop while break-glass is tried; try again during the stop and after its end.

        Postgres shows afterwards whether anything was opened between a stop and its end: an act whose answer was lost
        may take effect late.
        """
        at = f"/v1/tenants/{customer.slug}/emergency-stop"
        refusals = {NOT_MET: Sight.GLASS_STOPPED}
        async with self._stopping:
            asked = await self._opener.submit(customer, uuid4().hex, refusals=refusals, break_glass=True)
            if asked is None:
                return
            self._prober.heat(asked["resources"][0])
            opening = self._clients.act(customer, "max", "break_glass", asked, SAID, refusals)
            stopping = self._clients.call(customer, "tara", "POST", at, SAID)
            *opened, stopped = await asyncio.gather(opening, self._glass(customer, refusals), stopping)
            if stopped is not None:
                self._ended(asked)
                await self._opener.submit(customer, uuid4().hex, refusals=refusals, break_glass=True)
            await self._clients.call(customer, "tara", "DELETE", at, refusals=NO_STOP)
            again = await self._glass(customer, refusals)
            self._journal.seen[Sight.GLASS_AFTER_STOP] += bool(again)
            for window in filter(None, (*opened, again)):
                await self._clients.act(customer, "ann", "revoke", window, SAID)
                await self._found(customer, window)

    async def _steps(self, customer: ChaosCustomer, request: Request) -> None:
        """Approve for a later step before its turn, at the same moment as for the earlier step, and in turn."""
        *_, last = customer.approvers
        refusals = {EARLIER_STEP: Sight.BEFORE_ITS_STEP}
        await self._clients.act(customer, last, "approve", request, SAID, refusals)
        await asyncio.gather(
            *(self._clients.act(customer, who, "approve", request, SAID, refusals) for who in customer.approvers)
        )
        await self._clients.act(customer, last, "approve", request, SAID, refusals)

    async def _acknowledged(self, customer: ChaosCustomer, _: Request) -> None:
        body = {"version": EXCLUSIONS}
        if await self._clients.call(customer, "tara", "PUT", f"/v1/tenants/{customer.slug}/exclusions", body):
            self._journal.seen[Sight.ACKNOWLEDGED] += 1

    async def _glass(self, customer: ChaosCustomer, refusals: Refusals = TOO_OFTEN) -> Request | None:
        """Submit with break-glass and have a manager open it; None if the customer does not allow it again."""
        asked = await self._opener.submit(customer, uuid4().hex, refusals=refusals, break_glass=True)
        opened = asked and await self._clients.act(customer, "max", "break_glass", asked, SAID, refusals)
        self._journal.seen[Sight.GLASS] += bool(opened)
        return opened or None

    async def _found(self, customer: ChaosCustomer, window: Request) -> None:
        path = f"/v1/requests/{window['id']}/finding"
        if await self._clients.call(customer, "ann", "POST", path, FINDING):
            self._journal.seen[Sight.FOUND] += 1
            self._journal.findings.append(UUID(window["id"]))

    def _ended(self, request: Request) -> None:
        """Note that a request has ended because something else ended."""
        self._journal.ended[UUID(request["id"])] = time.time()
