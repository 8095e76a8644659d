"""Who is notified of a move, in every mode: a table written by hand."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from lockbox.facts.enumerations import Mode, State
from lockbox.identity.roles import Side
from lockbox.notifications.audience import (
    AFTER_REVIEWS,
    ANSWER,
    CONNECTED,
    CONVERSED,
    OPERATED,
    PROMPTS,
    QUESTION,
    RECEIPT,
    REMINDER_TEMPLATES,
    REPORT,
    TYPES,
    AudienceGroup,
    Reminder,
    connection_groups,
    endpoints_to_notify,
    is_reported,
    knows_of,
    matters_until,
    people_to_notify,
    people_to_remind,
    question_groups,
    receipt_groups,
    type_of,
)
from lockbox.requests.lifecycle import DECISIONS, MOVES, Action, Party
from tests.each import each

VENDOR = {"managers"}
OUTCOMES = ["active", "denied", "cancelled", "timed_out", "completed", "revoked", "expired"]
COPIES = {"observers"}
AFTERWARDS = {
    "enforce": {"requester", "informed"} | COPIES,
    "observe": {"requester", "informed"} | COPIES,
    "off": {"requester", "informed"},
}
OPENED_ALONE = {
    "observe": {"requester", "approvers", "admins"} | COPIES,
    "off": {"requester", "admins"},
}
NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize("mode", Mode)
def test_a_request_in_review_notifies_the_vendor_only(mode: Mode) -> None:
    assert people_to_notify(None, "reviewing", mode, customer_knows=False) == {"asked"}


@pytest.mark.parametrize("start", [None, "reviewing"])
def test_prompts_go_to_the_asked_approvers_and_not_to_admins(start: str | None) -> None:
    asked = people_to_notify(start, "pending", Mode.ENFORCE, customer_knows=True)

    assert asked == {"asked"} | COPIES


@each(("mode", "outcome"), list(itertools.product(Mode, OUTCOMES)))
def test_an_outcome_notification_goes_to_the_requester_and_to_everyone_notified_before(
    mode: Mode, outcome: str
) -> None:
    assert people_to_notify("pending", outcome, mode, customer_knows=True) == AFTERWARDS[mode]
    assert people_to_notify("active", outcome, mode, customer_knows=True) in [AFTERWARDS[mode], set()]


@pytest.mark.parametrize("mode", OPENED_ALONE)
def test_who_is_notified_of_a_window_opened_by_the_vendor_depends_on_the_tenants_mode(mode: str) -> None:
    assert people_to_notify("reviewing", "active", Mode(mode), customer_knows=True) == OPENED_ALONE[mode]


@each("to_state", State)
def test_observers_get_no_copies_in_mode_off(to_state: State) -> None:
    begun = [people_to_notify(state, to_state, Mode.OFF, customer_knows=True) for state in ("reviewing", "active")]

    assert not [told for told in begun if "observers" in told and to_state is not State.PENDING]


@each(("mode", "outcome"), list(itertools.product(Mode, ["denied", "cancelled", "timed_out"])))
def test_a_request_that_ends_in_review_notifies_the_vendor_only(mode: Mode, outcome: str) -> None:
    assert people_to_notify("reviewing", outcome, mode, customer_knows=False) == VENDOR | {"requester"}


@pytest.mark.parametrize("mode", Mode)
def test_a_vote_without_a_state_change_notifies_no_one(mode: Mode) -> None:
    assert people_to_notify("pending", "pending", mode, customer_knows=True) == set()


def test_the_requester_is_notified_of_every_outcome() -> None:
    ends = {row.to.value for (state, _), row in MOVES.items() if state} - {"pending"}

    assert ends == set(OUTCOMES)
    for end, mode, knows in itertools.product(ends, Mode, [True, False]):
        assert AudienceGroup.REQUESTER in people_to_notify("pending", end, mode, customer_knows=knows)


@each("state", State)
def test_a_prompt_expires_at_the_deadline_and_an_outcome_notification_after_a_day(state: State) -> None:
    due = NOON + timedelta(hours=2)

    until = matters_until(state, NOON, due)

    assert until == (due if state.value in {"reviewing", "pending"} else NOON + timedelta(days=1))


@each(
    ("reminder", "state", "mode", "told"),
    [
        (Reminder.REMIND, "reviewing", Mode.ENFORCE, {"asked"}),
        (Reminder.REMIND, "reviewing", Mode.OBSERVE, {"asked"}),
        (Reminder.REMIND, "pending", Mode.ENFORCE, {"asked"}),
        (Reminder.ESCALATE, "reviewing", Mode.ENFORCE, {"asked"}),
        (Reminder.ESCALATE, "pending", Mode.ENFORCE, {"asked"}),
        (Reminder.WARN, "active", Mode.ENFORCE, {"informed", "requester"}),
        (Reminder.WARN, "active", Mode.OBSERVE, {"informed", "requester"}),
        (Reminder.WARN, "active", Mode.OFF, {"informed", "requester"}),
        (Reminder.UNREACHED, "pending", Mode.ENFORCE, {"admins"}),
        (Reminder.UNREACHED, "reviewing", Mode.ENFORCE, set()),
    ],
)
def test_timer_events_without_a_state_change_have_an_audience(
    reminder: Reminder, state: str, mode: Mode, told: set[str]
) -> None:
    assert people_to_remind(reminder, state, mode) == told


def test_every_reminder_has_a_mail_template_and_is_obsolete_once_the_request_changes_state() -> None:
    assert {reminder for reminder, _ in REMINDER_TEMPLATES} == set(Reminder)
    assert all(PROMPTS[template] == state for (_, state), template in REMINDER_TEMPLATES.items())


RECEIPTS = {
    ("endorse", "manager"): {"decider"},
    ("break_glass", "manager"): {"decider"},
    ("deny", "manager"): {"decider"},
    ("approve", "approver"): {"decider", "admins"},
    ("deny", "approver"): {"decider", "admins"},
    ("deny", "tenant_admin"): {"decider", "admins"},
}


@each(("action", "party"), list(itertools.product(Action, Party)))
def test_every_decision_has_a_receipt_and_no_other_move_has(action: Action, party: Party) -> None:
    by = {(act, one) for (_, act), move in MOVES.items() for one in move.by if act in DECISIONS}

    told = receipt_groups(action, party)

    assert by == set(RECEIPTS)
    if action not in DECISIONS or (action, party) in by:
        assert told == RECEIPTS.get((action, party), set())


def test_a_decision_receipt_expires_after_a_day_whatever_the_deadline() -> None:
    assert matters_until(RECEIPT, NOON, NOON + timedelta(seconds=5)) == NOON + timedelta(days=1)


@each(("before", "after"), list(itertools.product([None, *State], State)))
def test_a_closed_window_gets_a_report_and_a_never_opened_window_does_not(before: State | None, after: State) -> None:
    closes = before is State.ACTIVE and after in {State.COMPLETED, State.REVOKED, State.EXPIRED}
    possible = {(state, row.to) for (state, _), row in MOVES.items()}

    if closes or (before, after) in possible:
        assert is_reported(before, after) == closes


def test_a_window_report_expires_after_a_day() -> None:
    assert matters_until(REPORT, NOON, NOON) == NOON + timedelta(days=1)


@pytest.mark.parametrize("state", ["reviewing", "pending", "active"])
def test_a_question_goes_to_the_requester_and_an_answer_to_the_asker(state: str) -> None:
    endpoints = {"vendor_endpoints"} | ({"tenant_endpoints"} if state != "reviewing" else set())

    assert question_groups(QUESTION, state) == {"requester"} | endpoints
    assert question_groups(ANSWER, state) == {"asker"} | endpoints


@pytest.mark.parametrize(("said", "state"), CONVERSED)
def test_the_customer_is_not_notified_of_questions_and_answers_during_vendor_review(said: str, state: str) -> None:
    template = CONVERSED[said, state]

    assert type_of(said, state) == f"request.{said}"
    assert knows_of(Side.CUSTOMER, None, template) is (state != "reviewing")
    assert knows_of(Side.VENDOR, None, template)
    assert matters_until(template, NOON, NOON + timedelta(seconds=5)) == NOON + timedelta(days=1)


EVENT_TYPES = {
    ("submit", None): "request.submitted",
    ("endorse", "reviewing"): "request.endorsed",
    ("break_glass", "reviewing"): "request.break_glass",
    ("deny", "reviewing"): "request.review_denied",
    ("approve", "pending"): "request.approved",
    ("deny", "pending"): "request.denied",
    ("cancel", "reviewing"): "request.cancelled",
    ("cancel", "pending"): "request.cancelled",
    ("time_out", "reviewing"): "request.timed_out",
    ("time_out", "pending"): "request.timed_out",
    ("complete", "active"): "request.completed",
    ("revoke", "active"): "request.revoked",
    ("expire", "active"): "request.expired",
    ("remind", "reviewing"): "request.reminded",
    ("remind", "pending"): "request.reminded",
    ("escalate", "reviewing"): "request.escalated",
    ("escalate", "pending"): "request.escalated",
    ("warn", "active"): "request.closing",
    ("begin", "active"): "request.begun",
    ("hold_back", "active"): "request.held_back",
    ("unreached", "pending"): "request.unreached",
    ("unreached", "reviewing"): "request.unreached",
    ("after_review", "expired"): "request.after_review",
    ("after_review_reminder", "expired"): "request.after_review_reminded",
    ("after_review_overdue", "expired"): "request.after_review_overdue",
    ("question", "pending"): "request.question",
    ("answer", "pending"): "request.answer",
    ("connection_opened", "active"): "request.connection_opened",
    ("connection_open_failed", "active"): "request.connection_open_failed",
    ("connection_closed", "revoked"): "request.connection_closed",
    ("connection_close_failed", "revoked"): "request.connection_close_failed",
}


def test_each_kind_of_request_notification_has_exactly_one_event_type() -> None:
    moves = {(action.value, state and state.value) for state, action in MOVES}
    reminders = {(reminder.value, state) for reminder, state in REMINDER_TEMPLATES}

    assert {
        (action, state)
        for action, state in EVENT_TYPES
        if action not in {"question", "answer", *CONNECTED, *AFTER_REVIEWS}
    } == moves | reminders
    assert {key: type_of(*key) for key in EVENT_TYPES} == EVENT_TYPES
    assert set(EVENT_TYPES.values()) == TYPES


def test_customer_webhooks_get_no_event_before_the_customer_is_asked_but_vendor_webhooks_do() -> None:
    assert endpoints_to_notify(customer_knows=False) == {"vendor_endpoints"}
    assert endpoints_to_notify(customer_knows=True) == {"vendor_endpoints", "tenant_endpoints"}


CUSTOMERS_BY_MODE = {
    "enforce": {"admins", "approvers", "informed"},
    "observe": {"admins", "approvers", "informed"},
    "off": {"admins", "informed"},
}


@each(("mode", "template"), list(itertools.product(Mode, OPERATED)))
def test_the_failure_and_recovery_of_a_target_notify_the_customer_and_operators(mode: Mode, template: str) -> None:
    engineer = {"requester"} if template.startswith("connection_open") else set()

    assert connection_groups(template, mode) == CUSTOMERS_BY_MODE[mode] | {"operators"} | engineer


@each(("mode", "template"), list(itertools.product(Mode, ("connection_opened", "connection_closed"))))
def test_a_connection_opened_or_closed_at_a_target_without_failure_sends_no_mail(mode: Mode, template: str) -> None:
    assert connection_groups(template, mode) == set()


def test_notifications_to_operators_are_never_sent_to_the_customer() -> None:
    assert not [one for one in OPERATED.values() if knows_of(Side.CUSTOMER, "revoked", one)]
