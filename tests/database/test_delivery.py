"""Notifications are claimed by one process, sent and recorded; one that fails affects no other and no request."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from harness.clocks import ShiftedClock, StoppedClock
from harness.network import serving
from harness.people import World
from harness.stage import Urls
from lockbox import reconcile
from lockbox.database import Database, make_engine
from lockbox.errors import InvalidMove
from lockbox.identity import attempt_limits
from lockbox.identity.attempt_limits import AttemptLimits
from lockbox.notifications import mailed_codes
from lockbox.notifications.delivery import LEASE
from lockbox.notifications.models import Outcome
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import CLOCK, NOTIFICATIONS, IndexEntry
from lockbox.sql import new_id
from tests.database.postbag import (
    PUBLIC_URL,
    DyingMail,
    Postbag,
    SlowMail,
    address,
    assert_notifications_are_held,
    notification,
    open_notifications,
)
from tests.database.relay import CommitLosingProxy
from tests.database.scenes import moves_of, promised_notifications, read, state_of, write, write_unchecked
from tests.policy_setup import lay_down


def test_sent_notifications_are_closed_and_removed_from_the_notification_index(
    world: World, worker: Database, post: Postbag
) -> None:
    post.endpoint(world, "https://hooks.contoso.example/", tenant_id=world.tenant.id)
    request = world.submit()
    notifications = open_notifications(worker)

    tries = post.deliver(worker, notifications)

    assert {one.outcome for one in tries} == {Outcome.SENT}
    assert [notification(worker, one) for one in notifications] == [("sent", 1, None)] * 4
    assert {mail.to_name for mail in post.mail.sent} == {"Ann", "Amir", "Abe"}
    (hook,) = post.hooks.sent
    assert {mail.message_id for mail in post.mail.sent} | {f"<{hook.hook_id}@lockbox.vendor.example>"} == {
        f"<{one}@lockbox.vendor.example>" for one in notifications
    }
    assert all(f"{PUBLIC_URL}/requests/{request.id}" in mail.text for mail in post.mail.sent)
    assert worker.schedule.members(NOTIFICATIONS) == {}


@pytest.mark.parametrize("when", ["before", "since"])
def test_a_mail_contains_only_what_the_matching_policy_rule_allows(
    world: World, worker: Database, post: Postbag, when: str
) -> None:
    terse = {
        "name": "terse",
        "match": {"actions": ["read"]},
        "terms": {"mail_link": False, "mail_justification": False},
    }
    if when == "before":
        lay_down(world, rules=[terse])
    request = world.submit()
    if when == "since":
        lay_down(world, rules=[terse])

    post.deliver(worker, open_notifications(worker))

    assert len(post.mail.sent) == 3
    for mail in post.mail.sent:
        for body in (mail.text, mail.html):
            assert PUBLIC_URL not in body
            assert request.justification not in body
            assert str(request.id) in body


def test_a_notification_is_sent_once_even_if_its_queue_message_is_repeated(
    world: World, worker: Database, post: Postbag
) -> None:
    world.submit()
    notifications = open_notifications(worker)

    post.deliver(worker, notifications)
    again = post.deliver(worker, [*notifications, *notifications])

    assert again == []
    assert len(post.mail.sent) == 3


def test_a_prompt_is_dropped_once_the_request_is_settled(world: World, worker: Database, post: Postbag) -> None:
    request = world.submit()
    prompts = open_notifications(worker)
    world.act("ann", Action.DENY, request.id)

    tries = post.deliver(worker, prompts)

    assert {one.outcome for one in tries} == {Outcome.MOOT}
    assert post.mail.sent == []
    assert not worker.schedule.members(NOTIFICATIONS).keys() & {f"notify:{prompt}" for prompt in prompts}


def test_the_outcome_mail_is_sent_even_if_the_request_has_moved_on(
    world: World, worker: Database, post: Postbag
) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    world.act("erin", Action.COMPLETE, request.id)

    post.deliver(worker, open_notifications(worker))

    subjects = {mail.subject.split(":")[0] for mail in post.mail.sent if mail.to_name == "Erin"}
    assert len(subjects) == 2
    assert any("is open" in subject for subject in subjects)


@pytest.mark.parametrize(
    "gone",
    ["UPDATE people SET disabled_at = now() WHERE id = :id", "DELETE FROM memberships WHERE person_id = :id"],
    ids=["disabled", "left"],
)
def test_disabled_people_and_former_members_get_no_mail(
    world: World, worker: Database, superuser: Engine, post: Postbag, gone: str
) -> None:
    world.submit()
    write(superuser, gone, id=world.people["ann"].person_id)

    post.deliver(worker, open_notifications(worker))

    assert {mail.to_name for mail in post.mail.sent} == {"Amir", "Abe"}


def test_sending_holds_no_row_lock_and_no_second_process_sends_the_same_notification(
    world: World, worker: Database, pool: ThreadPoolExecutor
) -> None:
    slow, second = Postbag(mail=SlowMail()), Postbag()
    assert isinstance(slow.mail, SlowMail)
    request = world.submit()
    notifications = open_notifications(worker)

    first = pool.submit(slow.deliver, worker, notifications[:1])
    slow.mail.sending.wait(10)
    opened = world.act("ann", Action.APPROVE, request.id)
    others = second.deliver(worker, notifications[:1])
    slow.mail.let_go.set()

    assert [one.outcome for one in first.result(10)] == [Outcome.SENT]
    assert opened.version == 2
    assert others == []
    assert second.mail.sent == []
    assert f"notify:{notifications[0]}" not in worker.schedule.members(NOTIFICATIONS)


def test_a_queue_message_before_the_retry_time_sends_no_mail_and_keeps_the_retry_scheduled(
    world: World, worker: Database, post: Postbag
) -> None:
    world.submit()
    post.mail.refused[address(worker, world, "ann")] = SendFailed("try later")
    post.deliver(worker, open_notifications(worker))
    (waiting,) = open_notifications(worker)
    worker.schedule.arm(NOTIFICATIONS, [IndexEntry(str(waiting), "notify", None)])

    early = post.deliver(worker, [waiting])

    assert early == []
    assert_notifications_are_held(worker)


def test_unknown_ids_are_dropped_from_the_notification_index(world: World, worker: Database, post: Postbag) -> None:
    world.submit()
    unknown = new_id()
    worker.schedule.arm(NOTIFICATIONS, [IndexEntry(str(unknown), "notify", timedelta(0))])

    post.deliver(worker, [unknown, *open_notifications(worker)])

    assert worker.schedule.members(NOTIFICATIONS) == {}


def test_a_locked_notification_is_skipped_and_not_lost(
    world: World, worker: Database, superuser: Engine, post: Postbag
) -> None:
    world.submit()
    held, *_ = notifications = open_notifications(worker)

    with superuser.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        holder.execute(text("SELECT FROM notifications WHERE id = :id FOR UPDATE"), {"id": held})
        post.deliver(worker, notifications)
        holder.rollback()

    assert len(post.mail.sent) == 2
    assert worker.schedule.members(NOTIFICATIONS).keys() == promised_notifications(worker).keys()
    assert f"notify:{held}" in worker.schedule.members(NOTIFICATIONS)
    assert [one.outcome for one in post.deliver(worker, [held])] == [Outcome.SENT]


def test_a_mail_shows_times_in_the_time_zone_that_the_reader_has_at_the_moment_of_sending(
    world: World, worker: Database, superuser: Engine, post: Postbag
) -> None:
    world.submit()
    write(superuser, "UPDATE people SET time_zone = 'Asia/Tokyo' WHERE id = :id", id=world.people["ann"].person_id)

    post.deliver(worker, open_notifications(worker))

    for mail in post.mail.sent:
        assert (" JST (" in mail.text) == (" JST (" in mail.html) == (mail.to_name == "Ann")
        assert " UTC" in mail.text
        assert "ends in @vendor.example and its Message-ID in" in mail.text


def test_a_sign_in_code_is_sent_before_older_notifications(world: World, worker: Database) -> None:
    world.submit()
    (ann,) = read(world.db, "SELECT email FROM people WHERE id = :id", id=world.people["ann"].person_id)
    with world.db.transaction() as session:
        mailed_codes.send_code(session, ann.email)

    (first,) = worker.schedule.claim(NOTIFICATIONS, most=1).ids["notify"]

    (row,) = read(worker, "SELECT template FROM notifications WHERE id = :id", id=UUID(first))
    assert row.template == "sign_in_code"


MOVES = "SELECT id, body FROM events WHERE action <> 'notified' ORDER BY id"
PAST_THE_LEASE = LEASE + timedelta(seconds=1)


def test_a_permanent_failure_of_one_mail_address_does_not_affect_other_addresses(
    world: World, worker: Database, post: Postbag
) -> None:
    world.submit()
    post.mail.refused[address(worker, world, "amir")] = SendFailed("no such mailbox", permanent=True)

    post.deliver(worker, open_notifications(worker))

    query = "SELECT outcome, last_error FROM notifications ORDER BY person_id <> :amir"
    rows = read(worker, query, amir=world.people["amir"].person_id)
    assert [tuple(row) for row in rows] == [("dead", "no such mailbox"), ("sent", None), ("sent", None)]
    assert worker.schedule.members(NOTIFICATIONS) == {}


@pytest.mark.far
def test_a_failed_notification_is_retried_until_it_expires_and_is_then_recorded_as_dead(
    api: Database, worker: Database, still: StoppedClock, post: Postbag
) -> None:
    world = World.make(api, Policy(vendor_review=False, approval_window=60))
    request = world.submit()
    (first,) = [row.id for row in read(api, "SELECT id FROM notifications ORDER BY id LIMIT 1")]
    post.mail.refused = {address(api, world, name): SendFailed("try later") for name in ("ann", "amir", "abe")}
    waits, ends = [], request.deadline_at

    while True:
        (attempt,) = post.deliver(worker, [first])
        if attempt.outcome is not None:
            break
        waits.append((attempt.run_at - still.at).total_seconds())
        assert attempt.run_at < ends
        assert worker.schedule.members(NOTIFICATIONS) == promised_notifications(worker)
        still.at = attempt.run_at

    assert attempt.outcome is Outcome.DEAD
    assert ends - still.at <= timedelta(seconds=1)
    assert notification(worker, first) == ("dead", len(waits) + 1, "try later")
    assert 8 <= len(waits) <= 20
    # Jitter takes up to a quarter of each.
    assert 1.5 <= waits[0] <= 2
    assert 3 <= waits[1] <= 4
    assert max(waits) <= 15
    assert f"notify:{first}" not in worker.schedule.members(NOTIFICATIONS)


def test_an_expired_notification_keeps_the_error_of_the_last_attempt(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    world.submit()
    (first, *_) = open_notifications(sender)
    post.mail.refused = {address(sender, world, name): SendFailed("try later") for name in ("ann", "amir", "abe")}
    post.deliver(sender, [first])
    later.shift = timedelta(hours=12, seconds=1)

    (attempt,) = post.deliver(sender, [first])

    assert attempt.outcome is Outcome.DEAD
    error = "not delivered before it stopped mattering; the last try failed: try later"
    assert notification(sender, first) == ("dead", 2, error)


def test_a_notification_not_sent_in_time_is_dead(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    world.submit()
    later.shift = timedelta(hours=12, seconds=1)

    tries = post.deliver(sender, open_notifications(sender))

    assert {one.outcome for one in tries} == {Outcome.DEAD}
    assert post.mail.sent == []


def test_the_mail_of_a_crashed_sender_is_resent_after_the_lease_with_the_same_message_id(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    dying, next_one = Postbag(mail=DyingMail()), Postbag()
    world.submit()
    notifications = open_notifications(sender)

    with pytest.raises(SystemExit):
        dying.deliver(sender, notifications[:1])
    at_once_after = next_one.deliver(sender, notifications[:1])
    assert_notifications_are_held(sender)
    later.shift = PAST_THE_LEASE
    tries = next_one.deliver(sender, notifications[:1])

    assert at_once_after == []
    assert [one.outcome for one in tries] == [Outcome.SENT]
    assert [mail.message_id for mail in next_one.mail.sent] == [mail.message_id for mail in dying.mail.sent]
    assert notification(sender, notifications[0]) == ("sent", 2, None)


@pytest.mark.parametrize("permanent", [True, False])
def test_failing_mails_and_webhooks_never_change_a_request(
    world: World, worker: Database, post: Postbag, *, permanent: bool
) -> None:
    for tenant_id, url in ((world.tenant.id, "https://a.example/"), (None, "https://b.example/")):
        post.endpoint(world, url, tenant_id=tenant_id)
        post.hooks.refused[url] = SendFailed("down", permanent=permanent)
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    for row in read(worker, "SELECT email FROM people"):
        post.mail.refused[row.email] = SendFailed("down", permanent=permanent)
    before = read(worker, "SELECT * FROM requests"), read(worker, MOVES)

    tries = post.deliver(worker, open_notifications(worker))

    after = read(worker, "SELECT * FROM requests"), read(worker, MOVES)
    assert {one.outcome for one in tries if one.error} == ({Outcome.DEAD} if permanent else {None})
    assert before == after
    assert post.mail.sent == []
    assert post.hooks.sent == []


def test_an_endpoint_secret_that_cannot_be_decrypted_fails_the_calls_of_that_endpoint_only(
    world: World, worker: Database, post: Postbag
) -> None:
    Postbag().endpoint(world, "https://old-key.example/", tenant_id=None)
    post.endpoint(world, "https://good.example/", tenant_id=None)
    world.submit()
    began = time.monotonic()

    post.deliver(worker, open_notifications(worker))

    assert [hook.url for hook in post.hooks.sent] == ["https://good.example/"]
    assert len(post.mail.sent) == 3
    assert time.monotonic() - began < 5


LIMITS = AttemptLimits(per_account=2, per_address=100)
BEGUN = """
INSERT INTO sign_ins (id, browser_hash, means, email, code_nonce, tries, created_at, expires_at, used_at)
VALUES (uuidv7(), decode(repeat('00', 36), 'hex'), 'mail', 'ann@contoso.example', '', 4, now(),
    now() + interval '10 minutes', now())
