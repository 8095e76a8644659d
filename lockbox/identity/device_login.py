"""Terminal sign-in by a code that a person types into a page (RFC 8628).

The code must be typed and is never part of a link. The page shows which terminal asks. The token approves nothing.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from lockbox.database import UnitOfWork, now
from lockbox.errors import Invalid, NotSignedIn, NotYours, SignInAgain
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import api_tokens, authentication, credential_trust, keyring, row_macs, sessions
from lockbox.identity.credentials import DeviceLogin, Token
from lockbox.identity.roles import Caller, Role
from lockbox.identity.sessions import ClientInfo
from lockbox.sql import new_id

# RFC 8628 section 6.1: no vowels, so that no words appear, and no look-alike characters.
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
LENGTH = 8
LASTS = timedelta(minutes=10)
SIGNED_IN_FOR = timedelta(minutes=15)
NAME = "command line"
NO_CODE = "This code is wrong, was used, or has expired. Run `lockbox sign-in` again."
OLD = "Your sign-in is older than {minutes} minutes, too old to sign in a terminal. Sign in again."

MEET = text("SELECT find_device_login(:secret, :code)")


class DeviceLoginState(StrEnum):
    """Whether a device login was allowed or refused; `over` means that it expired without an answer."""

    WAITING = "waiting"
    ALLOWED = "allowed"
    REFUSED = "refused"
    OVER = "over"


@dataclass(frozen=True)
class DeviceAuthorization:
    """A terminal gets the token once; the token is worthless until the login is allowed."""

    code: str
    token: str = field(repr=False)
    lasts: timedelta = LASTS


def start(session: UnitOfWork, place: ClientInfo, *, environment: str) -> DeviceAuthorization:
    code = "".join(secrets.choice(LETTERS) for _ in range(LENGTH))
    row_id, secret, at, ring = new_id(), secrets.token_urlsafe(32), now(session), keyring.of(session)
    row = DeviceLogin(
        id=row_id,
        secret_hash=authentication.token_hashes(ring, row_id, secret)[0],
        code_hash=_codes(session, code)[0],
        address=place.address,
        user_agent=place.user_agent,
        created_at=at,
        expires_at=at + LASTS,
    )
    session.orm.add(row)
    session.orm.flush()
    return DeviceAuthorization(f"{code[:4]}-{code[4:]}", api_tokens.written(environment, row_id, secret))


def state(session: UnitOfWork, shown: str, *, environment: str) -> DeviceLoginState:
    row_id, secret = authentication.read_token(shown, environment)
    row = _met(session, secrets_=authentication.token_hashes(keyring.of(session), row_id, secret))
    if row is None:
        raise NotSignedIn(authentication.UNKNOWN_OR_REVOKED)
    if row.answered_at is not None:
        return DeviceLoginState.ALLOWED if row.is_allowed else DeviceLoginState.REFUSED
    return DeviceLoginState.WAITING if now(session) < row.expires_at else DeviceLoginState.OVER


def pending_for_code(session: UnitOfWork, caller: Caller, code: str) -> DeviceLogin:
    """Return the device login with this code, for a person who may allow it.

    Raises Invalid if no pending login has this code.
    """
    if caller.holds(Role.SYSTEM):
        raise NotYours("A service account cannot use a device login. Use one of its API tokens.")
    at = now(session)
    if caller.by_device_login or caller.means is AuthMethod.TOKEN or caller.signed_in_at is None:
        raise SignInAgain("Sign in with a browser to sign in a terminal.")
    if at - caller.signed_in_at >= credential_trust.FRESH:
        seconds = int(credential_trust.FRESH.total_seconds())
        raise SignInAgain(OLD.format(minutes=seconds // 60), max_age=seconds)
    row = _met(session, codes=_codes(session, "".join(sign for sign in code.upper() if sign.isalnum())))
    if row is None or at >= row.expires_at:
        raise Invalid(NO_CODE)
    return row


def answer(session: UnitOfWork, caller: Caller, place: ClientInfo, code: str, *, allowed: bool) -> None:
    """Allow or refuse the device login with this code, once.

    The token is as strong and as fresh as the sign-in of this session, and counts at the same tenants. It can
    administer and end access, but cannot approve, create tokens or passkeys, or be rotated.
    """
    row, at = pending_for_code(session, caller, code), now(session)
    row.answered_by, row.answered_at, row.is_allowed = caller.person_id, at, allowed
    session.orm.add(row)
    session.orm.flush()
    if allowed:
        token = _token(row, caller)
        token.mac = keyring.of(session).powers.mark(*row_macs.token(token))
        session.orm.add(token)
        session.orm.flush()
    sessions.record(
        session, caller, place, "device_login_allowed" if allowed else "device_login_refused", token_id=str(row.id)
    )


def _token(row: DeviceLogin, caller: Caller) -> Token:
    assert row.answered_at is not None  # noqa: S101 - it was just answered
    return Token(
        id=row.id,
        person_id=caller.person_id,
        name=f"{NAME} at {row.address}" if row.address else NAME,
        is_sample=False,
        by_mail=caller.means is AuthMethod.MAIL,
        secret_hash=row.secret_hash,
        only_at=caller.only_at,
        means=caller.means,
        signed_in_at=caller.signed_in_at,
        created_at=row.answered_at,
        expires_at=row.answered_at + SIGNED_IN_FOR,
    )


def _met(session: UnitOfWork, *, secrets_: Sequence[bytes] = (), codes: Sequence[bytes] = ()) -> DeviceLogin | None:
    shown = [{"secret": one, "code": None} for one in secrets_] + [{"secret": None, "code": code} for code in codes]
    for values in shown:
        found: UUID | None = session.execute(MEET, values).scalar_one()
        if found is not None:
            return session.orm.exec(select(DeviceLogin).where(col(DeviceLogin.id) == found)).one_or_none()
    return None


def _codes(session: UnitOfWork, code: str) -> list[bytes]:
    return keyring.of(session).secrets.marks("device code", code)
