"""The timer reminds, escalates and warns while a request is open, once each, and never delays the request's end."""

from collections import Counter
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.database import Database
from lockbox.facts.enumerations import Mode, State
from lockbox.requests import policy_store, timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, address, open_notifications
from tests.database.scenes import (
    as_caller,
    assert_audit_logs_are_whole,
    assert_indexes_are_true,
    many,
    moves_of,
    read,
    state_of,
    write,
)
from tests.each import each
from tests.policy_setup import group, lay_down, stand_in

REMINDERS = """
SELECT action, actor_role, seq, to_state FROM events
WHERE request_id = :id AND seq IS NULL AND action <> 'notified' ORDER BY at, id
"""
REMINDER = "UPDATE requests SET {change} WHERE id = :id"
LATER = "wake_at = wake_at + interval '1 second'"


def told(world: World, request_id: UUID, template: str) -> Counter[str]:
    """Return for whom notifications with that template were queued, by name in the world, and how many."""
    names = {caller.person_id: name for name, caller in world.people.items()}
    query = "SELECT person_id FROM notifications WHERE request_id = :id AND template = :template"
    return Counter(names[row.person_id] for row in read(world.db, query, id=request_id, template=template))


def row_of(db: Database, request_id: UUID) -> Any:
    (row,) = read(db, "SELECT * FROM requests WHERE id = :id", id=request_id)
    return row


def reminders(db: Database, request_id: UUID) -> list[str]:
    """Return the timer's acts on a request that were not moves; their events have no number."""
    rows = read(db, REMINDERS, id=request_id)
    assert all(row.actor_role == "clock" for row in rows)
    return [row.action for row in rows]


def tiered(world: World, **changes: Any) -> AccessRequest:
    """Submit a request to a tenant with two tiers: abe, then ann."""
    groups = {"first": group(world, "abe"), "second": group(world, "ann"), "gone": group(world, "aude")}
    lay_down(world, **({"tiers": [["first"], ["second"]], "groups": groups} | changes))
    return world.submit()


def test_a_reminder_goes_to_prompted_people_who_have_not_answered(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    lay_down(world, quorum=2)
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)

    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])

    assert told(world, request.id, "answer_reminder") == {"amir": 1, "abe": 1}
    assert reminders(sender, request.id) == ["remind"]
    row = row_of(sender, request.id)
    assert (row.state, row.version, row.reminders) == ("pending", 2, 1)
    assert row.wake_at == row.asked_at + 0.83 * timedelta(hours=12)
    assert_indexes_are_true(sender)
    assert_audit_logs_are_whole(sender)


def test_no_reminder_is_sent_once_everyone_has_answered(world: World, sender: Database, later: ShiftedClock) -> None:
    request = tiered(world, quorum=2, escalation=[60])
    world.act("abe", Action.APPROVE, request.id)

    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])

    row = row_of(sender, request.id)
    assert reminders(sender, request.id) == []
    assert (row.reminders, row.wake_at) == (0, row.asked_at + 0.6 * timedelta(hours=12))


def test_a_repeated_reminder_message_causes_one_reminder(world: World, sender: Database, later: ShiftedClock) -> None:
    request = world.submit()
    later.shift = timedelta(hours=6)

    assert [timers.run(sender, [request.id]).total() for _ in range(3)] == [1, 0, 0]
    assert reminders(sender, request.id) == ["remind"]


@pytest.mark.parametrize("action", [Action.DENY, Action.CANCEL])
def test_reminders_stop_once_the_request_is_settled(
    world: World, sender: Database, later: ShiftedClock, action: Action
) -> None:
    request = tiered(world)
    world.act("erin" if action is Action.CANCEL else "amir", action, request.id)

    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])

    assert reminders(sender, request.id) == []
    assert_indexes_are_true(sender)


def test_managers_are_reminded_of_a_review_and_the_customer_is_not(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    lay_down(world, vendor_review=True, review_reminders=[25])
    request = world.submit()
    ahead = row_of(sender, request.id)

    later.shift = timedelta(hours=1)
    timers.run(sender, [request.id])
    asked = world.act("max", Action.ENDORSE, request.id)

    assert ahead.wake_at == ahead.created_at + timedelta(hours=1)
    assert told(world, request.id, "review_reminder") == {"max": 1, "mia": 1}
    assert told(world, request.id, "answer_reminder") == {}
    assert asked.reminders == 0
    assert asked.asked_at is not None
    assert asked.wake_at == asked.asked_at + timedelta(hours=6)


def test_at_half_the_approval_time_the_next_tier_is_asked_and_the_first_tier_reminded(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request = tiered(world)
    before = told(world, request.id, "pending")

    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])

    assert before == {"abe": 1}
    assert told(world, request.id, "pending") == {"abe": 1, "ann": 1}
    assert told(world, request.id, "answer_reminder") == {"abe": 1}
    assert reminders(sender, request.id) == ["remind", "escalate"]
    assert (request.tiers_asked, row_of(sender, request.id).tiers_asked) == (1, 2)

    later.shift = timedelta(hours=10)
    timers.run(sender, [request.id])
    assert told(world, request.id, "answer_reminder") == {"abe": 2, "ann": 1}


