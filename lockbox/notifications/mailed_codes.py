"""Codes that are mailed: how one is made and compared, and the sign-in by such a code."""

import hmac
from uuid import UUID

from sqlalchemy import text

from lockbox.database import Database, UnitOfWork, now
from lockbox.errors import NotSignedIn
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import attempt_limits, keyring, sessions
from lockbox.identity.attempt_limits import AttemptCount, AttemptLimits
from lockbox.identity.credentials import PendingLogin
from lockbox.identity.keyring import GROUP, CodeKeys
from lockbox.identity.models import Address
from lockbox.identity.roles import Caller
from lockbox.identity.sessions import OVER, LoginStub
from lockbox.notifications import announcements
from lockbox.notifications.account_mail import INVITATION, SIGN_IN_CODE
from lockbox.notifications.senders.protocol import SendFailed

MOST_TRIES = 5
WRONG = "That is not the code of the newest mail. Look again, or ask for another one."
ADDRESS = text("SELECT email FROM sign_ins WHERE id = :id AND means = 'mail'")
TRIED = text("""
UPDATE sign_ins SET tries = tries + 1
WHERE id = :id AND used_at IS NULL AND expires_at > :at AND tries < :most RETURNING email
""")


def code_of(codes: CodeKeys, template: str, about: UUID, nonce: bytes, email: str) -> str:
    """Return a mailed code, bound to the mail's address; raises SendFailed if `codes` lacks the key of the nonce."""
    if template == SIGN_IN_CODE:
        code = codes.short(nonce, template, about, email)
        code = f"{code[:GROUP]} {code[GROUP:]}" if code else None
    else:
        code = codes.long(nonce, template, about, email)
    if code is None:
        raise SendFailed("no key here makes this code", kind="secret")
    return code


def is_code(session: UnitOfWork, template: str, row: Address | PendingLogin, shown: str) -> bool:
    """Compare in constant time."""
    if row.code_nonce is None or row.email is None:
        return False
    try:
        code = code_of(keyring.of(session).codes, template, row.id, row.code_nonce, row.email)
    except SendFailed:
        return False
    return hmac.compare_digest(typed(code).encode(), typed(shown).encode())


def hashes(session: UnitOfWork, invitation_id: UUID, code: str) -> list[bytes]:
    return keyring.of(session).secrets.marks(INVITATION, invitation_id, typed(code))


def typed(code: str) -> str:
    return "".join(sign for sign in code.upper() if not sign.isspace() and sign != "-")


def send_code(session: UnitOfWork, email: str) -> LoginStub:
    """Begin a sign-in by a code that is mailed to the address, if the address belongs to a person.

    Only the sender of the mail looks up that person. This function does the same for every address, so that neither
    its answer nor its duration reveals who has an account.
    """
    nonce, at = keyring.of(session).codes.nonce(), now(session)
    stub = sessions.begin_login(session, AuthMethod.MAIL, email=email, code_nonce=nonce)
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


def count_try(
    session: UnitOfWork, stub: LoginStub | None, limits: AttemptLimits, address: str | None = None
) -> AttemptCount:
    """Count one more try of a code from a network address; the caller commits before it checks code and result."""
    sessions.find(session, stub, AuthMethod.MAIL)
    values = {"id": stub.id if stub else None, "at": now(session), "most": MOST_TRIES}
    email = session.execute(TRIED, values).scalar_one_or_none()
    if email is None:
        raise NotSignedIn(OVER)
    return attempt_limits.count(session, limits, code_of=email, tried_from=address)


def address_of(database: Database, stub: LoginStub) -> str | None:
    """Return the mail address of this browser's sign-in, even after the sign-in is over."""
    with database.transaction() as session:
        sessions.look_up_login(session, stub)
        email: str | None = session.execute(ADDRESS, {"id": stub.id}).scalar_one_or_none()
        return email


def redeem(session: UnitOfWork, stub: LoginStub, code: str) -> Caller:
    """Return the person whose address got the code; the transaction then acts as this person."""
    row = sessions.find(session, stub, AuthMethod.MAIL)
    if not is_code(session, SIGN_IN_CODE, row, code):
        raise NotSignedIn(WRONG)
    row.proven_at = row.used_at = now(session)
    session.orm.add(row)
    session.orm.flush()
    found = sessions.look_up_login(session, stub)
    if found is None or found.person_id is None or found.disabled:
        raise NotSignedIn(OVER)
    return found.caller(AuthMethod.MAIL, row.used_at)
