"""Let people choose the time zone of their mails and whether they get prompts."""

from lockbox.database import UnitOfWork
from lockbox.errors import Invalid, SignInAgain
from lockbox.identity import sessions, time_zones
from lockbox.identity.models import Person
from lockbox.identity.roles import AuthMethod, Caller
from lockbox.identity.sessions import ClientInfo


def mine(session: UnitOfWork, caller: Caller) -> Person:
    """Return the caller with `time_zone` and `wants_prompts`."""
    return session.orm.get_one(Person, caller.person_id)


def choose_time_zone(session: UnitOfWork, caller: Caller, name: str) -> None:
    """Set the time zone that mails to the caller give beside UTC.

    Raises:
        SignInAgain: an API token was shown, which may not change the preferences of its person.
        Invalid: there is no such zone.
    """
    person = _signed_in(session, caller)
    if name not in time_zones.names():
        raise Invalid("Choose a time zone by its name, such as Europe/Berlin or UTC.", field="time_zone")
    person.time_zone = name
    session.orm.add(person)
    session.orm.flush()


def choose_prompts(session: UnitOfWork, caller: Caller, place: ClientInfo, *, wanted: bool) -> None:
    """Set whether the caller, an approver, gets prompts by mail; receipts are always sent.

    A person who declined prompts is still asked if the others are too few to decide. The change is an event.

    Raises:
        SignInAgain: an API token was shown, which may not change the preferences of its person.
    """
    person = _signed_in(session, caller)
    if person.wants_prompts is wanted:
        return
    person.wants_prompts = wanted
    session.orm.add(person)
    session.orm.flush()
    sessions.record(session, caller, place, "prompts_wanted" if wanted else "prompts_declined")


def _signed_in(session: UnitOfWork, caller: Caller) -> Person:
    if caller.means is AuthMethod.TOKEN:
        raise SignInAgain("An API token cannot change this. Sign in with a browser or your identity provider.")
    return session.orm.get_one(Person, caller.person_id, with_for_update=True)