def test_a_tier_that_adds_no_further_people_is_skipped_at_once(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request = tiered(world, tiers=[["first"], ["gone"], ["second"]])

    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])

    assert told(world, request.id, "pending") == {"abe": 1, "ann": 1}
    assert row_of(sender, request.id).tiers_asked == 3


def test_a_person_who_voted_early_is_not_prompted_when_their_tier_is_asked(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request = tiered(world, quorum=2, tiers=[["first"], ["second"], ["gone"]])
    world.act("ann", Action.APPROVE, request.id)

    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])

    assert told(world, request.id, "pending") == {"abe": 1}
    assert reminders(sender, request.id) == ["remind"]
    assert row_of(sender, request.id).tiers_asked == 3


def test_a_last_tier_that_adds_no_further_people_causes_no_event(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request = tiered(world, tiers=[["first"], ["gone"]], approval_reminders=[])

    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])

    assert reminders(sender, request.id) == []
    assert row_of(sender, request.id).wake_at == request.deadline_at


def test_people_with_prompts_off_get_no_reminder_and_no_escalation(
    world: World, sender: Database, later: ShiftedClock, superuser: Engine
) -> None:
    people = {"first": group(world, "abe", "amir"), "second": group(world, "ann")}
    write(superuser, "UPDATE people SET wants_prompts = false WHERE name = ANY(:names)", names=["Amir", "Ann"])
    later.shift = timedelta(hours=6)

    spared = tiered(world, groups=people)
    timers.run(sender, [spared.id])
    needed = tiered(world, groups=people, quorum=3)
    timers.run(sender, [needed.id])

    assert told(world, spared.id, "pending") == told(world, spared.id, "answer_reminder") == {"abe": 1}
    assert reminders(sender, spared.id) == ["remind"]
    assert told(world, needed.id, "pending") == {"abe": 1, "amir": 1, "ann": 1}
    assert told(world, needed.id, "answer_reminder") == {"abe": 1, "amir": 1}


def test_a_delegate_is_prompted_and_reminded_for_an_absent_approver(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request = tiered(world)
    stand_in(world, "aude", "ann", ends=24)

    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])
    later.shift = timedelta(hours=10)
    timers.run(sender, [request.id])

    assert told(world, request.id, "pending") == {"abe": 1, "aude": 1}
    assert told(world, request.id, "answer_reminder") == {"abe": 2, "aude": 1}


@pytest.mark.parametrize(
    ("mode", "hear"),
    [
        (Mode.ENFORCE, {"ann", "amir", "abe", "erin"}),
        (Mode.OBSERVE, {"ann", "amir", "abe", "tara", "erin"}),
        (Mode.OFF, {"tara", "erin"}),
    ],
)
def test_people_notified_of_an_opened_window_are_warned_before_it_closes(
    api: Database, sender: Database, later: ShiftedClock, mode: Mode, hear: set[str]
) -> None:
    world = World.make(api, Policy(), mode)
    request = world.submit(access_window=3600)
    world.act("max", Action.ENDORSE, request.id)
    if mode is Mode.ENFORCE:
        world.act("ann", Action.APPROVE, request.id)

    later.shift = timedelta(minutes=50)
    timers.run(sender, [request.id])
    timers.run(sender, [request.id])

    assert told(world, request.id, "closing") == dict.fromkeys(hear, 1)
    row = row_of(sender, request.id)
    assert (row.state, row.warned, row.wake_at) == ("active", True, row.deadline_at)
    later.shift = timedelta(minutes=60)
    timers.run(sender, [request.id])
    assert state_of(sender, request.id) == "expired"
    assert_audit_logs_are_whole(sender)


def test_a_reminder_states_the_time_left_and_skips_people_who_voted(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    lay_down(world, quorum=2)
    request = world.submit()
    post.deliver(sender, open_notifications(sender))
    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])
    world.act("ann", Action.APPROVE, request.id)
    post.mail.sent.clear()

    later.shift = timedelta(hours=7, minutes=-1)
    outcomes = Counter(one.outcome for one in post.deliver(sender, open_notifications(sender)))

    reminders = [mail for mail in post.mail.sent if not mail.subject.startswith("Receipt")]
    assert outcomes == {"sent": 4, "moot": 1}
    assert {mail.to_address for mail in reminders} == {address(sender, world, who) for who in ("amir", "abe")}
    for mail in reminders:
        by = f"{request.deadline_at.astimezone(UTC):%H:%M} UTC"
        assert mail.subject.startswith("Reminder, approval needed by ")
        assert mail.subject.endswith(f"{by}: Erin requests access to Exchange Online")
        assert "5 h left: Erin is still waiting for an answer" in mail.text


