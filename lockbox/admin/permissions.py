"""Permissions and the record of administrative changes. `tenant_id` is None for the vendor."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, text
from sqlmodel import col, select

from catalogue.service_catalogue import Plan
from lockbox.audit.canonical import Value
from lockbox.audit.events import AuditEvent, Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import LicenceRequired, NotFound, NotYours, TenantErased
from lockbox.identity import authentication, tenants
from lockbox.identity import tenants as registry
from lockbox.identity.models import PolicyVersion, Tenant
from lockbox.identity.roles import TENANT_ROLES, Caller, Role
from lockbox.notifications import announcements, recipients
from lockbox.requests import policy_store
from lockbox.requests.evaluate import ERASED
from lockbox.requests.permitted_moves import strong_enough
from lockbox.requests.policy_rules import Policy, stored, strictest
from lockbox.sql import new_id

NO_TENANT = "There is no such tenant."
VENDOR = "the vendor"
MANY = {role: f"{role.value}s" for role in Role} | {Role.TENANT_ADMIN: "admins", Role.VENDOR_AUDITOR: "auditors"}
"""Names of the holders of each role, for texts in which it is clear to which side they belong."""
# These locks are advisory: row-level security hides rows from the updates of some callers who may change people, so
# these callers could not lock a row.
HOLD = text("SELECT pg_advisory_xact_lock(hashtextextended('lockbox people of ' || :whose, 0))")
SHARE = text("SELECT pg_advisory_xact_lock_shared(hashtextextended('lockbox people of ' || :whose, 0))")
IS_ERASED = text("SELECT is_erased(:tenant)")
ABSENT = "none"


@dataclass(frozen=True)
class AdminActor:
    caller: Caller
    role: str
    origin: Origin
    tenant_id: UUID | None = None


def known(session: UnitOfWork, caller: Caller, slug: str) -> Tenant:
    """For members of the tenant and for everyone with a role at the vendor."""
    authentication.enter(session, caller)
    tenant = registry.find(session, slug)
    if tenant is None:
        raise NotFound(NO_TENANT)
    return tenant


def readable(session: UnitOfWork, caller: Caller, slug: str, roles: Sequence[Role] = tuple(TENANT_ROLES)) -> Tenant:
    tenant = known(session, caller, slug)
    capacity(caller, roles, tenant.id)
    return tenant


def acting_as(
    session: UnitOfWork, caller: Caller, origin: Origin, roles: Sequence[Role], tenant: Tenant | None = None
) -> AdminActor:
    """Return the caller, acting in the first of `roles` held at the tenant, or at the vendor if `tenant` is None.

    The people of the tenant or the vendor are locked until the transaction ends. Raises TenantErased.
    """
    authentication.enter(session, caller)
    place = tenant.id if tenant else None
    if tenant:
        refuse_erased(session, tenant)
    capacity(caller, roles, place)
    lock_members(session, place)
    caller = authentication.as_of_now(session, caller)
    return AdminActor(caller, capacity(caller, roles, place), origin, place)


def require_fresh_admin(session: UnitOfWork, actor: AdminActor, tenant: Tenant) -> None:
    """Require the sign-in that an approval needs, for a change that may loosen something.

    The strictest rule of the policy applies, because the change may loosen that rule. As long as the
    tenant has no approver, any sign-in may set it up.
    """
    at = now(session)
    if recipients.look_up(session, {tenant.id}, at).approvers[tenant.id]:
        strong_enough(actor.caller, strictest(policy_store.verified(session, tenant) or Policy()), at)


def require_fresh_operator(session: UnitOfWork, actor: AdminActor) -> None:
    """Require a fresh and strong sign-in, for a change that opens something."""
    strong_enough(actor.caller, Policy(), now(session))


def entitled(plan: str, plans: Mapping[str, Plan]) -> None:
    """Raises LicenceRequired unless the plan allows the mode `enforce`."""
    bought = plans.get(plan)
    if bought is None or not bought.lockbox:
        raise LicenceRequired(f"The plan {plan} does not include the lockbox. Choose one that does.")


def is_last_approver(session: UnitOfWork, actor: AdminActor, person_id: UUID) -> bool:
    assert actor.tenant_id is not None  # noqa: S101 - members are those of a tenant
    return recipients.look_up(session, {actor.tenant_id}, now(session)).approvers[actor.tenant_id] <= {person_id}


def operate(session: UnitOfWork, caller: Caller, origin: Origin, slug: str) -> tuple[AdminActor, Tenant]:
    """Return the caller as an operator, and the tenant, whose people are locked."""
    tenant = known(session, caller, slug)
    capacity(caller, (Role.OPERATOR,))
    # A concurrent removal of the operator's role waits for this lock, and then finds what the operator did at
    # tenants.
    session.execute(SHARE, {"whose": VENDOR})
    lock_members(session, tenant.id)
    caller = authentication.as_of_now(session, caller)
    role = capacity(caller, (Role.OPERATOR,))
    refuse_erased(session, tenant)
    authentication.turn_to(session, tenant.id)
    return AdminActor(caller, role, origin, tenant.id), tenant


def refuse_erased(session: UnitOfWork, tenant: Tenant) -> None:
    """Raises TenantErased. Only suspended tenants can be erased, and an erased tenant stays suspended."""
    if tenant.suspended and session.execute(IS_ERASED, {"tenant": tenant.id}).scalar_one():
        raise TenantErased(ERASED)


def locked(session: UnitOfWork, tenant: Tenant) -> Tenant:
    """Lock the tenant's row against changes; requests can still be submitted."""
    query = select(Tenant).where(col(Tenant.id) == tenant.id).with_for_update(key_share=True)
    return session.orm.exec(query.execution_options(populate_existing=True)).one()


