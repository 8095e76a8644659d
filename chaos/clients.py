"""People as clients of the API: they try again as long as the outcome is unknown, and note what was acknowledged."""

import asyncio
import random
import statistics
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import httpx

from chaos.journal import CONFLICT, DONE, AcknowledgedAct, AttemptedAct, Journal, Sight
from chaos.people import ChaosCustomer, ChaosPeople
from harness.people import question

ANSWER_SECONDS = 4.0
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.5, 2.0, 2.0, 2.0)
UNAVAILABLE = 503
FAILED = 500
# Statuses that a client may get if it repeats a call, comes too late, or is in a race.
ORDINARY = {*DONE, 409, 412, UNAVAILABLE}
IN_USE, SUSPENDED = "key-in-use", "tenant-suspended"
FIRST_GUESS, LONGEST_GUESS = 0.02, 1.0
NEWEST = 15
Refusals = Mapping[str, Sight | None]
"""Codes of refusals that are correct, and what each of them shows."""
TOO_LATE_TO_BEGIN: Refusals = {"policy-not-met": None}
"""Access cannot begin in the past, and an answer may come only after the requested start."""
NONE: Refusals = MappingProxyType({})


@dataclass(frozen=True)
class LastAnswer:
    """The last answer of several tries (None if none came), and when that try was sent and answered."""

    answer: httpx.Response | None
    sent: float
    at: float

    @property
    def status(self) -> int:
        """The answer's status; 0 if no answer came."""
        return self.answer.status_code if self.answer else 0

    @property
    def found(self) -> dict[str, Any] | None:
        """What was acknowledged; None if it was refused, or if the outcome is unknown."""
        if self.answer is None or self.status not in DONE:
            return None
        body: dict[str, Any] = self.answer.json() if self.answer.content else {}
        return body

    @property
    def late(self) -> bool:
        """Whether it was refused because its time had run out, whichever process noticed that first."""
        if self.answer is None or self.status != CONFLICT:
            return False
        said = self.answer.json()
        return said["code"] == "too-late" or said.get("current_state") in {"timed_out", "expired"}


