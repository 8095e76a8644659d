"""Notices on their way: claimed by one, sent, recorded; what fails fails alone and changes no request."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from lockbox.database import Database, now
from lockbox.ids import new_id
from lockbox.notices.delivery import LEASE
from lockbox.notices.models import Outcome
from lockbox.notices.senders.protocol import SendFailed
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy import Policy
from lockbox.schedule import NOTICES, Promise
from tests.builders import ShiftedClock, World
from tests.database.postbag import PUBLIC_URL, DyingMail, Postbag, SlowMail, address, open_notices
from tests.database.scenes import at_once, promised_notices, read, write

TOLERATED_MS = 250
PAST_THE_LEASE = LEASE + timedelta(seconds=1)


@pytest.fixture
def post() -> Postbag:
    """Memory senders."""
    return Postbag()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """A few threads."""
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def sender(worker: Database, later: ShiftedClock) -> Database:
    """A worker whose clock can be shifted."""
    worker.clock = later
    return worker


def _notice(house: Database, notice_id: UUID) -> tuple[str | None, int, str | None]:
    query = "SELECT outcome, attempts, last_error FROM notices WHERE id = :id"
    (row,) = read(house, query, id=notice_id)
    return row.outcome, row.attempts, row.last_error


def _assert_notices_are_held(house: Database, shift: timedelta = timedelta(0)) -> None:
    held, promised = house.schedule.members(NOTICES), promised_notices(house)
    assert held.keys() == promised.keys()
    ahead = shift.total_seconds() * 1000
    assert all(
        min(abs(held[one] - due), abs(held[one] + ahead - due)) < TOLERATED_MS for one, due in promised.items()
    )


def test_notices_are_sent_closed_and_leave_the_index(world: World, worker: Database, post: Postbag) -> None:
    post.endpoint(world, "https://hooks.contoso.example/", tenant_id=world.tenant.id)
    request = world.submit()
    notices = open_notices(worker)

    tries = post.deliver(worker, notices)

    assert {one.outcome for one in tries} == {Outcome.SENT}
    assert [_notice(worker, one) for one in notices] == [("sent", 1, None)] * 4
    assert {mail.to_name for mail in post.mail.sent} == {"Ann", "Amir", "Abe"}
    (hook,) = post.hooks.sent
    assert {mail.message_id for mail in post.mail.sent} | {f"<{hook.hook_id}@lockbox.vendor.example>"} == {
        f"<{one}@lockbox.vendor.example>" for one in notices
    }
    assert all(f"{PUBLIC_URL}/requests/{request.id}" in mail.text for mail in post.mail.sent)
    assert worker.schedule.members(NOTICES) == {}


def test_a_hint_that_comes_twice_sends_once(world: World, worker: Database, post: Postbag) -> None:
    world.submit()
    notices = open_notices(worker)

    post.deliver(worker, notices)
    again = post.deliver(worker, [*notices, *notices])

    assert again == []
    assert len(post.mail.sent) == 3


def test_a_failing_address_fails_alone_and_for_good(world: World, worker: Database, post: Postbag) -> None:
    world.submit()
    post.mail.refused[address(worker, world, "amir")] = SendFailed("no such mailbox", permanent=True)

    post.deliver(worker, open_notices(worker))

    query = "SELECT outcome, last_error FROM notices ORDER BY person_id <> :amir"
    rows = read(worker, query, amir=world.people["amir"].person_id)
    assert [tuple(row) for row in rows] == [("dead", "no such mailbox"), ("sent", None), ("sent", None)]
    assert worker.schedule.members(NOTICES) == {}


def test_a_failure_is_tried_again_within_the_time_that_is_left_and_then_is_dead(
    api: Database, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    world = World.make(api, Policy(vendor_review=False, approval_window=60))
    request = world.submit()
    (notice,) = [row.id for row in read(api, "SELECT id FROM notices ORDER BY id LIMIT 1")]
    post.mail.refused = {address(api, world, name): SendFailed("try later") for name in ("ann", "amir", "abe")}
    waits, ends = [], request.deadline_at

    while True:
        (attempt,) = post.deliver(sender, [notice])
        with sender.transaction() as session:
            at = now(session)
        if attempt.outcome is not None:
            break
        waits.append((attempt.run_at - at).total_seconds())
        assert attempt.run_at < ends
        _assert_notices_are_held(sender, later.shift)
        later.shift += attempt.run_at - at

    assert attempt.outcome is Outcome.DEAD
    assert _notice(sender, notice) == ("dead", len(waits) + 1, "try later")
    assert 4 <= len(waits) <= 20
    assert waits[0] == pytest.approx(2, abs=0.3)
    assert waits[1] == pytest.approx(4, abs=0.3)
    assert max(waits) <= 15
    assert f"notify:{notice}" not in sender.schedule.members(NOTICES)


def test_a_notice_that_nobody_sent_in_time_is_dead_and_not_sent(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    world.submit()
    later.shift = timedelta(hours=12, seconds=1)

    tries = post.deliver(sender, open_notices(sender))

    assert {one.outcome for one in tries} == {Outcome.DEAD}
    assert post.mail.sent == []


def test_a_prompt_is_moot_once_the_request_is_settled(world: World, worker: Database, post: Postbag) -> None:
    request = world.submit()
    prompts = open_notices(worker)
    world.act("ann", Action.DENY, request.id)

    tries = post.deliver(worker, prompts)

    assert {one.outcome for one in tries} == {Outcome.MOOT}
    assert post.mail.sent == []
    assert not worker.schedule.members(NOTICES).keys() & {f"notify:{one}" for one in prompts}


def test_the_outcome_is_told_though_the_request_has_moved_on(world: World, worker: Database, post: Postbag) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    world.act("erin", Action.COMPLETE, request.id)

    post.deliver(worker, open_notices(worker))

    subjects = {mail.subject.split(":")[0] for mail in post.mail.sent if mail.to_name == "Erin"}
    assert len(subjects) == 2
    assert any("is open" in subject for subject in subjects)


def test_somebody_who_was_disabled_is_not_written_to(
    world: World, worker: Database, root: Engine, post: Postbag
) -> None:
    world.submit()
    write(root, "UPDATE people SET disabled_at = now() WHERE id = :id", id=world.people["ann"].person_id)

    post.deliver(worker, open_notices(worker))

    assert {mail.to_name for mail in post.mail.sent} == {"Amir", "Abe"}


def test_two_senders_with_the_same_notices_send_each_once(
    world: World, worker: Database, pool: ThreadPoolExecutor, post: Postbag
) -> None:
    for _ in range(20):
        world.submit()
        notices = open_notices(worker)

        at_once(pool, *(partial(post.deliver, worker, order) for order in (notices, notices[::-1], notices)))

        assert len(post.mail.sent) == len({mail.message_id for mail in post.mail.sent})
    assert len(post.mail.sent) + len(open_notices(worker)) == 60


def test_nothing_is_locked_and_nobody_else_sends_while_one_sends(
    world: World, worker: Database, pool: ThreadPoolExecutor
) -> None:
    slow, second = Postbag(mail=SlowMail()), Postbag()
    assert isinstance(slow.mail, SlowMail)
    request = world.submit()
    notices = open_notices(worker)

    first = pool.submit(slow.deliver, worker, notices[:1])
    slow.mail.sending.wait(10)
    opened = world.act("ann", Action.APPROVE, request.id)
    others = second.deliver(worker, notices[:1])
    slow.mail.let_go.set()

    assert [one.outcome for one in first.result(10)] == [Outcome.SENT]
    assert opened.version == 2
    assert others == []
    assert second.mail.sent == []
    assert f"notify:{notices[0]}" not in worker.schedule.members(NOTICES)


def test_a_sender_that_died_is_followed_by_another_after_its_lease_with_the_same_message_id(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    dying, next_one = Postbag(mail=DyingMail()), Postbag()
    world.submit()
    notices = open_notices(sender)

    with pytest.raises(SystemExit):
        dying.deliver(sender, notices[:1])
    at_once_after = next_one.deliver(sender, notices[:1])
    _assert_notices_are_held(sender)
    later.shift = PAST_THE_LEASE
    tries = next_one.deliver(sender, notices[:1])

    assert at_once_after == []
    assert [one.outcome for one in tries] == [Outcome.SENT]
    assert [mail.message_id for mail in next_one.mail.sent] == [mail.message_id for mail in dying.mail.sent]
    assert _notice(sender, notices[0]) == ("sent", 2, None)


def test_a_hint_that_comes_early_sends_nothing_and_the_next_try_is_not_lost(
    world: World, worker: Database, post: Postbag
) -> None:
    world.submit()
    post.mail.refused[address(worker, world, "ann")] = SendFailed("try later")
    post.deliver(worker, open_notices(worker))
    (waiting,) = open_notices(worker)
    worker.schedule.arm(NOTICES, [Promise(str(waiting), "notify", None)])

    early = post.deliver(worker, [waiting])

    assert early == []
    _assert_notices_are_held(worker)


def test_ids_of_nobody_are_dropped_from_the_index(world: World, worker: Database, post: Postbag) -> None:
    world.submit()
    unknown = new_id()
    worker.schedule.arm(NOTICES, [Promise(str(unknown), "notify", timedelta(0))])

    post.deliver(worker, [unknown, *open_notices(worker)])

    assert worker.schedule.members(NOTICES) == {}


def test_a_notice_that_somebody_holds_is_left_to_them_and_not_lost(
    world: World, worker: Database, root: Engine, post: Postbag
) -> None:
    world.submit()
    held, *_ = notices = open_notices(worker)

    with root.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        holder.execute(text("SELECT FROM notices WHERE id = :id FOR UPDATE"), {"id": held})
        post.deliver(worker, notices)
        holder.rollback()

    assert len(post.mail.sent) == 2
    assert worker.schedule.members(NOTICES).keys() == {f"notify:{held}"}
    assert [one.outcome for one in post.deliver(worker, [held])] == [Outcome.SENT]


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
    before = read(worker, "SELECT * FROM requests"), read(worker, "SELECT id, body FROM events ORDER BY id")

    tries = post.deliver(worker, open_notices(worker))

    after = read(worker, "SELECT * FROM requests"), read(worker, "SELECT id, body FROM events ORDER BY id")
    assert {one.outcome for one in tries if one.error} == ({Outcome.DEAD} if permanent else {None})
    assert before == after
    assert post.mail.sent == []
    assert post.hooks.sent == []


def test_an_endpoint_whose_secret_no_key_opens_fails_alone(world: World, worker: Database, post: Postbag) -> None:
    Postbag().endpoint(world, "https://old-key.example/", tenant_id=None)
    post.endpoint(world, "https://good.example/", tenant_id=None)
    world.submit()
    began = time.monotonic()

    post.deliver(worker, open_notices(worker))

    assert [hook.url for hook in post.hooks.sent] == ["https://good.example/"]
    assert len(post.mail.sent) == 3
    assert time.monotonic() - began < 5
