"""Tenants: operators create, list, suspend and resume them and set their plan; a tenant's admin renames it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, func, literal_column, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from catalogue.service_catalogue import Plan
from lockbox.admin import emergency_stop, invitations, permissions, vendor_consent
from lockbox.admin.invitations import InvitationOffer
from lockbox.admin.permissions import ABSENT, AdminActor, AdminChange, change
from lockbox.admin.vendor_consent import ActiveConsent
from lockbox.audit.canonical import Value
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import NotFound, PolicyUnverified, SlugTaken, UnknownPlan
from lockbox.facts.enumerations import Mode, State
from lockbox.identity import authentication, row_macs
from lockbox.identity import tenants as registry
from lockbox.identity.models import EmergencyStop, Membership, Person, Tenant
from lockbox.identity.roles import Caller, Role
from lockbox.requests import access_check
from lockbox.requests.models import IS_OPEN, AccessRequest
from lockbox.requests.policy import UNVERIFIED
from lockbox.requests.policy_rules import Policy, stored

MOST_A_PAGE = 200
WOULD_END = text("SELECT tenant_id, windows FROM open_windows(CAST(:ids AS uuid[]))")
LONGEST_WINDOWS = text("SELECT tenant_id, seconds FROM longest_windows(CAST(:ids AS uuid[]))")


@dataclass(frozen=True)
class TenantInput:
    slug: str
    name: str
    plan: str
    admin_name: str
    admin_address: str


@dataclass(frozen=True)
class TenantOverview:
    """A tenant as a reader sees it; counts that the reader may not see are None.

    `consented` is the temporary consent in force, `longest_window` is in seconds, and `stopped_since` is when an
    emergency stop began.
    """

    tenant: Tenant
    is_own: bool
    consented: ActiveConsent | None = None
    by_name_only: bool = False
    members: int | None = None
    open_windows: int | None = None
    in_review: int | None = None
    longest_window: int | None = None
    stopped_since: datetime | None = None

    @property
    def effective_mode(self) -> Mode:
        return self.consented.mode if self.consented else self.tenant.mode


@dataclass(frozen=True)
class TenantListing:
    overviews: Sequence[TenantOverview]
    next_cursor: str | None


def add(
    session: UnitOfWork, caller: Caller, origin: Origin, founding: TenantInput, plans: Mapping[str, Plan]
) -> TenantOverview:
    """Create a tenant in mode `enforce` with the default policy, and invite its first admin by mail."""
    actor = permissions.acting_as(session, caller, origin, (Role.OPERATOR,))
    permissions.require_fresh_operator(session, actor)
    _is_a_plan(founding.plan, plans)
    permissions.entitled(founding.plan, plans)
    invitations.not_of_the_vendor(session, founding.admin_address)
    try:
        with session.orm.begin_nested():
            policy = stored(Policy())
            tenant = registry.add(session, founding.slug, founding.name, policy=policy, plan=founding.plan)
    except IntegrityError:
        raise SlugTaken(f"Another tenant is called {founding.slug}; choose another slug.", field="slug") from None
    authentication.turn_to(session, tenant.id)
    started = {"mode": change(ABSENT, tenant.mode), "plan": change(ABSENT, tenant.plan)}
    first = InvitationOffer(
        name=founding.admin_name,
        address=founding.admin_address,
        roles=frozenset({Role.TENANT_ADMIN}),
        action="tenant_added",
        changes=started,
    )
    at_the_tenant = AdminActor(actor.caller, actor.role, origin, tenant.id)
    invitations.make(session, at_the_tenant, first, now(session))
    return _to_the_vendor(session, tenant)


def page(session: UnitOfWork, caller: Caller, *, cursor: str | None, most: int) -> TenantListing:
    """Sorted by slug; a service account sees none."""
    authentication.enter(session, caller)
    if caller.holds(Role.SYSTEM):
        return TenantListing([], None)
    # An erased tenant keeps its log but is not listed.
    query = select(Tenant).where(~func.is_erased(col(Tenant.id))).order_by(col(Tenant.slug)).limit(most + 1)
    if cursor is not None:
        query = query.where(col(Tenant.slug) > cursor)
    tenants = session.orm.exec(query).all()
    more = len(tenants) > most
    return TenantListing(_seen(session, caller, tenants[:most]), tenants[most - 1].slug if more else None)


def own(session: UnitOfWork, caller: Caller) -> Sequence[TenantOverview]:
    authentication.enter(session, caller)
    query = select(Tenant).where(col(Tenant.id).in_(caller.tenants())).order_by(col(Tenant.slug))
    return _seen(session, caller, session.orm.exec(query).all())


def show(session: UnitOfWork, caller: Caller, slug: str) -> TenantOverview:
    tenant = permissions.known(session, caller, slug)
    if caller.holds(Role.SYSTEM):
        raise NotFound(permissions.NO_TENANT)
    (overview,) = _seen(session, caller, [tenant])
    return overview


def suspend(session: UnitOfWork, caller: Caller, origin: Origin, slug: str) -> TenantOverview:
    """No request can be submitted for a suspended tenant, and its open windows are revoked at once."""
    return _suspended(session, caller, origin, slug, suspended=True)


def resume(session: UnitOfWork, caller: Caller, origin: Origin, slug: str) -> TenantOverview:
    return _suspended(session, caller, origin, slug, suspended=False)


def set_plan(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, plan: str, *, plans: Mapping[str, Plan]
) -> TenantOverview:
    """The mode stays, whatever the plan includes."""
    actor, tenant = permissions.operate(session, caller, origin, slug)
    _is_a_plan(plan, plans)
    tenant = permissions.locked(session, tenant)
    if plan != tenant.plan:
        permissions.require_fresh_operator(session, actor)
        changes = {"plan": change(tenant.plan, plan)}
        _change(session, tenant, "plan", plan)
        _record_change(session, actor, "plan_changed", changes)
    return _to_the_vendor(session, tenant)


def rename(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, name: str) -> TenantOverview:
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, (Role.TENANT_ADMIN,), tenant)
    tenant = permissions.locked(session, tenant)
    if name != tenant.name:
        permissions.require_fresh_admin(session, actor, tenant)
        changes = {"name": change(tenant.name, name)}
        tenant.name = name
        session.orm.add(tenant)
        session.orm.flush()
        _record_change(session, actor, "tenant_renamed", changes)
    return show(session, caller, slug)


def _suspended(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, *, suspended: bool) -> TenantOverview:
    actor, tenant = permissions.operate(session, caller, origin, slug)
    tenant = permissions.locked(session, tenant)
    if suspended != tenant.suspended:
        if not suspended:
            permissions.require_fresh_operator(session, actor)
        words = ("no", "yes") if suspended else ("yes", "no")
        _change(session, tenant, "suspended", suspended, closes=suspended)
        closed = emergency_stop.end_windows_at(session, actor.caller, origin, tenant.id) if suspended else []
        changes = {"suspended": change(*words)}
        facts: dict[str, Value] = {}
        if closed:
            changes["open windows"] = change(len(closed), 0)
            facts["closed"] = [str(request.id) for request in closed]
        action = "tenant_suspended" if suspended else "tenant_resumed"
        permissions.record_change(session, actor, AdminChange(action, now(session), changes, facts=facts))
    return _to_the_vendor(session, tenant)


def _is_a_plan(plan: str, plans: Mapping[str, Plan]) -> None:
    if plan not in plans:
        raise UnknownPlan(f"Choose one of the plans {', '.join(sorted(plans))}.", field="plan")


def _change(session: UnitOfWork, tenant: Tenant, name: str, value: object, *, closes: bool = False) -> None:
    """A row without a valid MAC accepts only changes that close access, and gets no new MAC."""
    is_ours = row_macs.is_held(session, tenant.mac, row_macs.tenant(tenant), tenant.id)
    if not (is_ours or closes):
        raise PolicyUnverified(UNVERIFIED)
    setattr(tenant, name, value)
    if is_ours:
        registry.mark(session, tenant)
    session.orm.add(tenant)
    session.orm.flush()


def _record_change(session: UnitOfWork, actor: AdminActor, action: str, changes: Mapping[str, str]) -> None:
    permissions.record_change(session, actor, AdminChange(action, now(session), changes))


def _to_the_vendor(session: UnitOfWork, tenant: Tenant) -> TenantOverview:
    lasting = vendor_consent.lasting(session, [tenant.id], now(session))
    windows = _would_end(session, [tenant]).get(tenant.id, 0)
    return TenantOverview(tenant, is_own=False, consented=lasting.get(tenant.id), open_windows=windows)


def _seen(session: UnitOfWork, caller: Caller, tenants: Sequence[Tenant]) -> list[TenantOverview]:
    own = frozenset(caller.tenants()) & {tenant.id for tenant in tenants}
    lasting = vendor_consent.lasting(session, [tenant.id for tenant in tenants], now(session))
    if not own:
        by_name_only = not caller.holds(Role.OPERATOR, Role.VENDOR_AUDITOR)
        would_end = _would_end(session, tenants) if caller.holds(Role.OPERATOR) else {}
        longest = _longest_windows(session, tenants) if caller.holds(Role.ENGINEER) else {}
        return [
            TenantOverview(
                tenant,
                is_own=False,
                consented=lasting.get(tenant.id),
                by_name_only=by_name_only,
                open_windows=would_end.get(tenant.id, 0) if caller.holds(Role.OPERATOR) else None,
                longest_window=longest.get(tenant.id),
            )
            for tenant in tenants
        ]
    members, windows = _members(session, own), _open_windows(session, own)
    stopped = select(EmergencyStop).where(
        col(EmergencyStop.tenant_id).in_(own), col(EmergencyStop.ended_at).is_(None)
    )
    stops = {one.tenant_id: one.stopped_at for one in session.orm.exec(stopped).all()}
    administered = own & caller.tenants({Role.TENANT_ADMIN})
    reviews = _in_review(session, administered)
    return [
        TenantOverview(
            tenant,
            is_own=tenant.id in own,
            consented=lasting.get(tenant.id),
            members=members.get(tenant.id, 0) if tenant.id in own else None,
            open_windows=windows.get(tenant.id, 0) if tenant.id in own else None,
            in_review=reviews.get(tenant.id, 0) if tenant.id in administered else None,
            stopped_since=stops.get(tenant.id),
        )
        for tenant in tenants
    ]


def _would_end(session: UnitOfWork, tenants: Sequence[Tenant]) -> dict[UUID, int]:
    rows = session.execute(WOULD_END, {"ids": [tenant.id for tenant in tenants]})
    return {row.tenant_id: row.windows for row in rows}


def _longest_windows(session: UnitOfWork, tenants: Sequence[Tenant]) -> dict[UUID, int]:
    rows = session.execute(LONGEST_WINDOWS, {"ids": [tenant.id for tenant in tenants]})
    return {row.tenant_id: row.seconds for row in rows}


def _members(session: UnitOfWork, tenant_ids: frozenset[UUID]) -> dict[UUID, int]:
    query = (
        select(col(Membership.tenant_id), func.count(col(Membership.person_id).distinct()))
        .join(Person)
        .where(col(Membership.tenant_id).in_(tenant_ids), col(Person.disabled_at).is_(None))
    )
    rows = session.orm.exec(query.group_by(col(Membership.tenant_id)))
    return {tenant_id: count for tenant_id, count in rows if tenant_id}


def _open_windows(session: UnitOfWork, tenant_ids: frozenset[UUID]) -> dict[UUID, int]:
    query = (
        select(col(AccessRequest.tenant_id), func.count())
        .join(Tenant, col(Tenant.id) == col(AccessRequest.tenant_id))
        .join(Person, col(Person.id) == col(AccessRequest.requester_id))
        .where(
            literal_column(access_check.GRANTED, Boolean),
            IS_OPEN,
            col(AccessRequest.tenant_id).in_(tenant_ids),
            col(AccessRequest.deadline_at) > now(session),
        )
    )
    return dict(session.orm.exec(query.group_by(col(AccessRequest.tenant_id))).all())


def _in_review(session: UnitOfWork, tenant_ids: frozenset[UUID]) -> dict[UUID, int]:
    query = select(col(AccessRequest.tenant_id), func.count()).where(
        col(AccessRequest.tenant_id).in_(tenant_ids), IS_OPEN, col(AccessRequest.state) == State.REVIEWING
    )
    return dict(session.orm.exec(query.group_by(col(AccessRequest.tenant_id))).all())
