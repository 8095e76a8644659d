"""Answer AuthZEN evaluations by the same rules as the gate."""

import asyncio
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from catalogue.gate_document import SLUG, TenantSource
from catalogue.service_catalogue import Service
from gate import answers
from gate.answers import Denial, GateReason
from gate.app import AllowedCall
from gate.call_counts import CallCounts, CountedCall, GateDecision
from gate.credentials import GatewayCredential, GatewayCredentials
from gate.dialects import Dialect
from gate.engineers import UNKNOWN
from gate.identity_map import HEADER, IdentityMap, MapUnreadable
from gate.window_checks import WindowChecks
from lockbox.errors import Busy
from lockbox.identity.credentials import LONGEST_GATE_SUBJECT
from lockbox.requests.access_check import AccessCheck, UsingCaller
from lockbox.text_rules import UUID_FORM, check_resource

MOST_EVALUATIONS = 50
"""How many evaluations one question may contain."""
BATCH_SECONDS = 2.0
"""The seconds within which evaluations made one after another must begin; later evaluations are refused."""
USER, PERSON = "user", "person"
SUBJECT = re.compile(r"[!-~](?:[ -~]*[!-~])?")
UNBOUND = "The catalogue has no gate for the service that this token is bound to."
NO_ACTION = "This is none of the service's actions in the catalogue: set action.name to one of them."
NO_TENANT = "Set resource.properties.tenant to the slug of the tenant that the resource belongs to."
OTHER_TENANT = "The service serves another tenant than resource.properties.tenant says."
NO_RESOURCE = "Set resource.type and resource.id so that type:id is a resource as engineers request it."
NO_SUBJECT = "Set subject.type to user or person, and subject.id to the subject at the issuer or the person's id."


class EvaluationsSemantic(StrEnum):
    """How many of the evaluations of one question are made."""

    EXECUTE_ALL = "execute_all"
    DENY_ON_FIRST_DENY = "deny_on_first_deny"
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"


@dataclass(frozen=True, slots=True)
class AuthzenEntity:
    type: str
    id: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AuthzenQuestion:
    subject: AuthzenEntity
    action: str
    resource: AuthzenEntity


