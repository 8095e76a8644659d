"""Notifications that were given up: each by a refusal that the relay gave, or too late for a fault on its way."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from chaos.plan import CORE, AppliedFault

REFUSED = "the mail relay answered 550"
LAST_MOMENT = 1.5
RECOVERS_SECONDS = 30.0
FEW, MOST_LATE = 5, 0.8
HOOK = "://"
ON_THE_WAY = frozenset({*CORE, "notifications", "redis", "postgres", "messages"})
"""The parts of the stack that every notification passes through."""


def unexplained(
    notifications: Sequence[Any], refused: Mapping[str, int], struck: Iterable[AppliedFault]
) -> Iterator[str]:
    """Yield a line for each notification that was given up though it could have been told, and for too many of them.

    A sink that says no for good does so to one notification each time, and `refused` counts that by address. All
    else is tried until it stops mattering; every sink is healed long before a day is over, which leaves those
    that matter until a deadline of seconds: one is late only if a fault lay on its way, or was hardly over.

    Args:
        notifications: rows of `questions.NOTIFICATIONS`, all of them.
        refused: how often the mail relay has refused each address for good.
        struck: the faults that were carried out.
    """
    outages = list(struck)
    refusals = Counter(refused)
    late, told = Counter[str](), Counter[str]()
    for row in notifications:
        sink = "webhooks" if HOOK in row.to else "mail"
        told[sink] += row.is_prompt and row.outcome == "sent"
        if row.outcome != "dead":
            continue
        name = f"{row.id} ({row.template})"
        if not row.last_error:
            yield f"{name} is dead without a reason"
        elif row.last_error.startswith(REFUSED):
            refusals[row.to] -= 1
            if refusals[row.to] < 0:
                yield f"{name} is dead by a refusal that nobody gave"
        elif row.closed_at < row.until_at - LAST_MOMENT:
            yield f"{name} was given up {row.until_at - row.closed_at:.1f} s before it stopped mattering"
        else:
            late[sink] += 1
            if not any(_delays(outage, sink, row.notified_at, row.until_at) for outage in outages):
                yield f"{name} was late, and no fault was on its way"
    for sink, count in late.items():
        if count > FEW + MOST_LATE * (count + told[sink]):
            yield f"{count} prompts by {sink} were late, and {told[sink]} were not"


def _delays(one: AppliedFault, sink: str, notified_at: float, until_at: float) -> bool:
    lies_there = one.fault.target in {*ON_THE_WAY, sink}
    return lies_there and one.began <= until_at and one.ended + RECOVERS_SECONDS >= notified_at
