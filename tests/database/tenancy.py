"""The use cases of administration in tests: a person of a small world calls them at its tenant, in a transaction."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Engine, text

from harness.people import HERE, World
from lockbox.admin import delegates, invitations, members, tenants, vendor_staff
from lockbox.admin.delegates import DelegationInput, DelegationSummary
from lockbox.admin.memberships import Member
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from lockbox.identity import authentication
from lockbox.identity.models import Invitation
from lockbox.identity.roles import Caller, Role
from tests.database.scenes import write_unchecked
from tests.mailbox import code_of

T = TypeVar("T")
ERASED = (
    "DELETE FROM memberships WHERE tenant_id = :t",
    "UPDATE tenants SET suspended = true WHERE id = :t",
    """
    INSERT INTO offboardings (tenant_id, asked_at, closed_at, size, digest, erased_at)
    VALUES (:t, now(), now(), 1, repeat('0', 64), now())
    """,
)
"""What the owner's command leaves of a tenant, as far as it says that it was erased."""


def does(
    world: World,
    who: str,
    call: Callable[..., T],
    *args: object,
    slug: str | None = None,
    db: Database | None = None,
    **named: Any,
) -> T:
    """Call a use case at the world's tenant, or at another one."""
    with (db or world.db).transaction() as session:
        return call(session, world.people[who], HERE, slug or world.tenant.slug, *args, **named)


def reads(world: World, who: str, call: Callable[..., T], *args: object, slug: str | None = None, **named: Any) -> T:
    """Read something about the world's tenant, or about another one."""
    with world.db.transaction() as session:
        return call(session, world.people[who], slug or world.tenant.slug, *args, **named)


def manages(world: World, who: str, call: Callable[..., T], *args: object, **named: Any) -> T:
    with world.db.transaction() as session:
        return call(session, world.people[who], HERE, *args, **named)


def on_the_database(world: World, who: str, statement: str, **values: object) -> None:
    """Run an SQL statement as the API's database role, in a person's context at the world's tenant."""
    with world.db.transaction() as session:
        authentication.enter(session, world.people[who])
        authentication.turn_to(session, world.tenant.id)
        session.execute(text(statement), values)


def id_of(world: World, name: str) -> UUID:
    return world.people[name].person_id


def accepts(world: World, name: str, invitation_id: UUID, code: str) -> Caller:
    """Accept an invitation, and add the invitee to the world's people."""
    with world.db.transaction() as session:
        caller = invitations.accept(session, invitation_id, code)
    world.people[name] = caller
    return caller


def invites(world: World, *roles: Role, name: str = "Nina", address: str = "nina@contoso.example") -> Invitation:
    """Let the world's admin invite a person, by default as an approver."""
    wanted = frozenset(roles or {Role.APPROVER})
    return does(world, "tara", members.invite, name=name, address=address, roles=wanted)


def joins(world: World, worker: Database, name: str, *roles: Role) -> Caller:
    """Let the world's admin invite a person, and let that person accept by the mailed code."""
    invited = invites(world, *roles, name=name.capitalize(), address=f"{name}@contoso.example")
    return accepts(world, name, invited.id, code_of(worker, invited.id))


def members_of(world: World, who: str = "tara") -> dict[str, Member]:
    """Return the members of the world's tenant that a person sees, by name."""
    page = reads(world, who, members.page, cursor=None, most=100)
    return {member.name: member for member in page.members}


def colleagues_of(world: World, who: str = "olga") -> dict[str, Member]:
    """Return the vendor's people that a person sees, by name."""
    with world.db.transaction() as session:
        page = vendor_staff.page(session, world.people[who], cursor=None, most=100)
    return {member.name: member for member in page.members}


def mode_of(world: World) -> Mode:
    return reads(world, "tara", tenants.show).tenant.mode


def names_delegate(
    world: World, who: str = "ann", delegate: str = "aude", principal: str | None = None, **changes: Any
) -> DelegationSummary:
    """Name a delegate, by default for one day."""
    wanted = DelegationInput(
        delegate_id=id_of(world, delegate),
        ends_at=changes.get("ends_at") or datetime.now(UTC) + timedelta(days=1),
        starts_at=changes.get("starts_at"),
        principal_id=id_of(world, principal) if principal else None,
    )
    return does(world, who, delegates.add_delegation, wanted, db=changes.get("db"))


def with_delegates(db: Database) -> World:
    """Make a world in which Aude, the auditor, and Abe, an approver, may be named as delegates."""
    made = World.make(db)
    for name in ("aude", "abe"):
        does(made, "tara", members.set_eligible, id_of(made, name), eligible=True)
    return made


def is_erased_now(world: World, superuser: Engine) -> None:
    """Put the world's tenant into the state of a tenant that was off-boarded and erased."""
    for statement in ERASED:
        write_unchecked(superuser, statement, t=world.tenant.id)
