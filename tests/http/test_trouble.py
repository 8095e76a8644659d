"""Trouble behind the door: Postgres away, rows locked, commits that fail, Redis away. Never a wrong yes."""

import socket
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from lockbox import database
from lockbox.database import Database, make_engine
from lockbox.schedule import CLOCK, NOTIFICATIONS, Schedule
from tests.http.door import Door, facts

REFUSE = """
CREATE FUNCTION refuse_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'no commit today, s3cret' USING ERRCODE = '{state}'; END $$;
CREATE CONSTRAINT TRIGGER refuse_commit AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION refuse_commit()
"""
LIVELY = 60
"""Seconds to wait for an answer; a busy machine may take many."""
END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture
def without_redis(door: Door) -> Iterator[Door]:
    """A door whose Redis never answers, and whose schedule would wait for the answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        schedule = Schedule(f"redis://:x@127.0.0.1:{silent.getsockname()[1]}/0", patience=2 * LIVELY)
        yield Door(door.world, Database(door.db.engine, schedule), door.root, door.runner)
    door.runner.run(schedule.followed())
    schedule.close()


@pytest.mark.far
@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        ("P0001", 500, "internal"),
        ("23514", 500, "internal"),
        ("40001", 503, "busy"),
        ("57P01", 503, "unavailable"),
        ("53100", 503, "unavailable"),
        ("25P03", 503, "unavailable"),
    ],
)
def test_a_failed_commit_is_never_answered_with_success(own_door: Door, state: str, status: int, code: str) -> None:
    request_id = own_door.pending()
    own_door.run_sql(REFUSE.format(state=state))
    before = own_door.rows()

    for answer in (own_door.file(headers={"idempotency-key": "k"}), own_door.act("ann", "approve", request_id)):
        facts(answer, status, code)
        assert "s3cret" not in answer.text
        assert ("retry-after" in answer.headers) is (status == 503)

    assert own_door.rows() == before
    assert own_door.get("ann", f"/v1/requests/{request_id}").json()["state"] == "pending"
    own_door.run_sql("DROP TRIGGER refuse_commit ON events")
    assert own_door.file(headers={"idempotency-key": "k"}).status_code == 201


@pytest.mark.far
def test_a_locked_request_answers_busy_and_is_unchanged(door: Door) -> None:
    request_id = door.pending()
    before = door.rows()

    with door.root.connect().execution_options(isolation_level="READ COMMITTED") as other, other.begin():
        other.execute(text("SELECT FROM requests WHERE id = :id FOR UPDATE"), {"id": request_id})
        began = time.monotonic()
        answer = door.act("ann", "approve", request_id)
        waited = time.monotonic() - began
        assert door.get("ann", f"/v1/requests/{request_id}").status_code == 200

    assert facts(answer, 503, "busy")
    assert answer.headers["retry-after"] == "1"
    assert 1.5 < waited < LIVELY
    assert door.rows() == before
    assert door.act("ann", "approve", request_id).status_code == 200


def test_without_postgres_every_route_answers_that_the_service_is_unavailable(door: Door) -> None:
    away = Database(make_engine("postgresql+psycopg://nobody:x@127.0.0.1:1/none", role="away"), door.db.schedule)
    lost = Door(door.world, away, door.root, door.runner)

    answers = [lost.file(), lost.get("erin", "/v1/requests"), lost.ask("gate"), lost.act("ann", "approve", "0" * 32)]

    for answer in answers:
        facts(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "1"
        assert "127.0.0.1" not in answer.text
    assert lost.get(None, "/livez").status_code == 200
    assert lost.get(None, "/readyz").status_code == 503


def test_an_idle_connection_closed_by_postgres_is_replaced(own_door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "ASKED_AFTER", 0.0)
    request_id = own_door.pending()
    own_door.run_sql(END_OTHERS)

    assert own_door.act("ann", "approve", request_id).status_code == 200


def test_a_submission_succeeds_though_postgres_has_just_closed_every_connection(
    own_door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ASKED_AFTER", LIVELY)
    assert own_door.file().status_code == 201
    with own_door.db.transaction() as session:
        database.now(session)
    own_door.run_sql(END_OTHERS)

    assert own_door.file().status_code == 201


def test_without_redis_requests_are_submitted_and_decided_without_waiting(without_redis: Door) -> None:
    began = time.monotonic()

    submitted = without_redis.file()
    decided = without_redis.act("ann", "approve", submitted.json()["id"])

    assert (submitted.status_code, decided.status_code) == (201, 200)
    assert without_redis.ask("gate").status_code == 200
    assert time.monotonic() - began < LIVELY


def test_a_submission_schedules_the_reminder_and_the_notifications_in_redis(own_door: Door) -> None:
    request_id = own_door.file().json()["id"]
    own_door.runner.run(own_door.db.schedule.followed())

    assert f"remind:{request_id}" in own_door.db.schedule.members(CLOCK)
    assert own_door.db.schedule.members(NOTIFICATIONS)


def test_an_unreadable_stored_policy_is_an_internal_error_that_reveals_nothing(
    fresh_door: Door,
) -> None:
    tenant_id = fresh_door.world.tenant.id
    fresh_door.run_sql("INSERT INTO policies VALUES (:id, 2, '{\"s3cret\": 1}', NULL, now())", id=tenant_id)
    fresh_door.run_sql("UPDATE tenants SET policy_version = 2 WHERE id = :id", id=tenant_id)
    before = fresh_door.rows()

    answer = fresh_door.file()

    facts(answer, 500, "internal")
    assert "s3cret" not in answer.text
    assert fresh_door.rows() == before
