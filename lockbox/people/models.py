"""Tables of the people wing: tenants, people, memberships, tokens."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from lockbox.people.roles import Mode, Role
from lockbox.tables import Instant, Texts, words


class Tenant(SQLModel, table=True):
    """A customer. `policy` is the JSON form of the requests wing's Policy."""

    __tablename__ = "tenants"

    id: UUID = Field(primary_key=True)
    slug: str = Field(max_length=63, unique=True)
    name: str = Field(max_length=200)
    mode: Mode = Field(default=Mode.ENFORCE, sa_type=words(Mode))
    suspended: bool = False
    policy: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
    created_at: datetime = Field(sa_type=Instant)


class Person(SQLModel, table=True):
    """Somebody with a name and an address, or a machine of the vendor with role *system*."""

    __tablename__ = "people"

    id: UUID = Field(primary_key=True)
    name: str = Field(max_length=200)
    email: str = Field(max_length=320)
    disabled_at: datetime | None = Field(default=None, sa_type=Instant)
    created_at: datetime = Field(sa_type=Instant)


class Membership(SQLModel, table=True):
    """One role of one person: at a tenant, or at the vendor where `tenant_id` is null."""

    __tablename__ = "memberships"

    id: UUID = Field(primary_key=True)
    person_id: UUID = Field(foreign_key="people.id")
    tenant_id: UUID | None = Field(default=None, foreign_key="tenants.id")
    role: Role = Field(sa_type=words(Role))


class Token(SQLModel, table=True):
    """A bearer token of a person; only the SHA-256 of its secret is kept."""

    __tablename__ = "tokens"

    id: UUID = Field(primary_key=True)
    person_id: UUID = Field(foreign_key="people.id", index=True)
    secret_hash: bytes
    scopes: list[str] = Field(default_factory=list, sa_type=Texts)
    services: list[str] = Field(default_factory=list, sa_type=Texts)
    expires_at: datetime = Field(sa_type=Instant)
    revoked_at: datetime | None = Field(default=None, sa_type=Instant)
    created_at: datetime = Field(sa_type=Instant)
