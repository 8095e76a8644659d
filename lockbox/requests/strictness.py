"""Which of two policies' terms are stricter, field by field, and whether a change loosens any; pure."""

import math
from itertools import zip_longest

from lockbox.requests.policy import Terms
from lockbox.requests.policy_parts import (
    ApprovalStage,
    T,
)

# False is less than True, so the same two words say "and" and "or".
LESS_IS_STRICTER = (
    "review_window",
    "approval_window",
    "access_ceiling",
    "total_access_ceiling",
    "start_ahead",
    "max_uses",
    "mail_link",
    "mail_justification",
    "mail_suffices",
    "sign_in_age",
    "revoke_sign_in_age",
    "questions_stop_clock",
    "break_glass_ceiling",
    "break_glass_monthly",
    "requester_sign_in_age",
)
EITHER_SAYS = ("approval_reminders", "review_reminders", "case_patterns")
EARLIEST = ("escalation", "review_escalation")
MORE_IS_STRICTER = (
    *("vendor_review", "quorum", "require_case", "justification_least", "report_on_close"),
    *("approve_means", "first_passkey_wait", "unconfirmed_case", "requester_means", "overdue_finding"),
)


def stricter(a: Terms, b: Terms) -> Terms:
    """Return the strictest of both, field by field; associative, commutative and idempotent.

    Stages add up, with the larger quorum of each group, which agrees in the later step of the two. Only reasons and
    countries that both accept are left, perhaps none. A case has to fit the patterns of both. A group is prompted as
    early as either side says; a side without tiers has no say in that. So is each tier of the vendor's managers. Who
    is waited for is reminded whenever either side says, and a window's end is announced as early as either does, and
    reported if either says so. A decision needs a comment if either side says so. Break-glass is for
    services and people that both sides name.
    """
    return Terms.model_validate(
        {name: min(getattr(a, name), getattr(b, name), key=_limit) for name in LESS_IS_STRICTER}
        | {name: max(getattr(a, name), getattr(b, name)) for name in MORE_IS_STRICTER}
        | {name: tuple({*getattr(a, name), *getattr(b, name)}) for name in EITHER_SAYS}
        | {name: _earliest(getattr(a, name), getattr(b, name)) for name in EARLIEST}
        | {"closing_warning": max(a.closing_warning, b.closing_warning)}
        | {"comment_required": a.comment_required | b.comment_required}
        | {"reasons": a.reasons & b.reasons, "stages": _stages(a, b), "tiers": _tiers(a, b)}
        | {"break_glass_services": _named_by_both(a.break_glass_services, b.break_glass_services)}
        | {"break_glass_people": _named_by_both(a.break_glass_people, b.break_glass_people)}
        | {"countries": _countries(a, b)}
    )


def loosens(old: Terms, new: Terms) -> bool:
    """Whether anything is let through under the new terms that the old ones would have held back.

    Tiers, escalation, reminders and warnings play no part: they say who hears when, never who must agree. To have
    windows reported no longer is loosening: whoever is about to misuse one would like that.
    """
    stages = {stage.group: stage for stage in new.stages}
    return (
        any(_limit(getattr(new, name)) > _limit(getattr(old, name)) for name in LESS_IS_STRICTER)
        or any(getattr(new, name) < getattr(old, name) for name in MORE_IS_STRICTER)
        or not new.reasons <= old.reasons
        or _countries(old, new) != new.countries
        or not new.comment_required >= old.comment_required
        or not set(new.case_patterns) >= set(old.case_patterns)
        or any(_is_looser(stages.get(stage.group), stage) for stage in old.stages)
        or _adds_to(old.break_glass_services, new.break_glass_services)
        or _adds_to(old.break_glass_people, new.break_glass_people)
    )


def _limit(value: float | None) -> float:
    """Return a term of which less is stricter, as it is compared: None is no limit at all."""
    return math.inf if value is None else value


def _is_looser(new: ApprovalStage | None, old: ApprovalStage) -> bool:
    return new is None or new.quorum < old.quorum or new.order < old.order


def _countries(a: Terms, b: Terms) -> frozenset[str] | None:
    if a.countries is None or b.countries is None:
        return b.countries if a.countries is None else a.countries
    return a.countries & b.countries


def _stages(a: Terms, b: Terms) -> tuple[ApprovalStage, ...]:
    stages: dict[str, ApprovalStage] = {}
    for stage in (*a.stages, *b.stages):
        other = stages.get(stage.group, stage)
        quorum, order = max(stage.quorum, other.quorum), max(stage.order, other.order)
        stages[stage.group] = ApprovalStage(group=stage.group, quorum=quorum, order=order)
    return tuple(stages.values())


def _named_by_both(a: tuple[T, ...] | None, b: tuple[T, ...] | None) -> tuple[T, ...] | None:
    """Return what both sides name; None names everything."""
    if a is None or b is None:
        return b if a is None else a
    return tuple(one for one in a if one in b)


def _adds_to(old: tuple[object, ...] | None, new: tuple[object, ...] | None) -> bool:
    """Whether the new tuple names what the old one did not; None names everything."""
    return old is not None and (new is None or not set(new) <= set(old))


def _earliest(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(min(one, other) for one, other in zip_longest(a, b, fillvalue=100))


def _tiers(a: Terms, b: Terms) -> tuple[tuple[str, ...], ...]:
    # A tier that loses all of its groups stays, empty: closing the gap would make the result depend on the order.
    earliest: dict[str, int] = {}
    for tiers in (a.tiers, b.tiers):
        for position, groups in enumerate(tiers):
            earliest |= {group: min(position, earliest.get(group, position)) for group in groups}
    positions = range(max(earliest.values(), default=-1) + 1)
    return tuple(tuple(group for group, first in earliest.items() if first == position) for position in positions)
