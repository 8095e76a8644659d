"""Many customers and engineers for loads over HTTP: as the limits of one person and one tenant count filings."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from cli.stack import StackPlan
from lockbox.database import as_owner, now
from lockbox.identity import api_tokens, keyring, row_marks
from lockbox.identity import tenants as registry
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id

LIFETIME = timedelta(days=1)
SERVICE = "exchange-online"

PEOPLE = text("""
INSERT INTO people (id, name, email, side, created_at)
SELECT uuidv7(), :name || ' ' || n, :name || '-' || n || '@people.example', :side, now()
FROM generate_series(1, :count) AS n RETURNING id
""")
ROLES = text("""
INSERT INTO memberships (id, person_id, tenant_id, role, mac)
SELECT m.id, m.person, m.tenant, :role, m.mac FROM unnest(CAST(:ids AS uuid[]), CAST(:people AS uuid[]),
    CAST(:tenants AS uuid[]), CAST(:macs AS bytea[])) AS m (id, person, tenant, mac)
""")


@dataclass(frozen=True)
class Customers:
    """Tenants, each with one approver who shows a token, and as many engineers as tenants."""

    tenants: list[UUID]
    slugs: list[str]
    engineers: list[UUID]
    engineer_tokens: list[str]
    approver_tokens: list[str]

    def filings(self, access_window: int) -> Iterator[dict[str, object]]:
        """Yield a filing of each engineer at a tenant, as a call of `bench.clients`."""
        for number, (slug, token) in enumerate(zip(self.slugs, self.engineer_tokens, strict=True)):
            body = {
                "tenant": slug,
                "service": SERVICE,
                "resources": [resource(number)],
                "actions": ["read"],
                "reason_code": "support_case",
                "justification": "The mailbox does not open on the phone",
                "case_ref": "CASE-1",
                "access_window": access_window,
            }
            yield {"method": "POST", "path": "/v1/requests", "token": token, "body": body, "status": 201}

    def lives(self, access_window: int) -> Iterator[list[dict[str, object]]]:
        """Yield stories of `bench.clients`: a filing and its approval."""
        for filing, token in zip(self.filings(access_window), self.approver_tokens, strict=True):
            path = "/v1/requests/{id}/approve"
            yield [filing, {"method": "POST", "path": path, "token": token, "body": {}, "status": 200}]


def resource(number: int) -> str:
    """Return the mailbox that this engineer asks for."""
    return f"mailbox:anna-{number}@people.example"


def settle_in(plan: StackPlan, count: int) -> Customers:
    """Add that many customers and engineers."""
    policy = Policy(vendor_review=False).model_dump(mode="json")
    with as_owner(plan.owner_database_url) as session:
        connection = session.connection()
        added = [
            registry.add(session, f"customer-{number}", f"Customer {number}", policy=policy)
            for number in range(1, count + 1)
        ]
        tenants = [tenant.id for tenant in added]
        given: list[list[str]] = []
        engineers: list[UUID] = []
        for role, side, at in (("engineer", "vendor", [None] * count), ("approver", "customer", tenants)):
            values = {"name": role, "side": side, "count": count}
            people = list(connection.execute(PEOPLE, values).scalars())
            ids, key = [new_id() for _ in people], keyring.of(session).powers
            macs = [
                key.mark(*row_marks.membership(row_id, person, place, role))
                for row_id, person, place in zip(ids, people, at, strict=True)
            ]
            connection.execute(ROLES, {"ids": ids, "people": people, "tenants": at, "macs": macs, "role": role})
            engineers = engineers or people
            issued = [
                api_tokens.draft(
                    one,
                    now(session),
                    keyring.of(session),
                    environment=plan.environment,
                    lifetime=LIFETIME,
                    name="bench",
                    is_sample=True,
                )
                for one in people
            ]
            session.add_all(one.token for one in issued)
            given.append([one.text for one in issued])
    return Customers(tenants, [tenant.slug for tenant in added], engineers, given[0], given[1])
