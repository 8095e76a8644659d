"""Filing a request: judge what is asked against the tenant's policy, then write it with its first event."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from config.settings import Service
from lockbox.audit.events import Actor
from lockbox.database import now
from lockbox.ids import new_id
from lockbox.notices import outbox
from lockbox.notices.outbox import Directory
from lockbox.people import tenants
from lockbox.people.models import Tenant
from lockbox.people.roles import Caller, Role, Scope
from lockbox.refusals import (
    NobodyCanApprove,
    NotYours,
    TenantSuspended,
    UnknownEngineer,
    UnknownService,
    UnknownTenant,
    WindowTooLong,
)
from lockbox.requests import writing
from lockbox.requests.lifecycle import Action, Party, State, move
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import Policy, customer_decides, deadline, reviewed_first, wake_at
from lockbox.requests.writing import Change, Origin, actor_for, identity

GOOD_ENGINEER = text("""
SELECT EXISTS (SELECT FROM memberships m JOIN people p ON p.id = m.person_id
    WHERE p.id = :id AND m.tenant_id IS NULL AND m.role = 'engineer' AND p.disabled_at IS NULL)
""")


@dataclass(frozen=True)
class Filing:
    """What an engineer asks for; `access_window` in seconds. A system names the engineer for whom it files."""

    tenant: str
    service: str
    resources: Sequence[str]
    actions: Sequence[str]
    reason_code: str
    justification: str
    case_ref: str | None
    access_window: int
    engineer: UUID | None = None


@dataclass(frozen=True)
class Submitted:
    """A new request, and how many people are asked about it."""

    request: AccessRequest
    asked: int


def submit(
    session: Session, caller: Caller, origin: Origin, filing: Filing, services: Mapping[str, Service]
) -> Submitted:
    """File a request.

    Raises:
        NotYours: the caller is neither an engineer nor a system that may file for one.
        UnknownTenant, TenantSuspended, UnknownService, UnknownEngineer, WindowTooLong, NobodyCanApprove: as named.
    """
    _, party = move(None, Action.SUBMIT, _filing_parties(caller))
    requester_id = _requester(session, caller, party, filing)
    tenant = tenants.find(session, filing.tenant)
    if tenant is None:
        raise UnknownTenant(f"No tenant is called {filing.tenant!r}.", field="tenant")
    if tenant.suspended:
        raise TenantSuspended("The tenant is suspended: nothing can be asked of it.")
    _in_catalogue(caller, party, filing, services)
    policy = Policy.model_validate(tenant.policy)
    if filing.access_window > policy.access_ceiling:
        raise WindowTooLong(
            f"The access window may be at most {policy.access_ceiling} seconds here.",
            field="access_window",
            limit_seconds=policy.access_ceiling,
        )
    known = outbox.directory(session, {tenant.id})
    request = _new(requester_id, tenant, policy, filing, now(session))
    asked = _asked(request, known)
    actor = actor_for(caller, party, origin, on_behalf_of=requester_id if party is Party.SYSTEM else None)
    writing.insert(session, request, _filed(request, actor), known)
    return Submitted(request, len(asked))


def _filing_parties(caller: Caller) -> set[Party]:
    parties = {Party.ENGINEER} if caller.holds(Role.ENGINEER) else set()
    if caller.holds(Role.SYSTEM) and Scope.REQUESTS_FILE in caller.scopes:
        parties.add(Party.SYSTEM)
    return parties


def _requester(session: Session, caller: Caller, party: Party, filing: Filing) -> UUID:
    if party is Party.ENGINEER:
        if filing.engineer not in {None, caller.person_id}:
            raise NotYours("An engineer files in the own name; leave the engineer out.")
        return caller.person_id
    known = session.connection().execute(GOOD_ENGINEER, {"id": filing.engineer}).scalar_one()
    if filing.engineer is None or not known:
        raise UnknownEngineer("Name the engineer, in good standing, for whom this is filed.", field="engineer")
    return filing.engineer


def _in_catalogue(caller: Caller, party: Party, filing: Filing, services: Mapping[str, Service]) -> None:
    service = services.get(filing.service)
    if service is None:
        raise UnknownService(f"Choose one of the services {', '.join(sorted(services))}.", field="service")
    if party is Party.SYSTEM and filing.service not in caller.services:
        raise NotYours("This token is not bound to the service.")
    if unknown := sorted(set(filing.actions) - set(service.actions)):
        raise UnknownService(
            f"{filing.service} has no action {', '.join(unknown)}; choose from {', '.join(service.actions)}.",
            field="actions",
        )


def _new(requester_id: UUID, tenant: Tenant, policy: Policy, filing: Filing, at: datetime) -> AccessRequest:
    row, _ = move(None, Action.SUBMIT, {Party.ENGINEER})
    state = row.to if row.instead is None or reviewed_first(policy, tenant.mode) else row.instead
    ends = deadline(
        state, at, review=policy.review_window, approval=policy.approval_window, access=filing.access_window
    )
    return AccessRequest(
        id=new_id(),
        tenant_id=tenant.id,
        requester_id=requester_id,
        service=filing.service,
        resources=list(dict.fromkeys(filing.resources)),
        actions=list(dict.fromkeys(filing.actions)),
        reason_code=filing.reason_code,
        justification=filing.justification,
        case_ref=filing.case_ref,
        mode=tenant.mode,
        quorum=policy.quorum,
        approval_window=policy.approval_window,
        access_window=filing.access_window,
        state=state,
        version=1,
        deadline_at=ends,
        wake_at=wake_at(state, ends),
        created_at=at,
        asked_at=at if state is State.PENDING else None,
    )


def _filed(request: AccessRequest, actor: Actor) -> Change:
    return Change(
        **identity(request),
        action=Action.SUBMIT,
        actor=actor,
        from_state=None,
        at=request.created_at,
        facts={
            "service": request.service,
            "actions": request.actions,
            "reason_code": request.reason_code,
            "access_window": request.access_window,
            "approval_window": request.approval_window,
            "quorum": request.quorum,
            "mode": request.mode.value,
        },
        personal={
            "justification": request.justification,
            "case_ref": request.case_ref,
            "resources": json.dumps(request.resources, ensure_ascii=False),
        },
    )


def _asked(request: AccessRequest, known: Directory) -> set[UUID]:
    managers = known.managers - {request.requester_id}
    approvers = known.approvers[request.tenant_id] - {request.requester_id}
    if request.state is State.REVIEWING and not managers:
        raise NobodyCanApprove("The vendor has no manager who could endorse this.")
    if customer_decides(request.mode) and len(approvers) < request.quorum:
        raise NobodyCanApprove(
            f"The tenant asks for {request.quorum} approvals and has {len(approvers)} people who could give one."
        )
    return managers if request.state is State.REVIEWING else approvers
