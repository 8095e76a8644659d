"""A tenant's members: an admin invites, lists, changes and removes them."""

from uuid import UUID

from sqlmodel import col, select

from lockbox.admin import delegates, invitations, memberships, permissions
from lockbox.admin.invitations import InvitationOffer
from lockbox.admin.memberships import Member, MemberListing
from lockbox.admin.permissions import AdminActor, AdminChange, change, listed
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import LastAdmin, NotFound
from lockbox.facts.enumerations import Mode
from lockbox.identity import row_macs
from lockbox.identity.models import EligibleDelegate, Invitation, Tenant
from lockbox.identity.roles import TENANT_ROLES, Caller, Role

ADMINS = (Role.TENANT_ADMIN,)


def page(session: UnitOfWork, caller: Caller, slug: str, *, cursor: UUID | None, most: int) -> MemberListing:
    tenant = permissions.readable(session, caller, slug)
    return memberships.page(session, tenant.id, cursor=cursor, most=most)


def show(session: UnitOfWork, caller: Caller, slug: str, person_id: UUID) -> Member:
    tenant = permissions.readable(session, caller, slug)
    return _at(session, tenant.id, person_id)


def invite(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    slug: str,
    *,
    name: str,
    address: str,
    roles: frozenset[Role],
    a_day: int | None = None,
) -> Invitation:
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, ADMINS, tenant)
    permissions.require_fresh_admin(session, actor, tenant)
    at = now(session)
    invitations.only_one(session, tenant.id, address, at)
    invitations.few_enough(session, tenant.id, at, a_day)
    return invitations.make(session, actor, InvitationOffer(name, address, roles), at)


def set_roles(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    slug: str,
    person_id: UUID,
    *,
    roles: frozenset[Role],
    seen: str | None = None,
) -> Member:
    """Losing *approver* ends the member's own delegations; losing *admin* withdraws invitations by the member."""
    actor, member = _member(session, caller, origin, slug, person_id)
    member.check_seen(seen)
    if roles != member.roles:
        if roles - member.roles - {Role.AUDITOR} or _weakens(session, actor, member, roles):
            permissions.require_fresh_admin(session, actor, permissions.known(session, caller, slug))
        _not_the_last_admin(session, actor, member, roles)
        _end_what_roles_carried(session, actor, member, roles)
        _replace(session, actor, member, roles)
        _record_change(session, actor, member, "member_changed", roles)
    return _again(session, actor, person_id)


def remove(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, person_id: UUID) -> None:
    actor, member = _member(session, caller, origin, slug, person_id)
    nothing = frozenset[Role]()
    if _weakens(session, actor, member, nothing):
        permissions.require_fresh_admin(session, actor, permissions.known(session, caller, slug))
    _not_the_last_admin(session, actor, member, nothing)
    _let_go(session, actor, member)


def leave(session: UnitOfWork, caller: Caller, origin: Origin, slug: str) -> None:
    """Leave a tenant, as its member.

    The last admin can leave only if no one else has ever joined and the mode is `enforce`, so that the tenant grants
    nothing afterwards.
    """
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, sorted(TENANT_ROLES), tenant)
    member = _again(session, actor, caller.person_id)
    nothing = frozenset[Role]()
    if _weakens(session, actor, member, nothing):
        permissions.require_fresh_admin(session, actor, tenant)
    if Role.TENANT_ADMIN in member.roles and not _is_alone(session, actor, permissions.locked(session, tenant)):
        _not_the_last_admin(session, actor, member, nothing)
    _let_go(session, actor, member)


def set_eligible(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, person_id: UUID, *, eligible: bool
) -> Member:
    actor, member = _member(session, caller, origin, slug, person_id)
    if eligible != member.is_eligible:
        if eligible:
            permissions.require_fresh_admin(session, actor, permissions.known(session, caller, slug))
        if not eligible:
            delegates.end_those_of(session, actor, person_id, as_principal=False, as_delegate=True)
        _mark(session, actor, person_id, eligible=eligible)
        admin_change = AdminChange(
            "eligible_changed",
            now(session),
            {"eligible": change(_yes(member.is_eligible), _yes(eligible))},
            {"member": permissions.person(member.name, member.address)},
            {"person_id": person_id},
            frozenset({person_id}),
        )
        permissions.record_change(session, actor, admin_change)
    return _again(session, actor, person_id)


