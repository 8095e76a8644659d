"""Recognising somebody by what they show: the one look-up that runs before a transaction has a context."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.database import read_at
from lockbox.people import context
from lockbox.people.roles import Caller, Means, Role, Side, Standing

RECOGNISE = text("""
SELECT r.*, b.only_at, b.proven_by, b.proven_at, clock_timestamp() AS at
FROM recognise(:kind, :shown, :hash) r CROSS JOIN LATERAL bounds(:kind, r.key_id) b
""")


class Kind(StrEnum):
    """What can be shown, each with its `shown` text and its `hash`.

    A token: its id and the SHA-256 of its secret. A session: the SHA-256 of its secret. An identity: issuer and
    subject, one a line. A passkey: the credential's id as the hash. A begun sign-in: its id and the SHA-256 of the
    browser's cookie. An invitation: its id and the SHA-256 of its secret.
    """

    TOKEN = "token"  # noqa: S105 - a word
    SESSION = "session"
    IDENTITY = "identity"
    PASSKEY = "passkey"
    SIGN_IN = "sign_in"
    INVITATION = "invitation"


@dataclass(frozen=True)
class Found:
    """Who was recognised, when, and what is known of what they showed; nothing of it is judged yet.

    `person_id` is None where what was shown is good but belongs to nobody (yet). For an invitation the standings are
    those that it offers. `revoked` also says that a sign-in or an invitation has been used. `only_at` is the one
    tenant at which it counts, if it does not everywhere, `by_terminal` whether it is the token of a terminal, whose
    means and signing in are those of the session that allowed it.
    """

    key_id: UUID | None
    person_id: UUID | None
    name: str | None
    side: Side | None
    disabled: bool
    standings: frozenset[Standing]
    means: Means | None
    signed_in_at: datetime | None
    last_seen_at: datetime | None
    expires_at: datetime | None
    revoked: bool
    scopes: frozenset[str]
    services: frozenset[str]
    only_at: UUID | None
    by_terminal: bool
    at: datetime

    def caller(self, means: Means | None = None, signed_in_at: datetime | None = None) -> Caller:
        """Return the person as the house sees one; what was just proven may be stronger than what is on record."""
        assert self.person_id is not None  # noqa: S101 - callers have judged that
        assert self.name is not None  # noqa: S101 - likewise
        assert self.side is not None  # noqa: S101 - likewise
        return Caller(
            self.person_id,
            self.name,
            self.standings,
            self.scopes,
            self.services,
            self.side,
            means or self.means or Means.TOKEN,
            self.key_id,
            signed_in_at or self.signed_in_at,
            by_terminal=self.by_terminal,
        ).within(self.only_at)


def recognise(session: Session, kind: Kind, shown: str = "", hash_: bytes = b"") -> Found | None:
    """Look up what somebody shows; the transaction becomes that person's. None: nobody is known by it.

    The caller of this judges expiry, revocation and the person's standing, and lets the transaction fail where they
    don't hold.
    """
    values = {"kind": kind.value, "shown": shown, "hash": hash_}
    row = session.connection().execute(RECOGNISE, values).one_or_none()
    if row is None:
        return None
    if row.person_id is not None and kind is not Kind.INVITATION:
        context.entered(session, row.person_id, row.only_at)
    pairs = zip(row.roles or (), _spread(row.tenant_ids, row.roles), strict=True)
    return Found(
        key_id=row.key_id,
        person_id=row.person_id,
        name=row.name,
        side=Side(row.side) if row.side else None,
        disabled=bool(row.disabled),
        standings=frozenset(Standing(Role(role), tenant_id) for role, tenant_id in pairs),
        means=Means(row.proven_by or row.means) if row.means else None,
        signed_in_at=row.proven_at or row.signed_in_at,
        last_seen_at=row.last_seen_at,
        expires_at=row.expires_at,
        revoked=bool(row.revoked),
        scopes=frozenset(row.scopes or ()),
        services=frozenset(row.services or ()),
        only_at=row.only_at,
        by_terminal=row.proven_by is not None,
        at=read_at(session, row.at),
    )


def _spread(tenant_ids: list[UUID | None] | None, roles: list[str] | None) -> list[UUID | None]:
    """An invitation names its tenant once for all of its roles."""
    named, wanted = tenant_ids or [], len(roles or ())
    return named if len(named) == wanted else named * wanted
