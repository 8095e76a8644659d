"""Whose votes suffice, what is still missing, and who could give it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_parts import ApprovalStage
from lockbox.requests.quorum import (
    ApprovalLimits,
    Vote,
    granted_window,
    has_turn,
    missing,
    quorum_met,
    step_of,
    tallies,
    who_lacks,
)
from lockbox.sql import new_id
from tests.each import each
from tests.examples import examples
from tests.unit.policies import PEOPLE, quorums

ANN, AMIR, ABE, LEA, LOU = PEOPLE
LEGAL, LEGALS, OPS = ApprovalStage(group="legal"), ApprovalStage(group="legal", quorum=2), ApprovalStage(group="ops")
GROUPS = {"board": (), "legal": (LEA, LOU), "ops": (ANN, LEA)}


def vote(
    person: UUID,
    decision: Action = Action.APPROVE,
    window: int | None = None,
    *,
    may: bool = True,
    own: bool = True,
    for_: Iterable[UUID] = (),
) -> Vote:
    """Return a vote of an approver, or of a delegate who has no seat of their own."""
    seats = frozenset([*([person] if own else []), *for_]) if may else frozenset()
    return Vote(person, decision, seats, ApprovalLimits(window))


PERSONS = st.sampled_from(PEOPLE)
SETS = st.frozensets(PERSONS, max_size=2)
YES_VOTES = st.lists(st.builds(vote, PERSONS, for_=SETS), min_size=1)
DENIALS = st.builds(vote, PERSONS, st.just(Action.DENY), may=st.booleans(), for_=SETS)
DENIED = st.builds(lambda before, no, after: [*before, no, *after], YES_VOTES, DENIALS, YES_VOTES)
ANY_STAGES = quorums(3, 0)
ANY_GROUPS = st.dictionaries(st.sampled_from(("board", "legal", "ops")), st.frozensets(PERSONS))
ANY_QUORUM = st.integers(1, 4)


@each(
    ("votes", "quorum", "met"),
    [
        ([], 1, False),
        ([vote(ANN)], 1, True),
        ([vote(ANN)], 2, False),
        ([vote(ANN), vote(AMIR)], 2, True),
        ([vote(ANN), vote(AMIR), vote(ABE)], 2, True),
        ([vote(ANN), vote(ANN)], 2, False),
        ([vote(ANN, may=False)], 1, False),
        ([vote(ANN), vote(AMIR, may=False)], 2, False),
        ([vote(ANN, may=False), vote(AMIR), vote(ABE)], 2, True),
        ([vote(ANN), vote(AMIR), vote(ABE, Action.DENY)], 2, False),
        ([vote(ANN), vote(ABE, Action.DENY, may=False)], 1, False),
        ([vote(ANN), vote(ANN, Action.DENY)], 1, False),
        ([vote(ANN, Action.ENDORSE)], 1, False),
        ([vote(ANN, Action.ENDORSE), vote(AMIR)], 2, False),
        ([vote(ANN, for_=[AMIR, ABE])], 2, False),
        ([vote(ANN, for_=[AMIR]), vote(ABE)], 2, True),
        ([vote(ANN), vote(LOU, own=False, for_=[ANN])], 2, False),
        ([vote(LOU, own=False, for_=[ANN]), vote(ANN)], 2, False),
        ([vote(ANN), vote(LOU, own=False, for_=[ANN, AMIR])], 2, True),
        ([vote(LEA, own=False, for_=[ANN]), vote(LOU, own=False, for_=[ANN])], 2, False),
        ([vote(LEA, own=False, for_=[ANN, AMIR]), vote(LOU, own=False, for_=[ANN])], 2, True),
        ([vote(LEA, own=False, for_=[ANN, AMIR]), vote(LOU, own=False, for_=[ANN]), vote(AMIR)], 3, False),
        ([vote(AMIR, for_=[ANN]), vote(ANN)], 2, True),
    ],
)
def test_a_quorum_counts_distinct_seats_and_one_denial_prevails(votes: list[Vote], quorum: int, *, met: bool) -> None:
    assert quorum_met(iter(votes), quorum, (), {}) is met


@each(
    ("votes", "stages", "short"),
    [
        ([], [LEGAL, OPS], [(None, 1), ("legal", 1), ("ops", 1)]),
        ([vote(AMIR)], [LEGAL], [("legal", 1)]),
        ([vote(LEA)], [LEGAL], []),
        ([vote(LEA)], [LEGALS], [("legal", 1)]),
        ([vote(LEA), vote(LEA)], [LEGALS], [("legal", 1)]),
        ([vote(LEA), vote(LOU)], [LEGALS], []),
        ([vote(LEA)], [LEGAL, OPS], []),
        ([vote(LEA, may=False), vote(AMIR)], [LEGAL], [("legal", 1)]),
        ([vote(LEA, Action.ENDORSE), vote(AMIR)], [LEGAL], [("legal", 1)]),
        ([vote(AMIR, for_=[LEA])], [LEGAL], []),
        ([vote(AMIR, for_=[LEA]), vote(AMIR)], [LEGAL], []),
        ([vote(AMIR, for_=[LEA, LOU])], [LEGALS], [("legal", 1)]),
        ([vote(AMIR, for_=[ABE])], [LEGAL], [("legal", 1)]),
        ([vote(AMIR, for_=[LEA]), vote(LOU)], [LEGALS], []),
        ([vote(AMIR, for_=[LEA]), vote(LEA)], [LEGALS], [("legal", 1)]),
        ([vote(LOU, own=False, for_=[ANN])], [LEGAL], []),
        ([vote(LOU, own=False)], [LEGAL], [(None, 1), ("legal", 1)]),
        ([vote(AMIR, for_=[LEA]), vote(ANN, for_=[LEA, LOU])], [LEGALS], []),
        ([vote(AMIR)], [ApprovalStage(group="board")], [("board", 1)]),
        ([vote(AMIR)], [ApprovalStage(group="gone")], [("gone", 1)]),
    ],
)
def test_each_approval_stage_needs_different_people_of_its_group(
    votes: list[Vote], stages: list[ApprovalStage], short: list[tuple[str | None, int]]
) -> None:
    assert missing(iter(votes), 1, iter(stages), GROUPS) == short
    assert quorum_met(iter(votes), 1, iter(stages), GROUPS) is (short == [])


@each(
    ("who", "for_", "step", "has"),
    [
        (LOU, [LOU], 1, False),
        (LOU, [LOU], 2, True),
        (LEA, [LEA], 1, True),
        (AMIR, [AMIR], 1, True),
        (AMIR, [LOU], 1, False),
        (AMIR, [AMIR, LOU], 1, True),
        (AMIR, [LEA], 1, True),
        (ANN, [ANN], 1, True),
        (ANN, [LEA], 1, True),
    ],
)
def test_only_approvers_whose_groups_all_come_later_wait_for_earlier_steps(
    who: UUID, for_: list[UUID], step: int, *, has: bool
) -> None:
    stages = [LEGAL.model_copy(update={"order": 2}), OPS]

    assert has_turn(who, frozenset(for_), stages, GROUPS, step) is has


def test_the_current_step_is_the_first_step_lacking_approvals() -> None:
    stages = [LEGAL.model_copy(update={"order": 3}), OPS]
    steps = [step_of(tallies(votes, 1, stages, GROUPS)) for votes in ([], [vote(ANN)], [vote(ANN), vote(LOU)])]

    assert steps == [1, 3, 3]
    assert step_of(tallies([], 1, [], {})) == 1


@pytest.mark.parametrize("quorum", [1, 2, 5])
def test_one_person_voting_for_ten_principals_counts_once(quorum: int) -> None:
    ten = [new_id() for _ in range(10)]
    alone = [vote(ANN, for_=ten)]

    assert quorum_met(alone, quorum, [], {}) is (quorum == 1)
    assert missing(alone, 1, [ApprovalStage(group="ten", quorum=quorum)], {"ten": ten}) == (
        [("ten", quorum - 1)] if quorum > 1 else []
    )


def test_a_denial_prevails_over_approvals_of_all_stages() -> None:
    assert quorum_met([vote(LEA), vote(LOU)], 2, [LEGALS], GROUPS)
    assert not quorum_met([vote(LEA), vote(LOU), vote(AMIR, Action.DENY)], 2, [LEGALS], GROUPS)


@settings(max_examples=examples(200), deadline=None)
@given(DENIED, ANY_QUORUM, ANY_STAGES, ANY_GROUPS)
def test_no_set_of_votes_with_a_denial_opens_anything(
    votes: list[Vote], quorum: int, stages: tuple[ApprovalStage, ...], groups: Mapping[str, frozenset[UUID]]
) -> None:
    assert not quorum_met(votes, quorum, stages, groups)


@settings(max_examples=examples(200), deadline=None)
@given(YES_VOTES, st.integers(0), ANY_QUORUM, ANY_STAGES, ANY_GROUPS)
def test_removing_a_right_or_a_principal_never_makes_votes_meet_a_quorum(
    votes: list[Vote], at: int, quorum: int, stages: tuple[ApprovalStage, ...], groups: Mapping[str, frozenset[UUID]]
) -> None:
    at %= len(votes)
    removed = [*votes[:at], replace(votes[at], seats=frozenset()), *votes[at + 1 :]]
    alone = [*votes[:at], replace(votes[at], seats=votes[at].seats & {votes[at].person_id}), *votes[at + 1 :]]

    before = quorum_met(votes, quorum, stages, groups)

    assert before or not quorum_met(removed, quorum, stages, groups)
    assert before or not quorum_met(alone, quorum, stages, groups)


@settings(max_examples=examples(200), deadline=None)
@given(YES_VOTES, ANY_QUORUM, ANY_STAGES, ANY_GROUPS, st.permutations(PEOPLE))
def test_repeating_or_reordering_votes_changes_nothing(
    votes: list[Vote],
    quorum: int,
    stages: tuple[ApprovalStage, ...],
    groups: Mapping[str, frozenset[UUID]],
    order: list[UUID],
) -> None:
    again = sorted([*votes, *votes], key=lambda vote: order.index(vote.person_id))

    assert missing(again, quorum, stages, groups) == missing(votes, quorum, stages, groups)


@settings(max_examples=examples(200), deadline=None)
@given(
    st.dictionaries(PERSONS, SETS),
    ANY_QUORUM,
    ANY_STAGES,
    ANY_GROUPS,
)
def test_a_request_is_approvable_exactly_if_all_voters_together_suffice(
    seats: Mapping[UUID, frozenset[UUID]],
    quorum: int,
    stages: tuple[ApprovalStage, ...],
    groups: Mapping[str, frozenset[UUID]],
) -> None:
    all_say_yes = [vote(person, own=False, for_=theirs) for person, theirs in seats.items()]

    lacks = who_lacks(quorum, stages, groups, seats)

    assert (lacks == []) is quorum_met(all_say_yes, quorum, stages, groups)


@each(
    ("quorum", "stages", "seats", "lacks"),
    [
        (1, [], [{ANN}], []),
        (2, [], [{ANN}], ["The policy requires 2 approvals, and the tenant has 1 person who could approve."]),
        (1, [], [], ["The policy requires 1 approval, and the tenant has 0 people who could approve."]),
        (2, [], [{ANN, AMIR}], ["The policy requires 2 approvals, and the tenant has 1 person who could approve."]),
        (2, [], [{ANN}, {ANN}], ["The policy requires 2 approvals, and the tenant has 1 person who could approve."]),
        (1, [LEGAL], [{ANN}], ["The group legal must give 1 approval and none of its members could."]),
        (1, [LEGAL], [{LEA}], []),
        (1, [LEGALS], [{LEA}, {ANN}], ["The group legal must give 2 approvals and only 1 person could."]),
        (1, [LEGALS], [{LEA}, {ANN, LEA}], ["The group legal must give 2 approvals and only 1 person could."]),
        (1, [LEGALS], [{LEA}, {ANN, LOU}], []),
        (
            1,
            [ApprovalStage(group="gone"), LEGAL],
            [{LEA}],
            ["The group gone must give 1 approval and none of its members could."],
        ),
        (
            1,
            [ApprovalStage(group="legal", quorum=3)],
            [{LEA}, {LOU}],
            ["The group legal must give 3 approvals and only 2 people could."],
        ),
    ],
)
def test_the_quorum_check_says_why_no_one_could_approve(
    quorum: int, stages: list[ApprovalStage], seats: list[set[UUID]], lacks: list[str]
) -> None:
    assert who_lacks(quorum, iter(stages), GROUPS, dict(zip(PEOPLE, seats, strict=False))) == lacks


@pytest.mark.parametrize(
    ("votes", "granted"),
    [
        ([], 3600),
        ([vote(ANN)], 3600),
        ([vote(ANN, window=60)], 60),
        ([vote(ANN, window=600), vote(AMIR, window=60), vote(ABE)], 60),
        ([vote(ANN, window=60, may=False), vote(AMIR, window=600)], 600),
        ([vote(ANN, window=7200)], 3600),
    ],
)
def test_the_shortest_window_chosen_by_an_eligible_approver_is_granted(votes: list[Vote], granted: int) -> None:
    assert granted_window(3600, iter(votes)) == granted
