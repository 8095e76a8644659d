"""Questions about a request, on a real database: who asks and answers, and who is notified."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock, StoppedClock
from harness.people import HERE, World
from harness.stage import Urls
from lockbox.admin import erasure
from lockbox.database import Database
from lockbox.errors import (
    AlreadyAnswered,
    InvalidMove,
    LockboxError,
    NotFound,
    NotYours,
    OwnRequest,
    TooLate,
    TooManyQuestions,
)
from lockbox.facts.enumerations import Mode
from lockbox.owner_transaction import as_owner
from lockbox.requests import questions, timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.requests.questions import Exchange
from lockbox.sql import new_id
from tests.database.postbag import Postbag, address, open_notifications
from tests.database.scenes import as_caller, assert_indexes_are_true, at_once, moves_of, read, state_of
from tests.each import each
from tests.policy_setup import lay_down, stand_in

HOUR = 3600
EVENTS = """
SELECT e.id, e.action, e.actor_role, e.seq, e.from_state, e.to_state, e.deadline_at, e.body,
    (SELECT d.fields #>> '{comment,1}' FROM event_details d WHERE d.event_id = e.id) AS words
FROM events e WHERE e.request_id = :id AND e.action IN ('question', 'answer') ORDER BY e.at, e.id
"""
CLOCK = "SELECT deadline_at, wake_at, stopped_at, stopped_deadline, stopped_for, version FROM requests WHERE id = :id"
TOLD = """
SELECT n.template, p.name, h.url FROM notifications n
LEFT JOIN people p ON p.id = n.person_id LEFT JOIN endpoints h ON h.id = n.endpoint_id
WHERE n.request_id = :id AND n.template IN ('question', 'answer', 'review_question', 'review_answer')
ORDER BY n.template, p.name, h.url
"""
ASK = """
INSERT INTO questions (id, tenant_id, request_id, state, stops_clock, asked_by, asked_at, asked_event)
SELECT uuidv7(), tenant_id, id, :state, false, :by, now(), uuidv7() FROM requests WHERE id = :id
"""


def ask(
    world: World, who: str, request_id: UUID, words: str = "Which mails?", db: Database | None = None
) -> Exchange:
    with (db or world.db).transaction() as session:
        return questions.ask(session, world.people[who], HERE, request_id, words)


def answer(
    world: World, request_id: UUID, question_id: UUID, who: str = "erin", db: Database | None = None
) -> Exchange:
    with (db or world.db).transaction() as session:
        return questions.answer(session, world.people[who], HERE, request_id, question_id, "Those of May")


def listed(world: World, who: str, request_id: UUID) -> list[Exchange]:
    with world.db.transaction() as session:
        return questions.of_request(session, world.people[who], request_id)


def clock_of(world: World, request_id: UUID) -> Any:
    """Return the deadline columns of a request's row."""
    (row,) = read(world.db, CLOCK, id=request_id)
    return row


def told(world: World, request_id: UUID) -> list[tuple[str, str]]:
    """Return who is notified of questions and answers, with the template."""
    return [(row.template, row.name or row.url) for row in read(world.db, TOLD, id=request_id)]


def test_questions_and_answers_are_events_but_not_moves(world: World) -> None:
    request = world.submit()
    before = clock_of(world, request.id)

    asked = ask(world, "ann", request.id)
    answered = answer(world, request.id, asked.id)

    assert (asked.question, asked.answer, asked.asker, asked.role) == ("Which mails?", None, "Ann", "approver")
    assert (answered.answer, answered.answerer) == ("Those of May", "Erin")
    first, second = read(world.db, EVENTS, id=request.id)
    assert (first.action, first.actor_role, first.seq, first.words) == ("question", "approver", None, "Which mails?")
    assert (second.action, second.actor_role, second.seq, second.words) == (
        "answer",
        "requester",
        None,
        "Those of May",
    )
    assert (first.from_state, first.to_state) == ("pending", "pending")
    assert clock_of(world, request.id) == before
    assert moves_of(world.db, request.id) == [(1, "submit", "pending")]
    assert_indexes_are_true(world.db)


def test_events_contain_only_commitments_to_question_texts(world: World) -> None:
    request = world.submit()

    ask(world, "ann", request.id, "What of <Anna>?")

    (event,) = read(world.db, EVENTS, id=request.id)
    body = json.loads(bytes(event.body))
    assert b"Anna" not in bytes(event.body)
    assert len(body["personal"]["comment"]) == 64
    assert body["question_id"] == str(listed(world, "ann", request.id)[0].id)


@each(
    ("who", "refusal"),
    [("max", NotYours), ("erin", OwnRequest), ("tara", NotYours), ("aude", NotYours), ("vera", NotYours)],
)
def test_only_approvers_may_ask_questions_about_a_pending_request(
    world: World, who: str, refusal: type[LockboxError]
) -> None:
    request = world.submit()

    with pytest.raises(refusal):
        ask(world, who, request.id)

    assert listed(world, "ann", request.id) == []


@each("who", ["eve", "olga", "gate"])
def test_people_who_may_not_see_a_request_cannot_ask_questions_about_the_request(world: World, who: str) -> None:
    request = world.submit()

    with pytest.raises(NotFound):
        ask(world, who, request.id)


def test_a_question_of_a_delegate_names_delegate_and_principal(world: World) -> None:
    stand_in(world, "aude", "ann")
    request = world.submit()

    asked = ask(world, "aude", request.id)

    (event,) = read(world.db, EVENTS, id=request.id)
    body = json.loads(bytes(event.body))
    assert (asked.asker, asked.role) == ("Aude", "approver")
    assert body["principals"] == [str(world.people["ann"].person_id)]
    assert body["on_behalf_of"] == str(world.people["ann"].person_id)


def test_the_customer_does_not_see_questions_that_managers_ask_during_the_review(api: Database) -> None:
    world = World.make(api, Policy(questions_stop_clock=True))
    request = world.submit()
    before = clock_of(world, request.id)

    asked = ask(world, "max", request.id)
    answer(world, request.id, asked.id)
    world.act("max", Action.ENDORSE, request.id)

    assert clock_of(world, request.id).stopped_for == before.stopped_for == 0
    assert listed(world, "ann", request.id) == []
    assert [one.answer for one in listed(world, "mia", request.id)] == ["Those of May"]
    assert told(world, request.id) == [("review_answer", "Max"), ("review_question", "Erin")]
    with as_caller(api, world.people["ann"]) as connection:
        assert connection.execute(text("SELECT count(*) FROM questions")).scalar_one() == 0


def test_a_manager_who_endorsed_a_request_may_ask_questions_only_after_the_window_opened(api: Database) -> None:
    world = World.make(api, Policy())
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)

    with pytest.raises(NotYours):
        ask(world, "max", request.id)
    world.act("ann", Action.APPROVE, request.id)

    assert ask(world, "max", request.id).role == "manager"
    assert ask(world, "ann", request.id).role == "approver"