class DecisionPoint:
    """Decides for programs with a token of the scope `gate:authzen`, on one event loop.

    The tenant is fixed in the catalogue, or named by the resource's properties. `context` is ignored, because
    programs often fill it with their users' input.
    """

    def __init__(
        self,
        *,
        services: Mapping[str, Service],
        issuers: Collection[str],
        credentials: GatewayCredentials,
        identities: IdentityMap,
        checks: WindowChecks,
        counts: CallCounts,
        public_url: str,
    ) -> None:
        self._counts = counts
        self._services = services
        self._issuers = frozenset(issuers)
        self._credentials = credentials
        self._identities = identities
        self._checks = checks
        self._public_url = public_url.rstrip("/")

    async def credential(self, shown: str) -> GatewayCredential | GateReason:
        """Returns `malformed` for a gateway's token."""
        found = await self._credentials.find(shown.encode("latin-1"))
        if isinstance(found, GatewayCredential) and found.dialect is not Dialect.AUTHZEN:
            return GateReason.MALFORMED
        return found

    async def decide(self, credential: GatewayCredential, asked: AuthzenQuestion | Denial) -> AllowedCall | Denial:
        """Decide and count. If `asked` is a Denial, it is only counted."""
        name = _bound_service(credential)
        call = CountedCall(credential.account_id, name if name in self._services else "")
        found = asked if isinstance(asked, Denial) else await self._decide(credential, asked, call)
        if isinstance(found, AllowedCall):
            window = found.window
            self._counts.count_use(call, found.question, window.request_id, is_same_use=window.is_same_use)
        else:
            self._counts.count(call, GateDecision.DENY, found.reason)
        return found

    async def _decide(
        self, credential: GatewayCredential, asked: AuthzenQuestion, call: CountedCall
    ) -> AllowedCall | Denial:
        read = self._read(credential, asked)
        if isinstance(read, Denial):
            return read
        if not self._checks.is_ready:
            return Denial(GateReason.BEHIND)
        engineer = await self._engineer(credential, asked.subject)
        if isinstance(engineer, Denial):
            return engineer
        tenant, service = read
        question = AccessCheck(tenant, service, f"{asked.resource.type}:{asked.resource.id}", asked.action, engineer)
        call.question = question
        answer = await self._checks.check(question, UsingCaller(credential.account_id))
        if isinstance(answer, GateReason):
            return Denial(answer, form=answers.form_for(self._public_url, question, answer))
        return AllowedCall(question, answer)

    async def decide_all(
        self,
        credential: GatewayCredential,
        asked: Sequence[AuthzenQuestion | Denial],
        semantic: EvaluationsSemantic,
    ) -> list[AllowedCall | Denial]:
        if semantic is EvaluationsSemantic.EXECUTE_ALL:
            return list(await asyncio.gather(*(self.decide(credential, one) for one in asked)))
        ends_on_a_yes = semantic is EvaluationsSemantic.PERMIT_ON_FIRST_PERMIT
        until = time.monotonic() + BATCH_SECONDS
        found: list[AllowedCall | Denial] = []
        for one in asked:
            is_late = time.monotonic() > until
            found.append(await self.decide(credential, Denial(GateReason.BEHIND) if is_late else one))
            if isinstance(found[-1], AllowedCall) is ends_on_a_yes:
                break
        return found

    def _read(self, credential: GatewayCredential, asked: AuthzenQuestion) -> tuple[str, str] | Denial:
        name = _bound_service(credential)
        service = self._services.get(name)
        if service is None or service.gate is None:
            return Denial(GateReason.UNMAPPED, UNBOUND)
        if asked.action not in service.actions:
            return Denial(GateReason.UNMAPPED, NO_ACTION)
        if not _is_resource(asked.resource):
            return Denial(GateReason.UNMAPPED, NO_RESOURCE)
        tenant = _tenant(service.gate.tenant, asked.resource.properties)
        return tenant if isinstance(tenant, Denial) else (tenant, name)

    async def _engineer(self, credential: GatewayCredential, subject: AuthzenEntity) -> UUID | Denial:
        if subject.type == PERSON:
            is_id = UUID_FORM.fullmatch(subject.id)
            return UUID(subject.id) if is_id else Denial(GateReason.UNKNOWN_ENGINEER, NO_SUBJECT)
        if subject.type != USER or len(subject.id) > LONGEST_GATE_SUBJECT or not SUBJECT.fullmatch(subject.id):
            return Denial(GateReason.UNKNOWN_ENGINEER, NO_SUBJECT)
        issuer = self._issuer(credential, subject)
        try:
            found = await self._identities.engineer((issuer, subject.id, None)) if issuer else None
        except MapUnreadable:
            return Denial(GateReason.BEHIND)
        except Busy:
            return Denial(GateReason.BUSY)
        return found or Denial(GateReason.UNKNOWN_ENGINEER, UNKNOWN)

    def _issuer(self, credential: GatewayCredential, subject: AuthzenEntity) -> str | None:
        # With another `sub` in the claims, the id is a name that people may choose, perhaps another person's `sub`.
        if subject.properties.get("sub", subject.id) != subject.id:
            return None
        if "iss" not in subject.properties:
            return f"{HEADER}{credential.account_id}"
        return next((known for known in self._issuers if known == subject.properties["iss"]), None)


def _bound_service(credential: GatewayCredential) -> str:
    return next(iter(credential.services)) if len(credential.services) == 1 else ""


def _tenant(source: TenantSource, properties: Mapping[str, Any]) -> str | Denial:
    said = properties.get("tenant", source.fixed)
    if not isinstance(said, str) or not SLUG.fullmatch(said):
        return Denial(GateReason.UNMAPPED, NO_TENANT)
    if source.fixed is not None and said != source.fixed:
        return Denial(GateReason.UNMAPPED, OTHER_TENANT)
    return said


def _is_resource(resource: AuthzenEntity) -> bool:
    try:
        return ":" not in resource.type and bool(check_resource(f"{resource.type}:{resource.id}"))
    except ValueError:
        return False
