"""Bodies of access reviews."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from lockbox.admin.access_review import AccessReview, ReviewedPerson


class ReviewedPersonView(BaseModel):
    """A person with roles, why they may approve (`through`), and when and how they last signed in."""

    id: UUID
    name: str
    address: str
    roles: list[str]
    may_approve: bool
    through: list[str]
    last_sign_in: datetime | None
    signed_in_by: str | None
    disabled: bool


class TwoRolesView(BaseModel):
    """A person of the vendor with more than one role there."""

    id: UUID
    name: str
    roles: list[str]


class AccessReviewView(BaseModel):
    """Everyone with a role at a tenant or at the vendor, as of a moment; `tenant` is null for the vendor."""

    tenant: str | None
    at: datetime
    items: list[ReviewedPersonView]
    vendor_with_two_roles: list[TwoRolesView]

    @classmethod
    def of(cls, found: AccessReview) -> "AccessReviewView":
        return cls(
            tenant=found.tenant.slug if found.tenant else None,
            at=found.at,
            items=[_person(person) for person in found.people],
            vendor_with_two_roles=[
                TwoRolesView(id=role.id, name=role.name, roles=list(role.roles)) for role in found.two_roles
            ],
        )


def _person(one: ReviewedPerson) -> ReviewedPersonView:
    return ReviewedPersonView(
        id=one.id,
        name=one.name,
        address=one.address,
        roles=list(one.roles),
        may_approve=one.may_approve,
        through=list(one.through),
        last_sign_in=one.last_sign_in,
        signed_in_by=one.means,
        disabled=one.is_disabled,
    )
