"""Previews of a policy, a mode or a request at a tenant; nothing is written or sent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import ColumnElement
from sqlmodel import col, func, select

from catalogue.service_catalogue import Service
from lockbox.admin import emergency_stop, permissions, policies
from lockbox.database import UnitOfWork, now
from lockbox.errors import LockboxError
from lockbox.facts.enumerations import Mode, State
from lockbox.identity.models import Address, Person, Tenant
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import recipients
from lockbox.notifications.mail_text import FORMER
from lockbox.notifications.models import Endpoint, Observer
from lockbox.requests import evaluate, preview
from lockbox.requests import policy_store as versions
from lockbox.requests.evaluate import Evaluation
from lockbox.requests.models import IS_OPEN, AccessRequest
from lockbox.requests.policy import Terms, customer_decides
from lockbox.requests.policy_rules import Policy, RequestFacts, changes
from lockbox.requests.preview import PreviewGroup, PreviewNames, PreviewRecipients

NOBODY_ASKED = "Nobody would be asked: the request would time out and be refused."
NOBODY_NOTIFIED = "Nobody would be notified that the vendor opened a window."
SUSPENDED = "The tenant is suspended. Requests can be submitted once it is resumed."
ADMINS = (Role.TENANT_ADMIN,)
MOST = 20
ALONE = col(AccessRequest.mode) != Mode.ENFORCE


@dataclass(frozen=True)
class MailRecipient:
    """A person to notify by mail."""

    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class WhatIfResult:
    """The preview of a request for the tenant's own people; nothing was written or sent.

    `reviewers` counts the vendor's people who could endorse the request. `notified_first` are the people asked, or
    notified of a window opened without them; `quiet` people could decide but declined prompts; `copied` people cannot
    decide. `endpoints` lists webhooks by description, or else by host. `warnings` say why no one would be asked.
    """

    policy_version: int
    mode: Mode
    first_state: State
    terms: Terms
    reviewers: int
    notified_first: tuple[MailRecipient, ...]
    could_approve: tuple[str, ...]
    quiet: tuple[str, ...]
    stages: tuple[PreviewGroup, ...]
    endpoints: tuple[str, ...]
    copied: tuple[MailRecipient, ...]
    warnings: tuple[str, ...]


def preview_request(
    session: UnitOfWork, caller: Caller, slug: str, ask: RequestFacts, services: Mapping[str, Service]
) -> WhatIfResult:
    """For members of the tenant."""
    tenant = permissions.readable(session, caller, slug)
    evaluation = evaluate.evaluate_what_if(session, tenant, ask, services)
    decides, reached = customer_decides(evaluation.mode), preview.first_recipients(session, evaluation)
    people = _people(session, evaluation.able | reached.people.keys())
    names = PreviewNames({person.id: person.name for person in people.values()})
    quiet = evaluation.able & evaluation.known.quiet - reached.people.keys()
    return WhatIfResult(
        policy_version=tenant.policy_version,
        mode=evaluation.mode,
        first_state=evaluation.first_state,
        terms=evaluation.terms,
        reviewers=len(evaluation.managers) if evaluation.first_state is State.REVIEWING else 0,
        notified_first=_mailed(session, reached, people, names),
        could_approve=names(evaluation.able) if decides else (),
        quiet=names(quiet) if decides else (),
        stages=preview.stages(evaluation, names) if decides else (),
        endpoints=_endpoints(session, reached.endpoints),
        copied=_copied(session, reached.observers),
        warnings=tuple(_warnings(evaluation, reached, decides=decides)),
    )


def _warnings(evaluation: Evaluation, reached: PreviewRecipients, *, decides: bool) -> Iterable[str]:
    if evaluation.tenant.suspended:
        yield SUSPENDED
    yield from evaluation.obstacles()
    if not reached.people:
        yield NOBODY_ASKED if decides else NOBODY_NOTIFIED


def _people(session: UnitOfWork, ids: Iterable[UUID]) -> dict[UUID, Person]:
    return {one.id: one for one in session.orm.exec(select(Person).where(col(Person.id).in_(set(ids))))}


def _mailed(
    session: UnitOfWork, reached: PreviewRecipients, people: Mapping[UUID, Person], names: PreviewNames
) -> tuple[MailRecipient, ...]:
    boxes = {box for held in reached.people.values() for box in held if box}
    query = select(Address.id, Address.email).where(col(Address.id).in_(boxes))
    further = dict(session.orm.exec(query).all())
    return tuple(
        MailRecipient(name, tuple(further[box] if box else people[person].email for box in reached.people[person]))
        for person, name in names.of(reached.people)
    )


def _endpoints(session: UnitOfWork, ids: Iterable[UUID]) -> tuple[str, ...]:
    query = select(Endpoint.description, Endpoint.url).where(col(Endpoint.id).in_(ids)).order_by(col(Endpoint.id))
    return tuple(said or urlsplit(url).hostname or "" for said, url in session.orm.exec(query))


def _copied(session: UnitOfWork, ids: Iterable[UUID]) -> tuple[MailRecipient, ...]:
    query = select(Observer).where(col(Observer.id).in_(ids)).order_by(col(Observer.name), col(Observer.id))
    return tuple(MailRecipient(one.name, (one.email,)) for one in session.orm.exec(query))


@dataclass(frozen=True)
class AffectedRequest:
    request: AccessRequest
    requester: str
    says: Sequence[str] = ()


@dataclass(frozen=True)
class RequestSample:
    """The first twenty requests, and the number of all requests."""

    first: Sequence[AffectedRequest] = ()
    count: int = 0


@dataclass(frozen=True)
class PolicyImpact:
    """The twenty pending requests with the nearest deadlines are compared.

    `waiting` lists the requests that the new policy would change, `same` counts the unchanged ones, and `unread`
    counts the further pending requests. `closes` lists windows opened without the customer that would end because
    consent is withdrawn. `refusal` is why the policy could not be saved.
    """

    changes: Mapping[str, str]
    waiting: Sequence[AffectedRequest]
    same: int
    unread: int
    closes: RequestSample
    names: Mapping[UUID, str]
    refusal: LockboxError | None


@dataclass(frozen=True)
class ModeChangePreview:
    """`consent_until` is the end of consent that would be withdrawn.

    `in_review` counts requests that the customer would then decide about.
    """

    closes: RequestSample
    consent_until: datetime | None
    in_review: int = 0


def preview_policy(session: UnitOfWork, caller: Caller, slug: str, policy: Policy) -> PolicyImpact:
    """For a tenant's admins."""
    tenant = permissions.readable(session, caller, slug, ADMINS)
    held, at = versions.at_version(session, tenant.id, tenant.policy_version), now(session)
    known = recipients.look_up(session, {tenant.id}, at)
    pending = _of(session, tenant, State.PENDING, at)
    says = {one.request.id: preview.compare(session, tenant, one.request, policy, known, at) for one in pending.first}
    closes = policies.takes_consent_back(tenant, held, policy, at)
    return PolicyImpact(
        changes=changes(held, policy),
        waiting=[replace(one, says=says[one.request.id]) for one in pending.first if says[one.request.id]],
        same=sum(not sentences for sentences in says.values()),
        unread=pending.count - len(pending.first),
        closes=_of(session, tenant, State.ACTIVE, at, ALONE) if closes else RequestSample(),
        names=_names(session, (person for one in (held, policy) for some in one.groups.values() for person in some)),
        refusal=_refusal(session, tenant, policy, at) if policy != held else None,
    )


