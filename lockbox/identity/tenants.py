"""Look up and create tenants, people and roles."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel import col, select

from lockbox.database import UnitOfWork, now
from lockbox.facts.enumerations import Mode
from lockbox.identity import keyring, row_macs
from lockbox.identity.models import Membership, Person, PolicyVersion, Tenant
from lockbox.identity.roles import Role, Side
from lockbox.sql import new_id

FIRST_VERSION = 1


def find(session: UnitOfWork, slug: str) -> Tenant | None:
    return session.orm.exec(select(Tenant).where(col(Tenant.slug) == slug)).one_or_none()


def slugs(session: UnitOfWork, tenant_ids: Iterable[UUID]) -> dict[UUID, str]:
    return dict(session.orm.exec(select(Tenant.id, Tenant.slug).where(col(Tenant.id).in_(tenant_ids))).all())


def add(
    session: UnitOfWork,
    slug: str,
    name: str,
    *,
    policy: dict[str, Any],
    mode: Mode = Mode.ENFORCE,
    plan: str = "standard",
) -> Tenant:
    at = now(session)
    tenant = Tenant(
        id=new_id(), slug=slug, name=name, mode=mode, plan=plan, policy_version=FIRST_VERSION, created_at=at
    )
    tenant.mac = row_macs.mark(session, row_macs.tenant(tenant))
    session.orm.add(tenant)
    session.orm.flush()
    add_policy(session, tenant, policy, at)
    return tenant


def add_policy(
    session: UnitOfWork, tenant: Tenant, body: dict[str, Any], at: datetime, author_id: UUID | None = None
) -> None:
    """Write the policy version that the tenant's row names, with a MAC."""
    version = tenant.policy_version
    mac = row_macs.mark(session, row_macs.policy(tenant.id, version, body))
    session.orm.add(
        PolicyVersion(tenant_id=tenant.id, version=version, body=body, author_id=author_id, created_at=at, mac=mac)
    )
    session.orm.flush()


def mark(session: UnitOfWork, tenant: Tenant) -> None:
    """Raise the tenant's revision and renew the MAC; the calling function has checked the previous MAC."""
    tenant.revision += 1
    tenant.mac = row_macs.mark(session, row_macs.tenant(tenant))
    session.orm.add(tenant)
    session.orm.flush()


def add_person(session: UnitOfWork, name: str, email: str, side: Side) -> Person:
    person = Person(id=new_id(), name=name, email=email, side=side, created_at=now(session))
    session.orm.add(person)
    session.orm.flush()
    return person


def give_role(session: UnitOfWork, person_id: UUID, role: Role, tenant_id: UUID | None = None) -> None:
    """Add a role; the database refuses a role of the other side."""
    row_id = new_id()
    mac = keyring.of(session).powers.mark(*row_macs.membership(row_id, person_id, tenant_id, role))
    session.orm.add(Membership(id=row_id, person_id=person_id, tenant_id=tenant_id, role=role, mac=mac))
    session.orm.flush()
