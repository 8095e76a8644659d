"""Which of two policies' terms are stricter, term by term, and whether a change loosens any; pure."""

import math
from itertools import zip_longest
from typing import Any

from lockbox.requests.policy import DECLARED, Terms
from lockbox.requests.policy_parts import ApprovalStage, Stricter, Term

Tiers = tuple[tuple[str, ...], ...]


def stricter(a: Terms, b: Terms) -> Terms:
    """Return the strictest of both, term by term; associative, commutative and idempotent.

    Stages add up, with the larger quorum of each group, which agrees in the later step of the two. A group is
    prompted as early as either side says; a side without tiers has no say in that. So is each tier of the vendor's
    managers. No reason and no country may be left.
    """
    ours, theirs = dict(a), dict(b)
    return Terms.model_validate({name: _strictest(term, ours[name], theirs[name]) for name, term in DECLARED.items()})


def loosens(old: Terms, new: Terms) -> bool:
    """Whether anything is let through under the new terms that the old ones would have held back.

    To have windows reported no longer is loosening too: whoever is about to misuse one would like that.
    """
    values = dict(new)
    return any(value != values[name] for name, value in stricter(old, new) if DECLARED[name].binds)


def _strictest(term: Term, a: Any, b: Any) -> Any:  # noqa: ANN401 - a term's value
    match term.stricter:
        # False is less than True, so the same two words say "and" and "or".
        case Stricter.LESS | Stricter.MORE:
            return min(a, b, key=_limit) if term.stricter is Stricter.LESS else max(a, b)
        case Stricter.UNION:
            return tuple({*a, *b})
        case Stricter.INTERSECTION:
            return b if a is None else a if b is None else tuple(value for value in a if value in b)
        case Stricter.EARLIEST:
            return tuple(min(moments) for moments in zip_longest(a, b, fillvalue=100))
        case Stricter.STAGES:
            return _stages(a, b)
        case Stricter.TIERS:
            return _tiers(a, b)


def _limit(value: float | None) -> float:
    """Return a term of which less is stricter, as it is compared: None is no limit at all."""
    return math.inf if value is None else value


def _stages(a: tuple[ApprovalStage, ...], b: tuple[ApprovalStage, ...]) -> tuple[ApprovalStage, ...]:
    stages: dict[str, ApprovalStage] = {}
    for stage in (*a, *b):
        other = stages.get(stage.group, stage)
        quorum, order = max(stage.quorum, other.quorum), max(stage.order, other.order)
        stages[stage.group] = ApprovalStage(group=stage.group, quorum=quorum, order=order)
    return tuple(stages.values())


def _tiers(a: Tiers, b: Tiers) -> Tiers:
    # A tier that loses all of its groups stays, empty: closing the gap would make the result depend on the order.
    earliest: dict[str, int] = {}
    for tiers in (a, b):
        for position, groups in enumerate(tiers):
            earliest |= {group: min(position, earliest.get(group, position)) for group in groups}
    positions = range(max(earliest.values(), default=-1) + 1)
    return tuple(tuple(group for group, first in earliest.items() if first == position) for position in positions)
