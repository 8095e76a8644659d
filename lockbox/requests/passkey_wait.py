"""Hold back what a first passkey approves, for as long as the customer's policy says."""

from datetime import datetime, timedelta

from lockbox.database import UnitOfWork
from lockbox.errors import NotYours
from lockbox.identity import passkeys
from lockbox.identity.roles import AuthMethod, Caller
from lockbox.identity.time_zones import DEFAULT, clock_time
from lockbox.requests.policy import Terms

NOT_YET = (
    "Your first passkey is new. By this customer's policy it approves from {at} on; until then another approver can "
    "approve, and you can deny."
)


def check(session: UnitOfWork, caller: Caller, terms: Terms, at: datetime, *, is_signed: bool = False) -> None:
    """Check that the passkey by which somebody signed in, or signs, was added long enough ago to approve.

    What counts is their oldest one: the first vouches for the later ones.

    Raises:
        NotYours: it was not.
    """
    by_passkey = caller.means is AuthMethod.PASSKEY or is_signed
    if not terms.first_passkey_wait or not by_passkey:
        return
    added = passkeys.first_added(session, caller.person_id) or at
    until = approves_from(added, terms)
    if at < until:
        raise NotYours(NOT_YET.format(at=clock_time(until, DEFAULT)))


def approves_from(added: datetime, terms: Terms) -> datetime:
    """Return from when a person approves whose first passkey was added then."""
    return added + timedelta(seconds=terms.first_passkey_wait)
