"""Answer gateways at /gate/v1/{service}.

The gate is an ASGI callable in front of the API. It uses neither the API's threads nor its checks.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import NamedTuple

import structlog

from gate import answers, dialects
from gate.answers import REPORTABLE, Denial, GateReason, GrantedAccess, RefusedCall
from gate.call import AsgiApp, Receive, Scope, Send, SentHeaders, call_end
from gate.call_counts import (
    MOST_OF_A_CALLER,
    MOST_OF_A_PATH,
    CallCounts,
    CountedCall,
    GateDecision,
    ReportedCall,
    kept,
)
from gate.credentials import GatewayCredential, GatewayCredentials
from gate.dialects import ROOT, Dialect, GateQuestion, MalformedQuestion
from gate.enforcement import EnforcementMemory
from gate.engineers import EngineerCall, EngineerResolver, NotApplicable, UnidentifiedCall
from gate.mapping import GateCall, MappedCall, MappingRefused, ServiceMapping
from gate.window_checks import WindowChecks
from lockbox.requests.access_check import AccessCheck, UsingCaller

log = structlog.get_logger(__name__)

CREDENTIAL = b"lockbox-gateway"
ACCEPT = b"accept"
HTML = b"text/html"
METHOD = re.compile(r"[A-Z]{1,20}")


class AllowedCall(NamedTuple):
    """`at` is the database's time, which only guards need."""

    question: AccessCheck
    window: GrantedAccess
    at: datetime | None = None


GuardAnswers = Callable[
    [Scope, Receive, Send, GatewayCredential, CountedCall], Awaitable[AllowedCall | NotApplicable | None]
]
"""Return why a guard's call is admitted; None if the answer was already sent. Raise only before answering."""


class Gate:
    """Decides whether a gateway's call is admitted; each event loop has its own gate.

    The header `Lockbox-Gateway` authenticates the gateway; `Authorization` carries the engineer's token.
    """

    def __init__(
        self,
        *,
        mappings: Mapping[str, ServiceMapping],
        engineers: EngineerResolver,
        credentials: GatewayCredentials,
        checks: WindowChecks,
        modes: EnforcementMemory,
        public_url: str,
    ) -> None:
        self._mappings = mappings
        self._engineers = engineers
        self._credentials = credentials
        self._checks = checks
        self._modes = modes
        self._public_url = public_url.rstrip("/")

    async def credential(self, headers: SentHeaders, call: CountedCall) -> GatewayCredential:
        if not self._checks.is_ready:
            raise RefusedCall(Denial(GateReason.BEHIND))
        shown = headers.once(CREDENTIAL)
        if shown is None:
            is_repeated = CREDENTIAL in headers.repeated
            raise RefusedCall(Denial(GateReason.MALFORMED if is_repeated else GateReason.NO_CREDENTIAL))
        found = await self._credentials.find(shown, call.ends)
        if isinstance(found, GateReason):
            raise RefusedCall(Denial(found))
        call.gateway = found.account_id
        return found

    async def decide(
        self, scope: Scope, headers: SentHeaders, credential: GatewayCredential, call: CountedCall
    ) -> AllowedCall | NotApplicable:
        """What the gate learns about the call is stored in `call`. Raises RefusedCall."""
        service, rest, query = dialects.asked_at(scope)
        mapping = self._mapping(credential, service)
        call.service = service
        asked = dialects.read(credential.dialect, GateQuestion(scope["method"], service, rest, query, headers))
        asked_about = GateCall(asked.method, asked.target, asked.host, headers)
        try:
            found = await self.caller(service, headers, credential, call)
            if isinstance(found, NotApplicable):
                return found
            mapped = _mapped(mapping, asked_about)
            asked_for = mapped.tenant_slug, mapped.service, mapped.resource, mapped.action
            caller = UsingCaller(credential.account_id, asked.call)
            return await self.check(AccessCheck(*asked_for, found.person_id), caller, call)
        except RefusedCall as refused:
            only_reports = self._only_reports(refused.denial.reason, call, asked_about)
            raise RefusedCall(refused.denial, only_reports=only_reports) from None

    def _only_reports(self, reason: GateReason, call: CountedCall, asked: GateCall) -> bool:
        """Return whether a denied call is admitted because the gate only reports.

        A call of an unknown tenant is admitted only if the gate only reports for all tenants.
        """
        service = call.service
        if reason not in REPORTABLE or not self._modes.reports_anywhere(service):
            return False
        mapping, caller = self._mappings[service], _caller_of(call)
        try:
            mapped = _mapped(mapping, asked)
        except RefusedCall:
            call.reported = ReportedCall(_path(asked, mapping.outline(asked)), "", caller)
            return self._modes.reports(service, None)
        if reason is GateReason.MALFORMED:
            return False
        call.reported = ReportedCall(_path(asked, mapped.path), mapped.tenant_slug, caller)
        return self._modes.reports(service, mapped.tenant_slug)

    async def caller(
        self,
        service: str,
        headers: SentHeaders,
        credential: GatewayCredential,
        call: CountedCall,
        *,
        anew: bool = False,
    ) -> EngineerCall | NotApplicable:
        """`anew` ignores the cached identity map."""
        found = await self._engineers.identify(service, headers, credential.account_id, anew=anew, ends=call.ends)
        if isinstance(found, UnidentifiedCall):
            call.identity = found.identity
            raise RefusedCall(Denial(found.reason, found.detail))
        return found

    def shows_caller(self, service: str, headers: SentHeaders) -> bool:
        return self._engineers.is_shown(service, headers)

    async def check(self, question: AccessCheck, caller: UsingCaller, call: CountedCall) -> AllowedCall:
        call.question = question
        answer = await self._checks.check(question, caller, call.ends)
        if isinstance(answer, GateReason):
            raise RefusedCall(Denial(answer, form=answers.form_for(self._public_url, question, answer)))
        return AllowedCall(question, answer)

    def _mapping(self, credential: GatewayCredential, service: str) -> ServiceMapping:
        mapping = self._mappings.get(service) if service in credential.services else None
        if mapping is None:
            detail = "The gateway's token is not bound to this service, or the catalogue has no gate for it."
            raise RefusedCall(Denial(GateReason.UNMAPPED, detail))
        return mapping


