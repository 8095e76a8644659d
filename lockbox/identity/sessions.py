"""Browser sessions and pending logins. Their secrets are stored as hashes."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, text, true
from sqlalchemy.orm import Mapped
from sqlmodel import col, select

from lockbox.audit import events
from lockbox.audit.canonical import Value
from lockbox.audit.events import Actor, AuditEvent
from lockbox.database import UnitOfWork, now
from lockbox.errors import NotFound, NotSignedIn
from lockbox.facts.enumerations import AuthMethod
from lockbox.facts.fact import values_of
from lockbox.identity import authentication, keyring, row_macs, time_zones
from lockbox.identity.authentication import CredentialKind, CredentialLookup
from lockbox.identity.credentials import BrowserSession, PendingLogin
from lockbox.identity.keyring import ID_BYTES, Part
from lockbox.identity.roles import Caller
from lockbox.sql import columns, new_id

LASTS = timedelta(minutes=10)
OVER = "This sign-in was used, has run out, or was begun in another browser; begin again."
ENDED = "You are not signed in, or no longer; sign in."
SEEN_NOTED_EVERY = timedelta(minutes=1)
MOST_LISTED = 100
SEEN = text("""
UPDATE sessions SET last_seen_at = :at
WHERE id = :id AND last_seen_at <= CAST(:at AS timestamptz) - interval '1 minute'
""")
RECORDED = text(f"WITH {events.APPEND} SELECT 1")
USE = text(f"""
UPDATE sign_ins SET used_at = :at WHERE id = :id AND used_at IS NULL AND expires_at > :at
RETURNING {columns(PendingLogin, "sign_ins")}
""")  # noqa: S608 - names of our own columns
MEANING = (
    "means",
    "email",
    "code_nonce",
    "issuer",
    "state_hash",
    "nonce",
    "verifier",
    "challenge",
    "created_at",
    "expires_at",
)
"""The columns that define the meaning of a pending login, in addition to its purpose."""
meaning = attrgetter(*MEANING)


class SignInPurpose(StrEnum):
    """The purpose of a pending login; the login counts for no other purpose."""

    SIGN_IN = "in"
    ADD = "add"
    VOUCH = "vouch"
    ADD_VOUCHED = "add-vouched"
    APPROVE = "approve"


@dataclass(frozen=True)
class LoginStub:
    """The browser's half of a pending login: the login's id, and the secret that binds it to the browser."""

    id: UUID
    secret: str = field(repr=False)


def begin_login(
    session: UnitOfWork,
    means: AuthMethod,
    purpose: SignInPurpose = SignInPurpose.SIGN_IN,
    *,
    tied_to: UUID | None = None,
    state: str | None = None,
    at: datetime | None = None,
    **facts: Any,  # noqa: ANN401
) -> LoginStub:
    """Begin a login that only this browser can finish.

    If the login adds a method to a signed-in person, `tied_to` is the browser session that has to finish it. `state`
    is the text that the identity provider has to send back.
    """
    stub, at = LoginStub(new_id(), secrets.token_urlsafe(32)), at or now(session)
    if state is not None:
        facts["state_hash"] = keyring.of(session).secrets.mark("state", stub.id, state)
    row = PendingLogin(
        id=stub.id,
        browser_hash=hashes(session, stub, tied_to)[0],
        means=means,
        created_at=at,
        expires_at=at + LASTS,
        **facts,
    )
    row.mac = keyring.of(session).secrets.mark(*_covered(stub, purpose, row, tied_to))
    session.orm.add(row)
    session.orm.flush()
    return stub


def begin_ceremony(
    session: UnitOfWork, purpose: SignInPurpose, *, tied_to: UUID | None = None
) -> tuple[LoginStub, bytes]:
    """Begin a login by passkey, and return the challenge that its answer must contain."""
    stub = begin_login(session, AuthMethod.PASSKEY, purpose, tied_to=tied_to)
    return stub, _challenge(session, stub, purpose, keyring.of(session).secrets.newest)


def find(
    session: UnitOfWork,
    stub: LoginStub | None,
    means: AuthMethod,
    purpose: SignInPurpose = SignInPurpose.SIGN_IN,
    *,
    tied_to: UUID | None = None,
) -> PendingLogin:
    """Lock and return this browser's pending login if it is neither used nor expired."""
    found = look_up_login(session, stub, tied_to) if stub else None
    if stub is None or found is None or found.means is not means:
        raise NotSignedIn(OVER)
    row = session.orm.exec(
        select(PendingLogin).where(col(PendingLogin.id) == stub.id).with_for_update()
    ).one_or_none()
    if row is None or row.used_at is not None or now(session) >= row.expires_at:
        raise NotSignedIn(OVER)
    # A row without a valid MAC was written by a process of 0.2.0, or directly by a login of the database.
    if not keyring.of(session).secrets.is_mark(row.mac, *_covered(stub, purpose, row, tied_to)):
        raise NotSignedIn(OVER)
    return row


