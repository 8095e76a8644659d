"""Read and write what the vendor's directory says of its people: written by service accounts, never by a person."""

from dataclasses import dataclass
from uuid import UUID

from lockbox.admin import memberships
from lockbox.audit.events import Actor
from lockbox.database import UnitOfWork, now
from lockbox.errors import NotFound, NotYours
from lockbox.identity import authentication, directory
from lockbox.identity.directory import DirectoryEntry
from lockbox.identity.models import DirectoryRecord
from lockbox.identity.roles import Caller, Role, Scope
from lockbox.requests.transition import Origin

READERS = (Role.OPERATOR, Role.VENDOR_AUDITOR)
ACCOUNT = "account:"
NOBODY = "There is no such person at the vendor."


@dataclass(frozen=True)
class StaffRecord:
    """Somebody of the vendor, and what the directory says of them; None where it says nothing."""

    person_id: UUID
    name: str
    record: DirectoryRecord | None


def show(session: UnitOfWork, caller: Caller, person_id: UUID) -> StaffRecord:
    """Return what the directory says of somebody of the vendor, to operators, auditors, themselves and the writer.

    Raises:
        NotYours: the caller is none of these.
        NotFound: there is nobody of that id at the vendor.
    """
    authentication.enter(session, caller)
    if not (caller.holds(*READERS) or person_id == caller.person_id):
        _may_write(caller)
    return StaffRecord(person_id, _name(session, person_id), directory.find(session, person_id))


def write(session: UnitOfWork, caller: Caller, origin: Origin, person_id: UUID, entry: DirectoryEntry) -> StaffRecord:
    """Replace what the directory says of somebody of the vendor, as a service account, as of now.

    Raises:
        NotYours: the caller is a person, or the token lacks the scope.
        NotFound: there is nobody of that id at the vendor, or it is a service account or a disabled one.
    """
    authentication.enter(session, caller)
    _may_write(caller)
    name = _name(session, person_id, is_written=True)
    actor = Actor(
        person_id=caller.person_id,
        role=Role.SYSTEM,
        name=caller.name,
        channel=origin.channel,
        address=origin.address,
        user_agent=origin.user_agent,
    )
    authentication.describe(session, person_id)
    source = f"{ACCOUNT}{caller.person_id}"
    directory.keep(session, actor, person_id, entry, source=source, as_of=now(session))
    return StaffRecord(person_id, name, directory.find(session, person_id))


def _may_write(caller: Caller) -> None:
    if not caller.holds(Role.SYSTEM):
        raise NotYours("Only a service account of the vendor writes what the directory says. Use its token.")
    if Scope.DIRECTORY_WRITE not in caller.scopes:
        raise NotYours(f"This token needs the scope {Scope.DIRECTORY_WRITE}: create a token that has it.")


def _name(session: UnitOfWork, person_id: UUID, *, is_written: bool = False) -> str:
    member = memberships.find(session, None, person_id)
    if member is None or (is_written and (member.is_disabled or Role.SYSTEM in member.roles)):
        raise NotFound(NOBODY)
    return member.name
