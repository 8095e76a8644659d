"""Look-up of credentials, and the session variables that tell row-level security who the caller is.

The session variables last until the end of the transaction.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.database import UnitOfWork, array, read_at
from lockbox.errors import NotSignedIn
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import keyring, row_macs
from lockbox.identity.keyring import Keyring
from lockbox.identity.roles import Caller, Role, RoleGrant, Side
from lockbox.identity.row_macs import MarkedRowKind

ENTER = text("""
SELECT set_config('lockbox.person', :person, true), set_config('lockbox.tenants', :tenants, true),
    set_config('lockbox.administers', :administers, true), set_config('lockbox.roles', :roles, true)
""")
TURN_TO = text("SELECT set_config('lockbox.at', :tenant, true)")
SEE_OFF = text("SELECT set_config('lockbox.leaving', :person, true)")
CLOSE_CASES = text("SELECT set_config('lockbox.closing', :token, true)")
DESCRIBE = text("SELECT set_config('lockbox.directory', :person, true)")
SUSPEND = text("SELECT set_config('lockbox.suspending', :tenant, true)")
LOOKED_UP = """
SELECT r.key_id, r.person_id, r.name, r.side, r.disabled, r.roles, r.tenant_ids, r.means, r.signed_in_at,
    r.last_seen_at, r.expires_at, r.revoked, r.scopes, r.services, r.by_mail, r.mac, r.membership_ids, r.macs,
    b.only_at, b.proven_by, b.proven_at, {time_zone} AS time_zone, clock_timestamp() AS at
FROM authenticate(:kind, :shown, :hash) r CROSS JOIN LATERAL credential_scope(:kind, r.key_id) b
"""
LOOK_UP_CREDENTIAL = text(LOOKED_UP.format(time_zone="NULL::text"))
# Only pages show times in the reader's own zone. A person may read their own row once `authenticate` has run.
LOOK_UP_SESSION = text(LOOKED_UP.format(time_zone="(SELECT p.time_zone FROM people p WHERE p.id = r.person_id)"))
TOKEN_FORM = re.compile(
    r"lbx_(?P<env>[a-z]{3,11})_(?P<id>[0-9a-f]{32})_(?P<secret>[A-Za-z0-9_-]{43})(?P<checksum>[0-9a-f]{8})"
)
UNKNOWN_OR_REVOKED = "The token is unknown or revoked. Create a new one."
USE_NOTED_EVERY = timedelta(minutes=1)
WHOSE = text("SELECT person_of_token(:id)")
HELD = """
held AS (
    SELECT CAST(:person_id AS uuid) AS person_id, array_agg(m.id) AS membership_ids, array_agg(m.role) AS roles,
        array_agg(m.tenant_id) AS tenant_ids, array_agg(m.mac) AS macs
    FROM memberships m JOIN people p ON p.id = m.person_id
    WHERE m.person_id = :person_id AND p.disabled_at IS NULL
)"""
"""The part of a statement that reads a person's current roles."""
HELD_COLUMNS = "held.person_id, held.membership_ids, held.roles, held.tenant_ids, held.macs"
AS_OF_NOW = text(f"WITH {HELD} SELECT {HELD_COLUMNS} FROM held")  # noqa: S608 - ours
USED = text("""
UPDATE tokens SET last_used_at = :at WHERE id = (
    SELECT id FROM tokens WHERE id = :id
    AND (last_used_at IS NULL OR last_used_at <= CAST(:at AS timestamptz) - interval '1 minute')
    FOR NO KEY UPDATE SKIP LOCKED)
""")


def enter(session: UnitOfWork, caller: Caller) -> None:
    """Let the transaction act as the caller, unless it already does (as after authentication)."""
    if session.caller == (caller.person_id, caller.only_at):
        return
    session.execute(
        ENTER,
        {
            "person": str(caller.person_id),
            "tenants": array(sorted(caller.tenants())),
            "administers": array(sorted(caller.tenants({Role.TENANT_ADMIN}))),
            "roles": array(sorted(role.value for role in caller.vendor_roles())),
        },
    )
    session.caller = (caller.person_id, caller.only_at)


def reenter(session: UnitOfWork, caller: Caller) -> None:
    session.caller = None
    enter(session, caller)


def turn_to(session: UnitOfWork, tenant_id: UUID) -> None:
    """Let a vendor user reach the people, policy and webhooks of one tenant."""
    session.execute(TURN_TO, {"tenant": str(tenant_id)})


def see_off(session: UnitOfWork, person_id: UUID) -> None:
    """Let an operator reach the requests of a person who is no longer an engineer."""
    session.execute(SEE_OFF, {"person": str(person_id)})


def suspend(session: UnitOfWork, tenant_id: UUID) -> None:
    """Let an operator reach the open windows of a suspended tenant."""
    session.execute(SUSPEND, {"tenant": str(tenant_id)})


