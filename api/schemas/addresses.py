"""Bodies of further addresses and observers."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.members import Address, PersonName
from api.schemas.parts import PersonView, RequestBody
from lockbox.facts.bounds import Word

Switch = Annotated[bool, Field(strict=True)]


class NewAddress(RequestBody):
    """A further address; without `prompts` it gets only receipts and notifications of changes."""

    email: Address
    prompts: Switch = True


class AddressChange(RequestBody):
    """Whether prompts, reminders and outcomes go to an address."""

    prompts: Switch


class ConfirmationCode(RequestBody):
    """The code mailed to an address, with or without dashes."""

    code: Annotated[str, Field(min_length=1, max_length=100)]


class AddressView(BaseModel):
    """A further address; it is used from `confirmed_at` on, and can be confirmed until `expires_at`."""

    id: UUID
    email: str
    prompts: bool
    created_at: datetime
    expires_at: datetime
    confirmed_at: datetime | None


class AddressList(BaseModel):
    """Further addresses, the oldest first."""

    items: list[AddressView]


class NewObserver(RequestBody):
    """An observer to add: of one service, or of all if none is given."""

    name: PersonName
    address: Address
    service: Word | None = None


class ObserverView(BaseModel):
    """An observer, who gets copies of the tenant's notifications and decides nothing."""

    id: UUID
    name: str
    address: str
    service: str | None
    added_by: PersonView
    created_at: datetime


class ObserverList(BaseModel):
    """Observers, the oldest first."""

    items: list[ObserverView]
