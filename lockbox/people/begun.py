"""Sign-ins that a browser has begun: bound to that browser, over within ten minutes, used once."""

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlmodel import Session, col, select

from lockbox.database import now
from lockbox.ids import new_id
from lockbox.people import recognition
from lockbox.people.keys import SignIn
from lockbox.people.recognition import Kind
from lockbox.people.roles import Means
from lockbox.refusals import NotSignedIn

LASTS = timedelta(minutes=10)
OVER = "This sign-in was used, has run out, or was begun in another browser; begin again."


@dataclass(frozen=True)
class Stub:
    """The half of a begun sign-in that the browser keeps: which one it is, and the secret that binds it."""

    id: UUID
    secret: str = field(repr=False)


def begin(session: Session, means: Means, *, tied_to: UUID | None = None, **facts: Any) -> Stub:  # noqa: ANN401
    """Begin a sign-in that only this browser can finish.

    Args:
        session: the open transaction.
        means: by what the person is going to show who they are.
        tied_to: the browser session without which it can't be finished either, where it adds to a signed-in person.
        facts: what the row keeps for this means.
    """
    stub, at = Stub(new_id(), secrets.token_urlsafe(32)), now(session)
    row = SignIn(
        id=stub.id,
        browser_hash=hash_of(stub, tied_to),
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
    found = recognition.recognise(session, Kind.SIGN_IN, str(stub.id), hash_of(stub, tied_to)) if stub else None
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


def hash_of(stub: Stub, tied_to: UUID | None = None) -> bytes:
    """Return what is kept of a stub: worth nothing to whoever reads it."""
    return hashlib.sha256(f"{stub.secret}\n{tied_to or ''}".encode()).digest()
