"""Whether the process lives and can serve."""

from collections.abc import Iterator

import pytest

from lockbox.database import Database, make_engine
from lockbox.schedule import Schedule
from tests.database.schema import ENDS_SERVICE, LATER
from tests.http.door import Door


@pytest.fixture
def closed_port() -> Iterator[Schedule]:
    schedule = Schedule("redis://:x@127.0.0.1:1/0")
    yield schedule
    schedule.close()


def test_livez_succeeds_while_the_process_answers(door: Door) -> None:
    answer = door.get(None, "/livez")

    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


def test_readyz_succeeds_if_postgres_and_redis_answer(door: Door) -> None:
    answer = door.get(None, "/readyz")

    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ready", "postgres": "ok", "writes": "ok", "redis": "ok", "audit_log": "ok"},
    )


def test_readyz_is_degraded_without_redis(door: Door, closed_port: Schedule) -> None:
    db = Database(door.db.engine, closed_port)

    answer = Door(door.world, db, door.root, door.runner).get(None, "/readyz")

    assert answer.status_code == 200
    assert answer.json() == {
        "status": "degraded",
        "postgres": "ok",
        "writes": "ok",
        "redis": "away: ConnectionError",
        "audit_log": "ok",
    }


def test_readyz_fails_without_postgres(door: Door) -> None:
    db = Database(make_engine("postgresql+psycopg://u:s3cret@127.0.0.1:1/x", role="away"), door.db.schedule)

    answer = Door(door.world, db, door.root, door.runner).get(None, "/readyz")

    assert answer.status_code == 503
    assert answer.json() == {
        "status": "down",
        "postgres": "away",
        "writes": "unknown",
        "redis": "ok",
        "audit_log": "unknown",
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (f"{LATER}; {ENDS_SERVICE}", "9999_later"),
        ("UPDATE alembic_version SET version_num = '0000'", "0000"),
        ("DELETE FROM alembic_version", "no migrations"),
        ("DROP TABLE alembic_version", "no migrations"),
    ],
)
def test_readyz_fails_on_a_database_with_a_foreign_schema(own_door: Door, change: str, says: str) -> None:
    for statement in change.split("; "):
        own_door.run_sql(statement)

    answer = own_door.get(None, "/readyz")

    assert answer.status_code == 503
    assert answer.json()["status"] == "down"
    assert says in answer.json()["postgres"]
    assert own_door.get(None, "/livez").status_code == 200


def test_readyz_succeeds_on_a_later_compatible_schema(own_door: Door) -> None:
    own_door.run_sql(LATER)

    assert own_door.get(None, "/readyz").json()["postgres"] == "ok"
