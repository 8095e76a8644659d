"""What is written for good: events, decisions and closed requests, whoever tries, by trigger and by right."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from harness.people import World
from harness.stage import Urls
from lockbox.database import Database
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import as_caller, moves_of, read

TABLES = ("events", "decisions", "policies")
EVERYTHING = "SELECT * FROM {table} t ORDER BY t::text"
ERASE = "UPDATE {table} SET {column} = NULL"
CHANGE = "UPDATE requests SET {change}"
CHANGES = {
    "UPDATE": "UPDATE {table} SET {column} = {column}",
    "DELETE": "DELETE FROM {table}",
    "TRUNCATE": "TRUNCATE {table} CASCADE",
}
REOPENINGS = (
    "state = 'pending', closed_at = NULL, wake_at = deadline_at",
    "state = 'active', closed_at = NULL, wake_at = deadline_at, opened_at = now()",
    "deadline_at = deadline_at + interval '1 hour'",
    "state = 'expired', opened_at = now()",
    "justification = 'another'",
)
SAME = {"events": "id", "decisions": "id", "policies": "version"}
STEPS = ("version", "version + 2", "version - 1", "1")
AGAIN = """
INSERT INTO decisions (id, request_id, person_id, principals, means, decision, channel, decided_at)
SELECT uuidv7(), request_id, person_id, principals, means, decision, channel, decided_at FROM decisions
"""


@pytest.fixture(params=["superuser", "owner"])
def mighty(request: pytest.FixtureRequest, urls: Urls) -> Iterator[Engine]:
    """A login that has every right to the tables."""
    engine = create_engine(getattr(urls, request.param), poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture(params=["api", "worker"])
def server(request: pytest.FixtureRequest) -> Database:
    """A server process."""
    db: Database = request.getfixturevalue(request.param)
    return db


def _changes() -> Iterator[str]:
    """Every way to change, remove or empty what is written for good."""
    for table in TABLES:
        for change in CHANGES.values():
            yield change.format(table=table, column=SAME[table])


def _refused(engine: Engine, statement: str, **parameters: object) -> str:
    """Run and commit a statement that the database has to refuse, and return what it said."""
    with pytest.raises(DBAPIError) as error, engine.begin() as connection:
        connection.execute(text(statement), parameters)
    return str(error.value.orig)


def test_nobody_changes_removes_or_empties_the_audit_log_however_mighty(world: World, mighty: Engine) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    before = [read(mighty, EVERYTHING.format(table=table)) for table in TABLES]

    said = [_refused(mighty, change) for change in _changes()]

    assert all(before)
    assert len(said) == 9
    assert all("append-only" in line for line in said)
    assert [read(mighty, EVERYTHING.format(table=table)) for table in TABLES] == before


@pytest.mark.parametrize("who", ["ann", "tara", "max", "olga"])
def test_no_server_has_the_right_to_change_remove_or_empty_the_audit_log_whoever_calls(
    world: World, server: Database, who: str
) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)

    for change in _changes():
        with (
            pytest.raises(DBAPIError, match=r"permission denied for table (events|decisions|policies)"),
            as_caller(server, world.people[who], at=world.tenant.id) as connection,
        ):
            connection.execute(text(change))


def test_no_column_of_an_event_a_decision_or_a_policy_can_be_changed(world: World, mighty: Engine) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)
    columns = read(
        mighty,
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_name = ANY(:t)",
        t=[*TABLES],
    )

    said = [_refused(mighty, ERASE.format(table=row.table_name, column=row.column_name)) for row in columns]

    assert len(said) == 15 + 22 + 6
    assert all("append-only" in line or 'column "log_id" can only be updated to DEFAULT' in line for line in said)


def test_a_request_cannot_be_deleted(world: World, mighty: Engine) -> None:
    request = world.submit()

    said = [_refused(mighty, "DELETE FROM requests"), _refused(mighty, "TRUNCATE requests CASCADE")]

    assert all("append-only" in line for line in said)
    assert len(moves_of(world.db, request.id)) == 1


def test_a_closed_request_does_not_change_any_more(world: World, mighty: Engine) -> None:
    request = world.submit()
    world.act("erin", Action.CANCEL, request.id)

    said = [_refused(mighty, CHANGE.format(change=f"version = version + 1, {change}")) for change in REOPENINGS]

    assert all("does not go from cancelled to" in line for line in said)


def test_the_window_of_an_active_request_cannot_grow(world: World, mighty: Engine) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)

    said = _refused(
        mighty, "UPDATE requests SET version = version + 1, deadline_at = deadline_at + interval '1 microsecond'"
    )

    assert "does not go from active to active" in said


def test_a_request_never_goes_backwards(world: World, mighty: Engine) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)

    said = [
        _refused(mighty, CHANGE.format(change=f"version = version + 1, state = '{state}'"))
        for state in ("reviewing", "pending", "denied", "cancelled", "timed_out")
    ]

    assert all("does not go from active to" in line for line in said)


def test_a_window_never_opens_for_longer_than_was_asked(world: World, mighty: Engine) -> None:
    world.submit(access_window=600)

    said = _refused(
        mighty,
        "UPDATE requests SET version = version + 1, state = 'active', opened_at = now(),"
        " deadline_at = now() + interval '601 seconds', wake_at = now() + interval '601 seconds'",
    )

    assert "ck_requests_window" in said


def test_a_request_changes_by_one_move_at_a_time(world: World, mighty: Engine) -> None:
    world.submit()

    said = [_refused(mighty, CHANGE.format(change=f"version = {step}")) for step in STEPS]

    assert all("one move at a time" in line for line in said)


def test_two_events_of_one_request_never_have_the_same_number(world: World, mighty: Engine) -> None:
    world.submit()

    said = _refused(
        mighty,
        "INSERT INTO events (id, tenant_id, request_id, seq, at, action, actor_role, to_state, body) "
        "SELECT uuidv7(), tenant_id, id, 1, now(), 'expire', 'clock', 'expired', '' FROM requests",
    )

    assert "uq_events_request_id_seq" in said


def test_nobody_gives_the_same_decision_twice(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    world.act("ann", Action.APPROVE, world.submit().id)

    with (
        pytest.raises(DBAPIError, match="uq_decisions_request_id_person_id_decision"),
        as_caller(api, world.people["ann"]) as connection,
    ):
        connection.execute(text(AGAIN))
