"""What follows from terms and mode for the clock of one request."""

from datetime import datetime, timedelta

from lockbox.people.roles import Mode
from lockbox.requests.lifecycle import FINAL_STATES, State
from lockbox.requests.terms import Terms


def reviewed_first(terms: Terms, mode: Mode) -> bool:
    """Whether the vendor's managers come first; without the customer's yes they always do."""
    return terms.vendor_review or mode is not Mode.ENFORCE


def customer_decides(mode: Mode) -> bool:
    """Whether an endorsed request waits for the customer rather than opening at once."""
    return mode is Mode.ENFORCE


def deadline(state: State, since: datetime, *, review: int, approval: int, access: int) -> datetime:
    """Return when the clock that starts with this state runs out; `since` itself for the states that end."""
    seconds = {State.REVIEWING: review, State.PENDING: approval, State.ACTIVE: access}.get(state, 0)
    return since + timedelta(seconds=seconds)


def wake_at(state: State, deadline_at: datetime) -> datetime | None:
    """Return the next moment at which the clock has something to do for this request, if any."""
    return None if state in FINAL_STATES else deadline_at