def preview_mode_change(session: UnitOfWork, caller: Caller, slug: str, mode: Mode) -> ModeChangePreview:
    """For a tenant's admins."""
    tenant = permissions.readable(session, caller, slug, ADMINS)
    if mode is not Mode.ENFORCE:
        return ModeChangePreview(RequestSample(), None)
    at, consent = now(session), versions.at_version(session, tenant.id, tenant.policy_version).consent
    closes = consent is not None or tenant.mode is not mode
    return ModeChangePreview(
        _of(session, tenant, State.ACTIVE, at, ALONE) if closes else RequestSample(),
        consent.until if consent and consent.until > at else None,
        emergency_stop.in_review(session, tenant, at),
    )


def open_and_waiting(session: UnitOfWork, caller: Caller, slug: str) -> tuple[RequestSample, RequestSample, int]:
    """Return what a stop would end: open windows, pending requests, and the number of requests in review.

    For admins.
    """
    tenant = permissions.readable(session, caller, slug, ADMINS)
    at = now(session)
    return (
        _of(session, tenant, State.ACTIVE, at),
        _of(session, tenant, State.PENDING, at),
        emergency_stop.in_review(session, tenant, at),
    )


def _of(
    session: UnitOfWork, tenant: Tenant, state: State, at: datetime, *which: ColumnElement[bool]
) -> RequestSample:
    conditions = (
        col(AccessRequest.tenant_id) == tenant.id,
        IS_OPEN,
        col(AccessRequest.state) == state,
        col(AccessRequest.deadline_at) > at,
        *which,
    )
    query = select(AccessRequest).where(*conditions)
    first = session.orm.exec(query.order_by(col(AccessRequest.deadline_at), col(AccessRequest.id)).limit(MOST)).all()
    count = session.orm.exec(select(func.count()).select_from(AccessRequest).where(*conditions)).one()
    names = _names(session, {one.requester_id for one in first})
    return RequestSample([AffectedRequest(one, names.get(one.requester_id, FORMER)) for one in first], count)


def _names(session: UnitOfWork, people: Iterable[UUID]) -> dict[UUID, str]:
    return dict(session.orm.exec(select(Person.id, Person.name).where(col(Person.id).in_(set(people)))).all())


def _refusal(session: UnitOfWork, tenant: Tenant, policy: Policy, at: datetime) -> LockboxError | None:
    try:
        policies.check(session, tenant, policy, at)
    except LockboxError as refused:
        return refused
    return None
