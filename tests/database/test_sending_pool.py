"""No server delays another: a notification without a slot is postponed untried, not lost, and never sent twice."""

import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import pytest

from harness.clocks import ShiftedClock, StoppedClock
from harness.mail_relay import MailRelay, relaying
from harness.people import World
from harness.stage import as_sender, unbound
from harness.wait import within
from harness.webhook_receiver import receiving
from lockbox.database import Database, now
from lockbox.notifications import delivery
from lockbox.notifications.circuit_breaker import FIRST_LOAD, FIRST_OPEN, MOST_SILENCES, domain_of
from lockbox.notifications.models import Outcome
from lockbox.notifications.results import AttemptResult
from lockbox.notifications.send_job import Senders
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.notifications.senders.smtp import SmtpMail
from lockbox.notifications.sending_pool import SendingPool
from lockbox.notifications.webhook import HttpWebhooks
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import NOTIFICATIONS
from tests.database.postbag import (
    SENDER,
    Postbag,
    SlowMail,
    address,
    assert_notifications_are_held,
    open_notifications,
)
from tests.database.scenes import at_once, many, read, write

SOON = 8.0
HOOKS = "SELECT * FROM notifications WHERE endpoint_id IS NOT NULL ORDER BY id"
LOGGED = "SELECT count(*) AS n FROM deliveries"
TRIED = "SELECT coalesce(sum(attempts), 0) AS n FROM notifications"


class PoolClock:
    """The sending pool's clock, which stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> PoolClock:
    return PoolClock()


@contextmanager
def black_hole() -> Iterator[str]:
    """The URL of an endpoint that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as silent:
        yield f"http://127.0.0.1:{silent.getsockname()[1]}/"


def refused() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        return f"http://127.0.0.1:{closing.getsockname()[1]}/"


def sending(relay: MailRelay | None = None, seconds: float = 10.0, clock: PoolClock | None = None) -> Postbag:
    mail = SmtpMail(f"smtp://127.0.0.1:{relay.port}", sender=SENDER, seconds=seconds) if relay else None
    sending_pool = SendingPool(clock=clock or time.monotonic)
    return Postbag(mailing=mail, calling=HttpWebhooks(allow_http=True, seconds=seconds), sending_pool=sending_pool)


def ended(futures: Sequence["Future[AttemptResult | None]"]) -> list[AttemptResult | None]:
    return [future.result(20) for future in futures]


def number(db: Database, query: str) -> int:
    return int(read(db, query)[0].n)


def hooks(db: Database) -> list[UUID]:
    return [row.id for row in read(db, HOOKS) if row.closed_at is None]


def shut(world: World, db: Database, post: Postbag, senders: Senders) -> UUID:
    """Open the circuit breaker of a server by unanswered calls; return another endpoint on that server."""
    url = refused()
    for _ in range(MOST_SILENCES):
        post.endpoint(world, url, tenant_id=world.tenant.id)
    world.submit()
    assert [one and one.outcome for one in ended(delivery.dispatch(as_sender(db), hooks(db), senders))] == [None] * 3
    return post.endpoint(world, url, tenant_id=world.tenant.id)


