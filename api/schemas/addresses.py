"""Bodies of where mails go: a person's further addresses, and observers of a tenant."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.members import Address, PersonName
from api.schemas.parts import PersonView, RequestBody, Word

Switch = Annotated[bool, Field(strict=True)]


class NewAddress(RequestBody):
    """A further address; without `prompts` it gets receipts and news of changes alone."""

    email: Address
    prompts: Switch = True


class AddressChange(RequestBody):
    """Whether prompts, reminders and outcomes come to an address."""

    prompts: Switch


class ConfirmationCode(RequestBody):
    """The code that was mailed to an address, with its dashes or without."""

    code: Annotated[str, Field(min_length=1, max_length=100)]


class AddressView(BaseModel):
    """A further address; until `confirmed_at` it is not used, and it can be confirmed until `expires_at`."""

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
    """Somebody who is to be copied: on one service, or on all where none is given."""

    name: PersonName
    address: Address
    service: Word | None = None


class ObserverView(BaseModel):
    """Somebody who is copied on what the tenant is asked and told, and decides nothing."""

    id: UUID
    name: str
    address: str
    service: str | None
    added_by: PersonView
    created_at: datetime


class ObserverList(BaseModel):
    """Observers, the oldest first."""

    items: list[ObserverView]
