"""Who could approve, and whether the votes suffice."""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from uuid import UUID

from lockbox.requests.lifecycle import Action
from lockbox.requests.terms import Stage


@dataclass(frozen=True)
class Vote:
    """One person's verdict on a request that waits for the customer; the window in seconds, if narrowed.

    `stands_for` are the approvers for whom the person votes as a deputy, apart from the own person.
    """

    person_id: UUID
    verdict: Action
    access_window: int | None
    may_still_approve: bool
    stands_for: frozenset[UUID] = frozenset()


def quorum_met(
    votes: Iterable[Vote], terms_quorum: int, stages: Iterable[Stage], groups: Mapping[str, Collection[UUID]]
) -> bool:
    """Whether enough different people who may still approve have done so, in each stage too, and none has denied.

    It is one vote a person, however many the person stands in for. In a stage, a vote counts if its person is in
    the group or stands in for somebody who is; a group that is no longer there can give none.
    """
    votes = tuple(votes)
    denied = any(vote.verdict is Action.DENY for vote in votes)
    return not denied and not missing(votes, terms_quorum, stages, groups)


def missing(
    votes: Iterable[Vote], terms_quorum: int, stages: Iterable[Stage], groups: Mapping[str, Collection[UUID]]
) -> list[tuple[str | None, int]]:
    """Return how many approvals are still missing, for None from anybody and for each stage from its group.

    One further approval may count in several places. A denial is not looked at.
    """
    seats: dict[UUID, frozenset[UUID]] = {}
    for vote in votes:
        if vote.verdict is Action.APPROVE and vote.may_still_approve:
            seats[vote.person_id] = seats.get(vote.person_id, frozenset()) | vote.stands_for
    short: list[tuple[str | None, int]] = [(None, terms_quorum - len(seats))]
    short += [(stage.group, stage.quorum - _voices(seats, groups.get(stage.group, ()))) for stage in stages]
    return [(group, approvals) for group, approvals in short if approvals > 0]


def granted_window(asked: int, votes: Iterable[Vote]) -> int:
    """Return the seconds of access granted: the shortest of what was asked and what each voter set."""
    return min([asked, *(v.access_window for v in votes if v.access_window and v.may_still_approve)])


def who_lacks(
    quorum: int,
    stages: Iterable[Stage],
    groups: Mapping[str, Collection[UUID]],
    able: AbstractSet[UUID],
    standing_in: Mapping[UUID, AbstractSet[UUID]],
) -> list[str]:
    """Say why nobody could approve; nothing to say means that it could be approved.

    `able` are the people who could vote now, deputies too; `standing_in` gives for a deputy the approvers whom
    the deputy stands in for. Leave the requester out of both: nobody votes in the requester's place either.
    """
    reasons = []
    if len(able) < quorum:
        reasons.append(f"The tenant asks for {_approvals(quorum)} and has {_people(len(able))} who could give one.")
    seats = {person: standing_in.get(person, frozenset()) for person in able}
    for stage in stages:
        voices = _voices(seats, groups.get(stage.group, ()))
        if voices < stage.quorum:
            could = f"only {_people(voices)} could" if voices else "none of its members could"
            reasons.append(f"The group {stage.group} must give {_approvals(stage.quorum)} and {could}.")
    return reasons


def _voices(seats: Mapping[UUID, AbstractSet[UUID]], members: Collection[UUID]) -> int:
    """Count the people who are among the members, or stand in for one of them."""
    return sum(1 for person, principals in seats.items() if not principals.isdisjoint(members) or person in members)


def _approvals(count: int) -> str:
    return "1 approval" if count == 1 else f"{count} approvals"


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"
