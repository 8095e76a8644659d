"""Send results: many in one transaction, a bad one alone; only the holder of a claim can release it."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from harness.clocks import ShiftedClock
from harness.network import serving
from harness.people import World
from harness.stage import Urls, as_sender, unbound
from lockbox.database import Database, make_engine
from lockbox.notifications import queue
from lockbox.notifications.models import Outcome
from lockbox.notifications.outcome_events import DeliveryAttempt
from lockbox.notifications.queue import ReturnedClaim
from lockbox.notifications.results import ENOUGH, LONGEST_UNRECORDED, AttemptResult, ClaimResult, ResultRecorder
from lockbox.notifications.sending_pool import SendingPool
from tests.database.postbag import assert_notifications_are_held, notification, open_notifications
from tests.database.relay import CommitLosingProxy
from tests.database.scenes import many, read, write


def claim(db: Database, ids: Sequence[UUID]) -> list[ClaimResult]:
    """Claim notifications; return results by which all were sent except the last, whose claim is released."""
    db = as_sender(db)
    with db.transaction() as session:
        claims, at, _, _ = queue.claim(session, ids, SendingPool(first_load=1000), [])
    *sent, back = claims
    results: list[AttemptResult | ReturnedClaim] = [
        AttemptResult(
            one.notification_id,
            one.lease,
            Outcome.SENT,
            at,
            attempt=DeliveryAttempt(one.notification_id, None, "request.pending", at, timedelta(0)),
        )
        for one in sent
    ]
    results.append(ReturnedClaim(back.notification_id, back.lease, timedelta(seconds=5)))
    return [ClaimResult(db, result, Future()) for result in results]


def write_down(ended: Sequence[ClaimResult]) -> None:
    """Record these results, and wait until they are recorded."""
    recorder = ResultRecorder()
    recorder.record(ended)
    assert recorder.finish(10)


def test_send_results_of_delivered_and_failed_notifications_use_separate_transactions(
    world: World, worker: Database
) -> None:
    many(world, 4)
    notifications = open_notifications(worker)
    ended = claim(worker, notifications)

    write_down(ended)

    assert len(read(worker, "SELECT DISTINCT xmin::text FROM notifications WHERE outcome = 'sent'")) == 1
    assert len(read(worker, "SELECT DISTINCT xmin::text FROM notifications")) == 2
    assert [one.recorded.result(0) is None for one in ended] == [False] * 11 + [True]
    assert notification(worker, notifications[-1]) == (None, 0, None)
    assert_notifications_are_held(worker)


def test_send_results_gathered_without_postgres_are_written_later(world: World, worker: Database, urls: Urls) -> None:
    world.submit()
    ended = claim(worker, open_notifications(worker))[:-1]
    recorder = ResultRecorder()
    with serving(CommitLosingProxy(urls.notifications)) as relay:
        db = Database(make_engine(relay.url, role="relayed"), world.db.schedule)
        relay.losing = True
        recorder.record([replace(one, database=db) for one in ended])
        is_done = recorder.finish(LONGEST_UNRECORDED)
        relay.losing = False
        is_done_later = recorder.finish(10)
        db.engine.dispose()

    assert (is_done, is_done_later) == (False, True)
    assert [one.recorded.result(0) for one in ended] == [one.result for one in ended]
    assert {notification(worker, one.result.notification_id)[0] for one in ended} == {"sent"}


@pytest.mark.far
@pytest.mark.usefixtures("alone")
def test_one_send_result_that_cannot_be_written_does_not_block_other_results(world: World, worker: Database) -> None:
    many(world, 2)
    notifications = open_notifications(worker)
    ended = claim(worker, notifications)
    rule = f"CHECK (id <> '{notifications[2]}' OR outcome IS NULL) NOT VALID"
    write(unbound(worker), f"ALTER TABLE notifications ADD CONSTRAINT one_is_bad {rule}")
    try:
        write_down(ended)
    finally:
        write(unbound(worker), "ALTER TABLE notifications DROP CONSTRAINT one_is_bad")

    assert [notification(worker, one)[0] for one in notifications] == ["sent", "sent", None, "sent", "sent", None]
    assert [type(one.recorded.exception(0)) for one in ended].count(IntegrityError) == 1


def test_a_notification_claimed_by_another_process_is_not_released(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    world.submit()
    notifications = open_notifications(sender)
    *_, back = claim(sender, notifications)
    later.shift = queue.LEASE + timedelta(seconds=1)
    claim(sender, notifications)
    before = read(sender, "SELECT id, run_at, attempts FROM notifications ORDER BY id")

    write_down([back])

    assert back.recorded.result(0) is None
    assert read(sender, "SELECT id, run_at, attempts FROM notifications ORDER BY id") == before


def test_a_send_result_that_arrives_after_the_claim_expired_counts_only_if_the_mail_was_sent(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    world.submit()
    notifications = open_notifications(sender)
    arrived, refused, _ = (one.result for one in claim(sender, notifications))
    assert isinstance(arrived, AttemptResult)
    assert isinstance(refused, AttemptResult)
    again = replace(refused, outcome=None, run_at=refused.run_at + timedelta(seconds=2))
    later.shift = queue.LEASE + timedelta(seconds=1)
    claim(sender, notifications)
    query = "SELECT id, run_at, attempts, outcome FROM notifications WHERE id = :id"
    before = read(sender, query, id=refused.notification_id)

    for late in (again, replace(refused, outcome=Outcome.DEAD), arrived):
        write_down([ClaimResult(as_sender(sender), late, Future())])

    assert read(sender, query, id=refused.notification_id) == before
    assert [notification(sender, one.notification_id)[0] for one in (arrived, refused)] == ["sent", None]


@pytest.mark.parametrize("outcome", [Outcome.DEAD, Outcome.MOOT, None])
def test_a_send_attempt_that_was_not_recorded_leaves_the_schedule_unchanged(
    world: World, worker: Database, outcome: Outcome | None
) -> None:
    world.submit()
    first, *_ = open_notifications(worker)
    before = notification(worker, first)
    lease = world.tenant.created_at

    late = AttemptResult(first, lease, outcome, lease - queue.LEASE, "no answer")
    write_down([ClaimResult(as_sender(worker), late, Future())])

    assert notification(worker, first) == before
    assert_notifications_are_held(worker)


@pytest.mark.far
def test_send_results_are_saved_when_25_are_ready_or_half_a_second_passed_or_the_batch_ends(
    world: World, worker: Database
) -> None:
    many(world, 9)
    ended = claim(worker, open_notifications(worker))
    recorder = ResultRecorder()
    recorder.expect(len(ended) + 2)
    recorder.drop()

    recorder.record(ended[:ENOUGH])
    wait([one.recorded for one in ended[:ENOUGH]], 10)
    began = time.monotonic()
    recorder.record(ended[ENOUGH:-1])
    ended[-2].recorded.result(10)
    late = time.monotonic() - began
    recorder.drop()
    recorder.record(ended[-1:])
    ended[-1].recorded.result(10)

    assert late >= LONGEST_UNRECORDED
    assert len(read(worker, "SELECT DISTINCT xmin::text FROM notifications")) == 3