@pytest.mark.far
def test_only_the_requester_answers_a_question_and_only_once(world: World) -> None:
    request, other = world.submit(), world.submit("eve")
    asked = ask(world, "ann", request.id)

    for who in ("ann", "amir", "max"):
        with pytest.raises(NotYours):
            answer(world, request.id, asked.id, who)
    with pytest.raises(NotFound):
        answer(world, other.id, asked.id, "eve")
    with pytest.raises(NotFound):
        answer(world, request.id, new_id())
    answer(world, request.id, asked.id)
    with pytest.raises(AlreadyAnswered):
        answer(world, request.id, asked.id)


def test_an_answer_is_never_dated_before_the_question(world: World, still: StoppedClock) -> None:
    request = world.submit()
    asked = ask(world, "ann", request.id)
    still.at -= timedelta(milliseconds=1)

    assert answer(world, request.id, asked.id).answered_at == asked.asked_at


def test_of_two_concurrent_answers_to_a_question_only_one_counts(world: World, pool: ThreadPoolExecutor) -> None:
    request = world.submit()
    asked = ask(world, "ann", request.id)

    done = at_once(pool, *[lambda: answer(world, request.id, asked.id)] * 2)

    assert sorted(type(one).__name__ for one in done) == ["AlreadyAnswered", "Exchange"]
    assert len(read(world.db, EVENTS, id=request.id)) == 2


@pytest.mark.parametrize("ending", [("erin", Action.CANCEL), ("ann", Action.DENY)])
def test_a_closed_request_accepts_no_questions_or_answers(world: World, ending: tuple[str, Action]) -> None:
    request = world.submit()
    asked = ask(world, "ann", request.id)
    world.act(*ending, request.id, comment="Enough")

    with pytest.raises(InvalidMove):
        ask(world, "amir", request.id)
    with pytest.raises(InvalidMove):
        answer(world, request.id, asked.id)


