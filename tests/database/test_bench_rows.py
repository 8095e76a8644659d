"""The rows that the benchmark writes by SQL equal those that Lockbox writes, whatever the schema."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from bench import backlog
from bench.bare_stack import rows_of_submit
from bench.floor import rows_of_end
from bench.rows import Footprint, clock, load
from harness.outbox import fan_out_all
from harness.people import World
from harness.stage import as_sender
from lockbox.database import Database
from lockbox.monitoring import invariants
from lockbox.monitoring.invariants import ScanPosition
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.scenes import promised_notifications


@pytest.fixture
def root(superuser: Engine) -> Engine:
    """A superuser's engine that commits each SQL statement by itself."""
    return superuser.execution_options(isolation_level="AUTOCOMMIT")


def footprint(root: Engine, request: UUID) -> Footprint:
    with root.connect() as connection:
        return Footprint.of(connection, request)


def counted(found: Footprint) -> dict[str, int]:
    """Return how many rows a request has in each table."""
    return {table: len(rows) for table, rows in found.tables.items()}


def approved(world: World, root: Engine) -> Footprint:
    """Return the rows of a request that was approved and whose notifications were sent."""
    request = world.submit().id
    backlog.mark_sent(root, as_sender(world.db))
    world.act("ann", Action.APPROVE, request)
    backlog.mark_sent(root, as_sender(world.db))
    return footprint(root, request)


def test_one_sql_statement_writes_all_rows_of_a_submission(world: World, root: Engine) -> None:
    real = footprint(root, world.submit().id)
    one = new_id()

    with root.connect() as connection:
        connection.exec_driver_sql(rows_of_submit(real), {"id": one, "justification": "100 % sure"})

    assert {"requests", "events", "event_details"} <= counted(real).keys()
    assert counted(footprint(root, one)) == counted(real)
    with root.connect() as connection:
        body = connection.execute(text("SELECT body FROM events WHERE request_id = :id"), {"id": one}).scalar_one()
    assert str(one) in bytes(body).decode()


@pytest.mark.parametrize(("state", "moves"), [("active", 2), ("pending", 1)])
def test_rows_loaded_by_the_benchmark_equal_the_rows_of_a_real_request(
    world: World, root: Engine, state: str, moves: int
) -> None:
    pattern = approved(world, root)
    due = clock(root) + timedelta(minutes=30)

    loaded = load(root, None, pattern, state=state, count=3, due=due, step=timedelta(seconds=1))

    found = [footprint(root, one) for one in loaded.ids]
    assert [counted(one) for one in found] == 3 * [counted(pattern.until(moves))]
    assert loaded.dues == [due, due + timedelta(seconds=1), due + timedelta(seconds=2)]
    assert {one.tables["requests"][0]["state"] for one in found} == {f"'{state}'::character varying"}


@pytest.mark.parametrize("state", ["active", "pending"])
def test_rows_loaded_by_the_benchmark_break_no_invariant(
    world: World, root: Engine, worker: Database, state: str
) -> None:
    pattern = approved(world, root)
    loaded = load(root, None, pattern, state=state, count=3, due=clock(root) + timedelta(minutes=30))

    with worker.transaction() as session:
        found = invariants.scan(session, ScanPosition())

    assert [one for one in found if one.id in loaded.ids] == []


def test_the_benchmarks_sql_for_ending_requests_writes_the_same_rows_as_the_timer(
    world: World, root: Engine, worker: Database
) -> None:
    pattern = approved(world, root)
    real, *others = load(root, None, pattern, state="active", count=3, due=clock(root)).ids
    before = footprint(root, real)
    timers.run(worker, [real])
    after = footprint(root, real)

    statement, rows = rows_of_end(before, after)
    with worker.engine.begin() as connection:
        connection.exec_driver_sql(statement, {"ids": others})

    assert rows["events"] == 1
    for one in others:
        assert counted(footprint(root, one)) == counted(after)
        assert footprint(root, one).tables["requests"][0]["state"] == "'expired'::character varying"


@pytest.mark.parametrize("state", ["active", "pending"])
def test_requests_loaded_by_the_benchmark_have_no_pending_notifications(
    world: World, root: Engine, worker: Database, state: str
) -> None:
    pattern = approved(world, root)

    load(root, None, pattern, state=state, count=3, due=clock(root) + timedelta(minutes=30))

    assert promised_notifications(worker) == {}


def test_after_the_benchmark_gives_up_notifications_nothing_is_left_to_send(
    world: World, root: Engine, worker: Database
) -> None:
    world.submit()
    fan_out_all(as_sender(world.db))

    backlog.give_up(root, rest_seconds=0)

    with root.connect() as connection:
        assert not connection.execute(backlog.GIVE_UP, {"outcome": "moot"}).rowcount
    assert promised_notifications(worker) == {}
