"""Bearer tokens: made once, kept as a hash, looked up with the person's roles in one query."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.database import now
from lockbox.ids import new_id
from lockbox.people.models import Token
from lockbox.people.roles import Caller, Role, Standing
from lockbox.refusals import NotSignedIn

FORM = re.compile(r"lbx_(?P<env>[a-z]{3,11})_(?P<id>[0-9a-f]{32})_(?P<secret>[A-Za-z0-9_-]{43})")

FIND = text("""
SELECT t.secret_hash, t.expires_at, t.revoked_at, t.scopes, t.services, p.id, p.name, p.disabled_at,
    (SELECT array_agg(m.role) FROM memberships m WHERE m.person_id = p.id) AS roles,
    (SELECT array_agg(m.tenant_id) FROM memberships m WHERE m.person_id = p.id) AS tenant_ids
FROM tokens t JOIN people p ON p.id = t.person_id WHERE t.id = :id
""")


@dataclass(frozen=True)
class Issued:
    """A token at the one moment at which its text is known."""

    id: UUID
    text: str
    expires_at: datetime


def issue(
    session: Session,
    person_id: UUID,
    *,
    environment: str,
    lifetime: timedelta,
    scopes: Iterable[str] = (),
    services: Iterable[str] = (),
) -> Issued:
    """Make a token of 256 random bits for a person; only its SHA-256 is kept.

    Args:
        session: the open transaction.
        person_id: whose token it is.
        environment: goes into the text, so that a token cannot cross from one installation kind to another.
        lifetime: until it expires.
        scopes: what a *system* token may be used for.
        services: the services that a *system* token is bound to.
    """
    token_id, secret, at = new_id(), secrets.token_urlsafe(32), now(session)
    token = Token(
        id=token_id,
        person_id=person_id,
        secret_hash=_hash(secret),
        scopes=sorted(scopes),
        services=sorted(services),
        expires_at=at + lifetime,
        created_at=at,
    )
    session.add(token)
    session.flush()
    return Issued(token_id, f"lbx_{environment}_{token_id.hex}_{secret}", token.expires_at)


def authenticate(session: Session, shown: str, *, environment: str) -> Caller:
    """Return the caller behind a token.

    Raises:
        NotSignedIn: the token is malformed, of another environment, unknown, revoked or expired, or its person
            is disabled. All but the expiry answer alike.
    """
    parts = FORM.fullmatch(shown)
    if parts is None or parts["env"] != environment:
        raise NotSignedIn(f"This is not a token of this installation: those begin with lbx_{environment}_.")
    row = session.connection().execute(FIND, {"id": UUID(parts["id"])}).one_or_none()
    if row is None or not hmac.compare_digest(row.secret_hash, _hash(parts["secret"])):
        raise NotSignedIn("The token is unknown or revoked; make a new one.")
    if row.revoked_at is not None or row.disabled_at is not None:
        raise NotSignedIn("The token is unknown or revoked; make a new one.")
    if now(session) >= row.expires_at:
        raise NotSignedIn("The token has expired; make a new one.")
    pairs = zip(row.roles or (), row.tenant_ids or (), strict=True)
    standings = frozenset(Standing(Role(role), tenant_id) for role, tenant_id in pairs)
    return Caller(row.id, row.name, standings, frozenset(row.scopes), frozenset(row.services))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
