"""When the timer of a request wakes, and what is due then: reminders, escalation, warnings, and above all the end."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox.facts.enumerations import State
from lockbox.requests.deadlines import DueReminders, Phase, deadline, due_reminders, wake_at
from lockbox.requests.lifecycle import FINAL_STATES, OPEN_STATES
from lockbox.requests.policy import Terms
from tests.examples import examples
from tests.unit.policies import TERMS

NOON = datetime(2026, 2, 28, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
CHANGES = [datetime(2026, 3, 29, 0, 30, tzinfo=BERLIN), datetime(2026, 10, 25, 0, 30, tzinfo=BERLIN)]
CHANGED = ["an hour missing", "an hour twice"]
HOUR = timedelta(hours=1)
TIERED = Terms(tiers=(("one",), ("two",), ("three",)))
QUIET = Terms(approval_reminders=(), review_reminders=(), escalation=(), closing_warning=0)
NOTHING = DueReminders(remind=False, escalate=0, warn=False)

STRETCHES = st.builds(
    Phase,
    state=st.sampled_from(sorted(OPEN_STATES)),
    since=st.just(NOON),
    deadline_at=st.integers(1_000, 10**13).map(lambda micros: NOON + timedelta(microseconds=micros)),
    tiers_asked=st.integers(0, 5),
    review_tiers=st.integers(0, 5),
    warned=st.booleans(),
)
AT = st.floats(-0.1, 1.1)


def pending(hours: float = 12, **changes: Any) -> Phase:
    """Return a request on which the customer was just asked to decide."""
    return replace(Phase(State.PENDING, NOON, NOON + hours * HOUR), **changes)


def reviewing(hours: float = 4, **changes: Any) -> Phase:
    """Return a request that the vendor has just begun to review."""
    return pending(hours, state=State.REVIEWING, **changes)


def run(phase: Phase, terms: Terms, late: timedelta = timedelta(0)) -> list[tuple[datetime, DueReminders]]:
    """Run the timer to the deadline, waking late by `late` each time; return what was due when."""
    seen = []
    woken_at = wake_at(phase, terms, phase.since)
    while woken_at and woken_at < phase.deadline_at:
        at = woken_at + late
        due = due_reminders(phase, terms, woken_at, at)
        seen.append((at, due))
        phase = replace(phase, tiers_asked=due.escalate, warned=phase.warned or due.warn)
        woken_at = wake_at(phase, terms, at)
    return seen


def test_reminders_are_sent_at_the_configured_percentages_of_the_approval_window() -> None:
    assert [(at, due.remind) for at, due in run(pending(), Terms(approval_reminders=(50, 90)))] == [
        (NOON + 6 * HOUR, True),
        (NOON + 10.8 * HOUR, True),
    ]


def test_a_review_has_reminders_separate_from_the_approval() -> None:
    terms = Terms(approval_reminders=(), review_reminders=(25,))

    assert run(pending(), terms) == []
    assert [at for at, _ in run(reviewing(), terms)] == [NOON + HOUR]


def test_escalation_goes_tier_by_tier_up_to_the_last() -> None:
    terms = TIERED.model_copy(update={"approval_reminders": (), "escalation": (25, 50, 75)})

    assert [(at, due.escalate) for at, due in run(pending(tiers_asked=1), terms)] == [
        (NOON + 3 * HOUR, 2),
        (NOON + 6 * HOUR, 3),
    ]


def test_without_tiers_nothing_escalates() -> None:
    assert [due.escalate for _, due in run(pending(tiers_asked=0), TIERED)] == [0, 0]
    assert [due.escalate for _, due in run(reviewing(tiers_asked=0, review_tiers=3), Terms())] == [0, 0]


def test_a_review_escalates_at_its_own_percentages_of_the_review_window_up_to_the_last_tier() -> None:
    terms = TIERED.model_copy(update={"review_reminders": (), "escalation": (10,), "review_escalation": (25, 50, 75)})

    assert [(at, due.escalate) for at, due in run(reviewing(tiers_asked=1, review_tiers=3), terms)] == [
        (NOON + HOUR, 2),
        (NOON + 2 * HOUR, 3),
    ]
    assert run(reviewing(tiers_asked=1, review_tiers=1), terms) == []
    assert [at for at, _ in run(reviewing(tiers_asked=2, review_tiers=3), terms)] == [NOON + 2 * HOUR]


def test_a_late_timer_in_a_review_reminds_once_and_escalates_as_far_as_due() -> None:
    late = run(reviewing(tiers_asked=1, review_tiers=5), Terms(), late=HOUR)

    assert late == [
        (NOON + 3 * HOUR, DueReminders(remind=True, escalate=4, warn=False)),
        (NOON + 4.2 * HOUR, DueReminders(remind=False, escalate=4, warn=False)),
    ]


def test_the_end_of_a_window_is_announced_once_unless_the_window_is_too_short() -> None:
    assert run(pending(4, state=State.ACTIVE), Terms()) == [
        (NOON + 4 * HOUR - timedelta(minutes=10), DueReminders(remind=False, escalate=0, warn=True))
    ]
    assert run(pending(1 / 6, state=State.ACTIVE), Terms()) == []


@pytest.mark.parametrize("state", OPEN_STATES)
def test_without_reminders_the_timer_wakes_at_the_deadline_only(state: State) -> None:
    phase = pending(state=state, tiers_asked=1)

    assert wake_at(phase, QUIET.model_copy(update={"tiers": TIERED.tiers}), NOON) == phase.deadline_at


@pytest.mark.parametrize("state", FINAL_STATES)
def test_reminders_and_escalation_stop_once_the_request_is_settled(state: State) -> None:
    phase = pending(state=state, tiers_asked=1)

    assert wake_at(phase, TIERED, NOON) is None
    assert due_reminders(phase, TIERED, NOON, NOON + 7 * HOUR) == DueReminders(remind=False, escalate=1, warn=False)


def test_a_late_timer_reminds_once_and_escalates_as_far_as_due() -> None:
    late = run(pending(tiers_asked=1), TIERED, late=5 * HOUR)

    assert late == [(NOON + 11 * HOUR, DueReminders(remind=True, escalate=3, warn=False))]


def test_after_the_deadline_only_the_end_of_the_request_remains_to_be_done() -> None:
    phase = pending()

    assert due_reminders(phase, Terms(), NOON + 6 * HOUR, phase.deadline_at) == NOTHING


@settings(max_examples=examples(300), deadline=None)
@given(STRETCHES, TERMS, AT)
def test_the_timer_never_wakes_after_the_deadline_or_in_the_past(phase: Phase, terms: Terms, share: float) -> None:
    at = phase.since + (phase.deadline_at - phase.since) * share
    woken_at = wake_at(phase, terms, at)

    assert woken_at is not None
    assert woken_at <= phase.deadline_at
    assert woken_at > at or woken_at == phase.deadline_at


@settings(max_examples=examples(300), deadline=None)
@given(STRETCHES, TERMS, st.integers(0, 10**12))
def test_a_late_timer_still_ends_the_request_and_sends_no_more_reminders_than_due(
    phase: Phase, terms: Terms, late: int
) -> None:
    seen = run(phase, terms, timedelta(microseconds=late))

    percents = {State.REVIEWING: terms.review_reminders, State.PENDING: terms.approval_reminders}
    most = len(percents.get(phase.state, ()))
    assert sum(due.remind for _, due in seen) <= most
    assert sum(due.warn for _, due in seen) <= 1
    assert not any(due != replace(due, remind=False, warn=False) for at, due in seen if at >= phase.deadline_at)
    widened = [due.escalate for _, due in seen]
    assert widened == sorted(widened)
    tiers = phase.review_tiers if phase.state is State.REVIEWING else len(terms.tiers)
    assert not widened or widened[-1] <= max(phase.tiers_asked, tiers)


@settings(max_examples=examples(200), deadline=None)
@given(STRETCHES, TERMS)
def test_a_punctual_timer_reminds_at_every_configured_percentage_of_the_time_limit(
    phase: Phase, terms: Terms
) -> None:
    percents = {State.REVIEWING: terms.review_reminders, State.PENDING: terms.approval_reminders}

    reminded = [at for at, due in run(phase, terms) if due.remind]

    window = phase.deadline_at - phase.since
    assert reminded == sorted({phase.since + window * percent / 100 for percent in percents.get(phase.state, ())})


@pytest.mark.parametrize("here", CHANGES, ids=CHANGED)
def test_a_daylight_saving_change_does_not_shift_reminders_within_the_approval_window(here: datetime) -> None:
    there = here.astimezone(UTC)
    ends = there + 4 * HOUR
    terms = Terms(approval_reminders=(25, 50, 75))

    local = run(Phase(State.PENDING, here, ends.astimezone(BERLIN)), terms)

    assert [at for at, _ in local] == [there + HOUR, there + 2 * HOUR, there + 3 * HOUR]
    assert all(due.remind for _, due in local)
    assert local == run(Phase(State.PENDING, there, ends), terms)


@pytest.mark.parametrize("here", CHANGES, ids=CHANGED)
def test_a_deadline_across_a_daylight_saving_change_is_the_same_number_of_hours_away(here: datetime) -> None:
    windows = {"review": 4 * 3600, "approval": 5 * 3600, "access": 6 * 3600}

    ends = [deadline(state, here, **windows, start=None) for state in (State.REVIEWING, State.PENDING, State.ACTIVE)]

    assert ends == [here.astimezone(UTC) + hours * HOUR for hours in (4, 5, 6)]


@pytest.mark.parametrize("state", [State.REVIEWING, State.PENDING])
@pytest.mark.parametrize("here", CHANGES, ids=CHANGED)
def test_a_daylight_saving_change_does_not_shift_escalation_to_later_tiers(here: datetime, state: State) -> None:
    there = here.astimezone(UTC)
    ends = there + 4 * HOUR
    shares = dict.fromkeys(("escalation", "review_escalation"), (25, 50))
    terms = QUIET.model_copy(update=shares | {"tiers": TIERED.tiers})

    local = run(Phase(state, here, ends.astimezone(BERLIN), tiers_asked=1, review_tiers=3), terms)

    assert [(at, due.escalate) for at, due in local] == [(there + HOUR, 2), (there + 2 * HOUR, 3)]
    assert local == run(Phase(state, there, ends, tiers_asked=1, review_tiers=3), terms)


@pytest.mark.parametrize("seconds", [300, 600])
def test_the_end_of_a_window_that_is_not_longer_than_the_warning_time_is_not_announced(seconds: int) -> None:
    terms = QUIET.model_copy(update={"closing_warning": 600})
    opened = Phase(State.ACTIVE, NOON, NOON + timedelta(seconds=seconds))

    assert due_reminders(opened, terms, NOON, NOON + timedelta(seconds=seconds - 1)) == NOTHING
    assert wake_at(opened, terms, NOON - HOUR) == opened.deadline_at


@pytest.mark.parametrize("night", CHANGES, ids=CHANGED)
def test_the_end_of_a_window_across_a_daylight_saving_change_is_announced_in_time(night: datetime) -> None:
    terms = QUIET.model_copy(update={"closing_warning": 7200})
    ends = (night.astimezone(UTC) + 4 * HOUR).astimezone(BERLIN)
    opened = Phase(State.ACTIVE, night, ends)

    assert wake_at(opened, terms, night) == night.astimezone(UTC) + 2 * HOUR
