"""Bodies of people: members and invitations of a tenant, delegates, and the vendor's own people."""

import re
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from api.schemas.parts import IS_NAME, PersonView, RequestBody, TextRule
from lockbox.identity.roles import Role
from lockbox.instants import Instant
from lockbox.requests.policy import IS_WHOLE, MOST_TIERS

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
        raise ValueError("a system has no other role: what runs by itself decides nothing")
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


class Invitee(RequestBody):
    """A person who is to be written to."""

    name: PersonName
    address: Address


class NewMember(Invitee):
    """Somebody who is invited to a tenant."""

    roles: TenantRoles


class NewColleague(Invitee):
    """Somebody who is invited to the vendor's side."""

    roles: VendorRoles


class MemberChange(RequestBody):
    """All the roles that a member is to have; `eligible` as a delegate stays as it is where it is left out."""

    roles: TenantRoles
    eligible: Annotated[bool, Field(strict=True)] | None = None


class ColleagueChange(RequestBody):
    """All the roles that somebody at the vendor is to have.

    `review_tier` is for managers, and stays as it is where it is left out: the lowest is asked first of a review.
    """

    roles: VendorRoles
    review_tier: ReviewTier | None = None


class NewDelegation(RequestBody):
    """A delegate for a period; for the caller where no principal is named, from now on where no start is."""

    delegate: UUID
    ends_at: Instant
    starts_at: Instant | None = None
    principal: UUID | None = None


class MemberView(BaseModel):
    """A member; `since` is from when the oldest of the roles dates, `version` what If-Match takes to change them."""

    id: UUID
    name: str
    address: str
    roles: list[Role]
    eligible: bool
    since: datetime | None
    version: str


class MemberPage(BaseModel):
    """Some members; `next_cursor` leads to those that follow."""

    items: list[MemberView]
    next_cursor: UUID | None


class ColleagueView(BaseModel):
    """Somebody on the vendor's side; `review_tier` is null for who is no manager.

    `version` is what If-Match takes to change them.
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
    """Some people of the vendor; `next_cursor` leads to those that follow."""

    items: list[ColleagueView]
    next_cursor: UUID | None


class InvitationView(BaseModel):
    """An open invitation; its code is in the mail alone, and `expires_at` counts from when that mail is due."""

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
    """A proposed admin: the invitation is mailed at `takes_effect_at`, unless somebody of the tenant objects."""

    id: UUID
    takes_effect_at: datetime


class DelegationView(BaseModel):
    """A delegation; `counts` is whether the delegate stands in at this moment."""

    id: UUID
    principal: PersonView
    delegate: PersonView
    starts_at: datetime
    ends_at: datetime
    counts: bool


class DelegationList(BaseModel):
    """Delegations that are running or to come, by their start."""

    items: list[DelegationView]