class Clients:
    """How everyone calls the API."""

    def __init__(self, url: str, cast: ChaosPeople, journal: Journal) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=ANSWER_SECONDS,
            trust_env=False,
            limits=httpx.Limits(max_connections=200, max_keepalive_connections=40),
        )
        self._cast = cast
        self._journal = journal
        self._took: deque[float] = deque([FIRST_GUESS], NEWEST)

    @property
    def usual(self) -> float:
        """How many seconds an act takes at present, for callers that aim at a moment."""
        return min(statistics.median(self._took), LONGEST_GUESS)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def file(  # noqa: PLR0917 - a submission has this many parts
        self,
        customer: ChaosCustomer,
        resource: str,
        body: Mapping[str, Any],
        key: str,
        who: str = "erin",
        refusals: Refusals = NONE,
    ) -> dict[str, Any] | None:
        """Submit a request with a key, and return it once it is acknowledged."""
        self._journal.resources[resource] = customer.tenant_id
        return await self._submitted(customer, who, "/v1/requests", body, key, refusals)

    async def extend(
        self, customer: ChaosCustomer, window: Mapping[str, Any], seconds: int, key: str, who: str = "erin"
    ) -> dict[str, Any] | None:
        """Request more time for an open window, and return that request once it is acknowledged."""
        return await self._submitted(
            customer, who, f"/v1/requests/{window['id']}/extend", {"access_window": seconds}, key, NONE
        )

    async def _submitted(  # noqa: PLR0917 - a submission has this many parts
        self,
        customer: ChaosCustomer,
        who: str,
        path: str,
        body: Mapping[str, Any],
        key: str,
        refusals: Refusals,
    ) -> dict[str, Any] | None:
        began = time.time()
        headers = {"idempotency-key": key}
        tried = await self._tried(customer, who, "POST", path, body=body, headers=headers, refusals=refusals)
        if found := tried.found:
            self._journal.acts.append(
                AttemptedAct(UUID(found["id"]), "submit", who, tried.status, tried.sent, tried.at)
            )
            self._note(found, customer, "submit", who, began)
        return found

    async def act(  # noqa: PLR0917 - an act has this many parts
        self,
        customer: ChaosCustomer,
        who: str,
        action: str,
        request: Mapping[str, Any],
        body: Mapping[str, Any] | None = None,
        refusals: Refusals = NONE,
    ) -> dict[str, Any] | None:
        """Act on a request, and return it once acknowledged; None if it was refused, or if the outcome is unknown."""
        began = time.time()
        path = f"/v1/requests/{request['id']}/{action.replace('_', '-')}"
        tried = await self._tried(customer, who, "POST", path, body=body or {}, refusals=refusals)
        times = tried.sent, tried.at, deadline(request), tried.late
        self._journal.acts.append(AttemptedAct(UUID(request["id"]), action, who, tried.status, *times))
        if found := tried.found:
            self._took.append(tried.at - tried.sent)
            self._note(found, customer, action, who, began)
        return found

    async def look(self, customer: ChaosCustomer, who: str, path: str, expected: tuple[int, ...] = (200,)) -> None:
        """Read something; any status that is not expected is a surprise."""
        tried = await self._tried(customer, who, "GET", path)
        if tried.status not in {0, *expected}:
            self._journal.surprises.append(f"GET {path} by {who}: {tried.status}")

    async def call(  # noqa: PLR0917 - a call has this many parts
        self,
        customer: ChaosCustomer,
        who: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        refusals: Refusals = NONE,
    ) -> dict[str, Any] | None:
        """Make another call, and return the answer; None if it was refused, or if the outcome is unknown."""
        return (await self._tried(customer, who, method, path, body=body, refusals=refusals)).found

    async def ask(self, customer: ChaosCustomer, resource: str) -> tuple[int, str]:
        """Check access as a guarded system does; return the status (0 without an answer) and the body."""
        params = question(customer.slug, customer.people["erin"], resource)
        headers = {"authorization": f"Bearer {customer.tokens['gate']}"}
        try:
            answer = await self._http.get("/v1/access", params=params, headers=headers)
        except httpx.HTTPError:
            return 0, ""
        return answer.status_code, answer.text

    async def _tried(
        self,
        customer: ChaosCustomer,
        who: str,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        refusals: Refusals = NONE,
    ) -> LastAnswer:
        """Try until an answer decides the outcome, or until patience runs out."""
        shown = {"authorization": f"Bearer {customer.tokens[who]}", **(headers or {})}
        sent = time.time()
        for pause in PAUSES:
            sent = time.time()
            try:
                answer = await self._http.request(method, path, json=body, headers=shown)
            except httpx.HTTPError:
                self._journal.statuses[0] += 1
            else:
                self._journal.statuses[answer.status_code] += 1
                self._examine(customer, who, method, path, answer, refusals)
                if answer.status_code < FAILED and IN_USE not in answer.text:
                    return LastAnswer(answer, sent, time.time())
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 - a pause
        return LastAnswer(None, sent, time.time())

    def _examine(  # noqa: PLR0917 - an answer comes with these facts
        self,
        customer: ChaosCustomer,
        who: str,
        method: str,
        path: str,
        answer: httpx.Response,
        refusals: Refusals,
    ) -> None:
        status = answer.status_code
        if refusals and status not in DONE and (code := answer.json().get("code")) in refusals:
            if (sight := refusals[code]) is not None:
                self._journal.seen[sight] += 1
            return
        # A reviewer can do nothing more with a request that has passed the review.
        is_past = who == "max" and status == httpx.codes.FORBIDDEN
        # A suspension whose answer was lost may come into force late.
        is_suspended = customer.is_suspended_at_times and SUSPENDED in answer.text
        if not (status in ORDINARY or is_past or is_suspended or (method == "GET" and status < FAILED)):
            self._journal.surprises.append(f"{method} {path} by {who}: {status} {answer.text[:200]}")
        if who in {"tara", "ann", "amir", "aude"}:
            others = [one for one in self._cast.customers if one is not customer]
            shown = [one.slug for one in others if one.slug in answer.text or str(one.tenant_id) in answer.text]
            self._journal.foreign += [f"{who} of {customer.slug} saw {slug} at {path}" for slug in shown]

    def _note(self, found: Mapping[str, Any], customer: ChaosCustomer, action: str, who: str, sent: float) -> None:
        self._journal.acknowledged.append(
            AcknowledgedAct(
                UUID(found["id"]),
                customer.tenant_id,
                action,
                customer.people[who],
                found["version"],
                sent,
                time.time(),
            )
        )


def seconds_ahead(seconds: float) -> str:
    """Return the moment this many seconds ahead by the wall clock, in the API's format."""
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()


def deadline(request: Mapping[str, Any]) -> float:
    """Return the deadline that a request had when it was last seen, by the wall clock."""
    return datetime.fromisoformat(request["deadline_at"]).timestamp()
