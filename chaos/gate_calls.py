"""The prober's calls: it asks the gate as nginx does, and calls the service behind the guard as a client does."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote
from uuid import UUID

import httpx

from chaos.gate_history import GATE, GateYes, ProbedCall, RecordedAnswer

ANSWER_SECONDS = 4.0
ENGINEER = "lockbox-engineer"
ACTIONS = {"GET": "read", "DELETE": "change"}
METHODS = {action: method for method, action in ACTIONS.items()}
OK = 200
NAMES = ("tenant", "service", "resource", "action")


@dataclass(frozen=True)
class GateAddresses:
    """Where the API and the guarded service are, and the tokens of the gateway and of the guard."""

    api: str
    guarded: str
    gateway_token: str
    guard_token: str


class ProbeClient:
    """Asks the gate and the guard over HTTP; `engineers` are the names by which gateways know them."""

    def __init__(self, addresses: GateAddresses, engineers: Mapping[UUID, str]) -> None:
        self._addresses = addresses
        self._engineers = engineers
        self._http = httpx.AsyncClient(
            timeout=ANSWER_SECONDS,
            trust_env=False,
            limits=httpx.Limits(max_connections=60, max_keepalive_connections=20),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ask(self, door: str, call: ProbedCall) -> RecordedAnswer:
        """Ask about a call, and return the answer with the moments before and after."""
        request = self._for_gate(call) if door == GATE else self._for_guard(call)
        began = time.monotonic()
        try:
            answer = await self._http.send(request)
        except httpx.HTTPError as error:
            return RecordedAnswer(door, call, began, time.monotonic(), 0, type(error).__name__)
        ended = time.monotonic()
        if answer.status_code != OK:
            return RecordedAnswer(
                door, call, began, ended, answer.status_code, answer.headers.get("lockbox-reason", "")
            )
        said = _of_gate(answer.headers) if door == GATE else answer.json()
        try:
            yes = _read(said)
        except (KeyError, ValueError, TypeError):
            return RecordedAnswer(door, call, began, ended, OK, answer.headers.get("lockbox-decision", "unreadable"))
        return RecordedAnswer(door, call, began, ended, OK, yes=yes)

    def _for_gate(self, call: ProbedCall) -> httpx.Request:
        headers = {
            "lockbox-gateway": self._addresses.gateway_token,
            "x-original-method": METHODS[call.action],
            "x-original-uri": f"/mailboxes/{_address(call)}",
            "x-original-host": f"{call.tenant}.mail.example",
            ENGINEER: self._engineers[call.engineer],
        }
        return self._http.build_request("GET", f"{self._addresses.api}/gate/v1/{call.service}", headers=headers)

    def _for_guard(self, call: ProbedCall) -> httpx.Request:
        url = f"{self._addresses.guarded}/{call.tenant}/{call.service}/mailboxes/{_address(call)}"
        headers = {ENGINEER: self._engineers[call.engineer]}
        return self._http.build_request(METHODS[call.action], url, headers=headers)


def _address(call: ProbedCall) -> str:
    return call.resource.removeprefix("mailbox:")


def _of_gate(headers: httpx.Headers) -> dict[str, str]:
    names = ("decision", "request", "engineer", "until", *NAMES)
    said = {name: headers[f"lockbox-{name}"] for name in names if f"lockbox-{name}" in headers}
    if said.get("decision") != "allow":
        return {}
    return said | {"resource": unquote(said.get("resource", ""))}


def _read(said: Mapping[str, str]) -> GateYes:
    tenant, service, resource, action = (said[name] for name in NAMES)
    call = ProbedCall(tenant, service, resource, action, UUID(said["engineer"]))
    return GateYes(UUID(said["request"]), call, datetime.fromisoformat(said["until"]))