def test_after_the_deadline_questions_are_refused_even_if_the_timer_is_late(
    world: World, later: ShiftedClock
) -> None:
    request = world.submit()
    db = Database(world.db.engine, world.db.schedule, later)
    asked = ask(world, "ann", request.id)
    later.shift = timedelta(hours=12)

    with pytest.raises(TooLate):
        ask(world, "ann", request.id, db=db)
    with pytest.raises(TooLate):
        answer(world, request.id, asked.id, db=db)


@pytest.mark.far
def test_a_request_has_at_most_twenty_questions(world: World) -> None:
    request = world.submit()
    for number in range(questions.MOST):
        ask(world, ("ann", "amir")[number % 2], request.id)

    with pytest.raises(TooManyQuestions):
        ask(world, "abe", request.id)

    assert len(listed(world, "ann", request.id)) == questions.MOST


@pytest.mark.far
def test_a_question_notifies_the_engineer_and_an_answer_notifies_the_asker_and_both_notify_endpoints(
    world: World, post: Postbag, worker: Database
) -> None:
    post.endpoint(world, "https://tenant.example/", tenant_id=world.tenant.id)
    post.endpoint(world, "https://vendor.example/", tenant_id=None, event_types=["request.question"])
    post.endpoint(world, "https://deaf.example/", tenant_id=world.tenant.id, event_types=["request.submitted"])
    request = world.submit()
    post.deliver(worker, open_notifications(worker))
    post.mail.sent.clear()
    post.hooks.sent.clear()

    asked = ask(world, "ann", request.id, "Which <mails>?")
    post.deliver(worker, open_notifications(worker))
    (question,), calls = list(post.mail.sent), [json.loads(hook.body) for hook in post.hooks.sent]
    answer(world, request.id, asked.id)
    post.deliver(worker, open_notifications(worker))
    _, reply = post.mail.sent

    assert (question.to_address, reply.to_address) == (address(worker, world, "erin"), address(worker, world, "ann"))
    assert "Ann has a question about your request for access." in question.text
    assert "Question: Which <mails>?" in question.text
    assert "Which &lt;mails&gt;?" in question.html
    assert "Answer: Those of May" in reply.text
    assert [call["type"] for call in calls] == ["request.question"] * 2
    assert {call["data"]["state"] for call in calls} == {"pending"}
    assert all("mails" not in json.dumps(call) for call in calls)
    assert told(world, request.id) == [
        ("answer", "Ann"),
        ("answer", "https://tenant.example/"),
        ("question", "Erin"),
        ("question", "https://tenant.example/"),
        ("question", "https://vendor.example/"),
    ]


def test_a_policy_that_keeps_texts_out_of_mails_keeps_questions_out_too(
    world: World, post: Postbag, worker: Database
) -> None:
    lay_down(world, mail_justification=False, mail_link=False)
    request = world.submit()

    ask(world, "ann", request.id, "A secret word")
    post.deliver(worker, open_notifications(worker))

    (mail,) = [one for one in post.mail.sent if one.subject.startswith("Question: ")]
    assert "secret" not in mail.text + mail.html
    assert "The question is on the request's page." in mail.text
    assert "https://" not in mail.text


def test_customer_endpoints_get_questions_even_if_the_vendor_decides(api: Database, post: Postbag) -> None:
    world = World.make(api, Policy(), Mode.OFF)
    post.endpoint(world, "https://tenant.example/", tenant_id=world.tenant.id)
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)

    ask(world, "mia", request.id)

    assert told(world, request.id) == [("question", "Erin"), ("question", "https://tenant.example/")]


@pytest.mark.parametrize(
    ("who", "reads"), [("ann", True), ("aude", True), ("tara", True), ("max", True), ("vera", False)]
)
def test_only_people_who_may_read_comments_can_read_question_texts(world: World, who: str, reads: bool) -> None:  # noqa: FBT001
    request = world.submit()
    answer(world, request.id, ask(world, "ann", request.id).id)

    (one,) = listed(world, who, request.id)

    assert (one.question, one.answer) == (("Which mails?", "Those of May") if reads else (None, None))
    assert (one.asker, one.answerer) == ("Ann", "Erin")


@each("who", ["eve", "olga", "gate"])
def test_questions_are_hidden_from_people_who_may_not_see_the_request(world: World, who: str) -> None:
    request = world.submit()
    ask(world, "ann", request.id)

    with pytest.raises(NotFound):
        listed(world, who, request.id)
    with as_caller(world.db, world.people[who]) as connection:
        assert connection.execute(text("SELECT count(*) FROM questions")).scalar_one() == 0


