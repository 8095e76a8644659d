"""Sign-ins that a browser has begun: bound to that browser, over within ten minutes, used once."""

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlmodel import Session, col, select

from lockbox.database import now
from lockbox.errors import NotSignedIn
from lockbox.identity import authentication, keyring
from lockbox.identity.authentication import Found, Kind
from lockbox.identity.credentials import SignIn
from lockbox.identity.roles import Means
from lockbox.ids import new_id

LASTS = timedelta(minutes=10)
OVER = "This sign-in was used, has run out, or was begun in another browser; begin again."


@dataclass(frozen=True)
class Stub:
    """The half of a begun sign-in that the browser keeps: which one it is, and the secret that binds it."""

    id: UUID
    secret: str = field(repr=False)


def begin(
    session: Session,
    means: Means,
    *,
    tied_to: UUID | None = None,
    state: str | None = None,
    **facts: Any,  # noqa: ANN401
) -> Stub:
    """Begin a sign-in that only this browser can finish.

    Args:
        session: the open transaction.
        means: by what the person is going to show who they are.
        tied_to: the browser session without which it can't be finished either, where it adds to a signed-in person.
        state: what an issuer has to send back, of which a keyed hash is kept.
        facts: what the row keeps for this means.
    """
    stub, at = Stub(new_id(), secrets.token_urlsafe(32)), now(session)
    if state is not None:
        facts["state_hash"] = keyring.of(session).secrets.mark("state", stub.id, state)
    row = SignIn(
        id=stub.id,
        browser_hash=hashes(session, stub, tied_to)[0],
        means=means,
        created_at=at,
        expires_at=at + LASTS,
        **facts,
    )
    session.add(row)
    session.flush()
    return stub


def find(session: Session, stub: Stub | None, means: Means, *, tied_to: UUID | None = None) -> SignIn:
    """Return the begun sign-in of this browser, locked, if it is neither used nor over.

    Raises:
        NotSignedIn: there is none; why is not told.
    """
    found = recognise(session, stub, tied_to) if stub else None
    if stub is None or found is None or found.means is not means:
        raise NotSignedIn(OVER)
    row = session.exec(select(SignIn).where(col(SignIn.id) == stub.id).with_for_update()).one_or_none()
    if row is None or row.used_at is not None or now(session) >= row.expires_at:
        raise NotSignedIn(OVER)
    return row


def use(session: Session, stub: Stub | None, means: Means, *, tied_to: UUID | None = None) -> SignIn:
    """Return the begun sign-in and use it up; the caller commits before it looks at what came with it.

    Raises:
        NotSignedIn: it was used, has run out, or is another browser's or another session's.
    """
    row = find(session, stub, means, tied_to=tied_to)
    row.used_at = now(session)
    session.add(row)
    session.flush()
    return row


def is_state(session: Session, row: SignIn, shown: str) -> bool:
    """Whether an issuer sent back the state with which the sign-in was begun; compared in constant time."""
    return keyring.of(session).secrets.is_mark(row.state_hash, "state", row.id, shown)


def recognise(session: Session, stub: Stub, tied_to: UUID | None = None) -> Found | None:
    """Return whose begun sign-in a stub is of; the transaction may read and use it."""
    return authentication.recognise(session, Kind.SIGN_IN, str(stub.id), hashes(session, stub, tied_to))


def hashes(session: Session, stub: Stub, tied_to: UUID | None = None) -> list[bytes]:
    """Return what is kept of a stub, by each key, the newest first: worth nothing to whoever reads it."""
    return keyring.of(session).secrets.marks("sign-in", stub.id, stub.secret, tied_to)