class GateApp:
    def __init__(self, app: AsgiApp, gate: Gate, counts: CallCounts, guards: GuardAnswers) -> None:
        self._app = app
        self._gate = gate
        self._counts = counts
        self._guards = guards

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["raw_path"].startswith(ROOT):
            await self._app(scope, receive, send)
            return
        call, headers = CountedCall(ends=call_end()), SentHeaders(scope["headers"])
        try:
            credential = await self._gate.credential(headers, call)
            if credential.dialect is Dialect.GUARD:
                found = await self._guards(scope, receive, send, credential, call)
            else:
                found = await self._gate.decide(scope, headers, credential, call)
        except RefusedCall as refused:
            denial = refused.denial
            if refused.only_reports:
                self._counts.count(call, GateDecision.WOULD_DENY, denial.reason)
                await answers.report(send, denial)
                return
        except MalformedQuestion as malformed:
            denial = Denial(GateReason.MALFORMED, str(malformed))
        except Exception:
            # No unknown error may admit a call.
            log.exception("gate.failed")
            denial = Denial(GateReason.BEHIND)
        else:
            if isinstance(found, AllowedCall):
                window = found.window
                self._counts.count_use(call, found.question, window.request_id, is_same_use=window.is_same_use)
                await answers.allow(send, found.question, window, found.at)
            elif found is not None:
                self._counts.count(call, GateDecision.NOT_APPLICABLE)
                await answers.let_pass(send)
            return
        self._counts.count(call, GateDecision.DENY, denial.reason)
        await answers.deny(send, denial, as_page=_wants_page(scope["headers"]))


def _caller_of(call: CountedCall) -> str:
    return str(call.question.engineer) if call.question else kept(call.identity, MOST_OF_A_CALLER)


def _path(asked: GateCall, path: str) -> str:
    return kept(f"{asked.method if METHOD.fullmatch(asked.method) else '{}'} {path}", MOST_OF_A_PATH)


def _mapped(mapping: ServiceMapping, call: GateCall) -> MappedCall:
    try:
        return mapping.map(call)
    except MappingRefused as refused:
        raise RefusedCall(Denial(GateReason(refused.code), _sentence(refused.reason))) from None


def _wants_page(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == ACCEPT and HTML in value for name, value in headers)


def _sentence(reason: str) -> str:
    return f"{reason[0].upper()}{reason[1:].rstrip('.')}."
