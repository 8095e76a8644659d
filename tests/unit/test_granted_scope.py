"""What approvers grant of the requested parts: never more, never nothing, and in the requested order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbox.errors import Invalid, NothingLeft
from lockbox.requests.quorum import granted, kept

ASKED = ["a", "b", "c"]
NAMES = st.lists(st.sampled_from(ASKED), unique=True)
VOTES = st.lists(st.none() | NAMES.filter(bool), max_size=4)


def test_an_approval_that_keeps_all_parts_or_names_no_parts_does_not_narrow_the_request() -> None:
    assert kept(ASKED, None, "resources") is None
    assert kept(ASKED, ["c", "b", "a", "a"], "resources") is None
    assert granted(ASKED, [], "resources") is None


def test_parts_kept_by_an_approval_are_in_the_requested_order_without_repeats() -> None:
    assert kept(ASKED, ["c", "a", "c"], "resources") == ["a", "c"]


@pytest.mark.parametrize("wanted", [["d"], ["a", "d"], ["A"], ["a "], [""]])
def test_an_approval_cannot_add_a_part(wanted: list[str]) -> None:
    with pytest.raises(Invalid, match="not add any") as refused:
        kept(ASKED, wanted, "resources")

    assert refused.value.facts == {"field": "resources"}


def test_an_approval_must_keep_at_least_one_part() -> None:
    with pytest.raises(Invalid, match="Keep at least one of the actions"):
        kept(ASKED, [], "actions")


def test_approvals_without_a_common_part_are_refused() -> None:
    with pytest.raises(NothingLeft, match="none of the actions in common"):
        granted(ASKED, [["a", "b"], None, ["c"]], "actions")


@given(VOTES)
def test_two_approvals_grant_the_intersection_of_their_parts(votes: list[list[str] | None]) -> None:
    everybodys = [name for name in ASKED if all(vote is None or name in vote for vote in votes)]

    if not everybodys:
        with pytest.raises(NothingLeft):
            granted(ASKED, votes, "resources")
    else:
        found = granted(ASKED, votes, "resources")
        assert (ASKED if found is None else found) == everybodys
        assert (found is None) == (everybodys == ASKED)
