"""The outcomes of the mails about an event, in words, for the audit log, pages and reports."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lockbox.audit.event_search import RECIPIENT

NOTIFIED = "notified"
MOST_NAMED = 5
PERSON, PEOPLE = "1 person", "{number} people"
OTHER, OTHERS = "{names} and 1 other", "{names} and {number} others"
MAILED = {
    "dead": "not delivered to",
    "open": "still being sent to",
    "moot": "no longer needed by",
    "sent": "mailed to",
}
"""The outcomes of mails, each with its words for readers; outcomes that may matter more come first."""


@dataclass(frozen=True)
class ReportedMails:
    """How the mails about a step ended, in words; `deed` is the step, None for a reminder or a report."""

    at: datetime
    deed: str | None
    said: str


def mailed(said: Mapping[str, Any], recipients: Mapping[str, str], most: int | None = None) -> str:
    """Return the outcomes of the mails about an event; recipients without a known name are only counted.

    `said` is the body of an event `notified`, `recipients` its personal values. `most` limits the names for each
    outcome.
    """
    listed = [(number, one) for number, one in _listed(said) if f"{RECIPIENT}_{number}" in recipients]
    parts = []
    for outcome, words in MAILED.items():
        names = [recipients[f"{RECIPIENT}_{number}"].rpartition(" <")[0] for number, one in listed if one == outcome]
        count = said.get(outcome)
        if people := some(names, count if isinstance(count, int) else 0, most):
            parts.append(f"{words} {people}")
    return "; ".join(parts)


def some(names: Sequence[str], count: int = 0, most: int | None = MOST_NAMED) -> str:
    """Return names and the number of others, such as `Ann, Abe and 2 others`.

    `count` is the total, if it is larger than the number of names.
    """
    count = max(count, len(names))
    if most is not None and count > most + 1:
        names = names[:most]
    others, shown = count - len(names), ", ".join(names)
    if not others:
        return shown
    one, several = (OTHER, OTHERS) if shown else (PERSON, PEOPLE)
    return (one if others == 1 else several).format(names=shown, number=others)


def _listed(said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    mails = said.get("mails")
    for number, one in mails.items() if isinstance(mails, dict) else ():
        match one:
            case [str(_), str(_), str(outcome), *_]:
                yield number, outcome