def use(
    session: UnitOfWork,
    stub: LoginStub | None,
    means: AuthMethod,
    purpose: SignInPurpose = SignInPurpose.SIGN_IN,
    *,
    tied_to: UUID | None = None,
) -> PendingLogin:
    """Return the pending login and use it up; commit before checking the answer."""
    found = look_up_login(session, stub, tied_to) if stub else None
    if stub is None or found is None or found.means is not means:
        raise NotSignedIn(OVER)
    used = session.execute(USE, {"id": stub.id, "at": found.at}).one_or_none()
    row = None if used is None else PendingLogin(**values_of(PendingLogin, used))
    if row is None or not keyring.of(session).secrets.is_mark(row.mac, *_covered(stub, purpose, row, tied_to)):
        raise NotSignedIn(OVER)
    return row


def use_ceremony(
    session: UnitOfWork, stub: LoginStub | None, purpose: SignInPurpose, *, tied_to: UUID | None = None
) -> bytes:
    """Use up a login by passkey, and return its challenge; commit before checking the answer."""
    row = use(session, stub, AuthMethod.PASSKEY, purpose, tied_to=tied_to)
    if stub is None or row.mac is None:
        raise NotSignedIn(OVER)
    return _challenge(session, stub, purpose, row.mac[:ID_BYTES])


def is_state(session: UnitOfWork, row: PendingLogin, shown: str) -> bool:
    """Compare the login's state in constant time."""
    return keyring.of(session).secrets.is_mark(row.state_hash, "state", row.id, shown)


def look_up_login(session: UnitOfWork, stub: LoginStub, tied_to: UUID | None = None) -> CredentialLookup | None:
    """The transaction may then read and use the login."""
    return authentication.look_up_credential(
        session, CredentialKind.SIGN_IN, str(stub.id), hashes(session, stub, tied_to)
    )


def hashes(session: UnitOfWork, stub: LoginStub, tied_to: UUID | None = None) -> list[bytes]:
    """Return the hash of a stub under each key, newest first."""
    return keyring.of(session).secrets.marks("sign-in", stub.id, stub.secret, tied_to)


def _covered(stub: LoginStub, purpose: SignInPurpose, row: PendingLogin, tied_to: UUID | None) -> Sequence[Part]:
    return ("pending sign-in", purpose, stub.id, stub.secret, tied_to, *meaning(row))


def _challenge(session: UnitOfWork, stub: LoginStub, purpose: SignInPurpose, key_id: bytes) -> bytes:
    """Return a challenge, which is derived from the stub and not stored.

    The challenge begins with its purpose, so that its signature never passes for the signature of a decision: a
    decision signs a bare SHA-256.
    """
    digest = keyring.of(session).secrets.digest(key_id, "challenge", purpose, stub.id, stub.secret)
    return f"lockbox passkey {purpose} 1\n".encode() + (digest or secrets.token_bytes(32))


@dataclass(frozen=True)
class SessionLifetime:
    idle: timedelta
    absolute: timedelta


@dataclass(frozen=True)
class ClientInfo:
    address: str | None
    user_agent: str | None


def begin(session: UnitOfWork, caller: Caller, place: ClientInfo, lasting: SessionLifetime) -> str:
    """Begin a session for a person who just signed in, and return its secret of 256 bits.

    The calling function has to end the browser's previous session: no secret survives a sign-in.
    """
    authentication.enter(session, caller)
    secret, at = secrets.token_urlsafe(32), now(session)
    row = BrowserSession(
        id=new_id(),
        person_id=caller.person_id,
        secret_hash=_hashes(session, secret)[0],
        means=caller.means,
        signed_in_at=caller.signed_in_at or at,
        last_seen_at=at,
        expires_at=at + lasting.absolute,
        address=place.address,
        user_agent=place.user_agent,
        only_at=caller.only_at,
    )
    row.mac = keyring.of(session).powers.mark(*row_macs.browser_session(row))
    session.orm.add(row)
    session.orm.flush()
    record(session, caller, place, "signed_in", means=caller.means.value)
    return secret


