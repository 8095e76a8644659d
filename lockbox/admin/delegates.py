"""Delegates, who decide for an approver during a set period."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import or_
from sqlmodel import col, select

from lockbox.admin import memberships, permissions
from lockbox.admin.memberships import Member
from lockbox.admin.permissions import ABSENT, AdminActor, AdminChange, change
from lockbox.audit.canonical import instant
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import DelegationClash, Invalid, NotFound, NotYours
from lockbox.identity import row_macs
from lockbox.identity.models import Delegation, Person, Tenant
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import announcements, recipients
from lockbox.notifications.account_mail import DELEGATE_BEGINS
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.sql import new_id

LONGEST = timedelta(days=90)
GONE = "a former member"


@dataclass(frozen=True)
class DelegationInput:
    """`principal_id` is None for the caller, `starts_at` None for now."""

    delegate_id: UUID
    ends_at: datetime
    starts_at: datetime | None = None
    principal_id: UUID | None = None


@dataclass(frozen=True)
class DelegationSummary:
    """`counts`: whether the delegation is in force now."""

    delegation: Delegation
    principal: str
    delegate: str
    counts: bool


def add_delegation(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, wanted: DelegationInput
) -> DelegationSummary:
    """Let an eligible member decide for an approver, for at most 90 days.

    Approvers name their own delegate; admins may name one for an absent approver. An approver has at most one
    delegate at a time, so that no vote counts twice.
    """
    tenant = permissions.known(session, caller, slug)
    principal_id = wanted.principal_id or caller.person_id
    mine = principal_id == caller.person_id
    roles = (Role.APPROVER, Role.TENANT_ADMIN) if mine else (Role.TENANT_ADMIN, Role.APPROVER)
    actor = permissions.acting_as(session, caller, origin, roles, tenant)
    if not mine and actor.role != Role.TENANT_ADMIN:
        raise NotYours("You can name only your own delegate. Ask an admin to name one for someone else.")
    permissions.require_fresh_admin(session, actor, tenant)
    at = now(session)
    starts_at = max(wanted.starts_at or at, at)
    principal, delegate = _pair(session, tenant, principal_id, wanted.delegate_id)
    _is_a_period(starts_at, wanted.ends_at, at)
    _no_clash(session, tenant, principal_id, wanted.delegate_id, starts_at, wanted.ends_at)
    delegation = Delegation(
        id=new_id(),
        tenant_id=tenant.id,
        principal_id=principal_id,
        delegate_id=wanted.delegate_id,
        starts_at=starts_at,
        ends_at=wanted.ends_at,
        made_by=caller.person_id,
        created_at=at,
    )
    delegation.mac = row_macs.mark(session, row_macs.delegation(delegation))
    session.orm.add(delegation)
    session.orm.flush()
    period = change(ABSENT, _period(delegation))
    permissions.record_change(
        session, actor, _admin_change("delegate_named", delegation, at, period, principal.name, delegate.name)
    )
    _notify_delegate(session, delegation)
    return DelegationSummary(delegation, principal.name, delegate.name, counts=starts_at == at)


def end(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, delegation_id: UUID) -> None:
    """End a delegation now, as its principal or an admin; idempotent."""
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, (Role.TENANT_ADMIN, Role.APPROVER), tenant)
    query = select(Delegation).where(col(Delegation.id) == delegation_id, col(Delegation.tenant_id) == tenant.id)
    delegation = session.orm.exec(query).one_or_none()
    if delegation is None:
        raise NotFound("There is no such delegation.")
    if actor.role != Role.TENANT_ADMIN and delegation.principal_id != caller.person_id:
        raise NotYours("Only the approver or an admin of this tenant can end this delegation.")
    _end(session, actor, [delegation])


def end_those_of(
    session: UnitOfWork, actor: AdminActor, person_id: UUID, *, as_principal: bool, as_delegate: bool
) -> None:
    assert actor.tenant_id is not None  # noqa: S101 - there are no delegates at the vendor
    either = []
    if as_principal:
        either.append(col(Delegation.principal_id) == person_id)
    if as_delegate:
        either.append(col(Delegation.delegate_id) == person_id)
    query = select(Delegation).where(col(Delegation.tenant_id) == actor.tenant_id, or_(*either))
    _end(session, actor, session.orm.exec(query.order_by(col(Delegation.id))).all())


def current(session: UnitOfWork, caller: Caller, slug: str) -> Sequence[DelegationSummary]:
    """Current and future delegations, sorted by start. For the tenant's members."""
    tenant = permissions.readable(session, caller, slug)
    at = now(session)
    return lasting(session, tenant.id, recipients.look_up(session, {tenant.id}, at), at)


