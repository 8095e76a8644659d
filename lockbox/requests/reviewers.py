"""Whom of the vendor's managers to ask first, and whom next: the tiers of the review, as who can endorse now."""

from collections.abc import Set as AbstractSet
from uuid import UUID

from lockbox.notifications.recipients import Directory
from lockbox.requests import tiers
from lockbox.requests.tiers import Asked


def count(known: Directory) -> int:
    """Return how many tiers the managers have: the number of the last one that has anybody."""
    return max(known.managers.values(), default=0)


def first(known: Directory, requester_id: UUID) -> Asked:
    """Return whom to prompt first: the lowest tier that has anybody other than the requester."""
    return wider(known, requester_id, heard=frozenset(), asked=0, to=1)


def so_far(known: Directory, requester_id: UUID, asked: int) -> frozenset[UUID]:
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


def wider(known: Directory, requester_id: UUID, *, heard: AbstractSet[UUID], asked: int, to: int) -> Asked:
    """Return who is added to those who have `heard` of it as the audience goes from `asked` tiers to `to`.

    A tier that adds nobody lets the next one in.
    """
    return tiers.climb(
        lambda number: so_far(known, requester_id, number), count(known), heard=heard, tiers=asked, to=to
    )
