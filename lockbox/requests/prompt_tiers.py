"""Whom to prompt, tier by tier: how far the tiers go, and the vendor's managers in theirs."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from uuid import UUID

from lockbox.notifications.recipients import RecipientDirectory


@dataclass(frozen=True)
class PromptedApprovers:
    """Who is asked, and how many tiers that makes; 0 where everybody is, since no tier has anybody who can decide."""

    tiers: int
    people: frozenset[UUID]


def added_by_tier(
    asked: Callable[[int], frozenset[UUID]], most: int, *, informed: AbstractSet[UUID], tiers: int, to: int
) -> PromptedApprovers:
    """Return who is added from one tier to another of so many, by who is asked with each count of them.

    A tier that adds nobody lets the next one in.
    """
    added: frozenset[UUID] = frozenset()
    while tiers < min(to, most) or (not added and tiers < most):
        tiers += 1
        added = asked(tiers) - informed
    return PromptedApprovers(tiers, added)


def first_reviewers(known: RecipientDirectory, requester_id: UUID) -> PromptedApprovers:
    """Return whom to prompt first: the lowest tier that has anybody other than the requester."""
    return wider_reviewers(known, requester_id, informed=frozenset(), asked=0, to=1)


def reviewers_so_far(known: RecipientDirectory, requester_id: UUID, asked: int) -> frozenset[UUID]:
    """Return who of the first so many tiers is asked, the requester never; 0 is everybody.

    Who wants no prompts gets none, unless nobody else would be asked.
    """
    if not asked:
        others = frozenset(known.managers.keys() - {requester_id})
        return others - known.quiet or others
    people = frozenset[UUID]()
    for tier in range(1, asked + 1):
        members = {person for person, theirs in known.managers.items() if theirs == tier} - {requester_id}
        people |= (members - known.quiet) if people else (members - known.quiet or members)
    return people


def wider_reviewers(
    known: RecipientDirectory, requester_id: UUID, *, informed: AbstractSet[UUID], asked: int, to: int
) -> PromptedApprovers:
    """Return who is added to those who have been `informed` as the audience goes from `asked` tiers to `to`.

    A tier that adds nobody lets the next one in.
    """
    return added_by_tier(
        lambda number: reviewers_so_far(known, requester_id, number),
        known.review_tiers,
        informed=informed,
        tiers=asked,
        to=to,
    )
