"""Bodies of members, invitations, delegates, and the vendor's staff."""

import re
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.parts import PersonView, RequestBody, has
from lockbox.identity.directory import LONGEST_ENTITY
from lockbox.identity.roles import Role
from lockbox.requests.policy_parts import MOST_TIERS
from lockbox.text_rules import IS_LINE, IS_NAME, IS_WHOLE, Country, Instant, TextRule

PLACE = r"[^\s@<>()\[\]\\,;:\"]+"
ADDRESS = re.compile(f"{PLACE}@{PLACE}")
MARKS = r"[!#-'*+./0-9=?A-Z^-z{|}~-]+"
ADDRESS_PATTERN = f"^{MARKS}@{MARKS}$"


def _address(value: str) -> str:
    if not (ADDRESS.fullmatch(value) and value.isascii() and value.isprintable()):
        raise ValueError("write one mail address, such as ann@contoso.example")
    return value


def _machine_or_person(roles: list[str]) -> list[str]:
    if "system" in roles and len(set(roles)) > 1:
        raise ValueError("a service account has only the role system: leave out the others")
    return roles


Address = Annotated[str, Field(max_length=320), TextRule(_address, ADDRESS_PATTERN)]
PersonName = Annotated[str, Field(max_length=200), IS_NAME]
TenantRole = Literal["tenant_admin", "approver", "auditor"]
VendorRole = Literal["engineer", "manager", "operator", "vendor_auditor", "system"]
TenantRoles = Annotated[list[TenantRole], Field(min_length=1, max_length=3)]
ReviewTier = Annotated[int, Field(strict=True, ge=1, le=MOST_TIERS), IS_WHOLE]
ALONE = [{"items": {"not": {"const": "system"}}}, {"items": {"const": "system"}}]
VendorRoles = Annotated[
    list[VendorRole],
    Field(min_length=1, max_length=5, json_schema_extra={"anyOf": ALONE}),
    AfterValidator(_machine_or_person),
]
TIERS_ARE_FOR_MANAGERS: JsonDict = {
    "if": has(review_tier={"type": "integer"}),
    "then": has(roles={"contains": {"const": Role.MANAGER.value}}),
}


class Invitee(RequestBody):
    """A person to invite, or to propose as a tenant's admin."""

    name: PersonName
    address: Address


class NewMember(Invitee):
    roles: TenantRoles


class NewColleague(Invitee):
    roles: VendorRoles


class MemberChange(RequestBody):
    """All roles of a member. If `eligible` (as a delegate) is left out, it is unchanged."""

    roles: TenantRoles
    eligible: Annotated[bool, Field(strict=True)] | None = None


class ColleagueChange(RequestBody):
    """All roles of a person of the vendor.

    `review_tier` applies to managers only; the lowest tier is asked first. If omitted, it is unchanged.
    """

    model_config = ConfigDict(json_schema_extra=TIERS_ARE_FOR_MANAGERS)

    roles: VendorRoles
    review_tier: ReviewTier | None = None


class DirectoryInput(RequestBody):
    """All that the vendor's directory says of a person: what is left out or null is unknown.

    Countries are ISO 3166-1 alpha-2 codes. In SCIM (RFC 7643), `employing_entity` is the enterprise user's
    `organization`, `office_country` the `country` of the address of type `work`, and `physical_country` a claim of
    your own.
    """

    employing_entity: Annotated[str, Field(max_length=LONGEST_ENTITY), IS_LINE] | None = None
    office_country: Country | None = None
    physical_country: Country | None = None


class DirectoryView(BaseModel):
    """What the vendor's directory says of a person, and as of when; null means unknown.

    `source` is the issuer that said it at a sign-in, or `account:` and the id of the service account that wrote it.
    """

    person: PersonView
    employing_entity: str | None
    office_country: str | None
    physical_country: str | None
    source: str | None
    as_of: datetime | None


class NewDelegation(RequestBody):
    """A delegation. Without `principal`, the caller is the principal; without `starts_at`, it begins at once."""

    delegate: UUID
    ends_at: Instant
    starts_at: Instant | None = None
    principal: UUID | None = None


class MemberView(BaseModel):
    """A member; `since` is the date of the oldest role, `version` the value for If-Match."""

    id: UUID
    name: str
    address: str
    roles: list[Role]
    eligible: bool
    since: datetime | None
    version: str


class MemberPage(BaseModel):
    """A page of members."""

    items: list[MemberView]
    next_cursor: UUID | None


class ColleagueView(BaseModel):
    """A person of the vendor; `review_tier` is null for everyone but managers.

    `version` is the value for If-Match.
    """

    id: UUID
    name: str
    address: str
    roles: list[Role]
    review_tier: int | None
    disabled: bool
    since: datetime | None
    version: str


class ColleaguePage(BaseModel):
    """A page of the vendor's people."""

    items: list[ColleagueView]
    next_cursor: UUID | None


class InvitationView(BaseModel):
    """An open invitation; only its mail has the code, and `expires_at` is null until that mail is due."""

    id: UUID
    name: str
    address: str
    roles: list[Role]
    is_recovery: bool
    created_at: datetime
    takes_effect_at: datetime
    expires_at: datetime | None


class InvitationList(BaseModel):
    """Open invitations, the newest first."""

    items: list[InvitationView]


class RecoveryView(BaseModel):
    """A proposed admin: the invitation is mailed at `takes_effect_at`, unless the tenant objects."""

    id: UUID
    takes_effect_at: datetime


class DelegationView(BaseModel):
    """A delegation; `counts` is whether it is in force now."""

    id: UUID
    principal: PersonView
    delegate: PersonView
    starts_at: datetime
    ends_at: datetime
    counts: bool


class DelegationList(BaseModel):
    """Current and future delegations, by their start."""

    items: list[DelegationView]
