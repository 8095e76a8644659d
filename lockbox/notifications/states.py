"""How a request's state is said: one wording and one tone each, on pages, in mails and on terminals."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lockbox.identity.roles import Side


class Tone(StrEnum):
    """What kind of state it is: all that show it in a colour have one for each."""

    WAITS = "waits"
    OPEN = "open"
    REFUSED = "refused"
    GIVEN_BACK = "given-back"
    LAPSED = "lapsed"


@dataclass(frozen=True)
class Saying:
    """The words for a state, to the customer and to anybody else: the vendor's people, or both sides at once."""

    customers: str
    others: str
    tone: Tone

    def to(self, side: Side) -> str:
        """Return the words for somebody of that side."""
        return self.customers if side is Side.CUSTOMER else self.others


def _alike(words: str, tone: Tone) -> Saying:
    return Saying(words, words, tone)


NOBODY_TOLD = "nobody_told"
"""What stands for a state where the time ran out before anybody could be told."""

SAYINGS: Mapping[str, Saying] = {
    "reviewing": _alike("In vendor review", Tone.WAITS),
    "pending": Saying("Waiting for your answer", "Waiting for the customer's answer", Tone.WAITS),
    "active": _alike("Open", Tone.OPEN),
    "denied": _alike("Denied", Tone.REFUSED),
    "cancelled": _alike("Withdrawn by vendor", Tone.LAPSED),
    "timed_out": _alike("No answer in time", Tone.LAPSED),
    "completed": _alike("Given back", Tone.GIVEN_BACK),
    "revoked": Saying("Closed by you", "Closed early", Tone.REFUSED),
    "expired": _alike("Time over", Tone.GIVEN_BACK),
    NOBODY_TOLD: _alike("Nobody could be told", Tone.LAPSED),
}


def approved(approvals: int, needed: int) -> str:
    """Return how far the votes have come, as it stands behind the words for what waits."""
    return f"({approvals} of {needed} approved)"
