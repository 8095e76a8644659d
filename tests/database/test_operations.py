"""What operators see about the last day: hourly counts and lag samples of all tenants, without names."""

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from harness.people import World
from harness.stage import unbound
from harness.wait import within
from lockbox.database import Database, make_engine
from lockbox.errors import NotYours
from lockbox.monitoring import metrics, operations, status
from lockbox.monitoring.heartbeats import HeartbeatSender, ProcessPart
from lockbox.monitoring.metrics import HourlyCounts
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.postbag import open_notifications
from tests.database.scenes import read, set_back, write
from tests.database.test_exports import freely

SAMPLES = "SELECT schedule_lag, seal_lag, ended, late FROM lag_samples ORDER BY at"
LATE = "INSERT INTO counters (name, label, count, total) VALUES ('deadline_lag', '1.0', :count, :total)"
AGO = "INSERT INTO lag_samples (at, schedule_lag, seal_lag, ended, late) VALUES (now() - :ago, :lag, :lag, 0, 0)"
COPIES = """
INSERT INTO requests SELECT (jsonb_populate_record(r, jsonb_build_object('id', uuidv7()))).*
FROM requests r, generate_series(1, {number}) WHERE r.id = '{id}'
"""
OF_WORKERS = "SELECT 1 FROM pg_stat_activity WHERE usename = 'lockbox_worker' AND datname = current_database()"
SET_BACK = text("UPDATE events SET at = at - CAST(:by AS interval) WHERE request_id = :id")


def today(api: Database) -> HourlyCounts:
    found = metrics.read_day(api)
    assert found is not None
    return found


def total(found: HourlyCounts, name: str) -> float:
    return sum(number or 0 for number in found.counts(name))


def _set_back_events(db: Database, request_id: UUID, by: str) -> None:
    with unbound(db).begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(SET_BACK, {"id": request_id, "by": by})


def test_each_request_that_is_submitted_or_decided_or_unanswered_is_counted_once(
    world: World, api: Database, superuser: Engine
) -> None:
    before = today(api)
    for action in (None, Action.APPROVE, Action.DENY, Action.CANCEL):
        request = world.submit()
        if action:
            world.act("erin" if action is Action.CANCEL else "ann", action, request.id)
    freely(superuser, "UPDATE events SET to_state = 'timed_out' WHERE action = 'cancel'")

    found = today(api)

    assert [total(found, name) - total(before, name) for name in ("submitted", "decided", "timed_out")] == [4, 2, 1]


def test_requests_of_the_last_day_are_counted_per_hour(world: World, api: Database) -> None:
    before = today(api).counts("submitted")
    for hours in (0, 3, 23, 24):
        request = world.submit()
        _set_back_events(world.db, request.id, f"{hours} hours")

    after = today(api).counts("submitted")

    new = [(number or 0) - (old or 0) for number, old in zip(after, before, strict=True)]
    assert [place for place, number in enumerate(new) if number] == [0, 20, 23]


def test_notifications_on_the_operations_page_are_counted_by_outcome(world: World, api: Database) -> None:
    world.submit()
    waiting = open_notifications(api)
    write(
        unbound(api),
        "UPDATE notifications SET closed_at = now(), outcome = CASE WHEN id = :one THEN 'dead' ELSE 'sent' END "
        "WHERE closed_at IS NULL",
        one=waiting[0],
    )

    found = today(api)

    assert (total(found, "dead"), total(found, "sent")) == (1, len(waiting) - 1)
    assert found.counts("dead")[-1] == 1


def test_the_sampled_timer_lag_is_the_average_delay_or_the_longest_overdue_time_if_longer(
    world: World, worker: Database, superuser: Engine
) -> None:
    metrics.sample(worker)
    write(unbound(worker), LATE, count=4, total=8.0)
    metrics.sample(worker)
    metrics.sample(worker)
    set_back(superuser, [world.fresh().id], 90)
    metrics.sample(worker)

    idle, late, idle_again, waits = [row.schedule_lag for row in read(unbound(worker), SAMPLES)]

    assert (idle, late, idle_again) == (0, 2, 0)
    assert waits == pytest.approx(90, abs=10)


def test_an_operations_sample_records_the_age_of_the_oldest_unsealed_event(world: World, worker: Database) -> None:
    request = world.submit()
    _set_back_events(world.db, request.id, "5 minutes")

    metrics.sample(worker)

    (row,) = read(unbound(worker), SAMPLES)
    assert row.seal_lag == pytest.approx(300, abs=20)


def test_operations_samples_are_kept_for_a_day_and_shown_as_hourly_maxima(api: Database, worker: Database) -> None:
    for minutes, lag in ((26 * 60, 70.0), (60, 3.0), (61, 9.0)):
        write(unbound(worker), AGO, ago=timedelta(minutes=minutes), lag=lag)

    metrics.sample(worker)

    found = today(api)
    assert len(read(unbound(worker), SAMPLES)) == 3
    assert max(number or 0 for number in found.worst("schedule_lag")) == 9
    assert max(number or 0 for number in found.worst("seal_lag")) == 9
    assert found.schedule_lag == 0


def test_operators_see_invariant_findings_by_id_and_other_people_see_none(world: World, api: Database) -> None:
    one = new_id()
    write(unbound(api), "INSERT INTO alarms (key, raised_at) VALUES (:key, now())", key=f"I2:{one}")

    found = operations.read_operations(api, world.people["olga"])

    assert [(finding.rule, finding.about) for finding in found.findings or ()] == [("I2", one)]
    assert found.status.postgres == found.status.redis == "ok"
    for who in world.people.keys() - {"olga"}:
        with pytest.raises(NotYours):
            operations.read_operations(api, world.people[who])


def test_while_postgres_is_away_operations_figures_are_unknown_and_no_error_is_raised(world: World) -> None:
    away = Database(make_engine("postgresql+psycopg://x:y@127.0.0.1:1/x", role="away"), world.db.schedule)

    found = operations.read_operations(away, world.people["olga"])

    assert (found.day, found.findings, found.status.figures.postgres) == (None, None, None)
    assert found.status.redis == "ok"


def test_status_reports_a_core_worker_that_has_a_new_heartbeat_but_no_connection(
    api: Database, worker: Database, superuser: Engine
) -> None:
    HeartbeatSender("core@here").beat(worker, ProcessPart.CORE)
    alive = status.read(api, with_redis=False)
    worker.dispose()
    within(20, lambda: not read(superuser, OF_WORKERS), pause=0.02)
    write(superuser, "UPDATE heartbeats SET beat_at = clock_timestamp() + interval '1 minute'")

    found = status.read(api, with_redis=False)

    assert [one for one in alive.troubles if one.startswith("core: no such worker")] == []
    assert "core: no such worker is connected to Postgres: has it ended?" in found.troubles
    assert [beat.age for beat in found.beats] == [0]


@pytest.mark.far
def test_open_requests_are_counted_up_to_a_thousand(world: World, superuser: Engine) -> None:
    first = world.fresh()
    world.act("ann", Action.DENY, world.fresh().id)
    freely(superuser, COPIES.format(id=first.id, number=metrics.MOST_SHOWN))

    found = status.read(world.db, with_redis=False)

    assert {state: metrics.at_most(number) for state, number in found.states.items()} == {
        "reviewing": "0",
        "pending": "1,000+",
        "active": "0",
    }
    assert found.as_facts()["requests"]["pending"] == metrics.MOST_SHOWN