@pytest.mark.far
def test_erasing_a_person_removes_only_that_persons_questions_and_answers(world: World, urls: Urls) -> None:
    request = world.submit()
    asked = ask(world, "ann", request.id)
    answer(world, request.id, asked.id)
    world.act("ann", Action.DENY, request.id, comment="Stays")

    with as_owner(urls.owner) as session:
        erasure.erase(session, world.people["ann"].person_id)

    (one,) = listed(world, "amir", request.id)
    assert (one.asker, one.question, one.answerer, one.answer) == (None, None, "Erin", "Those of May")
    comments = read(world.db, "SELECT fields #>> '{comment,1}' AS value FROM event_details WHERE fields ? 'comment'")
    assert {row.value for row in comments} == {"Stays", "Those of May"}


@each(
    ("who", "by", "state"),
    [
        ("ann", "amir", "pending"),
        ("erin", "erin", "pending"),
        ("max", "max", "pending"),
        ("tara", "tara", "pending"),
        ("ann", "ann", "active"),
    ],
)
def test_the_database_refuses_questions_in_another_persons_name(world: World, who: str, by: str, state: str) -> None:
    request = world.submit()
    values = {"id": request.id, "by": world.people[by].person_id, "state": state}

    with (
        pytest.raises(DBAPIError, match="row-level security"),
        as_caller(world.db, world.people[who], at=world.tenant.id) as connection,
    ):
        connection.execute(text(ASK), values)


@pytest.mark.parametrize(
    ("who", "change"),
    [
        ("ann", "answered_by = asked_by, answered_at = now(), answer_event = uuidv7()"),
        ("max", "answered_by = asked_by, answered_at = now(), answer_event = uuidv7()"),
    ],
)
def test_the_database_refuses_answers_that_another_person_writes_in_the_engineers_name(
    world: World, who: str, change: str
) -> None:
    request = world.submit()
    ask(world, "ann", request.id)

    with as_caller(world.db, world.people[who]) as connection:
        changed = connection.execute(text(f"UPDATE questions SET {change}")).rowcount  # noqa: S608 - our own

    assert changed == 0


def test_the_database_refuses_changes_of_an_answer(world: World) -> None:
    request = world.submit()
    answer(world, request.id, ask(world, "ann", request.id).id)

    with (
        pytest.raises(DBAPIError, match="was answered"),
        as_caller(world.db, world.people["erin"]) as connection,
    ):
        connection.execute(text("UPDATE questions SET answer_event = uuidv7()"))


@pytest.fixture
def slow(api: Database) -> World:
    """A world in which open questions pause the approval clock, and the approval window is an hour."""
    return World.make(api, Policy(vendor_review=False, questions_stop_clock=True, approval_window=HOUR))


