"""Access reviews: a tenant's members or the vendor's staff, with their last sign-ins."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.admin import permissions
from lockbox.audit.canonical import instant
from lockbox.audit.export import row as csv_row
from lockbox.database import UnitOfWork, now
from lockbox.identity import authentication
from lockbox.identity.models import Tenant
from lockbox.identity.roles import Caller, Role

READERS = (Role.TENANT_ADMIN, Role.AUDITOR)
VENDORS_READERS = (Role.OPERATOR, Role.VENDOR_AUDITOR)
COLUMNS = ("part", "id", "name", "address", "roles", "may_approve", "through", "last_sign_in", "by", "disabled")
APPROVER, DELEGATE, ELIGIBLE = "approver", "delegate of {name} until {until}", "may be named as a delegate"
PEOPLE = text("""
SELECT p.id, p.name, p.email, p.disabled_at IS NOT NULL AS is_disabled, r.roles, s.at, s.means,
    EXISTS (SELECT FROM eligible_delegates l WHERE l.person_id = p.id AND l.tenant_id = :tenant) AS is_eligible
FROM (SELECT m.person_id, array_agg(m.role ORDER BY m.role) AS roles FROM memberships m
    WHERE m.tenant_id IS NOT DISTINCT FROM CAST(:tenant AS uuid) GROUP BY m.person_id) r
JOIN people p ON p.id = r.person_id LEFT JOIN last_sign_ins(:tenant) s ON s.person_id = p.id
ORDER BY lower(p.name), p.id
""")
DELEGATIONS = text("""
SELECT d.delegate_id, p.name, d.ends_at FROM delegations d JOIN people p ON p.id = d.principal_id
WHERE d.tenant_id = :tenant AND d.ended_at IS NULL AND d.starts_at <= :at AND d.ends_at > :at ORDER BY d.ends_at
""")
TWO_ROLES = text("""
SELECT p.id, p.name, array_agg(m.role ORDER BY m.role) AS roles FROM memberships m JOIN people p ON p.id = m.person_id
WHERE m.tenant_id IS NULL AND p.disabled_at IS NULL GROUP BY p.id, p.name HAVING count(*) > 1
ORDER BY lower(p.name), p.id
""")


@dataclass(frozen=True)
class ReviewedPerson:
    id: UUID
    name: str
    address: str
    roles: Sequence[str]
    through: Sequence[str]
    may_approve: bool
    is_disabled: bool
    last_sign_in: datetime | None
    means: str | None


@dataclass(frozen=True)
class TwoRoles:
    id: UUID
    name: str
    roles: Sequence[str]


@dataclass(frozen=True)
class AccessReview:
    """`tenant` is None for the vendor. `two_roles` lists the vendor's people with more than one role."""

    tenant: Tenant | None
    at: datetime
    people: Sequence[ReviewedPerson]
    two_roles: Sequence[TwoRoles]


def of_tenant(session: UnitOfWork, caller: Caller, slug: str) -> AccessReview:
    """For the tenant's admins and auditors."""
    tenant = permissions.readable(session, caller, slug, READERS)
    return _review(session, tenant)


def of_vendor(session: UnitOfWork, caller: Caller) -> AccessReview:
    """For the vendor's operators and auditors."""
    authentication.enter(session, caller)
    permissions.capacity(caller, VENDORS_READERS)
    return _review(session, None)


def table(found: AccessReview) -> Iterator[bytes]:
    """Yield CSV rows; no cell can act as a spreadsheet formula."""
    yield csv_row(COLUMNS)
    part = "member" if found.tenant else "vendor"
    for person in found.people:
        signed_in = instant(person.last_sign_in) if person.last_sign_in else None
        through = ", ".join(person.through)
        who = [person.id, person.name, person.address, " ".join(person.roles)]
        yield csv_row(
            [part, *who, _yes(person.may_approve), through, signed_in, person.means, _yes(person.is_disabled)]
        )
    for two in found.two_roles:
        yield csv_row(["vendor with two roles", two.id, two.name, None, " ".join(two.roles), *[None] * 5])


def _review(session: UnitOfWork, tenant: Tenant | None) -> AccessReview:
    at, place = now(session), tenant.id if tenant else None
    stands_in: dict[UUID, list[str]] = {}
    if tenant:
        for one in session.execute(DELEGATIONS, {"tenant": place, "at": at}):
            said = DELEGATE.format(name=one.name, until=f"{one.ends_at:%Y-%m-%d %H:%MZ}")
            stands_in.setdefault(one.delegate_id, []).append(said)
    people = [_person(one, stands_in.get(one.id, [])) for one in session.execute(PEOPLE, {"tenant": place})]
    two_roles = [TwoRoles(one.id, one.name, one.roles) for one in session.execute(TWO_ROLES)]
    return AccessReview(tenant, at, people, two_roles)


def _person(one: Row[Any], stands_in: Sequence[str]) -> ReviewedPerson:
    by_role = [APPROVER] if Role.APPROVER in one.roles else []
    eligible = [ELIGIBLE] if one.is_eligible and not stands_in else []
    return ReviewedPerson(
        id=one.id,
        name=one.name,
        address=one.email,
        roles=one.roles,
        through=[*by_role, *stands_in, *eligible],
        may_approve=bool(by_role or stands_in) and not one.is_disabled,
        is_disabled=one.is_disabled,
        last_sign_in=one.at,
        means=one.means,
    )


def _yes(value: bool) -> str:  # noqa: FBT001 - it turns a bool into text
    return "yes" if value else "no"
