"""Notifications on their way: claimed by one, sent, recorded; what fails fails alone and changes no request."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from harness.people import World
from lockbox.database import Database
from lockbox.notifications import load
from lockbox.notifications.models import Outcome
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.requests.lifecycle import Action
from lockbox.schedule import NOTIFICATIONS, IndexEntry
from lockbox.sql import new_id
from tests.database.postbag import (
    PUBLIC_URL,
    Postbag,
    SlowMail,
    address,
    assert_notifications_are_held,
    notification,
    open_notifications,
)
from tests.database.scenes import at_once, promised_notifications, read, write
from tests.policy_setup import lay_down


def test_notifications_are_sent_closed_and_leave_the_index(world: World, worker: Database, post: Postbag) -> None:
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
def test_a_mail_says_no_more_than_the_policy_that_matches_lets_it(
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


def test_a_message_that_comes_twice_sends_once(world: World, worker: Database, post: Postbag) -> None:
    world.submit()
    notifications = open_notifications(worker)

    post.deliver(worker, notifications)
    again = post.deliver(worker, [*notifications, *notifications])

    assert again == []
    assert len(post.mail.sent) == 3


def test_a_prompt_is_moot_once_the_request_is_settled(world: World, worker: Database, post: Postbag) -> None:
    request = world.submit()
    prompts = open_notifications(worker)
    world.act("ann", Action.DENY, request.id)

    tries = post.deliver(worker, prompts)

    assert {one.outcome for one in tries} == {Outcome.MOOT}
    assert post.mail.sent == []
    assert not worker.schedule.members(NOTIFICATIONS).keys() & {f"notify:{one}" for one in prompts}


def test_the_outcome_is_told_though_the_request_has_moved_on(world: World, worker: Database, post: Postbag) -> None:
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
def test_somebody_who_was_disabled_or_left_the_tenant_is_not_written_to(
    world: World, worker: Database, superuser: Engine, post: Postbag, gone: str
) -> None:
    world.submit()
    write(superuser, gone, id=world.people["ann"].person_id)

    post.deliver(worker, open_notifications(worker))

    assert {mail.to_name for mail in post.mail.sent} == {"Amir", "Abe"}


@pytest.mark.far
def test_two_senders_with_the_same_notifications_send_each_once(
    world: World, worker: Database, pool: ThreadPoolExecutor, post: Postbag
) -> None:
    for _ in range(20):
        world.submit()
        notifications = open_notifications(worker)

        at_once(
            pool,
            *(partial(post.deliver, worker, order) for order in (notifications, notifications[::-1], notifications)),
        )

        assert len(post.mail.sent) == len({mail.message_id for mail in post.mail.sent})
    assert len(post.mail.sent) + len(open_notifications(worker)) == 60


def test_nothing_is_locked_and_nobody_else_sends_while_one_sends(
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


def test_a_message_that_comes_early_sends_nothing_and_the_next_try_is_not_lost(
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


def test_ids_of_nobody_are_dropped_from_the_index(world: World, worker: Database, post: Postbag) -> None:
    world.submit()
    unknown = new_id()
    worker.schedule.arm(NOTIFICATIONS, [IndexEntry(str(unknown), "notify", timedelta(0))])

    post.deliver(worker, [unknown, *open_notifications(worker)])

    assert worker.schedule.members(NOTIFICATIONS) == {}


def test_a_notification_that_somebody_holds_is_left_to_them_and_not_lost(
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


def test_a_mail_tells_the_time_in_the_readers_own_zone_at_the_moment_it_is_sent(
    world: World, worker: Database, superuser: Engine, post: Postbag
) -> None:
    world.submit()
    write(superuser, "UPDATE people SET time_zone = 'Asia/Tokyo' WHERE id = :id", id=world.people["ann"].person_id)

    post.deliver(worker, open_notifications(worker))

    for mail in post.mail.sent:
        assert (" JST (" in mail.text) == (" JST (" in mail.html) == (mail.to_name == "Ann")
        assert " UTC" in mail.text
        assert "ends in @vendor.example and its Message-ID in" in mail.text


def test_a_code_that_somebody_waits_for_goes_before_what_was_promised_earlier(world: World, worker: Database) -> None:
    world.submit()
    (ann,) = read(world.db, "SELECT email FROM people WHERE id = :id", id=world.people["ann"].person_id)
    with world.db.transaction() as session:
        load.send_code(session, ann.email)

    (first,) = worker.schedule.claim(NOTIFICATIONS, most=1).ids["notify"]

    (row,) = read(worker, "SELECT template FROM notifications WHERE id = :id", id=UUID(first))
    assert row.template == "sign_in_code"
