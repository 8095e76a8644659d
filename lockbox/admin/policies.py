"""Versions of a tenant's policy, and its replacement. Under a new policy, someone must still be able to approve."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from lockbox.admin import permissions
from lockbox.admin.emergency_stop import close_vendor_opened_windows
from lockbox.admin.permissions import AdminChange
from lockbox.audit.canonical import Value
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import Invalid, NobodyCanApprove, NotFound, StaleVersion
from lockbox.facts.enumerations import Mode
from lockbox.identity.models import EligibleDelegate, Membership, Person, Tenant
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import recipients
from lockbox.requests import policy_store as versions
from lockbox.requests.policy import Terms, effective_mode, stricter
from lockbox.requests.policy_rules import Policy, changes
from lockbox.requests.quorum import who_lacks

MOST_A_PAGE = 200

EDITIONS = text("""
SELECT v.version, v.author_id, p.name, v.created_at FROM policies v LEFT JOIN people p ON p.id = v.author_id
WHERE v.tenant_id = :tenant_id AND (CAST(:before AS integer) IS NULL OR v.version < :before)
ORDER BY v.version DESC LIMIT :most
""")


@dataclass(frozen=True)
class PolicyEdition:
    """`author_id` is None for the initial policy; `author` is None for a former member."""

    version: int
    author_id: UUID | None
    author: str | None
    created_at: datetime


@dataclass(frozen=True)
class VersionedPolicy:
    edition: PolicyEdition
    policy: Policy


def read(session: UnitOfWork, caller: Caller, slug: str, version: int | None = None) -> VersionedPolicy:
    """`version` is None for the version in force. For the tenant's members."""
    tenant = permissions.readable(session, caller, slug)
    return _held(session, tenant, version or tenant.policy_version)


def editions(
    session: UnitOfWork, caller: Caller, slug: str, *, before: int | None, most: int
) -> Sequence[PolicyEdition]:
    """Newest first. For the tenant's members."""
    tenant = permissions.readable(session, caller, slug)
    return _editions(session, tenant, before, most)


def change(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, policy: Policy, *, seen: int | None = None
) -> VersionedPolicy:
    """Replace a tenant's policy by a new version, as its admin; an equal policy changes nothing.

    If the policy in force or the tenant's row has no valid MAC, this call confirms the policy: it is written even if
    equal, the mode becomes `enforce`, and windows opened without the customer are revoked. Any sign-in may withdraw
    temporary consent, because that only closes access; all other changes need the sign-in that an approval needs.
    """
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, (Role.TENANT_ADMIN,), tenant)
    tenant = permissions.locked(session, tenant)
    if seen is not None and seen != tenant.policy_version:
        raise StaleVersion(
            "The policy has changed since you read it. Read it again.", current_version=tenant.policy_version
        )
    held = _held(session, tenant, tenant.policy_version)
    differences = changes(held.policy, policy)
    is_anew = versions.verified(session, tenant) is None
    if not (differences or is_anew):
        return held
    if is_anew or policy != held.policy.model_copy(update={"consent": None}):
        permissions.require_fresh_admin(session, actor, tenant)
    at = now(session)
    check(session, tenant, policy, at)
    takes_back = is_anew or takes_consent_back(tenant, held.policy, policy, at)
    if is_anew:
        differences |= _begun_anew(tenant)
    version = permissions.revise_policy(session, actor, tenant, policy, at)
    edition = PolicyEdition(version, actor.caller.person_id, actor.caller.name, at)
    facts: dict[str, Value] = {"version": edition.version}
    if takes_back:
        facts["closed"] = [str(request.id) for request in close_vendor_opened_windows(session, actor, tenant)]
    permissions.record_change(session, actor, AdminChange("policy_changed", at, differences, facts=facts))
    return VersionedPolicy(edition, policy)


def check(session: UnitOfWork, tenant: Tenant, policy: Policy, at: datetime) -> None:
    """Raises Invalid if someone in a group could never decide; NobodyCanApprove if a quorum or stage lacks people."""
    _only_deciders(session, tenant, policy)
    _somebody_can_approve(session, tenant, policy, at)


def _begun_anew(tenant: Tenant) -> dict[str, str]:
    was, tenant.mode = tenant.mode, Mode.ENFORCE
    return {"mode": permissions.change(f"{was} (unverified)", tenant.mode)}


def takes_consent_back(tenant: Tenant, old: Policy, new: Policy, at: datetime) -> bool:
    if tenant.mode is not Mode.ENFORCE or old.consent is None:
        return False
    return (
        new.consent is None
        or new.consent.until < old.consent.until
        or effective_mode(tenant.mode, new.consent, at) is Mode.ENFORCE
    )


def _held(session: UnitOfWork, tenant: Tenant, version: int) -> VersionedPolicy:
    found = _editions(session, tenant, version + 1, 1)
    if not found or found[0].version != version:
        raise NotFound("There is no such version of the policy.")
    return VersionedPolicy(found[0], versions.at_version(session, tenant.id, version))


def _editions(session: UnitOfWork, tenant: Tenant, before: int | None, most: int) -> list[PolicyEdition]:
    values = {"tenant_id": tenant.id, "before": before, "most": most}
    return [PolicyEdition(*row) for row in session.execute(EDITIONS, values)]


def _only_deciders(session: UnitOfWork, tenant: Tenant, policy: Policy) -> None:
    able = set(_deciders(session, tenant))
    errors = [
        {"field": f"groups.{group}", "message": f"not an approver or eligible delegate of this tenant: {strangers}"}
        for group, members in policy.groups.items()
        if (strangers := ", ".join(str(person) for person in members if person not in able))
    ]
    if errors:
        raise Invalid("; ".join(f"{e['field']}: {e['message']}" for e in errors), field="groups", errors=errors)


def _deciders(session: UnitOfWork, tenant: Tenant) -> Iterator[UUID]:
    member = (
        select(Membership.person_id)
        .join(Person)
        .where(col(Membership.tenant_id) == tenant.id, col(Person.disabled_at).is_(None))
    )
    yield from session.orm.exec(member.where(col(Membership.role) == Role.APPROVER))
    eligible = select(EligibleDelegate.person_id).where(col(EligibleDelegate.tenant_id) == tenant.id)
    yield from session.orm.exec(member.where(col(Membership.person_id).in_(eligible)))


def _somebody_can_approve(session: UnitOfWork, tenant: Tenant, policy: Policy, at: datetime) -> None:
    known = recipients.look_up(session, {tenant.id}, at)
    seats = known.seats(tenant.id)
    reasons = [
        f"{where}{reason}"
        for where, terms in _every_terms(policy)
        for reason in who_lacks(terms.quorum, terms.stages, policy.groups, seats)
    ]
    if reasons:
        raise NobodyCanApprove(" ".join(reasons), reasons=reasons)


def _every_terms(policy: Policy) -> Iterator[tuple[str, Terms]]:
    terms = stricter(policy, policy)
    yield "", terms
    for rule in policy.rules:
        yield f'Under the rule "{rule.name}": ', stricter(terms, terms.model_copy(update=rule.terms.given()))
