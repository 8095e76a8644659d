"""Sample people and tenants for a local installation; refused in production."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlmodel import col, select

from lockbox.database import UnitOfWork, now
from lockbox.identity import api_tokens, tenants
from lockbox.identity.api_tokens import TokenTerms
from lockbox.identity.models import Person, Tenant
from lockbox.identity.roles import Role, Scope, Side
from lockbox.requests.policy_rules import Policy

LIFETIME = timedelta(days=1)

VENDOR = (
    ("erin", "Erin Engel", "erin@vendor.example", Role.ENGINEER),
    ("max", "Max Marsh", "max@vendor.example", Role.MANAGER),
    ("vera", "Vera Voss", "vera@vendor.example", Role.VENDOR_AUDITOR),
    ("olga", "Olga Ortiz", "olga@vendor.example", Role.OPERATOR),
    ("gate", "Mail gateway", "gate@vendor.example", Role.SYSTEM),
)
CUSTOMER = (
    ("tara", "Tara Todd", Role.TENANT_ADMIN),
    ("ann", "Ann Archer", Role.APPROVER),
    ("amir", "Amir Aziz", Role.APPROVER),
    ("aude", "Aude Auger", Role.AUDITOR),
)


class NotInProduction(Exception):  # noqa: N818 - the name says what went wrong
    """Sample people are refused: they have known names, and tokens that last a day."""


@dataclass(frozen=True)
class Sample:
    tenant: str
    tenant_id: UUID
    people: Mapping[str, UUID]
    tokens: Mapping[str, str]


def seed(session: UnitOfWork, *, tenant: str, policy: Policy, environment: str, services: Iterable[str]) -> Sample:
    if environment == "production":
        raise NotInProduction("sample people are for a machine of your own, never for production")
    found = tenants.find(session, tenant) or tenants.add(
        session, tenant, tenant.capitalize(), policy=policy.model_dump(mode="json")
    )
    people = {key: _person(session, name, email, role, None) for key, name, email, role in VENDOR}
    people |= {key: _person(session, name, f"{key}@{tenant}.example", role, found.id) for key, name, role in CUSTOMER}
    bound = {"gate": ([Scope.ACCESS_CHECK, Scope.ACTIVITY_REPORT], list(services))}
    shown = {}
    for key, person_id in people.items():
        scopes, bound_to = bound.get(key, ([], []))
        terms = TokenTerms(
            environment=environment,
            lifetime=LIFETIME,
            name="sample",
            is_sample=True,
            scopes=scopes,
            services=bound_to,
        )
        shown[key] = api_tokens.issue(session, person_id, terms).text
    return Sample(tenant, found.id, people, shown)


def lay_down(session: UnitOfWork, tenant_id: UUID, policy: Policy) -> None:
    tenant = session.orm.get_one(Tenant, tenant_id)
    tenant.policy_version += 1
    tenants.add_policy(session, tenant, policy.model_dump(mode="json"), now(session))
    tenants.mark(session, tenant)


def _person(session: UnitOfWork, name: str, email: str, role: Role, tenant_id: UUID | None) -> UUID:
    there = session.orm.exec(select(Person).where(col(Person.email) == email)).one_or_none()
    if there is not None:
        return there.id
    person = tenants.add_person(session, name, email, Side.CUSTOMER if tenant_id else Side.VENDOR)
    tenants.give_role(session, person.id, role, tenant_id)
    return person.id