def lock_members(session: UnitOfWork, tenant_id: UUID | None) -> None:
    session.execute(HOLD, {"whose": str(tenant_id or VENDOR)})


def capacity(caller: Caller, roles: Sequence[Role], tenant_id: UUID | None = None) -> Role:
    """Return the first of the roles that the caller has at the tenant or the vendor."""
    for role in roles:
        if caller.holds(role, tenant_id=tenant_id):
            return role
    *others, last = sorted({MANY[role] for role in roles})
    whom = f"{', '.join(others)} or {last}" if others else last
    raise NotYours(f"This is for {whom} {'of this tenant' if tenant_id else 'of the vendor'}.")


@dataclass(frozen=True)
class AdminChange:
    """`changes` has old and new values, `personal` has names of people concerned, `also` lists others to notify."""

    action: str
    at: datetime
    changes: Mapping[str, str]
    personal: Mapping[str, str | None] = field(default_factory=dict)
    facts: Mapping[str, Value] = field(default_factory=dict)
    also: frozenset[UUID] = frozenset()


def record_change(session: UnitOfWork, actor: AdminActor, admin_change: AdminChange) -> UUID:
    """Write the event, create its notifications, and return its id."""
    audit_event = audit_event_of(actor, admin_change)
    if actor.tenant_id is None:
        announcements.notify_operators(session, audit_event)
    else:
        announcements.announce(session, audit_event, also=admin_change.also)
    return audit_event.id


def audit_event_of(actor: AdminActor, admin_change: AdminChange) -> AuditEvent:
    return AuditEvent(
        at=admin_change.at,
        action=admin_change.action,
        actor=actor.origin.actor(actor.caller, actor.role),
        tenant_id=actor.tenant_id,
        facts={**admin_change.facts, "changes": admin_change.changes},
        personal=admin_change.personal,
    )


def for_the_vendor(event: AuditEvent) -> AuditEvent:
    """Return the event of a customer's change for the vendor's log, without author, origin and texts."""
    nameless = replace(event.actor, name=None, address=None, user_agent=None)
    return replace(event, id=new_id(), actor=nameless, personal={}, stays_inside=True)


def change(old: object, new: object) -> str:
    return f"{old} → {new}"


def listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words)) or ABSENT


def person(name: str, address: str) -> str:
    return f"{name} <{address}>"


def revise_policy(session: UnitOfWork, actor: AdminActor, tenant: Tenant, policy: Policy, at: datetime) -> int:
    """Put a policy in force with the actor as author, and return its version."""
    newest = session.orm.exec(
        select(func.max(PolicyVersion.version)).where(col(PolicyVersion.tenant_id) == tenant.id)
    ).one()
    tenant.policy_version = (newest or 0) + 1
    tenants.add_policy(session, tenant, stored(policy), at, actor.caller.person_id)
    tenants.mark(session, tenant)
    return tenant.policy_version