def test_a_scheduled_reminder_of_a_settled_request_is_not_sent(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    request = world.submit()
    post.deliver(sender, open_notifications(sender))
    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])
    waiting = open_notifications(sender)
    world.act("ann", Action.DENY, request.id)

    assert {one.outcome for one in post.deliver(sender, waiting)} == {"moot"}


def test_a_policy_change_affects_reminders_of_pending_requests(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request = world.submit()
    lay_down(world, approval_reminders=[50, 60])

    for hours in (6, 7.2, 10):
        later.shift = timedelta(hours=hours)
        timers.run(sender, [request.id])

    assert row_of(sender, request.id).reminders == 3


@pytest.mark.far
def test_twenty_reminders_and_twenty_time_outs_take_at_most_twenty_sql_statements(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    lay_down(world, approval_window=600)
    over = many(world, 20)
    lay_down(world)
    waiting = many(world, 20)
    later.shift = timedelta(hours=6)
    said: list[str] = []
    event.listen(sender.engine, "before_cursor_execute", lambda *call: said.append(call[2]))

    assert timers.run(sender, [*over, *waiting]) == {"timed_out": 20, "reminded": 20}

    assert {state_of(sender, one) for one in over} == {"timed_out"}
    assert all(row_of(sender, one).reminders == 1 for one in waiting)
    assert len(said) <= 20
    assert_indexes_are_true(sender)
    assert_audit_logs_are_whole(sender)


def test_an_unreadable_policy_stops_only_the_reminders_of_its_own_tenant(
    world: World, sender: Database, later: ShiftedClock, superuser: Engine
) -> None:
    broken, good = World.make(world.db).submit(), world.submit()
    with superuser.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(
            text("""UPDATE policies SET body = '{"made_up": true}' WHERE tenant_id = :id"""), {"id": broken.tenant_id}
        )

    later.shift = timedelta(hours=6)
    timers.run(sender, [broken.id, good.id])

    assert reminders(sender, good.id) == ["remind"]
    assert reminders(sender, broken.id) == []
    assert row_of(sender, broken.id).wake_at == broken.deadline_at
    later.shift = timedelta(hours=12)
    timers.run(sender, [broken.id, good.id])
    assert state_of(sender, broken.id) == state_of(sender, good.id) == "timed_out"
    assert [step for _, step, _ in moves_of(sender, broken.id)] == ["submit", "time_out"]


@each(
    "change",
    [
        f"{LATER}, justification = 'Something else'",
        f"{LATER}, deadline_at = deadline_at + interval '1 second'",
        f"{LATER}, quorum = 2",
        f"{LATER}, reminders = reminders + 2",
        f"{LATER}, reminders = reminders - 1",
        f"{LATER}, tiers_asked = tiers_asked - 1",
        "wake_at = wake_at - interval '1 second'",
        "reminders = reminders + 1",
        "version = version + 1, state = 'active', opened_at = now(), reminders = reminders + 1",
        "version = version + 1, warned = true",
    ],
)
def test_a_reminder_changes_only_the_timer_and_counters_of_a_request(
    world: World, superuser: Engine, change: str
) -> None:
    request = tiered(world)

    with pytest.raises(DBAPIError, match=r"one move at a time|only go up|reminds nobody"):
        write(superuser, REMINDER.format(change=change), id=request.id)
    write(superuser, REMINDER.format(change=f"{LATER}, reminders = reminders + 1"), id=request.id)


def test_only_the_timer_sends_reminders(world: World, api: Database, worker: Database) -> None:
    request = world.submit()
    change = REMINDER.format(change=f"{LATER}, reminders = reminders + 1")

    with as_caller(api, world.people["ann"]) as connection, pytest.raises(DBAPIError, match="one move at a time"):
        connection.execute(text(change), {"id": request.id})
    with worker.transaction() as session:
        session.execute(text(change), {"id": request.id})

    assert row_of(api, request.id).reminders == 1
    assert state_of(api, request.id) == State.PENDING


def test_requests_handled_in_a_batch_get_the_same_reminders_as_requests_handled_singly(
    world: World, worker: Database
) -> None:
    first = world.submit()
    rule = {"name": "Bob", "match": {"resources": ["mailbox:bob*"]}, "terms": {"quorum": 3, "closing_warning": 900}}
    lay_down(world, quorum=2, rules=[rule], groups={"first": group(world, "abe")}, tiers=[["first"]])
    others = [world.submit(), world.submit(resources=["mailbox:bob@contoso.example"])]
    requests = [first, *others, World.make(world.db, Policy(quorum=2)).submit()]

    with worker.transaction() as session:
        met = policy_store.effective_policies(session, [request.id for request in requests])
        assert met == {request.id: policy_store.effective_policy(session, request) for request in requests}

    assert [met[request.id].terms.quorum for request in requests] == [2, 2, 3, 2]