"""
FORGOTTEN = {
    "fewer": "UPDATE sign_in_counts SET count = 1",
    "below nothing": "UPDATE sign_in_counts SET count = -1000000, since = clock_timestamp()",
    "from anew": "UPDATE sign_in_counts SET count = 1, since = clock_timestamp()",
    "from long ago": "UPDATE sign_in_counts SET since = 'epoch'",
    "of somebody else": "UPDATE sign_in_counts SET key = sha256(key)",
    "gone": "DELETE FROM sign_in_counts",
    "credit": "INSERT INTO sign_in_counts VALUES (sha256('x'), now(), -1000000)",
}


def tried(db: Database, account: str = "ann@contoso.example") -> timedelta | None:
    with db.transaction() as session:
        return attempt_limits.count(session, LIMITS, account=account).wait


def does(db: Database, statement: str) -> Callable[[], None]:
    def run() -> None:
        with db.transaction() as session:
            session.execute(text(statement))

    return run


@pytest.mark.parametrize("statement", FORGOTTEN.values())
def test_the_apis_database_role_cannot_delete_sign_in_attempts(world: World, statement: str) -> None:
    waits = [tried(world.db) for _ in range(3)]

    with pytest.raises(DBAPIError):
        does(world.db, statement)()

    assert waits[:2] == [None, None]
    assert waits[2] is not None
    assert tried(world.db) is not None


@pytest.mark.parametrize("change", ["tries = 0", "used_at = NULL", "used_at = now() + interval '1 second'"])
def test_the_apis_database_role_cannot_grant_further_tries_at_a_sign_in_code(
    world: World, superuser: Engine, change: str
) -> None:
    write_unchecked(superuser, BEGUN)
    (row,) = read(superuser, "SELECT id FROM sign_ins")

    with world.db.transaction() as session:
        session.execute(text("SELECT set_config('lockbox.sign_in', :id, true)"), {"id": str(row.id)})
        with pytest.raises(DBAPIError, match="has no more tries"):
            session.execute(text(f"UPDATE sign_ins SET {change}"))  # noqa: S608 - ours


def test_sign_in_attempt_counts_restart_after_ten_minutes_and_are_deleted_in_an_hour(
    world: World, worker: Database, superuser: Engine
) -> None:
    for _ in range(3):
        tried(world.db)
    assert tried(world.db) is not None
    write_unchecked(superuser, "UPDATE sign_in_counts SET since = since - interval '10 minutes'")
    assert tried(world.db) is None

    with pytest.raises(DBAPIError, match="for ten minutes"):
        does(worker, "DELETE FROM sign_in_counts WHERE since < now() + interval '1 minute'")()
    list(reconcile.reconcile(worker, None))
    assert len(read(superuser, "SELECT FROM sign_in_counts")) == 1

    write_unchecked(superuser, "UPDATE sign_in_counts SET since = since - interval '1 hour'")
    list(reconcile.reconcile(worker, None))
    assert read(superuser, "SELECT FROM sign_in_counts") == []


@pytest.fixture
def worker_relay(urls: Urls) -> Iterator[CommitLosingProxy]:
    with serving(CommitLosingProxy(urls.worker)) as relay:
        yield relay


@pytest.fixture
def api_relay(urls: Urls) -> Iterator[CommitLosingProxy]:
    with serving(CommitLosingProxy(urls.api)) as relay:
        yield relay


def test_a_timer_run_whose_commit_was_not_acknowledged_is_repeated_without_effect(
    world: World, worker_relay: CommitLosingProxy, later: ShiftedClock
) -> None:
    request = world.submit()
    later.shift = timedelta(hours=13)
    worker = Database(make_engine(worker_relay.url, role="relayed"), world.db.schedule, clock=later)

    worker_relay.losing = True
    with pytest.raises(OperationalError):
        timers.run(worker, [request.id])
    worker_relay.losing = False
    held = worker.schedule.members(CLOCK)
    moved = timers.run(worker, [request.id]).total()

    worker.engine.dispose()
    assert worker_relay.lost == 1
    assert held.keys() == {f"remind:{request.id}"}
    assert moved == 0
    assert moves_of(world.db, request.id) == [(1, "submit", "pending"), (2, "time_out", "timed_out")]
    assert read(world.db, "SELECT count(*) AS n FROM notifications WHERE template = 'timed_out'")[0].n == 4
    assert world.db.schedule.members(CLOCK) == {}


def test_an_approval_repeated_after_a_lost_answer_reports_that_access_is_open(
    world: World, api_relay: CommitLosingProxy
) -> None:
    request = world.submit()
    db = Database(make_engine(api_relay.url, role="relayed"), world.db.schedule)

    api_relay.losing = True
    with pytest.raises(OperationalError):
        world.act("ann", Action.APPROVE, request.id, db)
    api_relay.losing = False
    with pytest.raises(InvalidMove) as refused:
        world.act("ann", Action.APPROVE, request.id, db)

    db.engine.dispose()
    assert refused.value.facts["current_state"] == "active"
    assert state_of(world.db, request.id) == "active"
    assert [move for _, move, _ in moves_of(world.db, request.id)] == ["submit", "approve"]
    assert read(world.db, "SELECT count(*) AS n FROM decisions")[0].n == 1


def test_a_submitted_request_whose_commit_is_unacknowledged_is_kept_but_not_scheduled(
    world: World, api_relay: CommitLosingProxy
) -> None:
    db = Database(make_engine(api_relay.url, role="relayed"), world.db.schedule)

    api_relay.losing = True
    with pytest.raises(OperationalError):
        world.submit(db=db)

    db.engine.dispose()
    assert [row.state for row in read(world.db, "SELECT state FROM requests")] == ["pending"]
    assert world.db.schedule.members(CLOCK) == {}
    assert world.db.schedule.members(NOTIFICATIONS) == {}
