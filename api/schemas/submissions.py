"""Bodies of submissions: a new request, and more time for an open window."""

from typing import Annotated
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.parts import IS_LINE, IS_PAGE, IS_TEXT, Context, RequestBody, Resource, Seconds, Slug, Word, has
from lockbox.facts.enumerations import Reason, Severity
from lockbox.requests.policy_parts import Uses
from lockbox.text_rules import Instant

GIVEN: JsonDict = {"type": "string"}
NAMES_ITS_CASE: JsonDict = {
    "if": {"anyOf": [has(case_system=GIVEN), has(case_url=GIVEN)]},
    "then": has(case_ref=GIVEN),
}
"""As `cases.in_its_system` has it."""


class NewRequest(RequestBody):
    """A submission; `access_window` in seconds, from `not_before` on if that is given.

    `case_system` is a ticket system of the catalogue, and `case_url` the case's page in it.
    With `duplicate_reason` a request is accepted beside an open one of the engineer's for the same case and resource.
    With `break_glass` a manager may open it in an emergency without the customer, where the customer's policy lets
    them: it takes a fresh and strong sign-in, as an approval does.
    `severity` is from S1, the most severe, to S4: people are asked earlier, and reminded earlier too, and no deadline
    moves. Where the requester works, and how they signed in, is looked up and cannot be submitted.
    """

    model_config = ConfigDict(json_schema_extra=NAMES_ITS_CASE)

    tenant: Slug
    service: Word
    resources: list[Resource] = Field(min_length=1, max_length=50)
    actions: list[Word] = Field(default=["read"], min_length=1, max_length=20)
    reason_code: Reason
    justification: Annotated[str, Field(max_length=4000), IS_TEXT]
    case_ref: Annotated[str, Field(max_length=100), IS_LINE] | None = None
    case_system: Word | None = None
    case_url: Annotated[str, Field(max_length=2000), IS_PAGE] | None = None
    duplicate_reason: Annotated[str, Field(max_length=500), IS_TEXT] | None = None
    access_window: Seconds
    max_uses: Uses | None = None
    not_before: Instant | None = None
    context: Context = Field(default={})
    engineer: UUID | None = None
    break_glass: Annotated[bool, Field(strict=True)] = False
    severity: Severity | None = None


class ExtensionRequest(RequestBody):
    """More time for an open window, in seconds from its end on; without a justification that of the window counts."""

    access_window: Seconds
    justification: Annotated[str, Field(min_length=1, max_length=4000), IS_TEXT] | None = None