def _let_go(session: UnitOfWork, actor: AdminActor, member: Member) -> None:
    delegates.end_those_of(session, actor, member.person_id, as_principal=True, as_delegate=True)
    invitations.end_those_by(session, actor, member.person_id)
    if member.is_eligible:
        _mark(session, actor, member.person_id, eligible=False)
    _replace(session, actor, member, frozenset())
    _record_change(session, actor, member, "member_removed", frozenset())


def _is_alone(session: UnitOfWork, actor: AdminActor, tenant: Tenant) -> bool:
    page = memberships.page(session, tenant.id, cursor=None, most=2)
    joined = select(Invitation.accepted_by).where(
        col(Invitation.tenant_id) == tenant.id, col(Invitation.accepted_at).is_not(None)
    )
    is_first = set(session.orm.exec(joined)) == {actor.caller.person_id}
    return tenant.mode is Mode.ENFORCE and is_first and len(page.members) == 1


def _weakens(session: UnitOfWork, actor: AdminActor, member: Member, roles: frozenset[Role]) -> bool:
    """Whether the tenant would lose an admin or its last approver: people who could object to changes."""
    gone = member.roles - roles
    return Role.TENANT_ADMIN in gone or (
        Role.APPROVER in gone and permissions.is_last_approver(session, actor, member.person_id)
    )


def _member(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, person_id: UUID
) -> tuple[AdminActor, Member]:
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, ADMINS, tenant)
    return actor, _again(session, actor, person_id)


def _again(session: UnitOfWork, actor: AdminActor, person_id: UUID) -> Member:
    return _at(session, actor.tenant_id, person_id)


def _at(session: UnitOfWork, tenant_id: UUID | None, person_id: UUID) -> Member:
    member = memberships.find(session, tenant_id, person_id)
    if member is None:
        raise NotFound("There is no such member.")
    return member


def _not_the_last_admin(session: UnitOfWork, actor: AdminActor, member: Member, roles: frozenset[Role]) -> None:
    assert actor.tenant_id is not None  # noqa: S101 - a member is one of a tenant
    loses = Role.TENANT_ADMIN in member.roles - roles
    if loses and not memberships.other_admins(session, actor.tenant_id, member.person_id):
        raise LastAdmin("This is the tenant's last admin. Make someone else an admin first.")


def _end_what_roles_carried(session: UnitOfWork, actor: AdminActor, member: Member, roles: frozenset[Role]) -> None:
    gone = member.roles - roles
    if Role.APPROVER in gone:
        delegates.end_those_of(session, actor, member.person_id, as_principal=True, as_delegate=False)
    if Role.TENANT_ADMIN in gone:
        invitations.end_those_by(session, actor, member.person_id)


def _replace(session: UnitOfWork, actor: AdminActor, member: Member, roles: frozenset[Role]) -> None:
    memberships.give(session, member.person_id, actor.tenant_id, roles - member.roles)
    memberships.take_away(session, member.person_id, actor.tenant_id, member.roles - roles)


def _mark(session: UnitOfWork, actor: AdminActor, person_id: UUID, *, eligible: bool) -> None:
    assert actor.tenant_id is not None  # noqa: S101 - likewise
    # A row without a valid MAC counts for nothing and is replaced.
    if there := session.orm.get(EligibleDelegate, (actor.tenant_id, person_id)):
        session.orm.delete(there)
        session.orm.flush()
    if eligible:
        row = EligibleDelegate(tenant_id=actor.tenant_id, person_id=person_id)
        row.mac = row_macs.mark(session, row_macs.eligible_delegate(row))
        session.orm.add(row)
    session.orm.flush()


def _record_change(
    session: UnitOfWork, actor: AdminActor, member: Member, action: str, roles: frozenset[Role]
) -> None:
    admin_change = AdminChange(
        action,
        now(session),
        {"roles": change(listed(memberships.words(member.roles)), listed(memberships.words(roles)))},
        {"member": permissions.person(member.name, member.address)},
        {"person_id": member.person_id},
        frozenset({member.person_id}),
    )
    permissions.record_change(session, actor, admin_change)


def _yes(value: bool) -> str:  # noqa: FBT001 - it turns a bool into text
    return "yes" if value else "no"
