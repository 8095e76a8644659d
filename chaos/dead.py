"""Notifications that were given up: the relay must have refused each, or a fault must have made it too late."""

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
    """Yield a line for each notification that was given up although it could have arrived, and if there are too many.

    A sink that refuses permanently refuses one notification each time; `refused` counts these by address. Every other
    notification is tried until it no longer matters. All sinks are healed long before a day is over. So only a
    notification that matters for mere seconds can be late, and only if a fault lay on its way, or was hardly over.

    Args:
        notifications: all rows of `questions.NOTIFICATIONS`.
        refused: how often the mail relay has permanently refused each address.
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
