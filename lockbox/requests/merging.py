"""Merging terms by the strictest, so that no rule and no order of rules ever loosens anything."""

import math
from collections.abc import Iterable
from itertools import zip_longest

from lockbox.requests.policy_rules import Ask, Policy, Rule
from lockbox.requests.terms import Stage, Terms

# False is less than True, so the same two words say "and" and "or".
LESS_IS_STRICTER = (
    "review_window",
    "approval_window",
    "access_ceiling",
    "mail_link",
    "mail_justification",
    "mail_suffices",
    "sign_in_age",
    "revoke_sign_in_age",
    "questions_stop_clock",
)
EITHER_SAYS = ("approval_reminders", "review_reminders")
EARLIEST = ("widening", "review_widening")
MORE_IS_STRICTER = (
    *("vendor_review", "quorum", "require_case", "justification_least", "report_on_close"),
    "approve_means",
)


def stricter(a: Terms, b: Terms) -> Terms:
    """Return the strictest of both, field by field; associative, commutative and idempotent.

    Stages add up, with the larger quorum of each group. Only reasons that both accept are left, perhaps none. A
    group is prompted as early as either side says; a side without tiers has no say in that. So is each tier of the
    vendor's managers. Who is waited for is
    reminded whenever either side says, and a window's end is announced as early as either does, and reported if
    either says so. A decision needs a comment if either side says so.
    """
    return Terms.model_validate(
        {name: min(getattr(a, name), getattr(b, name), key=_limit) for name in LESS_IS_STRICTER}
        | {name: max(getattr(a, name), getattr(b, name)) for name in MORE_IS_STRICTER}
        | {name: tuple({*getattr(a, name), *getattr(b, name)}) for name in EITHER_SAYS}
        | {name: _earliest(getattr(a, name), getattr(b, name)) for name in EARLIEST}
        | {"closing_warning": max(a.closing_warning, b.closing_warning)}
        | {"comment_required": a.comment_required | b.comment_required}
        | {"reasons": a.reasons & b.reasons, "stages": _stages(a, b), "tiers": _tiers(a, b)}
    )


def loosens(old: Terms, new: Terms) -> bool:
    """Whether anything is let through under the new terms that the old ones would have held back.

    Tiers, widening, reminders and warnings play no part: they say who hears when, never who must agree. To have
    windows reported no longer is loosening: whoever is about to misuse one would like that.
    """
    quorums = {stage.group: stage.quorum for stage in new.stages}
    return (
        any(_limit(getattr(new, name)) > _limit(getattr(old, name)) for name in LESS_IS_STRICTER)
        or any(getattr(new, name) < getattr(old, name) for name in MORE_IS_STRICTER)
        or not new.reasons <= old.reasons
        or not new.comment_required >= old.comment_required
        or any(quorums.get(stage.group, 0) < stage.quorum for stage in old.stages)
    )


def terms_for(policy: Policy, ask: Ask) -> Terms:
    """Return the terms that judge one ask: the tenant's own, merged with those of every rule that matches.

    The tenant's own terms are a rule that matches everything, so a rule makes them stricter or leaves them. That
    is "stricter wins downwards" (EN4 of the design notes' `product.md`), after the inheritance of Google Access
    Approval's settings from organisation to folder to project. The order of the rules has no effect.
    """
    return merged(policy, (rule for rule in policy.rules if rule.match.matches(ask)))


def merged(policy: Policy, rules: Iterable[Rule]) -> Terms:
    """Return the tenant's own terms, merged with those of some of its rules."""
    terms = stricter(policy, policy)
    for rule in rules:
        terms = stricter(terms, terms.model_copy(update=rule.terms.given()))
    return terms


def strictest(policy: Policy) -> Terms:
    """Return the strictest terms that any ask could meet: the tenant's own, merged with those of every rule.

    Whoever would loosen the policy itself meets these: what they loosen may be what the strictest rule holds.
    """
    return merged(policy, policy.rules)


def _limit(value: float | None) -> float:
    """Return a term of which less is stricter, as it is compared: None is no limit at all."""
    return math.inf if value is None else value


def _stages(a: Terms, b: Terms) -> tuple[Stage, ...]:
    quorums: dict[str, int] = {}
    for stage in (*a.stages, *b.stages):
        quorums[stage.group] = max(stage.quorum, quorums.get(stage.group, 0))
    return tuple(Stage(group=group, quorum=quorum) for group, quorum in quorums.items())


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
