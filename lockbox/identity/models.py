"""Tables of the identity package. `mac` is the MAC of a row; see `row_macs`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from lockbox.facts.enumerations import Mode
from lockbox.identity import time_zones
from lockbox.identity.roles import Role, Side
from lockbox.sql import Instant, Texts, new_id, words


class Tenant(SQLModel, table=True):
    """A customer. `policy_version` is the version in force.

    `mac` covers everything but the name. Each new MAC raises `revision`, so that no MAC is made twice.
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


class Retention(SQLModel, table=True):
    """How many days a tenant's log is kept; None means the installation's limit."""

    __tablename__ = "retentions"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    days: int | None = None
    set_at: datetime | None = Field(default=None, sa_type=Instant)
    mac: bytes | None = None


class ExclusionsVersion(SQLModel, table=True):
    """One immutable version of the vendor's list of what Lockbox does not cover.

    `announced_to` is the last tenant whose log contains the version.
    """

    __tablename__ = "exclusions"

    version: int = Field(primary_key=True)
    body: str = Field(max_length=20_000)
    author_id: UUID = Field(foreign_key="people.id")
    created_at: datetime = Field(sa_type=Instant)
    announced_to: UUID | None = None


class ExclusionAcknowledgement(SQLModel, table=True):
    __tablename__ = "exclusion_acknowledgements"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    version: int = Field(primary_key=True, foreign_key="exclusions.version")
    person_id: UUID = Field(foreign_key="people.id")
    created_at: datetime = Field(sa_type=Instant)


class LegalHold(SQLModel, table=True):
    """A legal hold of one side. Until it is released, nothing of the tenant is removed or erased."""

    __tablename__ = "legal_holds"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID = Field(foreign_key="tenants.id")
    side: Side = Field(sa_type=words(Side))
    reason: str = Field(max_length=2000)
    set_by: UUID = Field(foreign_key="people.id")
    set_at: datetime = Field(sa_type=Instant)
    released_by: UUID | None = Field(default=None, foreign_key="people.id")
    released_at: datetime | None = Field(default=None, sa_type=Instant)
    mac: bytes | None = None


class EmergencyStop(SQLModel, table=True):
    """An emergency stop. Until an admin ends it, break-glass opens nothing at the tenant."""

    __tablename__ = "emergency_stops"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID = Field(foreign_key="tenants.id")
    stopped_by: UUID = Field(foreign_key="people.id")
    stopped_at: datetime = Field(sa_type=Instant)
    ended_by: UUID | None = Field(default=None, foreign_key="people.id")
    ended_at: datetime | None = Field(default=None, sa_type=Instant)
    ended_event: UUID | None = None


class Offboarding(SQLModel, table=True):
    """How far a tenant's off-boarding by the database's owner has come. `size` and `digest` describe the export."""

    __tablename__ = "offboardings"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    asked_by: UUID | None = Field(default=None, foreign_key="people.id")
    asked_at: datetime = Field(sa_type=Instant)
    closed_at: datetime | None = Field(default=None, sa_type=Instant)
    size: int | None = Field(default=None, sa_type=BigInteger)
    digest: str | None = Field(default=None, max_length=64)
    erased_at: datetime | None = Field(default=None, sa_type=Instant)
    mac: bytes | None = None


class ServiceEnforcement(SQLModel, table=True):
    """The gate setting of a service in the catalogue, `report` or `enforce`.

    Each switch raises `revision`. `enforced_at` is when the gate was first enforced.
    """

    __tablename__ = "enforcements"

    id: UUID = Field(primary_key=True)
    service: str = Field(max_length=63, unique=True)
    wanted: str = Field(max_length=24)
    revision: int = 1
    enforced_at: datetime | None = Field(default=None, sa_type=Instant)
    changed_at: datetime = Field(sa_type=Instant)
    mac: bytes | None = None


