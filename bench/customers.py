"""Many customers and engineers for loads over HTTP, because each person's and tenant's submissions are limited."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from devstack.stack import StackPlan
from harness.people import WITHOUT_REVIEW, Enrolment, submission
from lockbox.identity import tenants
from lockbox.identity.roles import Role
from lockbox.owner_transaction import as_owner

LIFETIME = timedelta(days=1)


@dataclass(frozen=True)
class Customers:
    """Tenants, each with one approver who has a token, and as many engineers as tenants."""

    tenants: list[UUID]
    slugs: list[str]
    engineers: list[UUID]
    engineer_tokens: list[str]
    approver_tokens: list[str]

    def filings(self, access_window: int) -> Iterator[dict[str, object]]:
        """Yield a submission of each engineer at a tenant, as a call of `harness.load`."""
        for number, (slug, token) in enumerate(zip(self.slugs, self.engineer_tokens, strict=True)):
            case = {"resources": [resource(number)], "case_ref": f"CASE-{number}"}
            body = submission(slug, **case, access_window=access_window)
            yield {"method": "POST", "path": "/v1/requests", "token": token, "body": body, "status": 201}

    def lives(self, access_window: int) -> Iterator[list[dict[str, object]]]:
        """Yield stories of `harness.load`: a submission and its approval."""
        for call, token in zip(self.filings(access_window), self.approver_tokens, strict=True):
            path = "/v1/requests/{id}/approve"
            yield [call, {"method": "POST", "path": path, "token": token, "body": {}, "status": 200}]


def resource(number: int) -> str:
    """Return the mailbox to which this engineer requests access."""
    return f"mailbox:anna-{number}@people.example"


def settle_in(plan: StackPlan, count: int) -> Customers:
    """Add this many customers and engineers."""
    policy = WITHOUT_REVIEW.model_dump(mode="json")
    with as_owner(plan.owner_database_url) as session:
        enrolment, found = Enrolment(session, LIFETIME), Customers([], [], [], [], [])
        for number in range(1, count + 1):
            tenant = tenants.add(session, f"customer-{number}", f"Customer {number}", policy=policy)
            engineer, engineers_token = enrolment.enter(f"engineer-{number}", Role.ENGINEER)
            _, approvers_token = enrolment.enter(f"approver-{number}", Role.APPROVER, tenant.id)
            found.tenants.append(tenant.id)
            found.slugs.append(tenant.slug)
            found.engineers.append(engineer.person_id)
            found.engineer_tokens.append(engineers_token)
            found.approver_tokens.append(approvers_token)
        enrolment.write()
    return found
