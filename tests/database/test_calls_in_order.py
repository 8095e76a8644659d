"""The calls to an endpoint are numbered without gaps and made in order, over real connections, whatever fails."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row

from harness.clocks import ShiftedClock
from harness.outbox import fan_out_all
from harness.people import HERE, World
from harness.stage import as_sender, unbound
from harness.webhook_receiver import Call, ScriptedAnswer, WebhookReceiver, receiving
from lockbox.admin import delivery_log
from lockbox.database import Database
from lockbox.notifications import delivery, fan_out, results
from lockbox.notifications.delivery import LEASE
from lockbox.notifications.models import Outcome
from lockbox.notifications.outcome_events import DeliveryAttempt
from lockbox.notifications.queue import LONGEST_BLOCKED, LONGEST_END_BLOCKED
from lockbox.notifications.results import AttemptResult
from lockbox.notifications.sending_pool import SendingPool
from lockbox.notifications.webhook import HttpWebhooks
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import NOTIFICATIONS
from tests.database.postbag import Postbag, assert_notifications_are_held
from tests.database.scenes import at_once, many, read_as_is, write

QUEUED = "SELECT event_id AS id FROM outbox"
CALLS = "SELECT * FROM notifications WHERE endpoint_id IS NOT NULL ORDER BY endpoint_id, sequence"
OPEN = "SELECT id FROM notifications WHERE closed_at IS NULL"
DUE = f"{OPEN} AND run_at <= clock_timestamp() + :shift"
REMOVE = "UPDATE endpoints SET disabled_at = now(), why_disabled = 'by_hand', removed_at = now() WHERE id = :id"
SECONDS = timedelta(seconds=1)
FAILED = ScriptedAnswer(status=500)
TAKEN = ScriptedAnswer(status=204)


@pytest.fixture
def world(api: Database) -> World:
    return World.make(api, Policy(vendor_review=False))


@pytest.fixture
def post() -> Postbag:
    """Webhook calls go out over HTTP from a pool like the product's; mails stay in memory."""
    return Postbag(calling=HttpWebhooks(allow_http=True, seconds=20.0), sending_pool=SendingPool())


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with receiving() as receiver:
        yield receiver


def listen(world: World, post: Postbag, receiver: WebhookReceiver) -> UUID:
    return post.endpoint(world, receiver.url, tenant_id=world.tenant.id)


def deliver(post: Postbag, db: Database, query: str = QUEUED, **values: object) -> None:
    post.deliver(db, [row.id for row in read_as_is(db, query, **values)])


def deliver_due(post: Postbag, db: Database, later: ShiftedClock) -> None:
    """Deliver what is due until nothing is."""
    while ids := [row.id for row in read_as_is(db, DUE, shift=later.shift)]:
        post.deliver(db, ids)


def calls(db: Database) -> Sequence[Row[Any]]:
    return read_as_is(db, CALLS)


def numbers(heard: Sequence[Call]) -> list[int]:
    return [call.event["sequence"] for call in heard]


