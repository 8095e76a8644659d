"""Request bodies for submissions and extensions."""

from collections.abc import Mapping
from typing import Annotated
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.parts import RequestBody, Slug, has
from catalogue.service_catalogue import CaseSystem
from lockbox.facts.ask import SubmittedAsk
from lockbox.facts.bounds import Actions, ComesIn, Context, Seconds, Uses
from lockbox.requests.case_check import in_its_system
from lockbox.requests.request_input import RequestInput
from lockbox.text_rules import IS_TEXT

GIVEN: JsonDict = {"type": "string"}
NAMES_ITS_CASE: JsonDict = {
    "if": {"anyOf": [has(case_system=GIVEN), has(case_url=GIVEN)]},
    "then": has(case_ref=GIVEN),
}
"""The same rule as in `cases.in_its_system`."""


class NewRequest(SubmittedAsk):
    """A submission; `access_window` in seconds, from `not_before` on if that is given.

    `case_system` is a ticket system of the catalogue, and `case_url` the case's page in it.
    With `duplicate_reason` a request is accepted although the same engineer, case and resource have an open one.
    With `break_glass` a manager may open access in an emergency without the customer, if the customer's policy allows
    that: such a submission takes a fresh and strong sign-in, as an approval does.
    `severity` is from S1, the most severe, to S4: people are asked and reminded earlier, and no deadline moves. Where
    the requester works, and how they signed in, is looked up and cannot be submitted.
    """

    model_config = ConfigDict(frozen=True, json_schema_extra=NAMES_ITS_CASE)  # type: ignore[assignment] # SQLModel's

    tenant: Slug
    actions: Annotated[list[str], ComesIn(Actions)] = Field(default=["read"])
    max_uses: Uses | None = None
    context: Context = Field(default={})
    engineer: UUID | None = None
    break_glass: Annotated[bool, Field(strict=True)] = False


class ExtensionRequest(RequestBody):
    """More time for an open window, in seconds from its end on; the `justification` is the request's if left out."""

    access_window: Seconds
    justification: Annotated[str, Field(min_length=1, max_length=4000), IS_TEXT] | None = None


def request_input(body: NewRequest, systems: Mapping[str, CaseSystem]) -> RequestInput:
    submission = RequestInput(**dict(body))
    return in_its_system(submission, systems) if body.case_system or body.case_url else submission