@dataclass(frozen=True)
class SignedIn:
    """`at` is when the session was looked up."""

    caller: Caller
    at: datetime
    time_zone: str


def authenticate(session: UnitOfWork, secret: str, *, idle: timedelta, by_itself: bool = False) -> SignedIn:
    """Return the person of a session; the transaction then acts as this person.

    A page's automatic refresh (`by_itself`) is not activity: an unattended page does not keep its session alive.
    """
    found = authentication.look_up_credential(session, CredentialKind.SESSION, hashes=_hashes(session, secret))
    if found is None or found.revoked or found.disabled or found.expires_at is None or found.last_seen_at is None:
        raise NotSignedIn(ENDED)
    at = found.at
    if at >= found.expires_at or at - found.last_seen_at >= idle:
        raise NotSignedIn(ENDED)
    if at - found.last_seen_at >= SEEN_NOTED_EVERY and not by_itself:
        session.write(SEEN, {"id": found.key_id, "at": at})
    return SignedIn(found.caller(), at, found.time_zone or time_zones.DEFAULT)


def end(session: UnitOfWork, secret: str) -> None:
    """The transaction then acts as the session's person."""
    found = authentication.look_up_credential(session, CredentialKind.SESSION, hashes=_hashes(session, secret))
    if found is not None and not found.revoked and found.key_id is not None:
        _revoke(session, session.orm.get_one(BrowserSession, found.key_id))


def mine(session: UnitOfWork, caller: Caller, *, idle: timedelta) -> Sequence[BrowserSession]:
    """Last used first; a sign-in for one tenant lists only sessions for that tenant."""
    at = now(session)
    query = select(BrowserSession).where(
        col(BrowserSession.person_id) == caller.person_id,
        visible_to(caller, col(BrowserSession.only_at)),
        col(BrowserSession.revoked_at).is_(None),
        col(BrowserSession.expires_at) > at,
        col(BrowserSession.last_seen_at) > at - idle,
    )
    return session.orm.exec(query.order_by(col(BrowserSession.last_seen_at).desc()).limit(MOST_LISTED)).all()


def revoke(session: UnitOfWork, caller: Caller, session_id: UUID, place: ClientInfo) -> None:
    query = select(BrowserSession).where(
        col(BrowserSession.id) == session_id,
        col(BrowserSession.person_id) == caller.person_id,
        visible_to(caller, col(BrowserSession.only_at)),
    )
    row = session.orm.exec(query.with_for_update()).one_or_none()
    if row is None:
        raise NotFound("There is no such session.")
    _revoke(session, row)
    record(session, caller, place, "session_revoked", means=row.means.value)


def visible_to(caller: Caller, only_at: Mapped[UUID | None]) -> ColumnElement[bool]:
    """A sign-in for one tenant reaches only sessions and credentials for that tenant."""
    return true() if caller.only_at is None else only_at == caller.only_at


def csrf(secret: str) -> str:
    """Return the CSRF token for this session's forms; it is useless for other sessions."""
    digest = hmac.digest(secret.encode(), b"lockbox csrf", hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def is_csrf(secret: str, shown: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(csrf(secret).encode(), shown.encode())


def record(
    session: UnitOfWork,
    caller: Caller,
    place: ClientInfo,
    action: str,
    *,
    personal: Mapping[str, str] | None = None,
    **facts: Value,
) -> AuditEvent:
    """Write an event about a sign-in, sign-in methods or addresses to the logs of the person's tenants.

    A person without a tenant gets an event in the vendor's log. Returns the first event.
    """
    at = now(session)
    actor = Actor(
        caller.person_id,
        caller.side.value,
        caller.name,
        channel="portal",
        address=place.address,
        user_agent=place.user_agent,
    )
    places: list[UUID | None] = [*sorted(caller.tenants())] or [None]
    audit_events = [
        AuditEvent(at=at, action=action, actor=actor, tenant_id=one, facts=facts, personal=personal or {})
        for one in places
    ]
    session.execute(RECORDED, events.append(audit_events))
    return audit_events[0]


def _revoke(session: UnitOfWork, row: BrowserSession) -> None:
    row.revoked_at = row.revoked_at or now(session)
    session.orm.add(row)
    session.orm.flush()


def _hashes(session: UnitOfWork, secret: str) -> list[bytes]:
    return keyring.of(session).secrets.marks("session", secret)