@pytest.mark.far
def test_every_webhook_call_states_its_sequence_number_and_its_predecessor(
    world: World, worker: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    endpoint = listen(world, post, receiver)
    with receiving() as other:
        post.endpoint(world, other.url, tenant_id=None, event_types=["request.approved"])
        for _ in range(2):
            world.act("ann", Action.APPROVE, world.submit().id)
        deliver(post, worker)
        with world.db.transaction() as session:
            delivery_log.try_out(session, world.people["tara"], HERE, endpoint)
        deliver(post, worker, OPEN)
        world.act("ann", Action.DENY, world.submit().id)
        deliver(post, worker)

    bodies = [call.event for call in receiver.calls]
    assert [body["sequence"] for body in bodies] == list(range(1, 8))
    assert [body["previous"] for body in bodies] == [None, *(body["id"] for body in bodies[:-1])]
    assert bodies[4]["type"] == "endpoint.test"
    assert numbers(other.calls) == [1, 2]
    assert other.calls[1].event["previous"] == other.calls[0].id


def test_a_webhook_call_is_sent_as_soon_as_the_preceding_call_settles(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, receiver: WebhookReceiver,
    *, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(results, "FIRST_BACK_OFF", 60 * SECONDS)
    receiver.answers = [FAILED, FAILED, TAKEN]
    listen(world, post, receiver)
    many(world, 3)

    deliver(post, sender)
    deliver_due(post, sender, later)
    first, second, third = calls(sender)
    blocked = (first.blocked_by, second.blocked_by, third.blocked_by)
    tried = numbers(receiver.calls)
    later.shift += 60 * SECONDS
    deliver(post, sender, OPEN)
    assert_notifications_are_held(sender, later.shift)
    later.shift += 120 * SECONDS
    deliver_due(post, sender, later)

    assert tried == [1]
    assert blocked == (None, first.id, second.id)
    assert second.attempts == third.attempts == 0
    assert numbers(receiver.calls) == [1, 1, 1, 2, 3]
    assert {row.outcome for row in calls(sender)} == {"sent"}
    assert sender.schedule.members(NOTIFICATIONS) == {}


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_webhook_call_answered_with_a_client_error_is_settled_and_the_next_call_released(
    world: World, worker: Database, post: Postbag, receiver: WebhookReceiver, status: int
) -> None:
    receiver.answers = [ScriptedAnswer(status=status), TAKEN]
    listen(world, post, receiver)
    many(world, 3)

    deliver(post, worker)

    assert numbers(receiver.calls) == [1, 2, 3]
    assert [row.outcome for row in calls(worker)] == ["dead", "sent", "sent"]


@pytest.mark.parametrize(
    ("ends", "longest"), [(True, LONGEST_END_BLOCKED), (False, LONGEST_BLOCKED)], ids=["end", "other"]
)
def test_a_webhook_call_waits_for_a_failing_earlier_call_only_up_to_a_time_limit(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, receiver: WebhookReceiver,
    *, ends: bool, longest: timedelta,
) -> None:  # fmt: skip
    receiver.answers = [FAILED]
    listen(world, post, receiver)
    request = world.submit()
    if ends:
        world.act("ann", Action.DENY, request.id)
    else:
        world.submit()
    deliver(post, sender)
    later.shift = longest - 30 * SECONDS
    deliver(post, sender, OPEN)
    early = numbers(receiver.calls)
    later.shift = longest + SECONDS
    receiver.answers = []

    deliver(post, sender, "SELECT id FROM notifications WHERE sequence = 2")

    assert set(early) == {1}
    assert numbers(receiver.calls)[-1] == 2
    assert [row.outcome for row in calls(sender)] == [None, "sent"]


@pytest.mark.far
def test_a_hanging_endpoint_delays_only_the_calls_to_that_endpoint(
    world: World, worker: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    post.calling = HttpWebhooks(allow_http=True, seconds=5.0)
    with receiving() as hanging:
        hanging.answers = [ScriptedAnswer(is_held=True)]
        stuck = post.endpoint(world, hanging.url, tenant_id=world.tenant.id)
        listen(world, post, receiver)
        many(world, 20)

        deliver(post, worker)

    assert numbers(receiver.calls) == list(range(1, 21))
    assert numbers(hanging.calls) == [1]
    assert {row.outcome for row in calls(worker) if row.endpoint_id != stuck} == {"sent"}


def test_a_failed_webhook_call_stops_the_batch_without_counting_attempts_for_later_calls(
    world: World, worker: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    receiver.answers = [TAKEN, TAKEN, FAILED]
    listen(world, post, receiver)
    many(world, 6)

    deliver(post, worker)

    assert numbers(receiver.calls) == [1, 2, 3]
    assert [row.outcome for row in calls(worker)] == ["sent", "sent", *[None] * 4]
    assert [row.attempts for row in calls(worker)] == [1, 1, 1, 0, 0, 0]
    assert_notifications_are_held(worker)


@pytest.mark.far
def test_concurrent_workers_keep_the_order_of_webhook_calls_without_gaps(
    world: World, worker: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    endpoints = [listen(world, post, receiver), post.endpoint(world, receiver.url, tenant_id=None)]
    batches = [many(world, 5) for _ in range(6)]
    ids = [row.id for row in read_as_is(worker, QUEUED)]
    db = as_sender(worker)

    def work(part: Sequence[UUID]) -> None:
        for one in delivery.dispatch(db, part, post.senders):
            one.result(20)

    with ThreadPoolExecutor(6) as pool:
        at_once(pool, *(lambda part=ids[number::6]: work(part) for number in range(6)))
        while left := [row.id for row in read_as_is(worker, OPEN)]:
            work(left)

    count = sum(map(len, batches))
    for endpoint in endpoints:
        own = [row for row in calls(worker) if row.endpoint_id == endpoint]
        ours = {str(row.id): row.sequence for row in own}
        assert sorted(ours.values()) == list(range(1, count + 1))
        assert [ours[call.id] for call in receiver.calls if call.id in ours] == list(range(1, count + 1))
    assert {row.last_sequence for row in read_as_is(worker, "SELECT last_sequence FROM endpoints")} == {count}


@pytest.fixture
def claimed(world: World, worker: Database, post: Postbag, receiver: WebhookReceiver) -> AttemptResult:
    """The result of an endpoint's first call, which was claimed and delivered; a second event is in the outbox."""
    endpoint = listen(world, post, receiver)
    world.submit()
    with as_sender(worker).transaction() as session:
        ids = [row.id for row in read_as_is(worker, QUEUED)]
        claims, at, _, _ = fan_out.claim(session, ids, SendingPool(), [])
    world.submit()
    ours = {row.id for row in calls(worker)}
    (call,) = [claim.notification_id for claim in claims if claim.notification_id in ours]
    attempt = DeliveryAttempt(call, endpoint, "request.submitted", at, timedelta(0), 204)
    return AttemptResult(call, at, Outcome.SENT, at, attempt=attempt, endpoint_id=endpoint)


@pytest.mark.far
def test_a_claim_of_webhook_calls_waits_for_uncommitted_results_and_considers_these_results(
    claimed: AttemptResult, worker: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with as_sender(worker).transaction() as session:
            results.record(session, [claimed])
            claiming = pool.submit(deliver, post, worker)
            wait([claiming], 0.3)
            is_waiting = not claiming.done()
        claiming.result(10)

    assert is_waiting
    assert numbers(receiver.calls) == [2]


@pytest.mark.far
def test_settling_a_webhook_call_also_releases_calls_that_another_transaction_is_queueing(
    claimed: AttemptResult, sender: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    db = as_sender(sender)

    def record() -> None:
        with db.transaction() as session:
            results.record(session, [claimed])

    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as session:
            fan_out.claim(session, [row.id for row in read_as_is(sender, QUEUED)], SendingPool(), [])
            recording = pool.submit(record)
            wait([recording], 0.3)
            is_waiting = not recording.done()
        recording.result(10)
    deliver(post, sender, f"{OPEN} AND endpoint_id IS NOT NULL AND run_at <= clock_timestamp()")

    assert is_waiting
    assert numbers(receiver.calls) == [2]
    assert_notifications_are_held(sender)


def test_webhook_calls_of_a_dead_process_are_repeated_in_order_with_the_same_ids(
    world: World, sender: Database, post: Postbag, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = sender.clock
    assert isinstance(later, ShiftedClock)
    listen(world, post, receiver)
    many(world, 4)
    monkeypatch.setattr(delivery, "failpoint", _die_after_claim)
    with pytest.raises(SystemExit):
        deliver(post, sender)
    claimed = {row.id for row in calls(sender)}
    monkeypatch.undo()

    later.shift = LEASE + SECONDS
    for row in reversed(calls(sender)):
        post.deliver(sender, [row.id])
    deliver_due(post, sender, later)

    assert numbers(receiver.calls) == [1, 2, 3, 4]
    assert {UUID(call.id) for call in receiver.calls} == claimed


@pytest.fixture
def abandoned(
    world: World, post: Postbag, sender: Database, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> Sequence[Row[Any]]:
    """Six calls that a worker has numbered but never made; the fourth is about the end of a request."""
    listen(world, post, receiver)
    first, *others = many(world, 3)
    world.act("ann", Action.DENY, first)
    for one in others:
        world.act("ann", Action.APPROVE, one)
    with monkeypatch.context() as dying:
        dying.setattr(delivery, "failpoint", _die_after_claim)
        with pytest.raises(SystemExit):
            deliver(post, sender)
    rows = calls(sender)
    assert [row.template for row in rows] == [*["pending"] * 3, "denied", *["active"] * 2]
    return rows


@pytest.mark.parametrize("order", [slice(None, None, -1), slice(1, None)], ids=["last_first", "first_last"])
def test_webhook_calls_keep_their_order_after_workers_were_away_for_a_minute(
    abandoned: Sequence[Row[Any]], sender: Database, later: ShiftedClock, post: Postbag, receiver: WebhookReceiver,
    *, order: slice,
) -> None:  # fmt: skip
    later.shift = LONGEST_BLOCKED - 30 * SECONDS

    for row in abandoned[order]:
        post.deliver(sender, [row.id])
    assert_notifications_are_held(sender, later.shift)
    deliver_due(post, sender, later)

    assert numbers(receiver.calls) == [1, 2, 3, 4, 5, 6]


def test_an_untried_webhook_call_delays_later_calls_for_fifteen_minutes_at_most(
    abandoned: Sequence[Row[Any]], sender: Database, later: ShiftedClock, post: Postbag, receiver: WebhookReceiver
) -> None:
    later.shift = LONGEST_BLOCKED + 5 * SECONDS

    post.deliver(sender, [row.id for row in abandoned[1:]])

    assert numbers(receiver.calls) == [2, 3, 4, 5, 6]


@pytest.mark.usefixtures("abandoned")
def test_the_call_about_the_end_of_a_request_waits_sixty_seconds_after_its_predecessor_fails(
    sender: Database, later: ShiftedClock, post: Postbag, receiver: WebhookReceiver
) -> None:
    receiver.answers = [FAILED]
    later.shift = 5 * LONGEST_END_BLOCKED
    deliver_due(post, sender, later)
    later.shift += LONGEST_END_BLOCKED - 30 * SECONDS
    deliver_due(post, sender, later)
    early = numbers(receiver.calls)
    later.shift += 35 * SECONDS
    deliver_due(post, sender, later)

    assert set(early) == {1}
    assert set(numbers(receiver.calls)) == {1, 4}


def test_only_the_webhook_call_about_the_end_of_a_request_overtakes_a_failing_earlier_call(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, receiver: WebhookReceiver
) -> None:
    receiver.answers = [TAKEN, FAILED, TAKEN]
    endpoint = listen(world, post, receiver)
    first, second = many(world, 2)
    deliver(post, sender)
    # As once another call has arrived.
    write(unbound(sender), "UPDATE endpoints SET failing_since = NULL WHERE id = :id", id=endpoint)
    world.act("ann", Action.DENY, first)
    world.act("ann", Action.APPROVE, second)
    deliver(post, sender)
    later.shift = LONGEST_END_BLOCKED + 5 * SECONDS

    post.deliver(sender, [row.id for row in calls(sender) if row.sequence > 2])

    assert numbers(receiver.calls) == [1, 2, 3]
    assert_notifications_are_held(sender, later.shift)


def _die_after_claim(name: str) -> None:
    if name == "notify.after_claim":
        raise SystemExit(137)


def test_webhook_calls_of_a_removed_endpoint_block_no_other_calls(
    world: World, worker: Database, post: Postbag, receiver: WebhookReceiver
) -> None:
    gone = listen(world, post, receiver)
    world.submit()
    fan_out_all(as_sender(worker))
    write(unbound(worker), REMOVE, id=gone)

    deliver(post, worker, OPEN)

    assert receiver.calls == []
    assert [(row.outcome, row.sequence) for row in calls(worker)] == [("moot", None)]
