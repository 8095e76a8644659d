"""Bodies of the caller's identity and preferences."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.schemas.parts import Absent, RequestBody, absent
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import time_zones
from lockbox.identity.roles import Role, Side


class MeView(BaseModel):
    """The caller: roles at the vendor, and roles at tenants by their slugs.

    `signed_in_at` is when the person last signed in; null for an API token.
    """

    id: UUID
    name: str
    side: Side
    roles: list[Role]
    tenants: dict[str, list[Role]]
    means: AuthMethod
    signed_in_at: datetime | None
    time_zone: str
    wants_prompts: bool


class Preferences(RequestBody):
    """A person's preferences; what is left out is unchanged.

    `time_zone` is an IANA name, such as `Europe/Berlin`. An approver who declined prompts is asked only if the other
    approvers are too few; receipts are always sent.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    time_zone: Annotated[str, Field(min_length=1, max_length=time_zones.LONGEST)] | Absent = absent()
    wants_prompts: Annotated[bool, Field(strict=True)] | Absent = absent()

    @model_validator(mode="after")
    def _chooses(self) -> Self:
        if not self.model_fields_set or None in (getattr(self, name) for name in self.model_fields_set):
            raise ValueError("set time_zone or wants_prompts, and leave out what stays as it is")
        return self
