"""What a policy demands of one request: quorum, windows, deadlines."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from lockbox.facts.enumerations import Mode, State
from lockbox.requests.deadlines import deadline
from lockbox.requests.policy import customer_decides, reviewed_first
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.each import each

NOON = datetime(2026, 2, 28, 12, tzinfo=UTC)
ANN, AMIR, ABE = new_id(), new_id(), new_id()


@each(
    ("state", "seconds"),
    [
        (State.REVIEWING, 1),
        (State.PENDING, 20),
        (State.ACTIVE, 300),
        (State.DENIED, 0),
        (State.CANCELLED, 0),
        (State.TIMED_OUT, 0),
        (State.COMPLETED, 0),
        (State.REVOKED, 0),
        (State.EXPIRED, 0),
    ],
)
def test_each_open_state_of_a_request_has_its_own_time_limit(state: State, seconds: int) -> None:
    ends = deadline(state, NOON, review=1, approval=20, access=300)

    assert ends == NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("vendor_review", "mode", "reviewed"),
    [
        (True, Mode.ENFORCE, True),
        (False, Mode.ENFORCE, False),
        (True, Mode.OBSERVE, True),
        (False, Mode.OBSERVE, True),
        (True, Mode.OFF, True),
        (False, Mode.OFF, True),
    ],
)
def test_a_manager_reviews_first_if_the_policy_demands_it_or_the_mode_is_not_enforce(
    mode: Mode, *, vendor_review: bool, reviewed: bool
) -> None:
    assert reviewed_first(Policy(vendor_review=vendor_review), mode) is reviewed


def test_the_customer_decides_only_in_mode_enforce() -> None:
    assert [mode for mode in Mode if customer_decides(mode)] == ["enforce"]


def test_default_time_limits_are_12_h_for_approval_4_h_for_review_and_4_h_for_access() -> None:
    policy = Policy()

    assert policy.approval_window == 43_200
    assert policy.review_window == 14_400
    assert policy.access_ceiling == 14_400
    assert policy.quorum == 1
    assert policy.vendor_review


@each(
    "change",
    [
        {"quorum": 0},
        {"quorum": 21},
        {"approval_window": 0},
        {"review_window": -1},
        {"access_ceiling": 0},
        {"access_ceiling": 7 * 24 * 3600 + 1},
        {"approval_window": 14 * 24 * 3600 + 1},
        {"made_up": 1},
        {"approval_reminders": [0]},
        {"approval_reminders": [100]},
        {"approval_reminders": list(range(1, 12))},
        {"review_reminders": [50, 50]},
        {"escalation": [10, 20, 30, 40, 50]},
        {"review_escalation": [10, 20, 30, 40, 50]},
        {"review_escalation": [100]},
        {"closing_warning": -1},
        {"closing_warning": 86_401},
    ],
)
def test_a_policy_beyond_the_hard_limits_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate(change)
