"""A notifications worker that ends in the middle of a batch: no mail is lost, and few or none are sent twice."""

import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from config.setting_fields import DEVELOPMENT_KEY
from devstack.embedded import ServerAddresses
from devstack.stack import Processes
from harness.mail_relay import relaying
from harness.people import World
from harness.stage import Urls, plan_for
from harness.wait import within
from harness.webhook_receiver import ScriptedAnswer, receiving
from lockbox.notifications.endpoints import SecretVault
from lockbox.notifications.sending_pool import MOST_UNRECORDED
from lockbox.requests.lifecycle import Action
from lockbox.schedule import NOTIFICATIONS
from tests.database.postbag import Postbag
from tests.database.scenes import many, read, write

REQUESTS = 120
MORE_REQUESTS = 300
CALLED_REQUESTS = 150
KILLED_AT = 40
MOVED_REQUESTS, HEARD, STILL_SECONDS = 60, 10, 90
PATIENCE, STOPS_WITHIN = 150.0, 60
OPEN = "SELECT count(*) AS n FROM notifications WHERE closed_at IS NULL"
CLAIMED = "SELECT count(*) AS n FROM notifications WHERE closed_at IS NULL AND attempts > 0"
TRIES = "SELECT count(*) AS n, count(DISTINCT notification_id) AS mails FROM deliveries"
PASSED = """
UPDATE notifications SET run_at = run_at - make_interval(secs => :seconds) WHERE closed_at IS NULL AND attempts > 0
"""


AGED = """
UPDATE notifications SET run_at = run_at - make_interval(secs => :seconds),
    numbered_at = numbered_at - make_interval(secs => :seconds) WHERE closed_at IS NULL
"""
NUMBERED = "SELECT count(*) AS n FROM notifications WHERE sequence IS NOT NULL"


def let_pass(superuser: Engine, urls: Urls, seconds: float) -> None:
    """Let that many seconds pass for everything that is still to be sent."""
    with superuser.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(AGED), {"seconds": seconds})
    with Redis.from_url(urls.redis) as redis:
        for index in NOTIFICATIONS.keys:
            for member in redis.zrange(index, 0, -1):
                redis.zincrby(index, -1000 * seconds, member)


def let_leases_run_out(superuser: Engine, urls: Urls) -> None:
    """Let the leases of everything that a killed worker had claimed run out."""
    seconds = NOTIFICATIONS.lease.total_seconds()
    write(superuser, PASSED, seconds=seconds)
    _, leases = NOTIFICATIONS.keys
    with Redis.from_url(urls.redis) as redis:
        for member in redis.zrange(leases, 0, -1):
            redis.zincrby(leases, -1000 * seconds, member)


@pytest.mark.parametrize("taken", [40, 170])
def test_a_worker_killed_within_a_batch_loses_no_mail_and_sends_at_most_fifty_mails_twice(
    world: World, urls: Urls, template: ServerAddresses, superuser: Engine, tmp_path: Path, *, taken: int
) -> None:
    many(world, REQUESTS)
    with relaying() as relay:
        plan = replace(plan_for(urls, template, tmp_path / "keys"), smtp_url=f"smtp://127.0.0.1:{relay.port}")
        processes = Processes(plan, tmp_path / "log")
        try:
            processes.start("notifications")
            assert within(60, lambda: relay.count >= taken, 0.001)
            processes.kill("notifications")
            left = read(superuser, OPEN)[0].n
            let_leases_run_out(superuser, urls)
            processes.start("notifications")
            assert within(PATIENCE, lambda: read(superuser, OPEN)[0].n == 0, 0.5)
        finally:
            processes.stop()

    sent = Counter(relay.message_ids)
    ids = {f"<{row.id}@" for row in read(superuser, "SELECT id FROM notifications")}
    assert 0 < left < len(ids)
    assert {one.partition("@")[0] + "@" for one in sent} == ids
    assert sum(sent.values()) - len(sent) <= MOST_UNRECORDED
    assert max(sent.values()) <= 2
    assert read(superuser, TRIES)[0].mails == len(ids)


