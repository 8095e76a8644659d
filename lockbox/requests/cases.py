"""The case of a submission: its ticket system and page, and how it may be refused for its case."""

from collections.abc import Mapping
from typing import Any

from config.service_catalogue import CaseSystem
from lockbox.errors import Busy, Conflict, Invalid
from lockbox.requests.request_input import RequestInput

DUPLICATE = (
    "You have an open request for this case and one of these resources. Follow that one, or say in "
    "`duplicate_reason` why you need another one: the approvers read it."
)
UNCHECKED = "The ticket system has to confirm the case first: submit a new request."


class DuplicateRequest(Conflict):
    """The engineer has an open request, `request_id`, for the same case and resource; a reason allows another one."""

    code = "duplicate-request"


class CaseUnchecked(Invalid):
    """The policy demands that the ticket system confirms the case, and nobody has asked it yet.

    Doors ask it, without a transaction, and submit again: `question` is what to ask, `demand` what the policy says of
    a case that could not be confirmed.
    """

    def __init__(self, question: dict[str, Any], demand: str) -> None:
        super().__init__(UNCHECKED, field="case_ref")
        self.question = question
        self.demand = demand


class CaseNotConfirmed(Invalid):
    """The ticket system says that the case is not open, or not assigned to the engineer."""

    code = "case-not-confirmed"


class CaseSystemDown(Busy):
    """The ticket system could not be asked about the case, and the policy demands that it confirms it."""

    code = "case-system-down"


def check_case(submission: RequestInput, systems: Mapping[str, CaseSystem]) -> None:
    """Check that a case is in one of the vendor's ticket systems, and its page is one of that system's.

    Raises:
        Invalid: no case is named, there is no such system, or the page is none of its pages.
    """
    if submission.case_ref is None:
        raise Invalid("Name the case too.", field="case_ref")
    system = systems.get(submission.case_system or "")
    if system is None:
        choice = (
            f"Choose one of {', '.join(sorted(systems))}." if systems else "The catalogue has none: leave it out."
        )
        raise Invalid(f"There is no such ticket system. {choice}", field="case_system")
    if submission.case_url and not submission.case_url.startswith(system.address):
        raise Invalid(f"Pages of {system.title} begin with {system.address}", field="case_url")
