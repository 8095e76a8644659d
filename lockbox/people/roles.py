"""Roles of both sides, the mode of a tenant, and the caller as the house sees it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID


class Mode(StrEnum):
    """How a tenant uses the lockbox: it decides, it is told, or neither."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    OFF = "off"


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


class Scope(StrEnum):
    """What a token may be used for; a person's token has no limits but the person's roles."""

    ACCESS_CHECK = "access:check"
    REQUESTS_FILE = "requests:file"


@dataclass(frozen=True)
class Standing:
    """One role of one person: at a tenant, or at the vendor where `tenant_id` is None."""

    role: Role
    tenant_id: UUID | None = None


@dataclass(frozen=True)
class Caller:
    """The person behind a call, with every role held now and the limits of the token that was shown.

    `scopes` and `services` bind tokens of role *system* only; people are bound by their roles.
    """

    person_id: UUID
    name: str
    standings: frozenset[Standing]
    scopes: frozenset[str] = field(default_factory=frozenset)
    services: frozenset[str] = field(default_factory=frozenset)

    def holds(self, *roles: Role, tenant_id: UUID | None = None) -> bool:
        """Whether the person has one of the roles at that tenant, or at the vendor for None."""
        return any(Standing(role, tenant_id) in self.standings for role in roles)

    def tenants(self, roles: Iterable[Role] = TENANT_ROLES) -> frozenset[UUID]:
        """The tenants at which the person has one of the roles."""
        wanted = frozenset(roles)
        return frozenset(s.tenant_id for s in self.standings if s.tenant_id and s.role in wanted)