def test_by_default_a_question_does_not_stop_the_approval_clock(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request = world.submit()
    asked = ask(world, "ann", request.id)

    later.shift = timedelta(hours=12)
    timers.run(sender, [request.id])

    assert not asked.stops_clock
    assert state_of(sender, request.id) == "timed_out"


def test_the_approval_clock_pauses_for_a_question_and_continues_with_the_answer(
    slow: World, later: ShiftedClock
) -> None:
    request = slow.submit()
    before = clock_of(slow, request.id)

    asked = ask(slow, "ann", request.id)
    stands = clock_of(slow, request.id)
    assert_indexes_are_true(slow.db)
    later.shift = timedelta(minutes=20)
    answer(slow, request.id, asked.id, db=Database(slow.db.engine, slow.db.schedule, later))
    goes_on = clock_of(slow, request.id)

    assert asked.stops_clock
    assert stands.deadline_at == before.deadline_at + timedelta(seconds=HOUR)
    assert (stands.stopped_deadline, stands.version) == (before.deadline_at, before.version)
    assert 1200 <= goes_on.stopped_for <= 1230
    assert goes_on.deadline_at == before.deadline_at + timedelta(seconds=goes_on.stopped_for)
    assert (goes_on.stopped_at, goes_on.stopped_deadline) == (None, None)
    assert before.wake_at < goes_on.wake_at <= goes_on.deadline_at
    assert_indexes_are_true(slow.db)
    first, second = read(slow.db, EVENTS, id=request.id)
    assert (first.deadline_at, second.deadline_at) == (stands.deadline_at, goes_on.deadline_at)


def test_an_approval_counts_within_the_time_gained_by_a_pause(slow: World, later: ShiftedClock) -> None:
    db = Database(slow.db.engine, slow.db.schedule, later)
    in_time, late = slow.fresh(), slow.fresh()
    for request in (in_time, late):
        later.shift = timedelta(minutes=30)
        asked = ask(slow, "ann", request.id, db=db)
        later.shift = timedelta(minutes=50)
        answer(slow, request.id, asked.id, db=db)

    later.shift = timedelta(minutes=79)
    slow.act("ann", Action.APPROVE, in_time.id, db)
    later.shift = timedelta(minutes=81)
    with pytest.raises(TooLate):
        slow.act("ann", Action.APPROVE, late.id, db)

    assert (state_of(db, in_time.id), state_of(db, late.id)) == ("active", "pending")
    assert clock_of(slow, in_time.id).stopped_at is None


def test_an_approver_decides_while_the_approval_clock_is_paused(slow: World, later: ShiftedClock) -> None:
    db = Database(slow.db.engine, slow.db.schedule, later)
    request = slow.submit()
    ask(slow, "ann", request.id)

    later.shift = timedelta(minutes=90)
    approved = slow.act("amir", Action.APPROVE, request.id, db)

    assert approved.opened_at is not None
    assert approved.deadline_at == approved.opened_at + timedelta(seconds=approved.access_window)
    assert (approved.stopped_at, approved.stopped_deadline) == (None, None)


def test_an_unanswered_question_pauses_the_deadline_for_at_most_one_approval_window(
    slow: World, sender: Database, later: ShiftedClock
) -> None:
    request = slow.submit()
    ask(slow, "ann", request.id)

    later.shift = timedelta(hours=1, minutes=59)
    timers.run(sender, [request.id])
    waits = state_of(sender, request.id)
    later.shift = timedelta(hours=2)
    timers.run(sender, [request.id])

    assert (waits, state_of(sender, request.id)) == ("pending", "timed_out")
    assert_indexes_are_true(sender)


def test_the_approval_clock_pauses_until_the_last_question_is_answered(slow: World, later: ShiftedClock) -> None:
    db = Database(slow.db.engine, slow.db.schedule, later)
    request = slow.submit()
    before = clock_of(slow, request.id)
    first, second = ask(slow, "ann", request.id), ask(slow, "amir", request.id)

    later.shift = timedelta(minutes=10)
    answer(slow, request.id, first.id, db=db)
    still = clock_of(slow, request.id)
    later.shift = timedelta(minutes=15)
    answer(slow, request.id, second.id, db=db)
    goes_on = clock_of(slow, request.id)
    again = ask(slow, "ann", request.id, db=db)
    most = clock_of(slow, request.id)

    assert still.stopped_at is not None
    assert 900 <= goes_on.stopped_for <= 930
    assert again.stops_clock
    assert most.deadline_at == before.deadline_at + timedelta(seconds=HOUR)


def test_a_policy_that_forbids_pausing_the_clock_applies_at_once(slow: World, later: ShiftedClock) -> None:
    db = Database(slow.db.engine, slow.db.schedule, later)
    request = slow.submit()
    ask(slow, "ann", request.id)
    lay_down(slow, approval_window=HOUR)

    later.shift = timedelta(minutes=61)

    with pytest.raises(TooLate):
        slow.act("ann", Action.APPROVE, request.id, db)


def test_reminders_follow_the_paused_approval_clock(slow: World, sender: Database, later: ShiftedClock) -> None:
    request = slow.submit()
    ask(slow, "ann", request.id)

    later.shift = timedelta(minutes=60)
    timers.run(sender, [request.id])

    (row,) = read(sender, "SELECT reminders, state, wake_at, deadline_at FROM requests WHERE id = :id", id=request.id)
    assert (row.reminders, row.state) == (1, "pending")
    assert row.wake_at < row.deadline_at


@each(
    ("who", "change"),
    [
        ("ann", "deadline_at = deadline_at + interval '1 hour'"),
        ("ann", "stopped_at = now(), stopped_deadline = deadline_at, deadline_at = deadline_at + interval '2 hours'"),
        ("max", "stopped_at = now(), stopped_deadline = deadline_at, deadline_at = deadline_at + interval '1 hour'"),
        ("erin", "stopped_at = now(), stopped_deadline = deadline_at, deadline_at = deadline_at + interval '1 hour'"),
        ("erin", "stopped_for = 1, deadline_at = deadline_at + interval '1 second'"),
    ],
)
def test_the_database_refuses_other_ways_to_lengthen_the_approval_time(slow: World, who: str, change: str) -> None:
    slow.submit()

    with (
        pytest.raises(DBAPIError),
        as_caller(slow.db, slow.people[who], at=slow.tenant.id) as connection,
    ):
        connection.execute(text(f"UPDATE requests SET {change}"))  # noqa: S608 - our own
