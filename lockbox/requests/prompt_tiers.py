"""Whom to prompt, tier by tier: approvers by the policy's tiers, the vendor's managers by their own tiers."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from uuid import UUID

from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests.policy import Terms
from lockbox.requests.policy_parts import FIRST_STEP
from lockbox.requests.quorum import has_steps, has_turn, who_lacks

Groups = Mapping[str, Sequence[UUID]]


@dataclass(frozen=True)
class PromptedApprovers:
    """`tiers` is 0 if everyone is asked because no tier has anyone who can decide."""

    tiers: int
    people: frozenset[UUID]


def added_by_tier(
    asked: Callable[[int], frozenset[UUID]], most: int, *, informed: AbstractSet[UUID], tiers: int, to: int
) -> PromptedApprovers:
    """Return the people added as `tiers` grows to `to`; `asked(n)` returns the people of the first n tiers.

    If a tier adds no one, the next tier is added as well.
    """
    added: frozenset[UUID] = frozenset()
    while tiers < min(to, most) or (not added and tiers < most):
        tiers += 1
        added = asked(tiers) - informed
    return PromptedApprovers(tiers, added)


def first_reviewers(known: RecipientDirectory, requester_id: UUID) -> PromptedApprovers:
    return wider_reviewers(known, requester_id, informed=frozenset(), asked=0, to=1)


def reviewers_so_far(known: RecipientDirectory, requester_id: UUID, asked: int) -> frozenset[UUID]:
    """The managers of the first `asked` tiers, without the requester; with 0 tiers, all managers.

    A manager who wants no prompts gets none, unless no one else would be asked.
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
    """Return the managers added as `asked` grows to `to`."""
    return added_by_tier(
        lambda number: reviewers_so_far(known, requester_id, number),
        known.review_tiers,
        informed=informed,
        tiers=asked,
        to=to,
    )


def first_approvers(terms: Terms, groups: Groups, known: RecipientDirectory, tenant_id: UUID) -> PromptedApprovers:
    for count in range(1, len(terms.tiers) + 1):
        if prompted := approvers_so_far(terms, groups, known, tenant_id, count):
            return PromptedApprovers(count, prompted)
    return PromptedApprovers(0, approvers_so_far(terms, groups, known, tenant_id, 0))


def approvers_so_far(
    terms: Terms,
    groups: Groups,
    known: RecipientDirectory,
    tenant_id: UUID,
    tiers: int,
    *,
    step: int = FIRST_STEP,
) -> frozenset[UUID]:
    """The people of the first `tiers` tiers who can decide now; delegates replace absent approvers.

    With 0 tiers, everyone is asked. Groups of a step after the first are asked from that step on, not before,
    whatever their tier. A person who wants no prompts gets none, unless the others could not decide without them.
    """
    members = {person for tier in terms.tiers[:tiers] for group in tier for person in groups.get(group, ())}
    due = [stage.group for stage in terms.stages if FIRST_STEP < stage.order <= step]
    members |= {person for group in due for person in groups.get(group, ())}
    asked = _willing(known.prompted(tenant_id, members if tiers else None), terms, groups, known, tenant_id)
    if not has_steps(terms.stages):
        return asked
    seats = known.seats(tenant_id)
    return frozenset(one for one in asked if has_turn(one, seats[one], terms.stages, groups, step))


def _willing(
    asked: frozenset[UUID], terms: Terms, groups: Groups, known: RecipientDirectory, tenant_id: UUID
) -> frozenset[UUID]:
    willing = asked - known.quiet
    seats = {person: seats for person, seats in known.seats(tenant_id).items() if person in willing}
    return asked if list(who_lacks(terms.quorum, terms.stages, groups, seats)) else willing
