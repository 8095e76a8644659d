"""Answer guards, which run inside a service."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from catalogue.gate_document import SLUG
from catalogue.service_catalogue import Service
from gate import answers, dialects
from gate.answers import Denial, GateReason, RefusedCall, written
from gate.app import CREDENTIAL, AllowedCall, Gate
from gate.call import Receive, Scope, Send, SentHeaders
from gate.call_counts import CountedCall
from gate.credentials import GatewayCredential
from gate.dialects import GateQuestion, MalformedQuestion
from gate.engineers import EngineerCall, NotApplicable
from gate.stream import WindowStreams
from gate.window_memory import FRESH_SECONDS, WindowMemory
from lockbox.requests.access_check import AccessCheck, UsingCaller
from lockbox.text_rules import UUID_FORM, check_resource

STREAM, ENGINEER, CHECK = ("stream", b""), b"/engineer", b"/check"
ENGINEER_SECONDS = timedelta(seconds=60)
"""How long a guard may remember the engineer of a token, without a `forget`."""
ASKED, ENGINEER_ID = frozenset({"tenant", "resource", "action"}), "engineer"
NOT_BOUND = "The guard's token is not bound to this service, or the catalogue has no such service."
NO_ADDRESS = "A guard asks at /gate/v1/stream, /gate/v1/SERVICE/engineer or /gate/v1/SERVICE/check."
NOT_ONCE = "Send tenant, resource and action, and engineer if you know the id, each exactly once and with a value."
SEVERAL_WAYS = "Say who calls in one way: by engineer, or by what the call shows."


class GuardCalls:
    def __init__(
        self, gate: Gate, streams: WindowStreams, services: Mapping[str, Service], memory: WindowMemory
    ) -> None:
        self._gate = gate
        self._streams = streams
        self._services = services
        self._memory = memory

    async def answer(
        self, scope: Scope, receive: Receive, send: Send, credential: GatewayCredential, call: CountedCall
    ) -> AllowedCall | NotApplicable | None:
        """Return why the guard's call is admitted, for the gate to answer; None if the answer is already sent."""
        service, rest, query = dialects.asked_at(scope)
        headers = SentHeaders(scope["headers"])
        question = GateQuestion(scope["method"], service, rest, query, headers)
        dialects.check_direct(question)
        if (service, rest) == STREAM:
            _has_no_query(question)
            shown = headers.values[CREDENTIAL]
            await self._streams.serve(scope, receive, send, credential=credential, shown=shown)
            return None
        if rest not in {ENGINEER, CHECK}:
            raise MalformedQuestion(NO_ADDRESS)
        if service not in credential.services or service not in self._services:
            raise RefusedCall(Denial(GateReason.UNMAPPED, NOT_BOUND))
        call.service = service
        if rest == ENGINEER:
            _has_no_query(question)
            await answers.state(send, await self._engineer(service, headers, credential, call))
            return None
        return await self._check(question, credential, call)

    async def _engineer(
        self, service: str, headers: SentHeaders, credential: GatewayCredential, call: CountedCall
    ) -> dict[str, Any]:
        found = await self._gate.caller(service, headers, credential, call, anew=True)
        until = self._memory.now() + ENGINEER_SECONDS
        if found.expires_at is not None:
            until = min(until, datetime.fromtimestamp(found.expires_at, UTC))
        said = {"engineer": str(found.person_id)} if isinstance(found, EngineerCall) else {"not_applicable": True}
        return said | {"until": written(until)}

    async def _check(
        self, question: GateQuestion, credential: GatewayCredential, call: CountedCall
    ) -> AllowedCall | NotApplicable:
        service = question.service
        asked = _asked(question.query or b"", self._services[service])
        if ENGINEER_ID in asked:
            engineer = self._named(service, asked[ENGINEER_ID], question.headers)
        else:
            found = await self._gate.caller(service, question.headers, credential, call)
            if isinstance(found, NotApplicable):
                return found
            engineer = found.person_id
        use = AccessCheck(asked["tenant"], service, asked["resource"], asked["action"], engineer)
        # After an older read no time is given: the database's clock may have been set forward since.
        at = self._memory.now() if self._memory.age < FRESH_SECONDS else None
        return (await self._gate.check(use, UsingCaller(credential.account_id), call))._replace(at=at)

    def _named(self, service: str, engineer: str, headers: SentHeaders) -> UUID:
        if self._gate.shows_caller(service, headers):
            raise MalformedQuestion(SEVERAL_WAYS)
        if not UUID_FORM.fullmatch(engineer):
            raise RefusedCall(Denial(GateReason.UNKNOWN_ENGINEER))
        return UUID(engineer)


def _has_no_query(question: GateQuestion) -> None:
    if question.query:
        raise MalformedQuestion("This address takes no parameters.")


def _asked(query: bytes, service: Service) -> dict[str, str]:
    try:
        pairs = parse_qsl(query.decode("ascii"), strict_parsing=True, errors="strict", max_num_fields=len(ASKED) + 1)
    except ValueError:
        raise MalformedQuestion(NOT_ONCE) from None
    asked = dict(pairs)
    if len(pairs) != len(asked) or asked.keys() - {ENGINEER_ID} != ASKED:
        raise MalformedQuestion(NOT_ONCE)
    if SLUG.fullmatch(asked["tenant"]) is None:
        raise MalformedQuestion("The tenant must be a slug: small letters, digits and hyphens only.")
    try:
        check_resource(asked["resource"])
    except ValueError as unfit:
        raise MalformedQuestion(f"The resource is refused: {unfit}.") from None
    if asked["action"] not in service.actions:
        raise RefusedCall(Denial(GateReason.UNMAPPED, "The service has no such action in the catalogue."))
    return asked
