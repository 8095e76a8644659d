"""Tables of credentials. Secrets are stored only as keyed hashes."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from lockbox.facts.enumerations import AuthMethod
from lockbox.identity.roles import BOUND_TO
from lockbox.sql import Instant, Texts, words

LONGEST_ISSUER, LONGEST_GATE_SUBJECT = 500, 500


class Token(SQLModel, table=True):
    """A bearer token of a person; its terms are as in `api_tokens.TokenTerms`.

    The token of a device login has the `means` and `signed_in_at` of the session that allowed it.
    """

    __tablename__ = "tokens"

    id: UUID = Field(primary_key=True)
    person_id: UUID = Field(foreign_key="people.id", index=True)
    name: str = Field(max_length=100)
    is_sample: bool
    by_mail: bool = False
    secret_hash: bytes
    scopes: list[str] = Field(default_factory=list, sa_type=Texts)
    services: list[str] = Field(default_factory=list, sa_type=Texts)
    replaces: UUID | None = Field(default=None, foreign_key="tokens.id")
    expires_at: datetime = Field(sa_type=Instant)
    revoked_at: datetime | None = Field(default=None, sa_type=Instant)
    last_used_at: datetime | None = Field(default=None, sa_type=Instant)
    created_at: datetime = Field(sa_type=Instant)
    only_at: UUID | None = Field(default=None, foreign_key="tenants.id")
    means: AuthMethod | None = Field(default=None, sa_type=words(AuthMethod))
    signed_in_at: datetime | None = Field(default=None, sa_type=Instant)
    mac: bytes | None = None

    @property
    def tenants(self) -> list[str]:
        return [scope.removeprefix(BOUND_TO) for scope in self.scopes if scope.startswith(BOUND_TO)]

    @property
    def plain_scopes(self) -> list[str]:
        return [scope for scope in self.scopes if not scope.startswith(BOUND_TO)]


class DeviceLogin(SQLModel, table=True):
    """A pending device login: hashes of the token's secret and of the code that the terminal shows.

    Once the login is allowed, its token gets the login's id.
    """

    __tablename__ = "device_logins"

    id: UUID = Field(primary_key=True)
    secret_hash: bytes
    code_hash: bytes
    address: str | None = Field(default=None, max_length=45)
    user_agent: str | None = Field(default=None, max_length=256)
    created_at: datetime = Field(sa_type=Instant)
    expires_at: datetime = Field(sa_type=Instant)
    answered_by: UUID | None = Field(default=None, foreign_key="people.id")
    answered_at: datetime | None = Field(default=None, sa_type=Instant)
    is_allowed: bool | None = None


class Identity(SQLModel, table=True):
    """A person's identity at an OIDC issuer; until `trusted_at` it is worth a mailed code, no more."""

    __tablename__ = "identities"

    issuer: str = Field(primary_key=True, max_length=500)
    subject: str = Field(primary_key=True, max_length=255)
    person_id: UUID = Field(foreign_key="people.id", index=True)
    created_at: datetime = Field(sa_type=Instant)
    trusted_at: datetime = Field(sa_type=Instant)
    mac: bytes | None = None


class GateIdentity(SQLModel, table=True):
    """The engineer for a caller at the gate, as mapped by an operator. No one can sign in with it.

    `issuer` is an identity provider, or `mtls:` followed by a service, or `header:` followed by a gateway's id.
    """

    __tablename__ = "gate_identities"

    id: UUID = Field(primary_key=True)
    issuer: str = Field(max_length=LONGEST_ISSUER)
    subject: str = Field(max_length=LONGEST_GATE_SUBJECT)
    person_id: UUID = Field(foreign_key="people.id", index=True)
    added_by: UUID = Field(foreign_key="people.id")
    created_at: datetime = Field(sa_type=Instant)
    mac: bytes | None = None


class Passkey(SQLModel, table=True):
    """A WebAuthn credential of a person; `public_key` is in COSE form, `sign_count` is the last signature count.

    Until `trusted_at` it is worth a mailed code, no more. If `only_at` is set, it is valid only at that tenant.
    """

    __tablename__ = "passkeys"

    id: UUID = Field(primary_key=True)
    person_id: UUID = Field(foreign_key="people.id", index=True)
    credential_id: bytes
    public_key: bytes
    sign_count: int = Field(sa_type=BigInteger)
    name: str = Field(max_length=100)
    created_at: datetime = Field(sa_type=Instant)
    trusted_at: datetime = Field(sa_type=Instant)
    last_used_at: datetime | None = Field(default=None, sa_type=Instant)
    only_at: UUID | None = Field(default=None, foreign_key="tenants.id")
    mac: bytes | None = None


class BrowserSession(SQLModel, table=True):
    """A signed-in browser. `expires_at` is its absolute end; if `only_at` is set, it counts only at that tenant."""

    __tablename__ = "sessions"

    id: UUID = Field(primary_key=True)
    person_id: UUID = Field(foreign_key="people.id", index=True)
    secret_hash: bytes
    means: AuthMethod = Field(sa_type=words(AuthMethod))
    signed_in_at: datetime = Field(sa_type=Instant)
    last_seen_at: datetime = Field(sa_type=Instant)
    expires_at: datetime = Field(sa_type=Instant)
    revoked_at: datetime | None = Field(default=None, sa_type=Instant)
    address: str | None = Field(default=None, max_length=45)
    user_agent: str | None = Field(default=None, max_length=256)
    only_at: UUID | None = Field(default=None, foreign_key="tenants.id")
    mac: bytes | None = None


class PendingLogin(SQLModel, table=True):
    """A login that a browser has begun; it can be used only once. The keyed hash of a cookie binds it to the browser.

    `challenge` is set only for a decision by passkey; other ceremonies derive their challenge.
    """

    __tablename__ = "sign_ins"

    id: UUID = Field(primary_key=True)
    browser_hash: bytes
    means: AuthMethod = Field(sa_type=words(AuthMethod))
    email: str | None = Field(default=None, max_length=320)
    code_nonce: bytes | None = None
    issuer: str | None = Field(default=None, max_length=500)
    state_hash: bytes | None = None
    nonce: str | None = Field(default=None, max_length=100)
    verifier: str | None = Field(default=None, max_length=200)
    challenge: bytes | None = None
    tries: int = 0
    created_at: datetime = Field(sa_type=Instant)
    expires_at: datetime = Field(sa_type=Instant)
    proven_at: datetime | None = Field(default=None, sa_type=Instant)
    used_at: datetime | None = Field(default=None, sa_type=Instant)
    mac: bytes | None = None


class SignInCount(SQLModel, table=True):
    """Sign-in attempts of an address or account since `since`; the key is a hash that names no one."""

    __tablename__ = "sign_in_counts"

    key: bytes = Field(primary_key=True)
    since: datetime = Field(sa_type=Instant)
    count: int