def close_cases(session: UnitOfWork, caller: Caller) -> None:
    """Let a ticket system reach the requests at the tenants of its token."""
    session.execute(CLOSE_CASES, {"token": str(caller.key_id or "")})


def describe(session: UnitOfWork, person_id: UUID) -> None:
    """Let a service account write a person's directory record."""
    session.execute(DESCRIBE, {"person": str(person_id)})


class CredentialKind(StrEnum):
    """Kinds of credentials, with the `shown` text and the `hash` by which each is looked up.

    - Token: its id; the keyed hash of its secret.
    - Session: no text; the keyed hash of its secret.
    - Identity, also at the gate: issuer and subject, one per line; no hash.
    - Mailbox: a mail address of the vendor's people; no hash.
    - Passkey: no text; the credential's id as the hash.
    - Pending login: its id; the keyed hash of the browser's cookie.
    - Invitation: its id; the keyed hash of its code.
    """

    TOKEN = "token"  # noqa: S105 - a word
    SESSION = "session"
    IDENTITY = "identity"
    GATE_IDENTITY = "gate_identity"
    MAILBOX = "mailbox"
    PASSKEY = "passkey"
    SIGN_IN = "sign_in"
    INVITATION = "invitation"


MARKED = {CredentialKind.TOKEN: MarkedRowKind.TOKEN, CredentialKind.SESSION: MarkedRowKind.SESSION}
"""Credentials of these kinds are treated as unknown without a valid MAC. The MACs of passkeys and identities are
checked with their rows."""


@dataclass(frozen=True)
class CredentialLookup:
    """The unchecked result of a look-up.

    `person_id` is None if the credential is valid but has no person (yet). `standings` are the roles held, or those
    that an invitation offers. `revoked` also means that a pending login or an invitation was used.
    """

    key_id: UUID | None
    person_id: UUID | None
    name: str | None
    side: Side | None
    disabled: bool
    standings: frozenset[RoleGrant]
    means: AuthMethod | None
    signed_in_at: datetime | None
    last_seen_at: datetime | None
    expires_at: datetime | None
    revoked: bool
    scopes: frozenset[str]
    services: frozenset[str]
    only_at: UUID | None
    by_device_login: bool
    at: datetime
    time_zone: str | None

    def caller(self, means: AuthMethod | None = None, signed_in_at: datetime | None = None) -> Caller:
        """`means` and `signed_in_at`, if just proven, replace the stored values, which may be weaker."""
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
            means or self.means or AuthMethod.TOKEN,
            self.key_id,
            signed_in_at or self.signed_in_at,
            by_device_login=self.by_device_login,
        ).within(self.only_at)


def authenticate_token(session: UnitOfWork, shown: str, *, environment: str) -> Caller:
    """Return the caller of a token; the transaction then acts as the caller."""
    token_id, secret = read_token(shown, environment)
    found = look_up_credential(
        session, CredentialKind.TOKEN, str(token_id), token_hashes(keyring.of(session), token_id, secret)
    )
    if found is None:
        whose = session.execute(WHOSE, {"id": token_id}).scalar_one()
        raise NotSignedIn(UNKNOWN_OR_REVOKED, person_id=whose)
    if found.revoked or found.disabled:
        raise NotSignedIn(UNKNOWN_OR_REVOKED, person_id=found.person_id)
    if found.means is AuthMethod.SAMPLE and environment == "production":
        said = "Demo tokens do not work in production. Create a token of your own."
        raise NotSignedIn(said, person_id=found.person_id)
    if found.expires_at is None or found.at >= found.expires_at:
        raise NotSignedIn("The token has expired. Create a new one.", person_id=found.person_id)
    if found.last_seen_at is None or found.at - found.last_seen_at >= USE_NOTED_EVERY:
        session.write(USED, {"id": found.key_id, "at": found.at})
    return found.caller()


def read_token(shown: str, environment: str) -> tuple[UUID, str]:
    parts = TOKEN_FORM.fullmatch(shown)
    if parts is None or parts["env"] != environment:
        raise NotSignedIn(f"This is not a token of this installation. Its tokens begin with lbx_{environment}_.")
    if token_checksum(shown[:-8]) != parts["checksum"]:
        raise NotSignedIn("The token is not complete: its token_checksum is wrong. Copy it again.")
    return UUID(parts["id"]), parts["secret"]


def token_checksum(body: str) -> str:
    """Return a CRC-32 in hex, which detects mangled tokens and lets scanners confirm a leaked token."""
    return f"{zlib.crc32(body.encode()):08x}"


def token_hashes(ring: Keyring, token_id: UUID, secret: str) -> list[bytes]:
    return ring.secrets.marks("token", token_id, secret)


