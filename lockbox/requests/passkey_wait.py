"""Hold back what a first passkey approves, for as long as the customer's policy says."""

from datetime import datetime, timedelta

from lockbox.database import UnitOfWork
from lockbox.errors import PasskeyTooNew
from lockbox.identity import passkeys
from lockbox.identity.roles import AuthMethod, Caller
from lockbox.identity.time_zones import DEFAULT, clock_time
from lockbox.requests.policy import Terms
from lockbox.requests.policy_parts import ApproveMeans

NOT_YET = (
    "Your first passkey is new. By this customer's policy it approves from {at} on; until then another approver can "
    "approve, and you can deny."
)


def obstacle(
    session: UnitOfWork, caller: Caller, terms: Terms, at: datetime, *, is_signed: bool = False
) -> PasskeyTooNew | None:
    """Return why somebody cannot approve by their passkey yet; None where they can, or approve without one.

    What counts is their oldest one: the first vouches for the later ones.
    """
    by_passkey = caller.means is AuthMethod.PASSKEY or is_signed
    must_sign = terms.approve_means is ApproveMeans.PASSKEY_SIGNED
    if not terms.first_passkey_wait or not (by_passkey or must_sign):
        return None
    added = passkeys.first_added(session, caller.person_id)
    if added is None and not by_passkey:
        return None
    until = approves_from(added or at, terms)
    return PasskeyTooNew(NOT_YET.format(at=clock_time(until, DEFAULT))) if at < until else None


def approves_from(added: datetime, terms: Terms) -> datetime:
    """Return from when a person approves whose first passkey was added then."""
    return added + timedelta(seconds=terms.first_passkey_wait)
