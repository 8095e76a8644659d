"""What is asked for, and why."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from lockbox.facts.enumerations import CaseCheck, Reason, Severity
from lockbox.facts.fact import CHAT, ERASED, EVENT, LOG, MAIL, REPEAT, WEBHOOK, WHY, Fact, Part
from lockbox.sql import Instant, Texts, words


class SubmittedAsk(Part):
    """What an engineer may ask for; `access_window` in seconds."""

    service: Annotated[str, Fact("Service", REPEAT | EVENT)] = Field(max_length=63)
    resources: Annotated[list[str], Fact("Resources", REPEAT, ERASED)] = Field(sa_type=Texts)
    actions: Annotated[list[str], Fact("Actions", REPEAT | EVENT)] = Field(sa_type=Texts)
    reason_code: Annotated[Reason, Fact("Reason", REPEAT | EVENT)] = Field(sa_type=words(Reason))
    justification: Annotated[str, Fact("Justification", REPEAT | EVENT, WHY)] = Field(max_length=4000)
    case_ref: Annotated[str | None, Fact("Case", REPEAT | EVENT, ERASED)] = Field(default=None, max_length=100)
    case_system: Annotated[str | None, Fact("Ticket system", REPEAT | EVENT)] = Field(default=None, max_length=63)
    case_url: Annotated[str | None, Fact("Case's page", REPEAT | EVENT, ERASED)] = Field(
        default=None, max_length=2000
    )
    duplicate_reason: Annotated[str | None, Fact("Why another request", EVENT, WHY)] = Field(
        default=None, max_length=500
    )
    access_window: Annotated[int, Fact("Access window", EVENT)]
    not_before: Annotated[datetime | None, Fact("Not before", EVENT)] = Field(default=None, sa_type=Instant)
    severity: Annotated[Severity | None, Fact("Severity", REPEAT | EVENT | LOG | MAIL | CHAT | WEBHOOK)] = Field(
        default=None, sa_type=words(Severity)
    )


class Ask(SubmittedAsk):
    """What was submitted, and what was made of it as it was judged.

    `case_check` is what the ticket system said of the case, None where it was not asked. `duplicate_of` is the open
    request for the same case and resource beside which this one was submitted nevertheless. `level` is the highest of
    its actions' by the catalogue, None for what is older than that is known, and `context` the parameters that the
    service declares, None where it has none. `follows` is the request that got no answer in time and is asked again.
    """

    case_check: Annotated[CaseCheck | None, Fact("Checked", EVENT)] = Field(default=None, sa_type=words(CaseCheck))
    duplicate_of: Annotated[UUID | None, Fact("Beside", EVENT)] = Field(default=None, foreign_key="requests.id")
    level: Annotated[str | None, Fact("Level", EVENT | WEBHOOK)] = Field(default=None, max_length=16)
    context: Annotated[dict[str, Any] | None, Fact("Parameters", personal=ERASED)] = Field(
        default=None, sa_type=JSONB
    )
    follows: Annotated[UUID | None, Fact("Follows", EVENT)] = Field(
        default=None, foreign_key="requests.id", index=True
    )
