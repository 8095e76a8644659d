"""Questions to Lockbox about one call: its caller, and whether a window is open."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote
from uuid import UUID

import httpx

from lockbox_guard.connection import CREDENTIAL, GuardToken, LockboxAddress
from lockbox_guard.database_clock import DatabaseClock, microseconds, read_instant
from lockbox_guard.decisions import SENTENCES, Allowed, NoAccess, Use
from lockbox_guard.knowledge import KnownCaller

ASK_SECONDS = 2.0
MOST_CONNECTIONS = 64
LONGEST_PROOF = 8192
AUTHORIZATION = "authorization"
AT = "lockbox-at"
"""The header with the database's time in an answer that allows a call."""
BEHIND = NoAccess("behind")


@dataclass(frozen=True, slots=True)
class CallerProof:
    """A header that proves the caller to Lockbox, and its digest. The header's value is never logged."""

    header: str
    value: str
    digest: bytes

    def __repr__(self) -> str:
        """Leave the value out."""
        return f"CallerProof({self.header})"


def proof_of(header: str, value: str) -> CallerProof | None:
    """Return the proof; None if no header can hold the value."""
    if not 0 < len(value) <= LONGEST_PROOF or value != value.strip():
        return None
    if not value.isascii() or not value.isprintable():
        return None
    return CallerProof(header, value, hashlib.sha256(f"{header}:{value}".encode()).digest())


class RemoteLockbox:
    """Lockbox over the network. Everything but a clear yes, to exactly this question and in time, is a no.

    The clock learns the database's time from a yes.
    """

    def __init__(self, address: LockboxAddress, credential: GuardToken, clock: DatabaseClock) -> None:
        self._credential = credential
        self._clock = clock
        self._client = address.client(connections=MOST_CONNECTIONS)

    async def close(self) -> None:
        await self._client.aclose()

    async def engineer(self, service: str, proof: CallerProof) -> KnownCaller | NoAccess:
        try:
            answer = await self._get(f"/gate/v1/{quote(service, safe='')}/engineer", {}, proof)
            if answer.status_code != httpx.codes.OK:
                return _no(answer)
            said = answer.json()
            end = microseconds(read_instant(said["until"]))
            if said.get("not_applicable") is True and "engineer" not in said:
                return KnownCaller(None, end)
            return KnownCaller(UUID(said["engineer"]), end)
        except (httpx.HTTPError, TimeoutError, OSError, ValueError, KeyError, TypeError, AttributeError):
            return BEHIND

    async def check(self, use: Use, caller: CallerProof | UUID) -> Allowed | NoAccess:
        """Ask whether a window is open for this use by the call's caller, or by an engineer."""
        asked = {"tenant": use.tenant, "resource": use.resource, "action": use.action}
        proof, engineer = (None, caller) if isinstance(caller, UUID) else (caller, None)
        asked |= {"engineer": str(engineer)} if engineer else {}
        sent = self._clock.moment()
        try:
            answer = await self._get(f"/gate/v1/{quote(use.service, safe='')}/check", asked, proof)
            if answer.status_code != httpx.codes.OK:
                return _no(answer)
            yes = self._yes(answer.headers, use, sent)
        except (httpx.HTTPError, TimeoutError, OSError, ValueError, KeyError):
            return BEHIND
        is_of_another = engineer is not None and isinstance(yes, Allowed) and yes.engineer != engineer
        return BEHIND if is_of_another else yes

    def _yes(self, headers: httpx.Headers, use: Use, sent: float) -> Allowed | NoAccess:
        yes = _read_yes(headers, use)
        if yes is not BEHIND and AT in headers:
            self._clock.bound(sent, microseconds(read_instant(headers[AT])))
        return yes

    async def _get(self, path: str, asked: Mapping[str, str], proof: CallerProof | None) -> httpx.Response:
        headers = {CREDENTIAL: self._credential.read()} | ({proof.header: proof.value} if proof else {})
        async with asyncio.timeout(ASK_SECONDS):
            return await self._client.get(path, params=asked, headers=headers)


def _read_yes(headers: httpx.Headers, use: Use) -> Allowed | NoAccess:
    if headers["lockbox-decision"] == "not-applicable":
        return Allowed(use)
    said = [headers[f"lockbox-{name}"] for name in ("decision", "tenant", "service", "action")]
    if said != ["allow", use.tenant, use.service, use.action] or unquote(headers["lockbox-resource"]) != use.resource:
        return BEHIND
    return Allowed(
        use,
        UUID(headers["lockbox-request"]),
        UUID(headers["lockbox-engineer"]),
        read_instant(headers["lockbox-until"]),
        break_glass=headers.get("lockbox-break-glass") == "true",
    )


def _no(answer: httpx.Response) -> NoAccess:
    reason = answer.headers.get("lockbox-reason", "")
    if answer.status_code not in {401, 403} or reason not in SENTENCES:
        return BEHIND
    said: Any = {}
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        said = json.loads(answer.content)
    detail, form = (said.get(name) if isinstance(said, dict) else None for name in ("detail", "request_form"))
    return NoAccess(reason, detail if isinstance(detail, str) else "", form if isinstance(form, str) else None)
