"""The case of a submission: its ticket system and page, and how it may be refused for its case."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlmodel import Field, SQLModel

from catalogue.service_catalogue import CaseSystem
from lockbox.errors import Busy, Conflict, Invalid
from lockbox.identity.roles import Caller
from lockbox.requests.policy_parts import UnconfirmedCase
from lockbox.requests.request_input import RequestInput
from lockbox.sql import Instant

DUPLICATE = (
    "You have an open request for this case and one of these resources. Follow that one, or say in "
    "`duplicate_reason` why you need another one: the approvers read it."
)
UNCHECKED = "The ticket system has to confirm the case first: submit a new request."


class DuplicateRequest(Conflict):
    """The engineer has an open request, `request_id`, for the same case and resource; a reason allows another one."""

    code = "duplicate-request"


@dataclass(frozen=True)
class CaseQuestion:
    """What a ticket system is asked: is the case open, and assigned to the engineer; `caller` is who submits."""

    tenant_id: UUID
    case_system: str | None
    case_ref: str
    engineer_id: UUID
    caller: Caller


class CaseCheckRow(SQLModel, table=True):
    """A question to the adapter of a ticket system, its answer or why there is none, and the request confirmed."""

    __tablename__ = "case_checks"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID = Field(foreign_key="tenants.id")
    engineer_id: UUID = Field(foreign_key="people.id")
    asked_by: UUID = Field(foreign_key="people.id")
    case_system: str = Field(max_length=63)
    case_ref: str = Field(max_length=100)
    asked_at: datetime = Field(sa_type=Instant)
    answered_at: datetime | None = Field(default=None, sa_type=Instant)
    is_open: bool | None = None
    is_assigned: bool | None = None
    failure: str | None = Field(default=None, max_length=24)
    request_id: UUID | None = Field(default=None, foreign_key="requests.id", unique=True)


class CaseUnchecked(Invalid):
    """The policy demands that the ticket system confirms the case, and nobody has asked it yet.

    Doors have it asked, without a transaction, and submit again: `question` is what to ask, `demand` what the policy
    says of a case that could not be confirmed.
    """

    def __init__(self, question: CaseQuestion, demand: UnconfirmedCase) -> None:
        super().__init__(UNCHECKED, field="case_ref")
        self.question = question
        self.demand = demand


class CaseNotConfirmed(Invalid):
    """The ticket system says that the case is not open, or not assigned to the engineer."""

    code = "case-not-confirmed"


class CaseSystemDown(Busy):
    """The ticket system could not be asked about the case, and the policy demands that it confirms it."""

    code = "case-system-down"


def in_its_system(submission: RequestInput, systems: Mapping[str, CaseSystem]) -> RequestInput:
    """Return a submission with the ticket system of its case; a page without one is of the only one that there is.

    Raises:
        Invalid: no case is named, there is no such system, or the page is none of its pages.
    """
    if submission.case_ref is None:
        raise Invalid("Name the case too.", field="case_ref")
    if submission.case_url and not systems:
        raise Invalid("No ticket system is configured. Remove the page of the case.", field="case_url")
    only = next(iter(systems)) if len(systems) == 1 else ""
    named = submission.case_system or only
    system = systems.get(named)
    if system is None:
        choice = (
            f"Choose one of {', '.join(sorted(systems))}." if systems else "The catalogue has none: leave it out."
        )
        said = "There is no such ticket system." if named else "Name the ticket system of this page."
        raise Invalid(f"{said} {choice}", field="case_system")
    if submission.case_url and not submission.case_url.startswith(system.address):
        raise Invalid(f"Pages of {system.title} begin with {system.address}", field="case_url")
    return submission.in_system(named)
