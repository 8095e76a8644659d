"""One transaction: it commits, then schedules its entries; an unavailable Redis costs a moment, never the commit."""

import socket
import time
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.people import World
from harness.stage import RETRIED, Urls
from lockbox import database
from lockbox.database import Database, ProcessKeys, UnitOfWork, array, make_engine
from lockbox.errors import WindowTooLong
from lockbox.facts.bounds import HARD_ACCESS_LIMIT
from lockbox.identity import authentication, keyring
from lockbox.identity.keyring import Keyring
from lockbox.reconcile import reconcile
from lockbox.requests.lifecycle import Action
from lockbox.schedule import CLOCK, NOTIFICATIONS, IndexEntry, Schedule
from lockbox.sql import new_id
from lockbox.use_cases import run_alone
from tests.database.scenes import (
    assert_indexes_are_true,
    many,
    promised_clocks,
    promised_notifications,
    read,
    state_of,
    write,
)
from tests.each import each

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def _cut_off(db: Database, url: str) -> None:
    db.schedule.close()
    db.schedule = Schedule(url)


def test_index_entries_scheduled_in_a_committed_transaction_are_in_the_indexes(world: World) -> None:
    request = world.submit()

    assert world.db.schedule.members(CLOCK).keys() == {f"remind:{request.id}"}
    assert_indexes_are_true(world.db)


def test_a_move_changes_the_single_index_entry_of_its_request(world: World) -> None:
    request = world.submit()

    world.act("ann", Action.APPROVE, request.id)
    opened = world.db.schedule.members(CLOCK)
    world.act("erin", Action.COMPLETE, request.id)

    assert opened.keys() == {f"remind:{request.id}"}
    assert world.db.schedule.members(CLOCK) == {}


def test_a_transaction_on_a_second_connection_pool_uses_the_keyring_of_the_process(world: World) -> None:
    """Access checks and closing moves use the second pool; without the shared keys they would recognise no one."""
    ring = Keyring([b"r" * 32])
    db = Database(world.db.engine, world.db.schedule, keys=ProcessKeys(ring))

    with db.beside(world.db.engine).transaction() as session:
        assert keyring.of(session) is ring


def test_no_index_entry_is_scheduled_before_the_commit(world: World) -> None:
    one = str(new_id())

    with world.db.transaction() as session:
        database.arm_after_commit(session, CLOCK, [IndexEntry(one, "expire", NOON)])
        during = world.db.schedule.members(CLOCK)

    assert during == {}
    assert world.db.schedule.members(CLOCK).keys() == {f"expire:{one}"}


def test_a_rolled_back_transaction_writes_no_row_and_schedules_no_entry(world: World) -> None:
    class ChangeOfMind(Exception):  # noqa: N818 - of mind
        """Something else went wrong."""

    def submit_and_fail() -> None:
        with world.db.transaction() as session:
            authentication.enter(session, world.people["olga"])
            database.arm_after_commit(session, CLOCK, [IndexEntry(str(new_id()), "expire", NOON)])
            suspended = session.connection().execute(text("UPDATE tenants SET suspended = true"))
            assert suspended.rowcount == 1
            raise ChangeOfMind

    with pytest.raises(ChangeOfMind):
        submit_and_fail()

    assert world.db.schedule.members(CLOCK) == {}
    assert not read(world.db, "SELECT FROM tenants WHERE suspended")


def test_a_refused_move_schedules_no_index_entry(world: World) -> None:
    with pytest.raises(WindowTooLong):
        world.submit(access_window=HARD_ACCESS_LIMIT)

    assert world.db.schedule.members(CLOCK) == {}
    assert world.db.schedule.members(NOTIFICATIONS) == {}


def test_a_commit_refused_by_the_database_schedules_no_index_entry(world: World) -> None:
    request = world.submit()
    before = world.db.schedule.members(CLOCK)

    def open_without_a_decision() -> None:
        with world.db.transaction() as session:
            authentication.enter(session, world.people["ann"])
            session.execute(
                text(
                    "UPDATE requests SET state = 'active', opened_at = now(), version = version + 1,"
                    " deadline_at = now() + interval '1 minute', wake_at = now() + interval '1 minute'"
                )
            )
            database.arm_after_commit(session, CLOCK, [IndexEntry(str(request.id), "expire", NOON)])

    with pytest.raises(DBAPIError, match="without the decisions"):
        open_without_a_decision()

    assert world.db.schedule.members(CLOCK) == before
    assert state_of(world.db, request.id) == "pending"


