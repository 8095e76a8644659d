"""Which managers are asked of a review: the lowest tier that has anybody, then the next, and never the requester."""

from collections.abc import Set as AbstractSet
from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import prompt_tiers
from lockbox.requests.prompt_tiers import PromptedApprovers
from tests.unit.policies import PEOPLE

A, B, C, D, E = PEOPLE
KNOWN = st.builds(
    lambda managers, quiet: RecipientDirectory(managers=managers, quiet=quiet),
    st.dictionaries(st.sampled_from(PEOPLE), st.integers(1, 5)),
    st.sets(st.sampled_from(PEOPLE)),
)


def vendor(managers: dict[UUID, int], quiet: AbstractSet[UUID] = frozenset()) -> RecipientDirectory:
    """Return the vendor with these managers, each in a tier."""
    return RecipientDirectory(managers=managers, quiet=set(quiet))


def next_of(known: RecipientDirectory, asked: int, to: int) -> PromptedApprovers:
    """Return who is added, past those who were asked so far; E asks."""
    return prompt_tiers.wider_reviewers(
        known, E, informed=prompt_tiers.reviewers_so_far(known, E, asked), asked=asked, to=to
    )


def test_the_lowest_tier_that_has_anybody_other_than_the_requester_is_asked_first() -> None:
    assert prompt_tiers.first_reviewers(vendor({A: 1, B: 1, C: 2}), E) == PromptedApprovers(1, frozenset({A, B}))
    assert prompt_tiers.first_reviewers(vendor({E: 1, C: 3, D: 4}), E) == PromptedApprovers(3, frozenset({C}))
    assert not prompt_tiers.first_reviewers(vendor({E: 1}), E).people


def test_a_tier_that_adds_nobody_lets_the_next_one_in() -> None:
    known = vendor({A: 1, E: 2, C: 4, D: 5})

    assert next_of(known, 1, 2) == PromptedApprovers(4, frozenset({C}))
    assert next_of(known, 4, 5) == PromptedApprovers(5, frozenset({D}))
    assert next_of(known, 5, 6) == PromptedApprovers(5, frozenset())


def test_who_wants_no_prompts_is_asked_only_where_nobody_else_would_be() -> None:
    known = vendor({A: 1, B: 1, C: 2, D: 3}, quiet={A, C})

    assert prompt_tiers.first_reviewers(known, E).people == {B}
    assert next_of(known, 1, 2) == PromptedApprovers(3, frozenset({D}))
    assert prompt_tiers.first_reviewers(vendor({A: 1, B: 2}, quiet={A}), E) == PromptedApprovers(1, frozenset({A}))


def test_without_tiers_everybody_is_asked_but_the_requester_and_who_wants_no_prompts() -> None:
    assert prompt_tiers.reviewers_so_far(vendor({A: 1, B: 2, C: 5, E: 1}, quiet={C}), E, 0) == {A, B}
    assert prompt_tiers.reviewers_so_far(vendor({A: 1, C: 5}, quiet={A, C}), E, 0) == {A, C}


@given(KNOWN, st.sampled_from(PEOPLE))
def test_somebody_is_asked_wherever_anybody_could_endorse_and_every_tier_only_adds(
    known: RecipientDirectory, requester_id: UUID
) -> None:
    others = known.managers.keys() - {requester_id}
    asked = [prompt_tiers.reviewers_so_far(known, requester_id, count) for count in range(1, 6)]

    assert all(fewer <= more <= others for fewer, more in pairwise(asked))
    assert bool(prompt_tiers.first_reviewers(known, requester_id).people) is bool(others)
    assert asked[-1] >= others - known.quiet
