"""Who may do what at a tenant, or at the vendor: judged by the roles held once nobody else may change them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session, col, select

from config.catalogue import Plan
from lockbox.database import now
from lockbox.errors import LicenceRequired, NotFound, NotYours
from lockbox.identity import row_security
from lockbox.identity import tenants as registry
from lockbox.identity.models import Tenant
from lockbox.identity.roles import TENANT_ROLES, Caller, Role
from lockbox.notifications import recipients
from lockbox.requests import policy_store
from lockbox.requests.available_moves import strong_enough
from lockbox.requests.policy_rules import Policy, strictest
from lockbox.requests.transition import Origin

NO_TENANT = "There is no such tenant."
VENDOR = "the vendor"
MANY = {role: f"{role.value}s" for role in Role} | {Role.TENANT_ADMIN: "admins", Role.VENDOR_AUDITOR: "auditors"}
"""Those who hold a role, as they are called where it is plain whose they are."""

# A row could not be locked by everyone who may change people: row-level security hides it from updates.
HOLD = text("SELECT pg_advisory_xact_lock(hashtextextended('lockbox people of ' || :whose, 0))")
SHARE = text("SELECT pg_advisory_xact_lock_shared(hashtextextended('lockbox people of ' || :whose, 0))")


@dataclass(frozen=True)
class AdminActor:
    """Somebody who acts in one capacity at a tenant, or at the vendor where `tenant_id` is None, and from where."""

    caller: Caller
    role: str
    origin: Origin
    tenant_id: UUID | None = None


def known(session: Session, caller: Caller, slug: str) -> Tenant:
    """Return a tenant; its members know of it, and everybody with a role at the vendor.

    Raises:
        NotFound: there is none, or the caller has no business with it.
    """
    row_security.enter(session, caller)
    tenant = registry.find(session, slug)
    if tenant is None:
        raise NotFound(NO_TENANT)
    return tenant


def readable(session: Session, caller: Caller, slug: str, roles: Sequence[Role] = tuple(TENANT_ROLES)) -> Tenant:
    """Return a tenant to somebody who has one of the roles there.

    Raises:
        Unknown, NotYours: as named.
    """
    tenant = known(session, caller, slug)
    capacity(caller, roles, tenant.id)
    return tenant


def acting_as(
    session: Session, caller: Caller, origin: Origin, roles: Sequence[Role], tenant: Tenant | None = None
) -> AdminActor:
    """Return the caller in the first of the roles that they hold now, at a tenant or at the vendor for None.

    The people of that place are held until the transaction ends: whoever changes them waits for one another, and
    is judged by what the one before has left.

    Raises:
        NotYours: the caller has none of the roles.
    """
    row_security.enter(session, caller)
    place = tenant.id if tenant else None
    capacity(caller, roles, place)
    lock_members(session, place)
    caller = registry.as_of_now(session, caller)
    return AdminActor(caller, capacity(caller, roles, place), origin, place)


def require_fresh_admin(session: Session, seat: AdminActor, tenant: Tenant) -> None:
    """Check that whoever could loosen something at a tenant signed in as freshly and strongly as to approve anything.

    That is by the strictest of all rules, for it may be the one that gives way; by those that a tenant begins with
    where it has none whose mark holds.

    While nobody could approve there is nothing to loosen: whoever sets a tenant up may do so as they came in.

    Raises:
        SignInAgain: an API token was shown, or a mailed code where the policy asks for more, or it is too long ago.
    """
    at = now(session)
    if recipients.look_up(session, {tenant.id}, at).approvers[tenant.id]:
        strong_enough(seat.caller, strictest(policy_store.verified(session, tenant) or Policy()), at)


def require_fresh_operator(session: Session, seat: AdminActor) -> None:
    """Check that an operator who opens something, at the vendor or a tenant, signed in freshly and strongly.

    Raises:
        SignInAgain: an API token or a mailed code was shown, or it is too long ago.
    """
    strong_enough(seat.caller, Policy(), now(session))


def entitled(plan: str, plans: Mapping[str, Plan]) -> None:
    """Check that a plan includes the lockbox, without which no tenant begins or switches to `enforce`.

    Raises:
        LicenceRequired: it does not.
    """
    bought = plans.get(plan)
    if bought is None or not bought.lockbox:
        raise LicenceRequired(f"The plan {plan} does not include the lockbox; it takes one that does.")


def is_last_approver(session: Session, seat: AdminActor, person_id: UUID) -> bool:
    """Whether nobody else approves for the tenant at which somebody acts."""
    assert seat.tenant_id is not None  # noqa: S101 - members are those of a tenant
    return recipients.look_up(session, {seat.tenant_id}, now(session)).approvers[seat.tenant_id] <= {person_id}


def operate(session: Session, caller: Caller, origin: Origin, slug: str) -> tuple[AdminActor, Tenant]:
    """Return the caller as an operator who deals with a tenant, whose people are held.

    Raises:
        Unknown, NotYours: as named.
    """
    tenant = known(session, caller, slug)
    capacity(caller, (Role.OPERATOR,))
    # Whoever takes an operator's role away waits, and finds what the operator has left at tenants.
    session.connection().execute(SHARE, {"whose": VENDOR})
    lock_members(session, tenant.id)
    caller = registry.as_of_now(session, caller)
    role = capacity(caller, (Role.OPERATOR,))
    row_security.turn_to(session, tenant.id)
    return AdminActor(caller, role, origin, tenant.id), tenant


def locked(session: Session, tenant: Tenant) -> Tenant:
    """Return the tenant as it is now, and keep others from changing it; requests can still be filed with it."""
    query = select(Tenant).where(col(Tenant.id) == tenant.id).with_for_update(key_share=True)
    return session.exec(query.execution_options(populate_existing=True)).one()


def lock_members(session: Session, tenant_id: UUID | None) -> None:
    """Wait until nobody else changes the people of the tenant, or of the vendor for None, and keep others waiting."""
    session.connection().execute(HOLD, {"whose": str(tenant_id or VENDOR)})


def capacity(caller: Caller, roles: Sequence[Role], tenant_id: UUID | None = None) -> Role:
    """Return the first of the roles that the caller has at a tenant, or at the vendor for None.

    Raises:
        NotYours: the caller has none of them.
    """
    for role in roles:
        if caller.holds(role, tenant_id=tenant_id):
            return role
    *others, last = sorted({MANY[role] for role in roles})
    whom = f"{', '.join(others)} or {last}" if others else last
    raise NotYours(f"This is for {whom} {'of this tenant' if tenant_id else 'of the vendor'}.")
