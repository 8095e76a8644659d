"""Mails and calls that fail: alone, within the time that is left, and without a trace in any request."""

import time
from datetime import timedelta

import pytest

from harness.clocks import ShiftedClock, StoppedClock
from harness.people import World
from lockbox.database import Database
from lockbox.notifications.delivery import LEASE
from lockbox.notifications.models import Outcome
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import NOTIFICATIONS
from tests.database.postbag import (
    DyingMail,
    Postbag,
    address,
    assert_notifications_are_held,
    notification,
    open_notifications,
)
from tests.database.scenes import promised_notifications, read

MOVES = "SELECT id, body FROM events WHERE action <> 'notified' ORDER BY id"
PAST_THE_LEASE = LEASE + timedelta(seconds=1)


def test_a_failing_address_fails_alone_and_for_good(world: World, worker: Database, post: Postbag) -> None:
    world.submit()
    post.mail.refused[address(worker, world, "amir")] = SendFailed("no such mailbox", permanent=True)

    post.deliver(worker, open_notifications(worker))

    query = "SELECT outcome, last_error FROM notifications ORDER BY person_id <> :amir"
    rows = read(worker, query, amir=world.people["amir"].person_id)
    assert [tuple(row) for row in rows] == [("dead", "no such mailbox"), ("sent", None), ("sent", None)]
    assert worker.schedule.members(NOTIFICATIONS) == {}


@pytest.mark.far
def test_a_failure_is_tried_again_within_the_time_that_is_left_and_then_is_dead(
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


def test_a_notification_whose_time_ran_out_keeps_why_its_last_try_failed(
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


def test_a_notification_that_nobody_sent_in_time_is_dead_and_not_sent(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    world.submit()
    later.shift = timedelta(hours=12, seconds=1)

    tries = post.deliver(sender, open_notifications(sender))

    assert {one.outcome for one in tries} == {Outcome.DEAD}
    assert post.mail.sent == []


def test_a_sender_that_died_is_followed_by_another_after_its_lease_with_the_same_message_id(
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


def test_an_endpoint_whose_secret_no_key_opens_fails_alone(world: World, worker: Database, post: Postbag) -> None:
    Postbag().endpoint(world, "https://old-key.example/", tenant_id=None)
    post.endpoint(world, "https://good.example/", tenant_id=None)
    world.submit()
    began = time.monotonic()

    post.deliver(worker, open_notifications(worker))

    assert [hook.url for hook in post.hooks.sent] == ["https://good.example/"]
    assert len(post.mail.sent) == 3
    assert time.monotonic() - began < 5
