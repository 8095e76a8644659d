"""Sides, roles and scopes, the caller with the current roles, and who may read which fields of a request; pure."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from lockbox.facts.enumerations import AuthMethod, SignInKind


class Side(StrEnum):
    """A person's side, which never changes: no one at the vendor is ever a member of a customer."""

    VENDOR = "vendor"
    CUSTOMER = "customer"


class Role(StrEnum):
    """What a person may be, on the vendor's side or at a tenant."""

    ENGINEER = "engineer"
    MANAGER = "manager"
    OPERATOR = "operator"
    VENDOR_AUDITOR = "vendor_auditor"
    SYSTEM = "system"
    TENANT_ADMIN = "tenant_admin"
    APPROVER = "approver"
    AUDITOR = "auditor"


VENDOR_ROLES = frozenset({Role.ENGINEER, Role.MANAGER, Role.OPERATOR, Role.VENDOR_AUDITOR, Role.SYSTEM})
TENANT_ROLES = frozenset(Role) - VENDOR_ROLES


BOUND_TO = "tenant:"
"""The prefix of a scope that binds a token to a tenant; the tenant's slug follows."""


class Scope(StrEnum):
    """What a token may be used for; a person's token is limited by their roles only.

    A scope of the gate names the kind of gateway that shows the token. The kind decides which headers describe a
    call. `gate:authzen` is for a program that asks by AuthZEN, `gate:guard` for a guard that enforces inside a
    service. A token of `case:close` also has a scope for each tenant that it is bound to: `tenant:` and the slug.
    """

    ACCESS_CHECK = "access:check"
    REQUESTS_FILE = "requests:file"
    ACTIVITY_REPORT = "activity:report"
    CASE_CLOSE = "case:close"
    DIRECTORY_WRITE = "directory:write"
    GATE_NGINX = "gate:nginx"
    GATE_CADDY = "gate:caddy"
    GATE_TRAEFIK = "gate:traefik"
    GATE_HAPROXY = "gate:haproxy"
    GATE_ENVOY = "gate:envoy"
    GATE_AUTHZEN = "gate:authzen"
    GATE_GUARD = "gate:guard"

    @property
    def dialect(self) -> str | None:
        return self.value.removeprefix("gate:") if self.value.startswith("gate:") else None


@dataclass(frozen=True)
class RoleGrant:
    """`tenant_id` is None at the vendor."""

    role: Role
    tenant_id: UUID | None = None


@dataclass(frozen=True)
class Caller:
    """The person behind a call, with all current roles, and the sign-in with its limits.

    `scopes` and `services` limit only tokens of the role *system*. `key_id` is the token or the browser session. If
    `only_at` is set, the sign-in counts only at that tenant, and `standings` has only the roles there. With
    `by_device_login`, the caller may administer but not approve.
    """

    person_id: UUID
    name: str
    standings: frozenset[RoleGrant]
    scopes: frozenset[str] = field(default_factory=frozenset)
    services: frozenset[str] = field(default_factory=frozenset)
    side: Side = Side.VENDOR
    means: AuthMethod = AuthMethod.TOKEN
    key_id: UUID | None = None
    signed_in_at: datetime | None = None
    only_at: UUID | None = None
    by_device_login: bool = False

    @property
    def sign_in(self) -> dict[str, Any]:
        """The details of this sign-in that a request records; the sign-in time is left out for a token."""
        if self.holds(Role.SYSTEM):
            return {"sign_in": SignInKind.SYSTEM}
        shown = {"sign_in": self._sign_in_kind, "sign_in_means": self.means}
        return shown if self.means is AuthMethod.TOKEN else shown | {"signed_in_at": self.signed_in_at}

    @property
    def _sign_in_kind(self) -> SignInKind:
        if self.by_device_login:
            return SignInKind.DEVICE_LOGIN
        if self.means is AuthMethod.TOKEN or self.signed_in_at is None:
            return SignInKind.TOKEN
        return SignInKind.PROVIDER_TOKEN if self.key_id is None else SignInKind.SESSION

    def within(self, tenant_id: UUID | None) -> "Caller":
        if tenant_id is None:
            return self
        held = frozenset(standing for standing in self.standings if standing.tenant_id == tenant_id)
        return replace(self, standings=held, only_at=tenant_id)

    def holds(self, *roles: Role, tenant_id: UUID | None = None) -> bool:
        return any(RoleGrant(role, tenant_id) in self.standings for role in roles)

    def tenants(self, roles: Iterable[Role] = TENANT_ROLES) -> frozenset[UUID]:
        wanted = frozenset(roles)
        return frozenset(s.tenant_id for s in self.standings if s.tenant_id and s.role in wanted)

    def vendor_roles(self) -> frozenset[Role]:
        return frozenset(s.role for s in self.standings if s.tenant_id is None)


class VisibilityScope(StrEnum):
    """Requests that a person may know of in a role: none, their own, those their tenant was notified of, or all."""

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
    """A person's relation to one particular request."""

    REQUESTER = "requester"
    MANAGER = "manager"
    VENDOR_AUDITOR = "vendor_auditor"
    TENANT_ADMIN = "tenant_admin"
    APPROVER = "approver"
    AUDITOR = "auditor"


class ProtectedField(StrEnum):
    """Fields of a request that only some of its readers may read.

    An origin is the actor's network address and user agent, on the vendor's or the customer's side.
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
    return ProtectedField.CUSTOMER_ORIGIN if role in CUSTOMERS_PARTIES else ProtectedField.VENDOR_ORIGIN


def may_read(field: ProtectedField, held: AbstractSet[ReaderRole]) -> bool:
    return bool(READERS[field] & held)
