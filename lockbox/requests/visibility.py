"""Who reads what of a request: one pure table, from the capacity of a reader to what is not for everybody."""

from collections.abc import Set as AbstractSet
from enum import StrEnum
from uuid import UUID

from lockbox.identity.roles import Caller, Role


class Reach(StrEnum):
    """Which requests somebody may know of by a role: none, the own, their tenant's once it was told, or all."""

    NONE = "none"
    OWN = "own"
    TENANTS = "the tenant's"
    ALL = "all"


REACH: dict[Role, Reach] = {
    Role.ENGINEER: Reach.OWN,
    Role.MANAGER: Reach.ALL,
    Role.OPERATOR: Reach.NONE,
    Role.VENDOR_AUDITOR: Reach.ALL,
    Role.SYSTEM: Reach.NONE,
    Role.TENANT_ADMIN: Reach.TENANTS,
    Role.APPROVER: Reach.TENANTS,
    Role.AUDITOR: Reach.TENANTS,
}


def with_reach(reach: Reach) -> frozenset[Role]:
    """Return the roles that reach so far."""
    return frozenset(role for role, reaches in REACH.items() if reaches is reach)


class Capacity(StrEnum):
    """As what somebody looks at one particular request."""

    REQUESTER = "requester"
    MANAGER = "manager"
    VENDOR_AUDITOR = "vendor_auditor"
    TENANT_ADMIN = "tenant_admin"
    APPROVER = "approver"
    AUDITOR = "auditor"


class Guarded(StrEnum):
    """What not everybody who may see a request may read of it.

    An origin is the network address and the user agent of whoever acted, on the vendor's or the customer's side.
    """

    JUSTIFICATION = "justification"
    COMMENT = "comment"
    VENDOR_ORIGIN = "vendor_origin"
    CUSTOMER_ORIGIN = "customer_origin"


CUSTOMERS_PARTIES = frozenset({Role.TENANT_ADMIN, Role.APPROVER, Role.AUDITOR})
CUSTOMER = frozenset({Capacity.TENANT_ADMIN, Capacity.APPROVER, Capacity.AUDITOR})
READERS: dict[Guarded, frozenset[Capacity]] = {
    Guarded.JUSTIFICATION: frozenset({Capacity.REQUESTER, Capacity.MANAGER}) | CUSTOMER,
    Guarded.COMMENT: frozenset({Capacity.REQUESTER, Capacity.MANAGER}) | CUSTOMER,
    Guarded.VENDOR_ORIGIN: frozenset({Capacity.MANAGER, Capacity.VENDOR_AUDITOR}),
    Guarded.CUSTOMER_ORIGIN: CUSTOMER,
}


def capacities(caller: Caller, requester_id: UUID, tenant_id: UUID) -> frozenset[Capacity]:
    """Return everything as which the caller looks at a request."""
    held = {
        Capacity.REQUESTER: caller.person_id == requester_id,
        Capacity.MANAGER: caller.holds(Role.MANAGER),
        Capacity.VENDOR_AUDITOR: caller.holds(Role.VENDOR_AUDITOR),
        Capacity.TENANT_ADMIN: caller.holds(Role.TENANT_ADMIN, tenant_id=tenant_id),
        Capacity.APPROVER: caller.holds(Role.APPROVER, tenant_id=tenant_id),
        Capacity.AUDITOR: caller.holds(Role.AUDITOR, tenant_id=tenant_id),
    }
    return frozenset(capacity for capacity, holds in held.items() if holds)


def origin_of(role: str) -> Guarded:
    """Return which side's origin an event of this actor's role shows; the vendor's for what nobody did."""
    return Guarded.CUSTOMER_ORIGIN if role in CUSTOMERS_PARTIES else Guarded.VENDOR_ORIGIN


def may_read(field: Guarded, held: AbstractSet[Capacity]) -> bool:
    """Whether somebody who looks at a request as all of these may read the field."""
    return bool(READERS[field] & held)
