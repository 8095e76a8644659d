"""Set the session variables that row-level security policies read, for the current transaction."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import text

from lockbox.database import UnitOfWork
from lockbox.identity.roles import Caller, Role
from lockbox.sql import array

ENTER = text("""
SELECT set_config('lockbox.person', :person, true), set_config('lockbox.tenants', :tenants, true),
    set_config('lockbox.administers', :administers, true), set_config('lockbox.roles', :roles, true)
""")
TURN_TO = text("SELECT set_config('lockbox.at', :tenant, true)")
SEE_OFF = text("SELECT set_config('lockbox.leaving', :person, true)")
SUSPEND = text("SELECT set_config('lockbox.suspending', :tenant, true)")


def enter(session: UnitOfWork, caller: Caller) -> None:
    """Make the transaction the caller's, unless it already is, as after authentication."""
    if session.caller == (caller.person_id, caller.only_at):
        return
    session.execute(
        ENTER,
        {
            "person": str(caller.person_id),
            "tenants": array(sorted(caller.tenants())),
            "administers": array(sorted(caller.tenants({Role.TENANT_ADMIN}))),
            "roles": array(sorted(role.value for role in caller.vendor_roles())),
        },
    )
    entered(session, caller.person_id, caller.only_at)


def reenter(session: UnitOfWork, caller: Caller) -> None:
    """Make the transaction the caller's with their current roles, after these changed."""
    session.caller = None
    enter(session, caller)


def entered(session: UnitOfWork, person_id: UUID, only_at: UUID | None) -> None:
    """Note that the transaction belongs to this person, at one tenant only if that is given."""
    session.caller = (person_id, only_at)


def turn_to(session: UnitOfWork, tenant_id: UUID) -> None:
    """Let a vendor user act on one tenant in this transaction: its people, its policy, its webhooks."""
    session.execute(TURN_TO, {"tenant": str(tenant_id)})


def see_off(session: UnitOfWork, person_id: UUID) -> None:
    """Let an operator reach the requests of a person who is no longer an engineer, in this transaction."""
    session.execute(SEE_OFF, {"person": str(person_id)})


def suspend(session: UnitOfWork, tenant_id: UUID) -> None:
    """Let an operator reach the open windows of a suspended tenant, in this transaction."""
    session.execute(SUSPEND, {"tenant": str(tenant_id)})


def ids(values: Iterable[UUID]) -> list[str]:
    """Return ids as text, in order."""
    return sorted(map(str, values))
