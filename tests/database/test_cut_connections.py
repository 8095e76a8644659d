"""Connections to Postgres are cut while mails are in flight: no mail is sent twice because of it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from harness.clocks import ShiftedClock
from harness.mail_relay import relaying
from harness.network import serving
from harness.people import World
from harness.ports import own_port
from harness.stage import Urls, unbound
from harness.wait import wait_for
from lockbox.database import Database, make_engine
from lockbox.notifications import delivery, queue
from lockbox.notifications.models import Outcome
from lockbox.notifications.outcome_events import DeliveryAttempt
from lockbox.notifications.results import AttemptResult, ClaimResult, ResultRecorder
from lockbox.notifications.senders.protocol import OutgoingMail
from lockbox.notifications.senders.smtp import SmtpMail
from lockbox.notifications.sending_pool import SendingPool
from tests.database.postbag import SENDER, Postbag, notification, open_notifications
from tests.database.relay import CommitLosingProxy
from tests.database.scenes import many, read

pytestmark = pytest.mark.far

REQUESTS, PATIENCE, FIRST_GAP = 60, 120, 0.1
CUT = text("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'lockbox-cut'
""")


def cut(db: Database) -> int:
    """Cut the connections of the sender, and return how many there were."""
    with unbound(db).connect() as connection:
        return int(connection.execute(CUT).scalar_one())


@contextmanager
def cutting(db: Database) -> Iterator[list[int]]:
    """Cut the connections again and again; yield a list that holds how many were cut.

    The gaps grow: on a busy machine, work that takes longer than one gap, such as claiming all mails, fits into a
    later gap.
    """
    stopped, cuts = threading.Event(), [0]

    def cut_on() -> None:
        gap = FIRST_GAP
        while not stopped.wait(gap):
            cuts[0] += cut(db)
            gap *= 1.1

    cutter = threading.Thread(target=cut_on)
    cutter.start()
    try:
        yield cuts
    finally:
        stopped.set()
        cutter.join(PATIENCE)


@pytest.mark.usefixtures("alone")
def test_no_mail_is_repeated_if_all_database_connections_are_cut_during_sending(
    world: World, urls: Urls, later: ShiftedClock
) -> None:
    many(world, REQUESTS)
    db = Database(make_engine(urls.notifications, role="cut", pool_size=4, overflow=12), world.db.schedule, later)

    with relaying(greets_after=2) as relay:
        mail = SmtpMail(f"smtp://127.0.0.1:{relay.port}", sender=SENDER)
        senders = Postbag(mailing=mail, sending_pool=SendingPool(first_load=10_000)).senders
        ids = open_notifications(world.db)
        results = delivery.dispatch(db, ids, senders)
        in_flight = len(ids) - len(relay.taken)
        with cutting(world.db) as cuts:
            while len(relay.taken) < len(ids):
                time.sleep(0.05)
                # What could not be sent in time, for nothing was recorded, was given back.
                with suppress(DBAPIError, PoolTimeout):
                    results += delivery.dispatch(db, open_notifications(world.db), senders)
        for result in results:
            result.exception(PATIENCE)
        later.shift = queue.LEASE + timedelta(seconds=1)
        # The last cut may have left connections that nobody has asked yet whether they are there.
        db.engine.dispose()
        delivery.deliver(db, open_notifications(world.db), senders)
        db.engine.dispose()

    assert cuts[0] > 0
    assert in_flight > 0
    assert len(relay.message_ids) == len(set(relay.message_ids)) == len(ids) == 3 * REQUESTS
    assert open_notifications(world.db) == []


@pytest.mark.usefixtures("alone")
def test_an_already_recorded_send_result_is_counted_and_logged_once(
    world: World, urls: Urls, worker: Database
) -> None:
    world.submit()
    ids = open_notifications(worker)
    with (
        serving(CommitLosingProxy(urls.notifications)) as losing,
        relaying(answers={"example": "450 later"}) as relay,
    ):
        db = Database(make_engine(losing.url, role="relayed"), world.db.schedule)
        mail = SmtpMail(f"smtp://127.0.0.1:{relay.port}", sender=SENDER)
        senders = Postbag(mailing=mail, sending_pool=SendingPool(first_load=10_000)).senders
        senders.mail.send = LosingAfter(mail, losing).send  # type: ignore[method-assign]
        relay.answers = {first_address(worker, ids[0]): "450 later"}
        results = delivery.dispatch(db, ids, senders)
        wait_for("the commit of a result and of its repetition are lost", lambda: losing.lost > 1, PATIENCE)
        losing.losing = False
        tries = [result.result(PATIENCE) for result in results]
        db.engine.dispose()

    assert losing.lost > 1
    assert len([one for one in tries if one and one.outcome is None]) == 1
    assert read(worker, "SELECT count(*) AS n FROM deliveries")[0].n == 3
    assert read(worker, "SELECT sum(count) AS n FROM counters WHERE name = 'attempt'")[0].n == 3
    assert [notification(worker, one)[1] for one in ids] == [1, 1, 1]


class LosingAfter:
    """Sends mails; from the first one on, the proxy loses the acknowledgement of each commit."""

    def __init__(self, mail: SmtpMail, losing: CommitLosingProxy) -> None:
        self._send = mail.send
        self._losing = losing

    async def send(self, mail: OutgoingMail) -> None:
        self._losing.losing = True
        await self._send(mail)


def first_address(db: Database, notification_id: UUID) -> str:
    """Return the address to which a notification goes."""
    query = "SELECT p.email FROM notifications n JOIN people p ON p.id = n.person_id WHERE n.id = :id"
    return str(read(db, query, id=notification_id)[0].email)


@pytest.mark.usefixtures("alone")
def test_a_send_result_that_cannot_be_recorded_is_kept_until_the_lease_of_the_notification_ends(
    world: World, urls: Urls, worker: Database
) -> None:
    world.submit()
    kept, late, _ = open_notifications(worker)
    recorder, at = ResultRecorder(), datetime.now(UTC)
    arrived = [
        AttemptResult(
            one, at, Outcome.SENT, at, attempt=DeliveryAttempt(one, None, "request.pending", at, timedelta(0))
        )
        for one in (kept, late)
    ]
    with serving(CommitLosingProxy(urls.notifications)) as relay:
        db = Database(make_engine(relay.url, role="relayed"), world.db.schedule)
        nowhere = make_url(urls.notifications).set(port=own_port())
        engine = make_engine(nowhere.render_as_string(hide_password=False), role="away")
        cut_off = Database(engine, world.db.schedule)
        ended = ClaimResult(db, arrived[0], Future())
        too_late = ClaimResult(cut_off, arrived[1], Future(), time.monotonic() - 1)

        relay.losing = True
        recorder.record([ended])
        recorder.record([too_late])
        is_done = recorder.finish(0)
        relay.losing = False

        assert not is_done
        assert recorder.finish(PATIENCE)
        db.engine.dispose()
    assert ended.recorded.result(0) == ended.result
    assert isinstance(too_late.recorded.exception(0), OperationalError)
    assert [notification(worker, one)[0] for one in (kept, late)] == ["sent", None]
    assert [row.notification_id for row in read(worker, "SELECT notification_id FROM deliveries")] == [kept]
