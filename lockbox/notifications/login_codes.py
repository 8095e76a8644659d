"""Mailed codes to sign in with: asking for one, trying one, and what a good one proves."""

from sqlalchemy import text
from sqlmodel import Session

from lockbox.database import Database, now
from lockbox.errors import NotSignedIn
from lockbox.identity import keyring, rate_limit, sessions
from lockbox.identity.rate_limit import Counted, Limits
from lockbox.identity.roles import Caller, Means
from lockbox.identity.sessions import OVER, Stub
from lockbox.notifications import announcements, load_account
from lockbox.notifications.account_mail import SIGN_IN_CODE

MOST_TRIES = 5
WRONG = "That is not the code of the newest mail. Look again, or ask for another one."

ADDRESS = text("SELECT email FROM sign_ins WHERE id = :id AND means = 'mail'")
TRIED = text("""
UPDATE sign_ins SET tries = tries + 1
WHERE id = :id AND used_at IS NULL AND expires_at > :at AND tries < :most RETURNING email
""")


def ask(session: Session, email: str) -> Stub:
    """Begin a sign-in by a code that is mailed to the address, if somebody has it.

    Whether somebody does is found out by whoever sends the mail: here the same is done for every address, so that
    neither the answer nor the time it takes tells who has an account.
    """
    nonce, at = keyring.of(session).codes.nonce(), now(session)
    stub = sessions.begin_login(session, Means.MAIL, email=email, code_nonce=nonce)
    announcements.write_to(
        session,
        stub.id,
        template=SIGN_IN_CODE,
        tenant_id=None,
        event_id=None,
        at=at,
        until=at + sessions.LASTS,
    )
    return stub


def count_try(session: Session, stub: Stub | None, limits: Limits, address: str | None = None) -> Counted:
    """Count one more try of a code from an address, before it is looked at; the caller commits whatever comes of it.

    Raises:
        NotSignedIn: the sign-in is another browser's, was used, has run out, or was tried five times.
    """
    sessions.find(session, stub, Means.MAIL)
    values = {"id": stub.id if stub else None, "at": now(session), "most": MOST_TRIES}
    email = session.connection().execute(TRIED, values).scalar_one_or_none()
    if email is None:
        raise NotSignedIn(OVER)
    return rate_limit.count(session, limits, code_of=email, tried_from=address)


def address_of(database: Database, stub: Stub) -> str | None:
    """Return the address that was typed to begin this browser's sign-in, also once it is over."""
    with database.transaction() as session:
        sessions.recognise(session, stub)
        email: str | None = session.connection().execute(ADDRESS, {"id": stub.id}).scalar_one_or_none()
        return email


def redeem(session: Session, stub: Stub, code: str) -> Caller:
    """Return the person to whose address the code went, whose transaction this one becomes.

    Raises:
        NotSignedIn: it is not the code, the sign-in is over, or its person disabled.
    """
    row = sessions.find(session, stub, Means.MAIL)
    if not load_account.is_code(session, SIGN_IN_CODE, row, code):
        raise NotSignedIn(WRONG)
    row.proven_at = row.used_at = now(session)
    session.add(row)
    session.flush()
    found = sessions.recognise(session, stub)
    if found is None or found.person_id is None or found.disabled:
        raise NotSignedIn(OVER)
    return found.caller(Means.MAIL, row.used_at)
