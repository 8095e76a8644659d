"""The case of a submission: its ticket system and page, and what is said of a second request for it."""

from collections.abc import Mapping

from config.service_catalogue import CaseSystem
from lockbox.errors import Conflict, Invalid
from lockbox.requests.evaluate import RequestInput

DUPLICATE = (
    "You have an open request for this case and one of these resources. Follow that one, or say in "
    "`duplicate_reason` why you need another one: the approvers read it."
)


class DuplicateRequest(Conflict):
    """The engineer has an open request, `request_id`, for the same case and resource; a reason allows another one."""

    code = "duplicate-request"


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
