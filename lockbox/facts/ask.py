"""The requested access, and the reason for it."""

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import AutoString, Field

from lockbox.facts.bounds import Actions, Case, ComesIn, Justification, Page, Resources, Seconds, Text, Word
from lockbox.facts.enumerations import CaseCheck, Reason, Severity
from lockbox.facts.fact import (
    CHAT,
    CSV,
    ERASED,
    EVENT,
    FORM,
    LIST,
    LOG,
    MAIL,
    PAGE,
    REPEAT,
    WEBHOOK,
    WHY,
    Fact,
    Part,
)
from lockbox.sql import Instant, Texts, words
from lockbox.text_rules import Instant as Moment


class SubmittedAsk(Part):
    """The fields of a submission; `access_window` in seconds."""

    service: Annotated[str, ComesIn(Word), Fact("Service", REPEAT | EVENT | CSV)] = Field(
        sa_type=AutoString(length=63),
        description="The service, as the catalogue names it.",
        schema_extra={"examples": ["exchange-online"]},
    )
    resources: Annotated[list[str], ComesIn(Resources), Fact("Resources", REPEAT | CSV, ERASED, "\n".join)] = Field(
        sa_type=Texts,
        description="The resources, each as `type:id`.",
        schema_extra={"examples": [["mailbox:finance@northwind.example"]]},
    )
    actions: Annotated[list[str], ComesIn(Actions), Fact("Actions", REPEAT | EVENT | CSV, show=", ".join)] = Field(
        sa_type=Texts, description="Actions of the service.", schema_extra={"examples": [["read"]]}
    )
    reason_code: Annotated[Reason, Fact("Reason", FORM | REPEAT | EVENT | CSV)] = Field(
        sa_type=words(Reason),
        description="The kind of reason for which access is needed.",
        schema_extra={"examples": ["support_case"]},
    )
    justification: Annotated[
        str,
        ComesIn(Justification),
        Fact("Justification", FORM | REPEAT | EVENT | LOG, WHY, help="the customer reads this"),
    ] = Field(
        sa_type=AutoString(length=4000),
        description="Why access is needed, in the engineer's words; null for readers who may not see it.",
        schema_extra={"examples": ["The mailbox stopped receiving mail; read its delivery log."]},
    )
    case_ref: Annotated[str | None, ComesIn(Case | None), Fact("Case", REPEAT | EVENT | LOG | CSV, ERASED)] = Field(
        default=None,
        sa_type=AutoString(length=100),
        description="The vendor's reference of the support case.",
        schema_extra={"examples": ["CASE-4711"]},
    )
    case_system: Annotated[str | None, ComesIn(Word | None), Fact("Ticket system", REPEAT | EVENT | LOG | CSV)] = (
        Field(
            default=None,
            sa_type=AutoString(length=63),
            description="The ticket system of the case, as the catalogue names it; null if none is named.",
            schema_extra={"examples": ["helpdesk"]},
        )
    )
    case_url: Annotated[
        str | None, ComesIn(Page | None), Fact("Page of the case", REPEAT | EVENT | LOG | CSV, ERASED)
    ] = Field(
        default=None,
        sa_type=AutoString(length=2000),
        description="The page of the case in its ticket system; null if none is named.",
        schema_extra={"examples": ["https://helpdesk.vendor.example/cases/CASE-4711"]},
    )
    duplicate_reason: Annotated[str | None, ComesIn(Text | None), Fact("Why another request", EVENT | LOG, WHY)] = (
        Field(
            default=None,
            sa_type=AutoString(length=500),
            description="Why another request is needed beside an open one for the same case and resource; null if "
            "there is none, or for readers who may not see it.",
            schema_extra={"examples": ["The first one is read-only, and the rule has to be changed."]},
        )
    )
    access_window: Annotated[int, ComesIn(Seconds), Fact("Access window", EVENT)] = Field(
        description="How long access lasts once it is opened, in seconds.", schema_extra={"examples": [900]}
    )
    not_before: Annotated[datetime | None, ComesIn(Moment | None), Fact("Not before", EVENT)] = Field(
        default=None,
        sa_type=Instant,
        description="When access is to begin; null for as soon as it is approved.",
        schema_extra={"examples": ["2026-12-01T08:00:00Z"]},
    )
    severity: Annotated[
        Severity | None,
        Fact(
            "Severity",
            FORM | REPEAT | EVENT | LOG | MAIL | CHAT | WEBHOOK | PAGE | LIST | CSV,
            help="S1 is the most severe: people are asked earlier",
        ),
    ] = Field(
        default=None,
        sa_type=words(Severity),
        description="How severe the requester calls the case: `S1` is the most severe; null if not said.",
        schema_extra={"examples": ["S2"]},
    )

    @property
    def is_at_once(self) -> bool:
        return self.not_before is None

    def begins(self, at: datetime) -> datetime:
        return max(at, self.not_before or at)

    def would_end(self, at: datetime) -> datetime:
        return self.begins(at) + timedelta(seconds=self.access_window)


class Ask(SubmittedAsk):
    """The fields of a submission, and the facts that its evaluation determined.

    `duplicate_of` is an open request for the same case and resource. `level` is the highest level of the actions by
    the catalogue; None for requests of earlier versions.
    """

    case_check: Annotated[CaseCheck | None, Fact("Case according to its system", EVENT | LOG)] = Field(
        default=None,
        sa_type=words(CaseCheck),
        description="What the ticket system said of the case: `confirmed`, it is open and assigned to the engineer, "
        "or `unconfirmed`, it could not be asked; null if the policy does not ask.",
        schema_extra={"examples": ["confirmed"]},
    )
    duplicate_of: Annotated[UUID | None, Fact("Duplicate of", EVENT | LOG)] = Field(
        default=None,
        foreign_key="requests.id",
        description="The open request of the engineer for the same case and a same resource; null if there is none.",
        schema_extra={"examples": ["0197f3a0-7c1e-7b11-9c55-3f8f0f6c9b00"]},
    )
    level: Annotated[str | None, Fact("Level", EVENT | LOG | WEBHOOK)] = Field(
        default=None,
        sa_type=AutoString(length=16),
        description="The highest level of the actions, by the catalogue: `read`, `change`, `export` or `admin`; "
        "null if it is not known.",
        schema_extra={"examples": ["change"]},
    )
    context: Annotated[dict[str, Any] | None, Fact("Parameters", LOG, ERASED)] = Field(
        default=None,
        sa_type=JSONB,
        description="The parameters that the service declares in the catalogue, by name.",
        schema_extra={"examples": [{"environment": "production", "rows": 100}]},
    )
    follows: Annotated[UUID | None, Fact("Follows", EVENT)] = Field(
        default=None,
        foreign_key="requests.id",
        index=True,
        description="The request that timed out and was resubmitted as this one; null if there is none.",
        schema_extra={"examples": ["0197f3a0-7c1e-7b11-9c55-3f8f0f6c9b00"]},
    )
