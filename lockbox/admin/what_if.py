"""What a new policy or another mode would mean for a tenant, before its admin saves it; nothing is written."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select

from lockbox.admin import emergency_stop, permissions, policies
from lockbox.database import now
from lockbox.errors import Refusal
from lockbox.identity.models import Person, Tenant
from lockbox.identity.roles import Caller, Mode, Role
from lockbox.notifications import recipients
from lockbox.requests import policy_store as versions
from lockbox.requests import preview
from lockbox.requests.lifecycle import State
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_diff import changes
from lockbox.requests.policy_rules import Policy

ADMINS = (Role.TENANT_ADMIN,)
MOST = 20
GONE = "somebody who has left"
ALONE = col(AccessRequest.mode) != Mode.ENFORCE


@dataclass(frozen=True)
class Waiting:
    """A request, who asked, and what would change for it, in sentences."""

    request: AccessRequest
    requester: str
    says: Sequence[str] = ()


@dataclass(frozen=True)
class Some:
    """The first twenty of some requests, and how many there are."""

    first: Sequence[Waiting] = ()
    count: int = 0


@dataclass(frozen=True)
class Weighed:
    """What a policy would change.

    `waiting` are the requests that wait for the customer and for which something changes, of the twenty whose time is
    over first; `same` is for how many of these nothing does, `unread` how many more wait. `closes` are windows that
    the vendor opened alone and that end with the consent that the policy takes back. `refusal` is why it would not be
    saved.
    """

    changes: Mapping[str, str]
    waiting: Sequence[Waiting]
    same: int
    unread: int
    closes: Some
    names: Mapping[UUID, str]
    refusal: Refusal | None


@dataclass(frozen=True)
class Switch:
    """What a switch of the mode would do: windows that it closes, and until when consent lasts that it takes back.

    `in_review` is how many requests the vendor still reviews, which the customer would then decide about.
    """

    closes: Some
    consent_until: datetime | None
    in_review: int = 0


def weigh(session: Session, caller: Caller, slug: str, policy: Policy) -> Weighed:
    """Say to a tenant's admin what a policy would change, and what that means for what waits now.

    Raises:
        Unknown, NotYours: as named.
    """
    tenant = permissions.readable(session, caller, slug, ADMINS)
    held, at = versions.at_version(session, tenant.id, tenant.policy_version), now(session)
    known = recipients.look_up(session, {tenant.id}, at)
    pending = _of(session, tenant, State.PENDING, at)
    says = {one.request.id: preview.weigh(session, tenant, one.request, policy, known, at) for one in pending.first}
    closes = policies.takes_consent_back(tenant, held, policy, at)
    return Weighed(
        changes=changes(held, policy),
        waiting=[replace(one, says=says[one.request.id]) for one in pending.first if says[one.request.id]],
        same=sum(not sentences for sentences in says.values()),
        unread=pending.count - len(pending.first),
        closes=_of(session, tenant, State.ACTIVE, at, ALONE) if closes else Some(),
        names=_names(session, (person for one in (held, policy) for some in one.groups.values() for person in some)),
        refusal=_refusal(session, tenant, policy, at) if policy != held else None,
    )


def switch(session: Session, caller: Caller, slug: str, mode: Mode) -> Switch:
    """Say to a tenant's admin what a switch to a mode would do at once.

    Raises:
        Unknown, NotYours: as named.
    """
    tenant = permissions.readable(session, caller, slug, ADMINS)
    if mode is not Mode.ENFORCE:
        return Switch(Some(), None)
    at, consent = now(session), versions.at_version(session, tenant.id, tenant.policy_version).consent
    closes = consent is not None or tenant.mode is not mode
    return Switch(
        _of(session, tenant, State.ACTIVE, at, ALONE) if closes else Some(),
        consent.until if consent and consent.until > at else None,
        emergency_stop.in_review(session, tenant, at),
    )


def open_and_waiting(session: Session, caller: Caller, slug: str) -> tuple[Some, Some, int]:
    """Return to a tenant's admin what an emergency stop would end: what is open, what waits, how many are in review.

    Raises:
        Unknown, NotYours: as named.
    """
    tenant = permissions.readable(session, caller, slug, ADMINS)
    at = now(session)
    return (
        _of(session, tenant, State.ACTIVE, at),
        _of(session, tenant, State.PENDING, at),
        emergency_stop.in_review(session, tenant, at),
    )


def _of(session: Session, tenant: Tenant, state: State, at: datetime, *which: ColumnElement[bool]) -> Some:
    """Return what is in a state and whose time is not over, the soonest end first."""
    conditions = (
        col(AccessRequest.tenant_id) == tenant.id,
        col(AccessRequest.state) == state,
        col(AccessRequest.deadline_at) > at,
        *which,
    )
    query = select(AccessRequest).where(*conditions)
    first = session.exec(query.order_by(col(AccessRequest.deadline_at), col(AccessRequest.id)).limit(MOST)).all()
    count = session.exec(select(func.count()).select_from(AccessRequest).where(*conditions)).one()
    names = _names(session, {one.requester_id for one in first})
    return Some([Waiting(one, names.get(one.requester_id, GONE)) for one in first], count)


def _names(session: Session, people: Iterable[UUID]) -> dict[UUID, str]:
    return dict(session.exec(select(Person.id, Person.name).where(col(Person.id).in_(set(people)))).all())


def _refusal(session: Session, tenant: Tenant, policy: Policy, at: datetime) -> Refusal | None:
    try:
        policies.check(session, tenant, policy, at)
    except Refusal as refused:
        return refused
    return None
