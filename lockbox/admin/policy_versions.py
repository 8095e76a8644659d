"""Write a new version of a tenant's policy; the tenant's row has to be locked."""

from datetime import datetime

from sqlalchemy import func
from sqlmodel import Session, col, select

from lockbox.admin.permissions import AdminActor
from lockbox.identity import tenants
from lockbox.identity.models import PolicyVersion, Tenant
from lockbox.requests.policy_rules import Policy


def revise(session: Session, seat: AdminActor, tenant: Tenant, policy: Policy, at: datetime) -> int:
    """Put a policy in force as its author's, mark the tenant, and return the version."""
    newest = session.exec(
        select(func.max(PolicyVersion.version)).where(col(PolicyVersion.tenant_id) == tenant.id)
    ).one()
    tenant.policy_version = (newest or 0) + 1
    tenants.add_policy(session, tenant, policy.model_dump(mode="json"), at, seat.caller.person_id)
    tenants.mark(session, tenant)
    return tenant.policy_version