@pytest.mark.far
def test_a_hanging_endpoint_and_mail_domain_delay_no_other_destinations(world: World, worker: Database) -> None:
    write(
        unbound(worker),
        "UPDATE people SET email = 'ann@hangs.example' WHERE id = :id",
        id=world.people["ann"].person_id,
    )
    with relaying(hangs_for="hangs.example") as relay, receiving() as receiver, black_hole() as hole:
        post = sending(relay)
        for url in (hole, receiver.url):
            post.endpoint(world, url, tenant_id=world.tenant.id)
        many(world, FIRST_LOAD // 2)
        began = time.monotonic()

        futures = delivery.dispatch(as_sender(worker), open_notifications(worker), post.senders)

        assert time.monotonic() - began < SOON
        assert within(SOON, lambda: len(open_notifications(worker)) == 16)
        assert (len(receiver.calls), len(relay.taken)) == (8, 16)
    results = ended(futures)
    assert {result.outcome for result in results if result} == {Outcome.SENT, None}
    assert number(worker, TRIED) == number(worker, LOGGED)
    assert_notifications_are_held(worker)


@pytest.mark.far
def test_an_open_circuit_breaker_uses_up_no_try_and_writes_no_log_line_or_notice(
    world: World, sender: Database, later: ShiftedClock, clock: PoolClock
) -> None:
    post = sending(clock=clock)
    senders = post.senders
    further = shut(world, sender, post, senders)
    logged = number(sender, LOGGED)
    world.submit()

    assert ended(delivery.dispatch(as_sender(sender), hooks(sender), senders)) == []

    (row,) = [one for one in read(sender, HOOKS) if one.endpoint_id == further]
    with sender.transaction() as session:
        waits = (row.run_at - now(session)).total_seconds()
    assert (row.attempts, row.closed_at, row.last_error) == (0, None, None)
    assert FIRST_OPEN - 1 < waits < FIRST_OPEN * 1.3
    assert number(sender, LOGGED) == logged
    assert_notifications_are_held(sender)

    clock.now += FIRST_OPEN
    later.shift += timedelta(seconds=10)
    with receiving() as receiver:
        write(unbound(sender), "UPDATE endpoints SET url = :url", url=receiver.url)
        (first, *_) = ended(delivery.dispatch(as_sender(sender), [row.id], senders))
    assert first
    assert (first.outcome, len(receiver.calls)) == (Outcome.SENT, 1)


@pytest.mark.far
def test_returning_a_notification_unsent_to_the_queue_does_not_count_as_an_attempt(
    world: World, worker: Database, clock: PoolClock
) -> None:
    post = sending(seconds=0.5, clock=clock)
    with black_hole() as hole:
        for _ in range(10):
            post.endpoint(world, hole, tenant_id=world.tenant.id)
        world.submit()

        results = ended(delivery.dispatch(as_sender(worker), hooks(worker), post.senders))

    tried = [result for result in results if result]
    assert MOST_SILENCES <= len(tried) <= 8
    assert number(worker, "SELECT sum(attempts) AS n FROM notifications WHERE channel = 'webhook'") == len(tried)
    assert number(worker, LOGGED) == len(tried)
    assert all(row.closed_at is None for row in read(worker, HOOKS))
    assert_notifications_are_held(worker)


@pytest.fixture
def short(api: Database) -> World:
    """A world in which a prompt expires after a minute."""
    return World.make(api, Policy(vendor_review=False, approval_window=60))


def test_a_call_that_expires_while_its_circuit_breaker_is_open_is_dead_and_states_that_reason(
    short: World, sender: Database, clock: PoolClock
) -> None:
    post = sending(clock=clock)
    senders = post.senders
    further = shut(short, sender, post, senders)
    short.submit()
    (row,) = [one for one in read(sender, HOOKS) if one.endpoint_id == further]

    sender.clock = StoppedClock(row.until_at - timedelta(seconds=3))
    assert delivery.deliver(as_sender(sender), [row.id], senders) == []
    (put_off,) = read(sender, "SELECT * FROM notifications WHERE id = :id", id=row.id)
    sender.clock = StoppedClock(put_off.run_at)
    (one,) = delivery.deliver(as_sender(sender), [row.id], senders)

    assert put_off.run_at == row.until_at - timedelta(seconds=1)
    assert one.outcome is Outcome.DEAD
    assert "does not answer" in (one.error or "")
    assert not read(sender, "SELECT FROM deliveries WHERE notification_id = :id", id=row.id)
    assert f"notify:{row.id}" not in sender.schedule.members(NOTIFICATIONS)


def test_a_prompt_behind_an_open_circuit_breaker_is_dropped_if_the_request_was_decided(
    short: World, sender: Database, later: ShiftedClock, clock: PoolClock
) -> None:
    sending_pool = SendingPool(clock=clock)
    post = Postbag(sending_pool=sending_pool)
    silent = SendFailed("no answer", kind="time")
    post.mail.refused = {address(sender, short, name): silent for name in ("ann", "amir", "abe")}
    short.submit()
    post.deliver(sender, open_notifications(sender))
    fresh = short.submit()
    (row, *_) = read(sender, "SELECT * FROM notifications WHERE request_id = :id ORDER BY id", id=fresh.id)
    short.act("ann", Action.DENY, fresh.id)

    later.shift = row.until_at - fresh.created_at - timedelta(milliseconds=900)
    (one,) = delivery.deliver(as_sender(sender), [row.id], post.senders)

    assert sending_pool.mail.enter(domain_of(address(sender, short, "ann"))) > 0
    assert one.outcome is Outcome.MOOT


@pytest.mark.far
def test_two_workers_with_separate_breakers_send_each_notification_once(
    world: World, worker: Database, pool: ThreadPoolExecutor
) -> None:
    with receiving() as receiver, black_hole() as hole:
        first, second = sending(seconds=1.0), sending(seconds=1.0)
        second.vault = first.vault
        for url in (hole, receiver.url):
            first.endpoint(world, url, tenant_id=world.tenant.id)
        many(world, 12)
        notifications = open_notifications(worker)

        at_once(
            pool,
            *(lambda post=post: post.deliver(worker, notifications) for post in (first, second)),
        )

        mails = [mail.message_id for mail in first.mail.sent + second.mail.sent]
        assert len(mails) == len(set(mails))
        assert within(
            10, lambda: [post.deliver(worker, notifications) for post in (first, second)] and _only_hole(worker)
        )
    called = [call.headers["webhook-id"] for call in receiver.calls]
    assert len(called) == len(set(called)) == 12
    assert number(worker, TRIED) == number(worker, LOGGED)


def _only_hole(db: Database) -> bool:
    return len(open_notifications(db)) == 12


@pytest.mark.far
def test_a_stopping_worker_returns_queued_notifications_and_the_next_worker_sends_them_at_once(
    world: World, worker: Database
) -> None:
    slow, following = Postbag(mail=SlowMail(), sending_pool=SendingPool()), Postbag()
    assert isinstance(slow.mail, SlowMail)
    many(world, 3)
    notifications, senders = open_notifications(worker), slow.senders
    futures = delivery.dispatch(as_sender(worker), notifications, senders)
    assert slow.mail.sending.wait(10)

    assert not senders.sending_pool.stop(0.05)
    assert within(10, lambda: sum(future.done() for future in futures) >= 9 - 4)
    given_back = [future for future in futures if future.done()]
    sent = following.deliver(worker, notifications)
    slow.mail.let_go.set()

    assert len(given_back) == len(sent) >= 9 - 4
    assert senders.sending_pool.stop(10)
    assert senders.recorder.finish(10)
    assert len(slow.mail.sent) == 9 - len(sent)
    assert open_notifications(worker) == []
    assert {row.attempts for row in read(worker, "SELECT attempts FROM notifications")} == {1}
    assert delivery.dispatch(as_sender(worker), notifications, senders) == []


@pytest.mark.far
@pytest.mark.usefixtures("alone")
def test_a_failed_commit_of_a_claim_frees_the_slot_of_the_sending_pool(world: World, worker: Database) -> None:
    post = Postbag()
    senders = post.senders
    world.submit()
    notifications = open_notifications(worker)
    rule = "CHECK (attempts = 0) NOT VALID"
    write(unbound(worker), f"ALTER TABLE notifications ADD CONSTRAINT nobody_claims {rule}")
    try:
        for _ in range(FIRST_LOAD):
            assert delivery.dispatch(as_sender(worker), notifications, senders) == []
    finally:
        write(unbound(worker), "ALTER TABLE notifications DROP CONSTRAINT nobody_claims")

    assert len(delivery.deliver(as_sender(worker), notifications, senders)) == 3