class EnforcementSwitch(SQLModel, table=True):
    """A switch of a gate setting, to be recorded in logs.

    `announced_to` is the last tenant whose log contains the switch.
    """

    __tablename__ = "enforcement_switches"

    id: UUID = Field(primary_key=True)
    enforcement_id: UUID = Field(foreign_key="enforcements.id")
    revision: int
    wanted: str = Field(max_length=24)
    was_enforced: bool
    switched_at: datetime = Field(sa_type=Instant)
    announced_to: UUID | None = None


class GateDefinitionRecord(SQLModel, table=True):
    """A revision of the part of the catalogue that defines a gate. A process last used the revision at `used_at`.

    `only_for` lists the slugs of the tenants to which calls are limited. `announced_to` is the last tenant whose log
    contains the revision.
    """

    __tablename__ = "gate_definitions"

    id: UUID = Field(primary_key=True)
    service: str = Field(max_length=63)
    revision: int
    digest: bytes
    body: str = Field(sa_type=Text)
    only_for: list[str] | None = Field(default=None, sa_type=Texts)
    recorded_at: datetime = Field(sa_type=Instant)
    used_at: datetime = Field(sa_type=Instant)
    announced_to: UUID | None = None


class ReportConsent(SQLModel, table=True):
    """A tenant's consent that the enforced gate of a service only reports for this tenant.

    It holds for one revision.
    """

    __tablename__ = "report_consents"

    id: UUID = Field(primary_key=True)
    enforcement_id: UUID = Field(foreign_key="enforcements.id")
    tenant_id: UUID = Field(foreign_key="tenants.id", index=True)
    revision: int
    person_id: UUID = Field(foreign_key="people.id")
    created_at: datetime = Field(sa_type=Instant)
    mac: bytes | None = None


class PolicyVersion(SQLModel, table=True):
    """One immutable version of a tenant's policy; `body` is the JSON form of `requests.policy.Policy`."""

    __tablename__ = "policies"

    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    version: int = Field(primary_key=True)
    body: dict[str, Any] = Field(sa_type=JSONB)
    author_id: UUID | None = Field(default=None, foreign_key="people.id")
    created_at: datetime = Field(sa_type=Instant)
    mac: bytes | None = None


class Person(SQLModel, table=True):
    """A person with a name and an address, permanently on one side, or a service account with the role *system*.

    `time_zone` is an IANA name.
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
    """A further address of a person, used once it is confirmed by a code mailed to it."""

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
    """One role of one person: at a tenant, or at the vendor if `tenant_id` is null.

    Postgres compares the role's side with the person's side: no one is on both sides. `review_tier` is for the
    vendor's managers: the lowest tier is asked first.
    """

    __tablename__ = "memberships"

    id: UUID = Field(primary_key=True)
    person_id: UUID = Field(foreign_key="people.id")
    tenant_id: UUID | None = Field(default=None, foreign_key="tenants.id")
    role: Role = Field(sa_type=words(Role))
    review_tier: int = 1
    mac: bytes | None = None


class DirectoryRecord(SQLModel, table=True):
    """A directory record; countries are ISO 3166-1 codes, None means unknown.

    `source` is the issuer of a sign-in, or `account:` and the id of the service account that wrote the record.
    """

    __tablename__ = "directory_records"

    person_id: UUID = Field(primary_key=True, foreign_key="people.id")
    employing_entity: str | None = Field(default=None, max_length=200)
    office_country: str | None = Field(default=None, max_length=2)
    physical_country: str | None = Field(default=None, max_length=2)
    source: str = Field(max_length=500)
    as_of: datetime = Field(sa_type=Instant)
    mac: bytes | None = None


class EligibleDelegate(SQLModel, table=True):
    """A person that approvers may name as their delegate; `id` distinguishes this permission from an earlier one."""

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
    """An invitation by mail: to a tenant, or to the vendor if `tenant_id` is null.

    If an operator proposes an admin (`is_recovery`), the invitation is mailed at `takes_effect_at` unless a tenant
    admin withdraws it.
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
