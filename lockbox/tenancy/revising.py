"""Writing a new version of a tenant's policy; the tenant's row is locked."""

from datetime import datetime

from sqlmodel import Session

from lockbox.people.models import PolicyVersion, Tenant
from lockbox.requests.rules import Policy
from lockbox.tenancy.authority import Seat


def revise(session: Session, seat: Seat, tenant: Tenant, policy: Policy, at: datetime) -> int:
    """Let a policy hold from now on, as its author's, and return its version."""
    tenant.policy_version += 1
    session.add(
        PolicyVersion(
            tenant_id=tenant.id,
            version=tenant.policy_version,
            body=policy.model_dump(mode="json"),
            author_id=seat.caller.person_id,
            created_at=at,
        )
    )
    session.add(tenant)
    session.flush()
    return tenant.policy_version