def lasting(
    session: UnitOfWork, tenant_id: UUID, known: RecipientDirectory, at: datetime
) -> Sequence[DelegationSummary]:
    query = select(Delegation).where(
        col(Delegation.tenant_id) == tenant_id, col(Delegation.ended_at).is_(None), col(Delegation.ends_at) > at
    )
    found = session.orm.exec(query.order_by(col(Delegation.starts_at), col(Delegation.id))).all()
    names = _names(session, found)
    stands = known.delegates[tenant_id]
    return [
        DelegationSummary(
            one,
            names.get(one.principal_id, GONE),
            names.get(one.delegate_id, GONE),
            one.starts_at <= at and one.principal_id in stands.get(one.delegate_id, ()),
        )
        for one in found
    ]


def _pair(session: UnitOfWork, tenant: Tenant, principal_id: UUID, delegate_id: UUID) -> tuple[Member, Member]:
    principal = memberships.find(session, tenant.id, principal_id)
    if principal is None or principal.is_disabled or Role.APPROVER not in principal.roles:
        raise Invalid("Only approvers have delegates. Name an approver of the tenant.", field="principal")
    if principal_id == delegate_id:
        raise Invalid("You cannot be your own delegate. Name someone else.", field="delegate")
    delegate = memberships.find(session, tenant.id, delegate_id)
    if delegate is None or delegate.is_disabled or not delegate.is_eligible:
        raise Invalid(
            "This person is not eligible. Name a member whom an admin has marked as an eligible delegate.",
            field="delegate",
        )
    return principal, delegate


def _notify_delegate(session: UnitOfWork, delegation: Delegation) -> None:
    announcements.write_to(
        session,
        delegation.id,
        template=DELEGATE_BEGINS,
        tenant_id=delegation.tenant_id,
        event_id=None,
        at=delegation.starts_at,
        until=delegation.ends_at,
    )


def _is_a_period(starts_at: datetime, ends_at: datetime, at: datetime) -> None:
    if ends_at <= at:
        raise Invalid("The period must end in the future.", field="ends_at")
    if ends_at <= starts_at:
        raise Invalid("The period must end after it starts.", field="ends_at")
    if ends_at - starts_at > LONGEST:
        raise Invalid(f"The period may be at most {LONGEST.days} days long.", field="ends_at")


def _no_clash(  # noqa: PLR0917 - all that a delegation is made from
    session: UnitOfWork, tenant: Tenant, principal_id: UUID, delegate_id: UUID, starts_at: datetime, ends_at: datetime
) -> None:
    both = (principal_id, delegate_id)
    query = select(Delegation).where(
        col(Delegation.tenant_id) == tenant.id,
        col(Delegation.ended_at).is_(None),
        col(Delegation.starts_at) < ends_at,
        col(Delegation.ends_at) > starts_at,
        or_(col(Delegation.principal_id).in_(both), col(Delegation.delegate_id) == principal_id),
    )
    for other in session.orm.exec(query):
        if other.principal_id == principal_id:
            raise DelegationClash("The approver has a delegate in that period; end that delegation first.")
        if other.principal_id == delegate_id:
            raise DelegationClash(
                "The delegate has a delegate in that period, and delegations cannot be passed on. "
                "Choose another period."
            )
        raise DelegationClash(
            "The approver is a delegate in that period, and delegations cannot be passed on. Choose another period."
        )


def _end(session: UnitOfWork, actor: AdminActor, delegations: Iterable[Delegation]) -> None:
    at = now(session)
    running = [delegation for delegation in delegations if delegation.ended_at is None and delegation.ends_at > at]
    names = _names(session, running)
    for one in running:
        one.ended_at = at
        session.orm.add(one)
        session.orm.flush()
        names_of_both = (names.get(one.principal_id, GONE), names.get(one.delegate_id, GONE))
        permissions.record_change(
            session, actor, _admin_change("delegate_ended", one, at, change(_period(one), ABSENT), *names_of_both)
        )


def _admin_change(  # noqa: PLR0917 - all that an event is made from
    action: str, delegation: Delegation, at: datetime, period: str, principal: str, delegate: str
) -> AdminChange:
    return AdminChange(
        action,
        at,
        {"period": period},
        {"principal": principal, "delegate": delegate},
        {
            "delegation_id": delegation.id,
            "principal_id": delegation.principal_id,
            "delegate_id": delegation.delegate_id,
        },
        frozenset({delegation.principal_id, delegation.delegate_id}),
    )


def _period(delegation: Delegation) -> str:
    return f"{instant(delegation.starts_at)} to {instant(delegation.ends_at)}"


def _names(session: UnitOfWork, delegations: Sequence[Delegation]) -> dict[UUID, str]:
    ids = {person for delegation in delegations for person in (delegation.principal_id, delegation.delegate_id)}
    return dict(session.orm.exec(select(Person.id, Person.name).where(col(Person.id).in_(ids))).all())
