"""Say how the mails about an event ended, as the audit log, the pages and a report do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lockbox.audit.event_search import RECIPIENT

NOTIFIED = "notified"
MAILED = {
    "dead": "not delivered to",
    "open": "still being sent to",
    "moot": "no longer needed by",
    "sent": "mailed to",
}
"""How a mail ended, as the audit log and a reader say it; what may matter to a reader comes first."""


@dataclass(frozen=True)
class ReportedMails:
    """How the mails about a step ended, in words; `deed` is the step, None for a reminder or a report."""

    at: datetime
    deed: str | None
    said: str


def mailed(said: Mapping[str, Any], recipients: Mapping[str, str], most: int | None = None) -> str:
    """Return how the mails about an event ended, by name as far as these are known, by their fields, else in numbers.

    Args:
        said: the body of an event `notified`.
        recipients: its personal values.
        most: how many people are named of each outcome at most; the rest is counted.
    """
    listed = [(number, one) for number, one in _listed(said) if f"{RECIPIENT}_{number}" in recipients]
    parts = []
    for outcome, words in MAILED.items():
        names = [recipients[f"{RECIPIENT}_{number}"].rpartition(" <")[0] for number, one in listed if one == outcome]
        count = said.get(outcome)
        count = max(count if isinstance(count, int) else 0, len(names))
        names = names[:most]
        others = count - len(names)
        if others > 0:
            names.append(f"{others} {'person' if others == 1 else 'people'}")
        if names:
            parts.append(f"{words} {', '.join(names)}")
    return "; ".join(parts)


def _listed(said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the number and the outcome of each mail that an event lists, in their order."""
    mails = said.get("mails")
    for number, one in mails.items() if isinstance(mails, dict) else ():
        match one:
            case [str(_), str(_), str(outcome), *_]:
                yield number, outcome
