"""Votes counted against the quorum, and who could still approve."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel

from lockbox.errors import Invalid, NothingLeft
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_parts import FIRST_STEP, ApprovalStage

SHOWN = 100


def kept(asked: Sequence[str], wanted: Collection[str] | None, field: str) -> list[str] | None:
    """The part of the request that an approver keeps, in the request's order; None for all of it.

    `field` is the part's name, such as `resources`. Raises Invalid.
    """
    if wanted is None:
        return None
    if beyond := sorted(set(wanted) - set(asked)):
        raise Invalid(
            f"You can leave out {field} but not add any: {beyond[0][:SHOWN]} was not requested.", field=field
        )
    if not wanted:
        raise Invalid(f"Keep at least one of the {field}, or deny the request.", field=field)
    found = [one for one in asked if one in wanted]
    return None if len(found) == len(asked) else found


def granted(asked: Sequence[str], votes: Iterable[Collection[str] | None], field: str) -> list[str] | None:
    """What all of these approvals keep of the request, in its order; None for all of it.

    Raises NothingLeft.
    """
    found = list(asked)
    for vote in votes:
        found = found if vote is None else [name for name in found if name in vote]
    if not found:
        raise NothingLeft(
            f"Your approval and the earlier ones have none of the {field} in common, so no access would open. "
            "Keep one that the others kept, or deny the request.",
            field=field,
        )
    return None if len(found) == len(asked) else found


@dataclass(frozen=True)
class ApprovalLimits:
    """How an approval narrows the request; None means as requested. `access_window` is in seconds."""

    access_window: int | None = None
    resources: Sequence[str] | None = None
    actions: Sequence[str] | None = None
    max_uses: int | None = None
    opens_at: datetime | None = None

    @classmethod
    def of(cls, said: Any) -> Self:  # noqa: ANN401 - a row, or a body
        return cls(**{limit.name: getattr(said, limit.name) for limit in fields(cls)})

    def __bool__(self) -> bool:
        return any(limit is not None for limit in vars(self).values())


NO_LIMITS = ApprovalLimits()


@dataclass(frozen=True)
class Vote:
    """`seats` are the approvers whose seat the person could fill, as the approver or as a delegate.

    Without a seat, the person may no longer approve.
    """

    person_id: UUID
    decision: Action
    seats: frozenset[UUID]
    limits: ApprovalLimits = NO_LIMITS


def quorum_met(
    votes: Iterable[Vote], terms_quorum: int, stages: Iterable[ApprovalStage], groups: Mapping[str, Collection[UUID]]
) -> bool:
    """Whether the approvals fill enough approvers' seats, and enough in each stage, and no one has denied.

    A person fills one seat, even as a delegate of several approvers, and a seat counts once. A deleted group has no
    members.
    """
    votes = tuple(votes)
    denied = any(vote.decision is Action.DENY for vote in votes)
    return not denied and not missing(votes, terms_quorum, stages, groups)


class ApprovalTally(BaseModel, frozen=True):
    """`group` is None for approvals by anyone; otherwise the group must approve, in its `step`."""

    group: str | None
    approvals: int
    needed: int
    step: int

    @property
    def is_met(self) -> bool:
        return self.approvals >= self.needed


def sole(counted: Sequence[ApprovalTally]) -> ApprovalTally | None:
    """The only tally, or None if a group must approve."""
    return counted[0] if len(counted) == 1 else None


def missing(
    votes: Iterable[Vote], terms_quorum: int, stages: Iterable[ApprovalStage], groups: Mapping[str, Collection[UUID]]
) -> list[tuple[str | None, int]]:
    """The number of approvals still missing: from anyone (None), and from the group of each stage."""
    counted = tallies(votes, terms_quorum, stages, groups)
    return [(one.group, one.needed - one.approvals) for one in counted if not one.is_met]


def tallies(
    votes: Iterable[Vote], terms_quorum: int, stages: Iterable[ApprovalStage], groups: Mapping[str, Collection[UUID]]
) -> list[ApprovalTally]:
    """The tally without a group counts filled seats; a stage's tally counts the members of its group.

    Stages are in the order of their steps.
    """
    seats: dict[UUID, frozenset[UUID]] = {}
    for vote in votes:
        if vote.decision is Action.APPROVE:
            seats[vote.person_id] = seats.get(vote.person_id, frozenset()) | vote.seats
    counted = [ApprovalTally(group=None, approvals=_filled(seats.values()), needed=terms_quorum, step=FIRST_STEP)]
    counted += [
        ApprovalTally(
            group=stage.group,
            approvals=_represented(seats, groups.get(stage.group, ())),
            needed=stage.quorum,
            step=stage.order,
        )
        for stage in sorted(stages, key=lambda stage: (stage.order, stage.group))
    ]
    return counted


@dataclass(frozen=True)
class ApprovalStep:
    number: int
    tallies: tuple[ApprovalTally, ...]
    is_met: bool
    is_present: bool


def lacking(counted: Iterable[ApprovalTally]) -> list[ApprovalTally]:
    stages = [one for one in counted if one.group is not None and not one.is_met]
    return [stage for stage in stages if stage.step == step_of(stages)]


def steps_of(counted: Iterable[ApprovalTally]) -> list[ApprovalStep]:
    """Empty if everyone may approve at once."""
    stages = [one for one in counted if one.group is not None]
    present, steps = step_of(stages), []
    for number in sorted({stage.step for stage in stages}):
        of_step = tuple(stage for stage in stages if stage.step == number)
        is_met = all(one.is_met for one in of_step)
        steps.append(ApprovalStep(number, of_step, is_met, is_present=number == present and not is_met))
    return steps if len(steps) > 1 else []


def has_steps(stages: Iterable[ApprovalStage]) -> bool:
    return any(stage.order > FIRST_STEP for stage in stages)


def step_of(counted: Iterable[ApprovalTally]) -> int:
    """The first step in which a group lacks approvals, otherwise the last step."""
    stages = [one for one in counted if one.group is not None]
    lacking = [stage.step for stage in stages if not stage.is_met]
    return min(lacking, default=max((stage.step for stage in stages), default=FIRST_STEP))


def has_turn(
    person_id: UUID,
    seats: AbstractSet[UUID],
    stages: Collection[ApprovalStage],
    groups: Mapping[str, Collection[UUID]],
    step: int,
) -> bool:
    """Whether someone who could fill these seats may approve at a step.

    People who speak only for groups of later steps have to wait.
    """
    later = [stage for stage in stages if stage.order > step]
    if not later:
        return True
    voices = {person_id} | seats
    if any(voices & set(groups.get(stage.group, ())) for stage in stages if stage.order <= step):
        return True
    return bool(seats - {person for stage in later for person in groups.get(stage.group, ())})


def granted_window(asked: int, votes: Iterable[Vote]) -> int:
    """The shortest of the requested window and the voters' windows, in seconds."""
    return min([asked, *(v.limits.access_window for v in votes if v.limits.access_window and v.seats)])


