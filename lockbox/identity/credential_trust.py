"""Rules for adding and removing sign-in methods, and for the time from which an added method counts."""

from datetime import datetime, timedelta

from sqlalchemy import text

from lockbox.database import UnitOfWork, now
from lockbox.errors import SignInAgain
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import row_macs
from lockbox.identity.roles import Caller

FRESH = timedelta(minutes=15)
STRONG = frozenset({AuthMethod.OIDC, AuthMethod.PASSKEY})
HAS_ANY = text("""
SELECT EXISTS (SELECT FROM passkeys WHERE person_id = :id) OR EXISTS (SELECT FROM identities WHERE person_id = :id)
""")
JUST_INVITED = text("""
SELECT id, tenant_id, email, roles, is_recovery, invited_by, created_at, takes_effect_at, expires_at, code_nonce, mac
FROM invitations WHERE accepted_by = :id AND accepted_at BETWEEN :since AND :until
    AND tenant_id = ALL(CAST(:tenants AS uuid[]))
""")
EVER_INVITED = text("SELECT EXISTS (SELECT FROM invitations WHERE accepted_by = :id)")
ACCEPTING_TAKES = timedelta(seconds=30)
TRUSTED_AFTER = timedelta(hours=72)


def check(session: UnitOfWork, caller: Caller) -> None:
    """Check that this session may add or remove a passkey or an identity of its person.

    A sign-in by mailed code alone is enough only if the person has no sign-in method yet, or has just accepted an
    invitation of their only tenant. Otherwise an attacker who reads the mailbox could add a sign-in method.
    """
    by_browser = caller.means in STRONG | {AuthMethod.MAIL} and not caller.by_device_login
    if caller.key_id is None or caller.signed_in_at is None or not by_browser:
        raise SignInAgain("Sign in with a browser to change how you sign in.")
    _fresh_and_strong(session, caller)


def check_address_change(session: UnitOfWork, caller: Caller) -> None:
    """The rules are those for changing sign-in methods."""
    if caller.means is AuthMethod.SAMPLE:
        return
    if caller.means is AuthMethod.TOKEN:
        raise SignInAgain("An API token cannot change this. Sign in with a browser or your identity provider.")
    _fresh_and_strong(session, caller)


def _fresh_and_strong(session: UnitOfWork, caller: Caller) -> None:
    if caller.signed_in_at is None or now(session) - caller.signed_in_at >= FRESH:
        minutes = FRESH // timedelta(minutes=1)
        raise SignInAgain(
            f"Your sign-in is older than {minutes} minutes. Sign in again.", max_age=int(FRESH.total_seconds())
        )
    if caller.means in STRONG or not session.execute(HAS_ANY, {"id": caller.person_id}).scalar_one():
        return
    if not _just_invited(session, caller):
        raise SignInAgain(
            "A code from a mail is not enough to change this. Sign in with a passkey or your identity provider."
        )


def trusted_from(session: UnitOfWork, caller: Caller) -> datetime:
    """Return the time from which a sign-in method that the caller is adding counts as stronger than a mailed code.

    If only a mailbox vouches for the method, it counts after 72 hours, so that the mailbox's rightful owner can
    notice.
    """
    at = now(session)
    ever = session.execute(EVER_INVITED, {"id": caller.person_id}).scalar_one()
    if caller.means in STRONG or not ever or _just_invited(session, caller):
        return at
    return at + TRUSTED_AFTER


def _just_invited(session: UnitOfWork, caller: Caller) -> bool:
    if caller.signed_in_at is None:
        return False
    invited = {
        "id": caller.person_id,
        "since": caller.signed_in_at - ACCEPTING_TAKES,
        "until": caller.signed_in_at,
        "tenants": sorted(caller.tenants()),
    }
    # Any of the database's logins could have written an invitation that has no valid MAC.
    rows = session.execute(JUST_INVITED, invited).all()
    return any(row_macs.is_held(session, row.mac, row_macs.invitation(row), row.id) for row in rows)
