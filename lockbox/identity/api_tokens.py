"""API tokens, stored as keyed hashes. `authentication` verifies them."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from lockbox.database import UnitOfWork, now
from lockbox.errors import NotFound
from lockbox.identity import authentication, keyring, row_macs
from lockbox.identity.credentials import Token
from lockbox.identity.keyring import Keyring
from lockbox.identity.roles import Caller
from lockbox.identity.sessions import visible_to
from lockbox.sql import new_id

MOST_TOKENS = 20


@dataclass(frozen=True)
class IssuedToken:
    """`text` is known only at the token's creation."""

    token: Token
    text: str


@dataclass(frozen=True, kw_only=True)
class TokenTerms:
    """`environment` is part of the token's text: an environment of another kind refuses the token.

    `is_sample` marks a demo token, which counts as a fresh sign-in. `by_mail` is whether the token was created after
    a sign-in with only a mailed code. `replaces` is the token that was rotated. `only_at` is the one tenant at which
    the token counts, or None for all.
    """

    environment: str
    lifetime: timedelta
    name: str = "token"
    is_sample: bool = False
    by_mail: bool = False
    scopes: Iterable[str] = ()
    services: Iterable[str] = ()
    replaces: UUID | None = None
    only_at: UUID | None = None


def issue(session: UnitOfWork, person_id: UUID, terms: TokenTerms) -> IssuedToken:
    """Create a token of 256 random bits. Row-level security lets people create tokens only for themselves."""
    issued = draft(person_id, now(session), keyring.of(session), terms)
    session.orm.add(issued.token)
    session.orm.flush()
    return issued


def draft(person_id: UUID, at: datetime, ring: Keyring, terms: TokenTerms) -> IssuedToken:
    token_id, secret = new_id(), secrets.token_urlsafe(32)
    token = Token(
        id=token_id,
        person_id=person_id,
        name=terms.name,
        is_sample=terms.is_sample,
        by_mail=terms.by_mail,
        secret_hash=authentication.token_hashes(ring, token_id, secret)[0],
        scopes=sorted(terms.scopes),
        services=sorted(terms.services),
        replaces=terms.replaces,
        only_at=terms.only_at,
        expires_at=at + terms.lifetime,
        created_at=at,
    )
    token.mac = ring.powers.mark(*row_macs.token(token))
    return IssuedToken(token, written(terms.environment, token_id, secret))


def written(environment: str, token_id: UUID, secret: str) -> str:
    body = f"lbx_{environment}_{token_id.hex}_{secret}"
    return body + authentication.token_checksum(body)


def mine(session: UnitOfWork, caller: Caller) -> Sequence[Token]:
    """Unrevoked tokens, newest first; a sign-in for one tenant lists only tokens for that tenant."""
    query = _all_of(caller).where(col(Token.revoked_at).is_(None))
    return session.orm.exec(query.order_by(col(Token.id).desc())).all()


def rotate(
    session: UnitOfWork,
    caller: Caller,
    token_id: UUID,
    *,
    environment: str,
    lifetime: timedelta,
    overlap: timedelta,
    by_mail: bool,
) -> IssuedToken:
    old = _of(session, caller, token_id)
    if not row_macs.is_held(session, old.mac, row_macs.token(old), old.id):
        raise NotFound("There is no such token.")
    old.expires_at = min(old.expires_at, now(session) + overlap)
    old.mac = keyring.of(session).powers.mark(*row_macs.token(old))
    session.orm.add(old)
    terms = TokenTerms(
        environment=environment,
        lifetime=lifetime,
        name=old.name,
        by_mail=by_mail,
        scopes=old.scopes,
        services=old.services,
        replaces=old.id,
        only_at=old.only_at or caller.only_at,
    )
    return issue(session, caller.person_id, terms)


def revoke(session: UnitOfWork, caller: Caller, token_id: UUID) -> None:
    """In force from the next call; idempotent."""
    token = _of(session, caller, token_id)
    token.revoked_at = token.revoked_at or now(session)
    session.orm.add(token)
    session.orm.flush()


def _of(session: UnitOfWork, caller: Caller, token_id: UUID) -> Token:
    query = _all_of(caller).where(col(Token.id) == token_id)
    token = session.orm.exec(query.with_for_update()).one_or_none()
    if token is None:
        raise NotFound("There is no such token.")
    return token


def _all_of(caller: Caller) -> SelectOfScalar[Token]:
    return select(Token).where(col(Token.person_id) == caller.person_id, visible_to(caller, col(Token.only_at)))
