"""Set a tenant's policy and delegates without checking rights, as the scene for tests of rules."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from harness.people import World
from harness.stage import setting
from lockbox.admin import memberships
from lockbox.database import now
from lockbox.facts.enumerations import AuthMethod, Mode
from lockbox.identity import row_macs, tenants
from lockbox.identity.models import Delegation, EligibleDelegate, Tenant
from lockbox.identity.roles import Caller
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id


def lay_down(world: World, **changes: Any) -> Policy:
    """Give the world's tenant a new policy version: the default one without vendor review, with these changes."""
    policy = Policy.model_validate({"vendor_review": False} | changes)
    with setting(world.db).transaction() as session:
        tenant = session.orm.get_one(Tenant, world.tenant.id)
        tenant.policy_version += 1
        tenants.add_policy(session, tenant, policy.model_dump(mode="json"), now(session))
        tenants.mark(session, tenant)
    return policy


def set_mode(world: World, mode: Mode) -> None:
    """Set the mode of the world's tenant; nothing that is open ends."""
    with setting(world.db).transaction() as session:
        tenant = session.orm.get_one(Tenant, world.tenant.id)
        tenant.mode = mode
        tenants.mark(session, tenant)


def group(world: World, *names: str) -> list[str]:
    """Return some people's ids, as a policy names the members of a group."""
    return [str(world.people[name].person_id) for name in names]


def put_into_tiers(world: World, **tiers: int) -> None:
    """Set the review tiers of the vendor's managers, by name."""
    with setting(world.db).transaction() as session:
        for name, tier in tiers.items():
            memberships.put_into_tier(session, world.people[name].person_id, tier)


def stand_in(world: World, delegate: str, principal: str, *, starts: float = -1, ends: float = 1) -> None:
    """Make a person the delegate of an approver, from `starts` until `ends` hours from now."""
    with setting(world.db).transaction() as session:
        at = now(session)
        person = world.people[delegate].person_id
        if session.orm.get(EligibleDelegate, (world.tenant.id, person)) is None:
            eligible = EligibleDelegate(tenant_id=world.tenant.id, person_id=person)
            eligible.mac = row_macs.mark(session, row_macs.eligible_delegate(eligible))
            session.orm.add(eligible)
        delegation = Delegation(
            id=new_id(),
            tenant_id=world.tenant.id,
            principal_id=world.people[principal].person_id,
            delegate_id=person,
            starts_at=at + timedelta(hours=starts),
            ends_at=at + timedelta(hours=ends),
            made_by=world.people["tara"].person_id,
            created_at=at,
        )
        delegation.mac = row_macs.mark(session, row_macs.delegation(delegation))
        session.orm.add(delegation)


def signed_in(world: World, who: str, means: AuthMethod, *, minutes_ago: float = 0) -> Caller:
    """Return a person as if they had signed in by these means that many minutes ago."""
    with setting(world.db).transaction() as session:
        at = now(session) - timedelta(minutes=minutes_ago)
    return replace(world.people[who], means=means, signed_in_at=at)
