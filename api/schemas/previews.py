"""Bodies of previews."""

from typing import Annotated

from pydantic import BaseModel, Field

from api.schemas.parts import RequestBody
from catalogue.service_catalogue import Level
from lockbox.facts.bounds import Context, Resource, Word
from lockbox.facts.enumerations import Reason, Severity
from lockbox.requests.preview import PreviewedSubmission
from lockbox.text_rules import IS_LINE, Country


class MissingField(BaseModel):
    """A field of the submission and what it lacks under the tenant's policy."""

    field: str
    message: str


class PreviewView(PreviewedSubmission):
    """A request's terms and the people whom it would reach: names and counts, no addresses; nothing was written.

    `notified_first` are the customer's people whom the request would reach first, to ask them or to notify them of a
    window opened without them. `endpoints` is how many of the customer's webhooks it would call. `pre_approval_id` is
    the pre-approval that would open the window without asking the customer: at once, or when the request is endorsed.
    With `break_glass` a manager would open the window without the customer.
    """

    can_be_submitted: bool
    lacks: list[MissingField]
    level: Level


class WhatIfInput(RequestBody):
    """The facts of a hypothetical request that the tenant's policy can use; what is left out is unknown."""

    service: Word
    resources: list[Resource] = Field(min_length=1, max_length=50)
    actions: list[Word] = Field(default=["read"], min_length=1, max_length=20)
    reason_code: Reason
    context: Context = Field(default={})
    severity: Severity | None = None
    employing_entity: Annotated[str, Field(max_length=100), IS_LINE] | None = None
    office_country: Country | None = None
    physical_country: Country | None = None