def look_up_credential(
    session: UnitOfWork, kind: CredentialKind, shown: str = "", hashes: Sequence[bytes] = (b"",)
) -> CredentialLookup | None:
    """Look up a credential, and let the transaction act as its person; return None if it is unknown.

    The first of the `hashes` is made with the newest key. A token, session or role without a valid MAC does not
    count. The calling function checks expiry, revocation and the person's standing, and rolls the transaction back if
    a check fails.
    """
    statement = LOOK_UP_SESSION if kind is CredentialKind.SESSION else LOOK_UP_CREDENTIAL
    for hash_ in hashes:
        values = {"kind": kind.value, "shown": shown, "hash": hash_}
        row = session.execute(statement, values).one_or_none()
        if row is not None:
            return _checked(session, kind, row, hash_, hashes[0])
    return None


def _checked(
    session: UnitOfWork, kind: CredentialKind, row: Row[Any], hash_: bytes, newest: bytes
) -> CredentialLookup | None:
    if kind in MARKED and not _is_marked(session, kind, row, hash_, newest):
        return None
    if kind is CredentialKind.INVITATION:
        pairs = zip(row.roles, row.tenant_ids * len(row.roles), strict=True)
        standings = frozenset(RoleGrant(Role(role), tenant_id) for role, tenant_id in pairs)
        return _lookup(session, row, standings)
    standings = _held(session, row)
    found = _lookup(session, row, standings)
    if row.person_id is not None:
        session.caller = (row.person_id, row.only_at)
        if len(standings) < len(row.roles or ()):
            # Postgres also counted roles without a valid MAC; this call leaves them out.
            reenter(session, found.caller())
    return found


def _is_marked(session: UnitOfWork, kind: CredentialKind, row: Row[Any], hash_: bytes, newest: bytes) -> bool:
    ring, parts = keyring.of(session), _parts(kind, row, hash_)
    if not row_macs.is_held(session, row.mac, parts, row.key_id):
        return False
    if hash_ != newest or not ring.powers.is_newest(row.mac):
        mac = ring.powers.mark(*_parts(kind, row, newest))
        row_macs.remark(session, MARKED[kind], row.key_id, old=row.mac, new=mac, new_hash=newest)
    return True


def _parts(kind: CredentialKind, row: Row[Any], hash_: bytes) -> Sequence[keyring.Part]:
    if kind is CredentialKind.SESSION:
        return row_macs.browser_session(
            SimpleNamespace(
                id=row.key_id,
                person_id=row.person_id,
                secret_hash=hash_,
                means=row.means,
                signed_in_at=row.signed_in_at,
                expires_at=row.expires_at,
                only_at=row.only_at,
            )
        )
    return row_macs.token(
        SimpleNamespace(
            id=row.key_id,
            person_id=row.person_id,
            secret_hash=hash_,
            is_sample=row.means == AuthMethod.SAMPLE,
            by_mail=row.by_mail,
            scopes=row.scopes,
            services=row.services,
            only_at=row.only_at,
            means=row.proven_by,
            signed_in_at=row.proven_at,
            created_at=row.signed_in_at,
            expires_at=row.expires_at,
        )
    )


def _held(session: UnitOfWork, row: Row[Any]) -> frozenset[RoleGrant]:
    rows = zip(row.membership_ids or (), row.roles or (), row.tenant_ids or (), row.macs or (), strict=True)
    return frozenset(
        RoleGrant(Role(role), tenant_id)
        for row_id, role, tenant_id, mac in rows
        if row_macs.holds(session, mac, row_macs.membership(row_id, row.person_id, tenant_id, role), row_id)
    )


def _lookup(session: UnitOfWork, row: Row[Any], standings: frozenset[RoleGrant]) -> CredentialLookup:
    return CredentialLookup(
        key_id=row.key_id,
        person_id=row.person_id,
        name=row.name,
        side=Side(row.side) if row.side else None,
        disabled=bool(row.disabled),
        standings=standings,
        means=AuthMethod(row.proven_by or row.means) if row.means else None,
        signed_in_at=row.proven_at or row.signed_in_at,
        last_seen_at=row.last_seen_at,
        expires_at=row.expires_at,
        revoked=bool(row.revoked),
        scopes=frozenset(row.scopes or ()),
        services=frozenset(row.services or ()),
        only_at=row.only_at,
        by_device_login=row.proven_by is not None,
        at=read_at(session, row.at),
        time_zone=row.time_zone,
    )


def as_of_now(session: UnitOfWork, caller: Caller) -> Caller:
    """Read the roles again: some may have been removed during the wait for a lock."""
    return holding(session, caller, session.execute(AS_OF_NOW, {"person_id": caller.person_id}).one())


def holding(session: UnitOfWork, caller: Caller, row: Row[Any]) -> Caller:
    return replace(caller, standings=_held(session, row)).within(caller.only_at)