def granted_start(votes: Iterable[Vote]) -> datetime | None:
    """The latest start that a counting vote sets; None means at once."""
    return max((v.limits.opens_at for v in votes if v.limits.opens_at and v.seats), default=None)


def who_lacks(
    quorum: int,
    stages: Iterable[ApprovalStage],
    groups: Mapping[str, Collection[UUID]],
    seats: Mapping[UUID, AbstractSet[UUID]],
) -> list[str]:
    """Return why no one could approve; empty if someone could.

    `seats` maps each person to the approvers in whose place that person can vote now. The caller leaves the requester
    out of both: no one votes in the requester's place.
    """
    reasons = []
    everybody = _filled(seats.values())
    if everybody < quorum:
        reasons.append(
            f"The policy requires {_approvals(quorum)}, and the tenant has {_people(everybody)} who could approve."
        )
    for stage in stages:
        voices = _represented(seats, groups.get(stage.group, ()))
        if voices < stage.quorum:
            could = f"only {_people(voices)} could" if voices else "none of its members could"
            reasons.append(f"The group {stage.group} must give {_approvals(stage.quorum)} and {could}.")
    return reasons


def _represented(seats: Mapping[UUID, AbstractSet[UUID]], members: Collection[UUID]) -> int:
    """A member need not be an approver: a group may name delegates, who count while they stand in for an approver."""
    return _filled(({person} | options) & set(members) for person, options in seats.items() if options)


def _filled(choices: Iterable[AbstractSet[UUID]]) -> int:
    """The most seats that people with these choices can fill, one seat each (Kuhn's algorithm)."""
    taken: dict[UUID, AbstractSet[UUID]] = {}

    def sit(options: AbstractSet[UUID], tried: set[UUID]) -> bool:
        for seat in options - tried:
            tried.add(seat)
            if seat not in taken or sit(taken[seat], tried):
                taken[seat] = options
                return True
        return False

    return sum(sit(options, set()) for options in sorted(choices, key=len))


def _approvals(count: int) -> str:
    return "1 approval" if count == 1 else f"{count} approvals"


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"