def test_each_index_gets_only_the_entries_scheduled_in_that_index(world: World) -> None:
    one = str(new_id())

    with world.db.transaction() as session:
        database.arm_after_commit(session, NOTIFICATIONS, [IndexEntry(one, "notify", NOON)])
        database.arm_after_commit(session, CLOCK, [IndexEntry(one, "expire", NOON)])

    assert world.db.schedule.members(CLOCK).keys() == {f"expire:{one}"}
    assert world.db.schedule.members(NOTIFICATIONS).keys() == {f"notify:{one}"}


def test_without_redis_a_submit_is_answered_within_a_second(world: World, away_url: str) -> None:
    _cut_off(world.db, away_url)

    began = time.monotonic()
    request = world.submit()
    first = time.monotonic() - began
    began = time.monotonic()
    many(world, 3)
    second = time.monotonic() - began

    assert first < RETRIED
    assert second < RETRIED
    assert state_of(world.db, request.id) == "pending"
    assert len(promised_clocks(world.db)) == 4
    assert len(promised_notifications(world.db)) == 4


def test_index_entries_that_could_not_be_scheduled_are_restored_by_reconciling(
    world: World, worker: Database, superuser: Engine, refused_url: str
) -> None:
    list(reconcile(worker, None))
    db = Database(world.db.engine, Schedule(refused_url))
    request = world.submit(db=db)
    db.schedule.close()
    missing = worker.schedule.members(NOTIFICATIONS)
    write(superuser, "UPDATE outbox SET at = at - interval '4 seconds'")
    handed: list[UUID] = []

    list(reconcile(worker, handed.extend))

    assert missing == {}
    assert {f"notify:{one}" for one in handed} == promised_notifications(worker).keys()
    assert state_of(worker, request.id) == "pending"


def test_killing_the_api_between_the_commit_and_scheduling_loses_no_deadline(world: World, urls: Urls) -> None:
    class DyingSchedule(Schedule):
        def arm(self, *_: object, **__: object) -> bool:
            raise SystemExit(137)

    api = Database(make_engine(urls.api, role="dying"), DyingSchedule(urls.redis))
    worker = Database(make_engine(urls.worker, role="heir"), Schedule(urls.redis))
    with pytest.raises(SystemExit):
        world.submit(db=api)
    lost = worker.schedule.members(CLOCK)

    list(reconcile(worker, None))

    assert lost == {}
    assert_indexes_are_true(worker)
    api.dispose()
    worker.dispose()


def test_a_database_connection_that_stops_answering_is_noticed_within_seconds(api: Database) -> None:
    with api.engine.connect() as connection:
        handle = connection.connection.driver_connection.pgconn.socket  # type: ignore[union-attr]
        with socket.fromfd(handle, socket.AF_INET, socket.SOCK_STREAM) as line:
            options = {
                name: line.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            }
            asks = line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    assert asks
    assert options["TCP_KEEPIDLE"] + options["TCP_KEEPINTVL"] * options["TCP_KEEPCNT"] < 20
    assert 0 < options["TCP_USER_TIMEOUT"] < 20_000


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [b"plain", b'{"name": ["c2FsdA==", "O\'Neil, \\"x\\" {y} NULL"]}', "Åsa \U0001f600".encode()],
        [bytes(range(256)), None, b"\\x00"],
    ],
)
def test_a_byte_array_is_read_back_from_postgres_unchanged(worker: Database, values: list[bytes | None]) -> None:
    with worker.transaction() as session:
        found = session.execute(text("SELECT unnest(CAST(:values AS bytea[]))"), {"values": array(values)}).scalars()

        assert [one and bytes(one) for one in found] == values


@each("value", ["O'Neil", 'a"b', "a,b", "{", "\\x00", "", "a b"])
def test_texts_for_an_array_column_are_sent_to_postgres_as_bytes(value: str) -> None:
    with pytest.raises(ValueError, match="plain words"):
        array([value])


@pytest.mark.parametrize(("statement", "times"), [("DELETE FROM decisions", 2), ("SELECT 1 / 0", 1)])
def test_a_use_case_is_run_again_after_a_trigger_refusal_but_not_after_an_sql_error(
    api: Database, statement: str, times: int
) -> None:
    judged = []

    def use_case(session: UnitOfWork) -> None:
        judged.append(statement)
        session.execute(text(statement))

    with pytest.raises(DBAPIError):
        run_alone(api, use_case)

    assert len(judged) == times
