"""Tables of the people wing: tenants with their policies, people, memberships, delegates, invitations."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from lockbox.identity import time_zones
from lockbox.identity.roles import Mode, Role, Side
from lockbox.sql import Instant, Texts, new_id, words


class Tenant(SQLModel, table=True):
    """A customer. `policy_version` is the version of its policy that holds now.

    `mac` is the mark of all but the name (see `people.powers`); each change of these raises `revision`, so that no
    mark is made twice.
    """

    __tablename__ = "tenants"

    id: UUID = Field(primary_key=True)
    slug: str = Field(max_length=63, unique=True)
    name: str = Field(max_length=200)
    mode: Mode = Field(default=Mode.ENFORCE, sa_type=words(Mode))
    suspended: bool = False
    plan: str = Field(max_length=63)
    policy_version: int
    revision: int = 1
    mac: bytes | None = None
    created_at: datetime = Field(sa_type=Instant)


class PolicyVersion(SQLModel, table=True):
    """One version of a tenant's policy, never changed: `body` is the JSON form of the requests wing's Policy.

    The author is null for what the tenant began with.
    """

    __tablename__ = "policies"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    version: int = Field(primary_key=True)
    body: dict[str, Any] = Field(sa_type=JSONB)
    author_id: UUID | None = Field(default=None, foreign_key="people.id")
    created_at: datetime = Field(sa_type=Instant)
    mac: bytes | None = None


class Person(SQLModel, table=True):
    """Somebody with a name and an address, on one side for good, or a machine of the vendor with role *system*.

    `time_zone` is a name of the IANA database; mails say times in it and in UTC. Who may approve and wants no prompts
    is asked only where the others are too few.
    """

    __tablename__ = "people"

    id: UUID = Field(primary_key=True)
    name: str = Field(max_length=200)
    email: str = Field(max_length=320)
    side: Side = Field(sa_type=words(Side))
    time_zone: str = Field(default=time_zones.DEFAULT, max_length=time_zones.LONGEST)
    wants_prompts: bool = True
    disabled_at: datetime | None = Field(default=None, sa_type=Instant)
    created_at: datetime = Field(sa_type=Instant)


class Address(SQLModel, table=True):
    """A further address of a person, used once it is confirmed by the code that was mailed there.

    The code is made from `code_nonce` by a key that is not in the database. Without `prompts` it gets receipts and
    news of changes alone.
    """

    __tablename__ = "addresses"

    id: UUID = Field(primary_key=True)
    person_id: UUID = Field(foreign_key="people.id")
    email: str = Field(max_length=320)
    prompts: bool = True
    code_nonce: bytes | None = None
    created_at: datetime = Field(sa_type=Instant)
    expires_at: datetime = Field(sa_type=Instant)
    confirmed_at: datetime | None = Field(default=None, sa_type=Instant)
    removed_at: datetime | None = Field(default=None, sa_type=Instant)


class Membership(SQLModel, table=True):
    """One role of one person: at a tenant, or at the vendor where `tenant_id` is null.

    Postgres derives a further column, `side`, and holds it against the person's: nobody is on both. `review_tier` is
    for the vendor's managers: the lowest is asked first of a review.
    """

    __tablename__ = "memberships"

    id: UUID = Field(primary_key=True)
    person_id: UUID = Field(foreign_key="people.id")
    tenant_id: UUID | None = Field(default=None, foreign_key="tenants.id")
    role: Role = Field(sa_type=words(Role))
    review_tier: int = 1
    mac: bytes | None = None


class EligibleDelegate(SQLModel, table=True):
    """A person whom approvers may name as their delegate; `id` tells this permission from an earlier one."""

    __tablename__ = "eligible_delegates"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    person_id: UUID = Field(primary_key=True, foreign_key="people.id")
    id: UUID = Field(default_factory=new_id)
    mac: bytes | None = None


class Delegation(SQLModel, table=True):
    """A period in which a delegate may decide for an approver, the principal."""

    __tablename__ = "delegations"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID = Field(foreign_key="tenants.id")
    principal_id: UUID = Field(foreign_key="people.id")
    delegate_id: UUID = Field(foreign_key="people.id")
    starts_at: datetime = Field(sa_type=Instant)
    ends_at: datetime = Field(sa_type=Instant)
    made_by: UUID = Field(foreign_key="people.id")
    created_at: datetime = Field(sa_type=Instant)
    ended_at: datetime | None = Field(default=None, sa_type=Instant)
    mac: bytes | None = None


class Invitation(SQLModel, table=True):
    """A place offered by mail: at a tenant, or at the vendor where `tenant_id` is null.

    Its code is made from `code_nonce` by a key that is not in the database; only a keyed hash of it is kept. A
    recovery, proposed by an operator, is sent at `takes_effect_at` unless somebody of the tenant withdraws it before.
    """

    __tablename__ = "invitations"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID | None = Field(default=None, foreign_key="tenants.id", index=True)
    email: str = Field(max_length=320)
    name: str = Field(max_length=200)
    roles: list[str] = Field(sa_type=Texts)
    is_recovery: bool
    invited_by: UUID = Field(foreign_key="people.id")
    created_at: datetime = Field(sa_type=Instant)
    takes_effect_at: datetime = Field(sa_type=Instant)
    code_nonce: bytes | None = None
    secret_hash: bytes | None = None
    expires_at: datetime | None = Field(default=None, sa_type=Instant)
    accepted_at: datetime | None = Field(default=None, sa_type=Instant)
    accepted_by: UUID | None = Field(default=None, foreign_key="people.id")
    withdrawn_at: datetime | None = Field(default=None, sa_type=Instant)
    withdrawn_by: UUID | None = Field(default=None, foreign_key="people.id")
    mac: bytes | None = None
