"""What people choose for themselves: the time zone in which mails tell them the time."""

from sqlmodel import Session

from lockbox.people import zones
from lockbox.people.models import Person
from lockbox.people.roles import Caller, Means
from lockbox.refusals import Invalid, SignInAgain


def time_zone(session: Session, caller: Caller) -> str:
    """Return the name of the caller's time zone in the IANA database."""
    return session.get_one(Person, caller.person_id).time_zone


def choose_time_zone(session: Session, caller: Caller, name: str) -> None:
    """Let mails tell the caller the time in that zone, beside UTC.

    Raises:
        SignInAgain: an API token was shown, which may not change what its person is told.
        Invalid: there is no such zone.
    """
    if caller.means is Means.TOKEN:
        raise SignInAgain("An API token changes nothing of this: sign in with a browser, or by your sign-in service.")
    if name not in zones.names():
        raise Invalid("Choose a time zone by its name, such as Europe/Berlin or UTC.", field="time_zone")
    person = session.get_one(Person, caller.person_id, with_for_update=True)
    person.time_zone = name
    session.add(person)
    session.flush()