def test_a_worker_stopped_within_a_batch_sends_no_mail_twice_and_releases_its_unsent_mails(
    world: World, urls: Urls, template: ServerAddresses, superuser: Engine, tmp_path: Path
) -> None:
    many(world, MORE_REQUESTS)
    with relaying(takes_after=0.05) as relay:
        plan = replace(plan_for(urls, template, tmp_path / "keys"), smtp_url=f"smtp://127.0.0.1:{relay.port}")
        first, second = (Processes(plan, tmp_path / name) for name in ("first", "second"))
        try:
            stopped = first.start("notifications")
            assert within(60, lambda: relay.count >= 60, 0.001)
            stopped.terminate()
            stopped.wait(STOPS_WITHIN)
            left, claimed = read(superuser, OPEN)[0].n, read(superuser, CLAIMED)[0].n
            second.start("notifications")
            assert within(PATIENCE, lambda: read(superuser, OPEN)[0].n == 0, 0.5)
        finally:
            first.stop()
            second.stop()

    sent = Counter(relay.message_ids)
    assert left > 0
    assert claimed == 0
    assert set(sent.values()) == {1}
    assert len(sent) == read(superuser, TRIES)[0].mails == 3 * MORE_REQUESTS


def test_webhook_calls_keep_their_order_and_ids_after_their_worker_was_killed(
    world: World, urls: Urls, template: ServerAddresses, superuser: Engine, tmp_path: Path
) -> None:
    with receiving() as receiver, relaying() as relay:
        post = Postbag(vault=SecretVault([DEVELOPMENT_KEY.get_secret_value()]))
        post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
        many(world, CALLED_REQUESTS)
        plan = replace(plan_for(urls, template, tmp_path / "keys"), smtp_url=f"smtp://127.0.0.1:{relay.port}")
        processes = Processes(plan, tmp_path / "log")
        try:
            processes.start("notifications")
            assert within(60, lambda: len(receiver.calls) >= KILLED_AT, 0.001)
            processes.kill("notifications")
            left = read(superuser, OPEN)[0].n
            let_leases_run_out(superuser, urls)
            processes.start("notifications")
            assert within(PATIENCE, lambda: read(superuser, OPEN)[0].n == 0, 0.5)
        finally:
            processes.stop()

    first = dict.fromkeys((call.event["sequence"], call.id, call.event["previous"]) for call in receiver.calls)
    numbers, ids, previous = zip(*first, strict=True)
    assert left > 0
    assert list(numbers) == list(range(1, CALLED_REQUESTS + 1))
    assert list(previous) == [None, *ids[:-1]]
    assert len(receiver.calls) - len(first) <= MOST_UNRECORDED


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_webhook_calls_keep_their_order_after_a_worker_froze_for_a_minute(
    world: World, urls: Urls, template: ServerAddresses, superuser: Engine, tmp_path: Path, *, how: signal.Signals
) -> None:
    with receiving() as receiver, relaying() as relay:
        receiver.answers = [*[ScriptedAnswer(status=204)] * HEARD, ScriptedAnswer(is_held=True)]
        post = Postbag(vault=SecretVault([DEVELOPMENT_KEY.get_secret_value()]))
        post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
        for number, request in enumerate(many(world, MOVED_REQUESTS)):
            world.act("ann", Action.DENY if number % 3 else Action.APPROVE, request)
        plan = replace(plan_for(urls, template, tmp_path / "keys"), smtp_url=f"smtp://127.0.0.1:{relay.port}")
        processes = Processes(plan, tmp_path / "log")
        try:
            still = processes.start("notifications")
            assert within(PATIENCE, lambda: read(superuser, NUMBERED)[0].n == 2 * MOVED_REQUESTS)
            assert within(PATIENCE, lambda: len(receiver.calls) > HEARD, 0.001)
            still.send_signal(how)
            let_pass(superuser, urls, STILL_SECONDS)
            receiver.answers = []
            for name in ("second", "third"):
                processes.start("notifications", name=name)
            assert within(PATIENCE, lambda: len(receiver.calls) > HEARD + 1)
            if how == signal.SIGSTOP:
                still.send_signal(signal.SIGCONT)
            assert within(PATIENCE, lambda: read(superuser, OPEN)[0].n == 0, 0.5)
        finally:
            still.send_signal(signal.SIGCONT)
            processes.stop()

    order = list(dict.fromkeys(call.event["sequence"] for call in receiver.calls))
    assert order == list(range(1, 2 * MOVED_REQUESTS + 1))
    assert {call.event["type"] for call in receiver.calls} == {
        "request.submitted",
        "request.approved",
        "request.denied",
    }
