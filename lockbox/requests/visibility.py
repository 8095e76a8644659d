"""Who reads what of a request: one pure table, from the capacity of a reader to what is not for everybody."""

from collections.abc import Set as AbstractSet
from enum import StrEnum
from uuid import UUID

from lockbox.identity.roles import Caller, Role


class VisibilityScope(StrEnum):
    """Which requests somebody may know of by a role: none, the own, their tenant's once it was told, or all."""

    NONE = "none"
    OWN = "own"
    TENANTS = "the tenant's"
    ALL = "all"


VISIBILITY_SCOPES: dict[Role, VisibilityScope] = {
    Role.ENGINEER: VisibilityScope.OWN,
    Role.MANAGER: VisibilityScope.ALL,
    Role.OPERATOR: VisibilityScope.NONE,
    Role.VENDOR_AUDITOR: VisibilityScope.ALL,
    Role.SYSTEM: VisibilityScope.NONE,
    Role.TENANT_ADMIN: VisibilityScope.TENANTS,
    Role.APPROVER: VisibilityScope.TENANTS,
    Role.AUDITOR: VisibilityScope.TENANTS,
}


SEE_ALL = frozenset(role for role, scope in VISIBILITY_SCOPES.items() if scope is VisibilityScope.ALL)
SEE_THEIR_TENANTS = frozenset(role for role, scope in VISIBILITY_SCOPES.items() if scope is VisibilityScope.TENANTS)


class ReaderRole(StrEnum):
    """As what somebody looks at one particular request."""

    REQUESTER = "requester"
    MANAGER = "manager"
    VENDOR_AUDITOR = "vendor_auditor"
    TENANT_ADMIN = "tenant_admin"
    APPROVER = "approver"
    AUDITOR = "auditor"


class ProtectedField(StrEnum):
    """What not everybody who may see a request may read of it.

    An origin is the network address and the user agent of whoever acted, on the vendor's or the customer's side.
    """

    JUSTIFICATION = "justification"
    COMMENT = "comment"
    VENDOR_ORIGIN = "vendor_origin"
    CUSTOMER_ORIGIN = "customer_origin"


CUSTOMERS_PARTIES = frozenset({Role.TENANT_ADMIN, Role.APPROVER, Role.AUDITOR})
CUSTOMER = frozenset({ReaderRole.TENANT_ADMIN, ReaderRole.APPROVER, ReaderRole.AUDITOR})
READERS: dict[ProtectedField, frozenset[ReaderRole]] = {
    ProtectedField.JUSTIFICATION: frozenset({ReaderRole.REQUESTER, ReaderRole.MANAGER}) | CUSTOMER,
    ProtectedField.COMMENT: frozenset({ReaderRole.REQUESTER, ReaderRole.MANAGER}) | CUSTOMER,
    ProtectedField.VENDOR_ORIGIN: frozenset({ReaderRole.MANAGER, ReaderRole.VENDOR_AUDITOR}),
    ProtectedField.CUSTOMER_ORIGIN: CUSTOMER,
}


def reader_roles(caller: Caller, requester_id: UUID, tenant_id: UUID) -> frozenset[ReaderRole]:
    """Return everything as which the caller looks at a request."""
    held = {
        ReaderRole.REQUESTER: caller.person_id == requester_id,
        ReaderRole.MANAGER: caller.holds(Role.MANAGER),
        ReaderRole.VENDOR_AUDITOR: caller.holds(Role.VENDOR_AUDITOR),
        ReaderRole.TENANT_ADMIN: caller.holds(Role.TENANT_ADMIN, tenant_id=tenant_id),
        ReaderRole.APPROVER: caller.holds(Role.APPROVER, tenant_id=tenant_id),
        ReaderRole.AUDITOR: caller.holds(Role.AUDITOR, tenant_id=tenant_id),
    }
    return frozenset(capacity for capacity, holds in held.items() if holds)


def origin_of(role: str) -> ProtectedField:
    """Return which side's origin an event of this actor's role shows; the vendor's for what nobody did."""
    return ProtectedField.CUSTOMER_ORIGIN if role in CUSTOMERS_PARTIES else ProtectedField.VENDOR_ORIGIN


def may_read(field: ProtectedField, held: AbstractSet[ReaderRole]) -> bool:
    """Whether somebody who looks at a request as all of these may read the field."""
    return bool(READERS[field] & held)
