"""Metrics: what Postgres and Redis say about an installation, and which metrics remain while one is away."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from sqlalchemy import Engine

from api.metrics import exposition
from harness.people import World
from harness.stage import Urls, unbound
from harness.wait import within
from lockbox import sql
from lockbox.database import Database, make_engine
from lockbox.monitoring.heartbeats import HeartbeatSender, ProcessPart
from lockbox.monitoring.metrics import MetricName, MetricSnapshot, read
from lockbox.reconcile import reconcile
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.schedule import CLOCK, NOTIFICATIONS, IndexEntry, Schedule
from lockbox.sql import LAG_BUCKETS
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import many, set_back, write
from tests.logs import sealed

BODIES = "SELECT prosrc FROM pg_proc WHERE proname = ANY(%s)"

Samples = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def redis(urls: Urls) -> Iterator["Redis"]:
    with Redis.from_url(urls.redis) as client:
        yield client


def shown(figures: MetricSnapshot) -> Samples:
    """Return what Prometheus reads: numbers by name and labels."""
    families = text_string_to_metric_families(exposition(figures).decode())
    return {
        (sample.name.removeprefix("lockbox_"), tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_pending_and_open_requests_are_counted_by_the_kind_of_their_next_deadline(
    world: World, api: Database
) -> None:
    many(world, 3)
    world.act("ann", Action.APPROVE, world.fresh().id)

    found = shown(read(api))

    assert found["deadlines_pending", ("time_out",)] == 3
    assert found["deadlines_pending", ("expire",)] == 1
    assert found["access_open", ()] == 1
    assert found["deadlines_overdue", ()] == 0
    assert (found["postgres_up", ()], found["redis_up", ()]) == (1, 1)


def test_an_expired_window_counts_as_overdue_and_not_as_open(world: World, api: Database, superuser: Engine) -> None:
    request = world.fresh()
    world.act("ann", Action.APPROVE, request.id)
    set_back(superuser, [request.id], 5)

    found = shown(read(api))

    assert (found["deadlines_overdue", ()], found["access_open", ()]) == (1, 0)


def test_a_histogram_counts_how_late_the_timer_handles_deadlines(
    world: World, api: Database, worker: Database, superuser: Engine
) -> None:
    late, later = many(world, 2), many(world, 1)
    set_back(superuser, late, 20)
    set_back(superuser, later, 90)

    timers.run(worker, [*late, *later])

    found = shown(read(api))
    buckets = {float(labels[0]): n for (name, labels), n in found.items() if name == "deadline_lag_seconds_bucket"}
    assert list(buckets) == list(LAG_BUCKETS)
    assert (buckets[5.0], buckets[10.0], buckets[60.0], buckets[float("inf")]) == (0, 0, 2, 3)
    assert found["deadline_lag_seconds_count", ()] == 3
    assert 130 <= found["deadline_lag_seconds_sum", ()] < 250


@pytest.mark.far
def test_merging_rows_of_metric_counters_keeps_every_sum(
    world: World, api: Database, worker: Database, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = many(world, 9)
    set_back(superuser, ids, 20)
    for one in ids:
        timers.run(worker, [one])
    before = shown(read(api))
    monkeypatch.setattr(sql, "MOST_ROWS", 5)

    list(reconcile(worker, None))

    after = shown(read(api))
    rows = unbound(worker).connect()
    with rows as connection:
        left = connection.exec_driver_sql("SELECT count FROM counters WHERE name = 'deadline_lag'").scalars().all()
    assert left == [9]
    for name in ("deadline_lag_seconds_count", "deadline_lag_seconds_sum"):
        assert after[name, ()] == pytest.approx(before[name, ()])


def test_send_attempts_are_counted_by_channel_and_outcome(
    world: World, api: Database, worker: Database, post: Postbag
) -> None:
    post.endpoint(world, "https://contoso.example/hook", tenant_id=world.tenant.id)
    world.fresh()
    count = len(open_notifications(worker))
    assert shown(read(api))["oldest_unsent_notification_age_seconds", ("mail",)] >= 0

    post.deliver(worker, open_notifications(worker))

    found = shown(read(api))
    sent = {labels: n for (name, labels), n in found.items() if name == "notify_attempts_total"}
    assert sent["webhook", "sent"] == 1
    assert sum(sent.values()) == count
    assert found["deadletters", ("mail",)] == found["deadletters", ("webhook",)] == 0
    assert found["oldest_unsent_notification_age_seconds", ("mail",)] == 0


def test_unsealed_events_are_counted_with_their_age(world: World, api: Database, worker: Database) -> None:
    world.fresh()
    assert within(5, lambda: shown(read(api))["audit_seal_lag_seconds", ()] > 0)
    assert shown(read(api))["audit_unsealed", ()] >= 1

    sealed(worker)

    found = shown(read(api))
    assert (found["audit_unsealed", ()], found["audit_seal_lag_seconds", ()]) == (0, 0)
    assert 0 <= found["audit_checkpoint_age_seconds", ()] < 60


def test_the_schedule_drift_metric_counts_missing_and_extra_index_entries(
    world: World, api: Database, redis: "Redis", superuser: Engine
) -> None:
    ids = many(world, 4)
    set_back(superuser, ids, -600)
    assert shown(read(api))["index_drift", ("missing", "clock")] == 4
    redis.flushdb()
    list(reconcile(Database(unbound(api), api.schedule), None))
    drift = {labels: n for (name, labels), n in shown(read(api)).items() if name == "index_drift"}
    assert drift == {(way, index): 0 for index in ("clock", "notifications") for way in ("missing", "extra")}

    stranger = "00000000-0000-7000-8000-000000000001"
    api.schedule.arm(CLOCK, [IndexEntry(stranger, "expire", timedelta(minutes=5))])
    held = redis.zrange(NOTIFICATIONS.keys[0], 0, 0)
    redis.zrem(NOTIFICATIONS.keys[0], *held)

    drift = {labels: n for (name, labels), n in shown(read(api)).items() if name == "index_drift"}
    assert (drift["extra", "clock"], drift["missing", "notifications"]) == (1, 1)


def test_unacknowledged_queue_messages_are_counted_with_their_age(api: Database, redis: "Redis") -> None:
    assert shown(read(api))["redis_oldest_unacked_age_seconds", ()] == 0
    seconds = int(redis.time()[0])
    redis.hset("unacked", mapping={"a": "x", "b": "y"})
    redis.zadd("unacked_index", {"a": seconds - 50, "b": seconds})

    found = shown(read(api))

    assert found["redis_unacked", ()] == 2
    assert 49 <= found["redis_oldest_unacked_age_seconds", ()] < 60


def test_heartbeats_of_processes_report_age_and_clock_offset(api: Database, worker: Database) -> None:
    HeartbeatSender("api@here").beat(api, ProcessPart.API)
    HeartbeatSender("core@here").beat(worker, ProcessPart.CORE)
    HeartbeatSender("core@there").beat(worker, ProcessPart.CORE)
    write(unbound(worker), "UPDATE heartbeats SET skew = -300 WHERE node = 'core@there'")
    write(unbound(worker), "UPDATE heartbeats SET beat_at = beat_at - interval '90 seconds' WHERE role = 'api'")

    found = shown(read(api))

    assert found["processes", ("core",)] == 2
    assert ("processes", ("api",)) not in found
    assert 90 <= found["heartbeat_age_seconds", ("api",)] < 100
    assert found["clock_skew_seconds", ("core",)] == -300
    assert 0 <= found["heartbeat_age_seconds", ("core",)] < 30


def test_metrics_state_the_sum_of_connections_of_live_processes_and_the_allowed_number(
    api: Database, worker: Database
) -> None:
    for node in ("api@here", "api@there", "api@gone"):
        HeartbeatSender(node, connections=58).beat(api, ProcessPart.API)
    core = HeartbeatSender("core@here", connections=20)
    for part in (ProcessPart.CORE, ProcessPart.SEAL, ProcessPart.INVARIANTS, ProcessPart.RECONCILE):
        core.beat(worker, part)
    write(unbound(worker), "UPDATE heartbeats SET beat_at = beat_at - interval '61 seconds' WHERE node = 'api@gone'")

    found = shown(read(api))

    assert (found["connections_promised", ("api",)], found["connections_promised", ("core",)]) == (116, 20)
    jobs = ("seal", "invariants", "reconcile")
    assert not [job for job in jobs if found.get(("connections_promised", (job,)))], "they are the core worker's"
    assert found["connections_allowed", ()] > 20


def test_a_process_reuses_its_heartbeat_row_and_old_rows_are_deleted(worker: Database) -> None:
    heart = HeartbeatSender("core@here")
    heart.beat(worker, ProcessPart.CORE)
    HeartbeatSender("notifications@gone").beat(worker, ProcessPart.NOTIFICATIONS)
    write(
        unbound(worker),
        "UPDATE heartbeats SET beat_at = beat_at - interval '61 minutes' WHERE role = 'notifications'",
    )

    heart.beat(worker, ProcessPart.CORE)

    with unbound(worker).connect() as connection:
        rows = connection.exec_driver_sql("SELECT node, abs(skew) < 5 FROM heartbeats").all()
    assert [tuple(row) for row in rows] == [("core@here", True)]


def test_a_database_role_reports_only_heartbeats_of_its_own_kind_of_process(api: Database, worker: Database) -> None:
    HeartbeatSender("x").beat(api, ProcessPart.INVARIANTS)
    HeartbeatSender("x").beat(worker, ProcessPart.API)

    with unbound(worker).connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM heartbeats").scalar_one() == 0


@pytest.mark.far
def test_postgres_metrics_are_available_while_redis_is_away(world: World, api: Database, away_url: str) -> None:
    many(world, 2)
    schedule = Schedule(away_url)

    found = shown(read(Database(api.engine, schedule)))

    schedule.close()
    assert (found["redis_up", ()], found["deadlines_pending", ("time_out",)]) == (0, 2)
    assert not [name for name, _ in found if name.startswith(("redis_un", "redis_old", "index_drift"))]


def test_redis_metrics_are_available_while_postgres_is_away(api: Database) -> None:
    away = make_engine("postgresql+psycopg://u:s3cret@127.0.0.1:1/x", role="away")

    found = shown(read(Database(away, api.schedule)))

    assert {name for name, _ in found} == {
        "postgres_up",
        "gate_answers_unwritten",
        "redis_up",
        "redis_unacked",
        "redis_oldest_unacked_age_seconds",
    }
    assert (found["postgres_up", ()], found["redis_up", ()]) == (0, 1)


def test_no_metric_names_a_person(world: World, api: Database, worker: Database, post: Postbag) -> None:
    many(world, 2)
    post.deliver(worker, open_notifications(worker))
    sealed(worker)
    HeartbeatSender("core@secret-host").beat(worker, ProcessPart.CORE)

    said = exposition(read(api)).decode()

    for name in (world.tenant.slug, str(world.tenant.id), "example", "secret-host", "Contoso"):
        assert name not in said
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}", said)


def test_every_named_metric_is_computed_once(api: Database) -> None:
    with unbound(api).connect() as connection:
        (body,) = connection.exec_driver_sql(BODIES, (["operating_figures"],)).scalars()

    worked_out = re.findall(r"^    (?:UNION ALL )?SELECT '(\w+)', ", body, re.MULTILINE)
    told_apart = {MetricName.PENDING: 2, MetricName.SOON: 3}
    counted = {
        MetricName.ATTEMPT,
        MetricName.DROPPED,
        MetricName.DEADLINE_LAG,
        MetricName.USES_LOST,
        MetricName.OUTSIDE_ACCESS,
    }
    beside = {MetricName.LAGGING_STANDBY}
    assert Counter(worked_out) == {one: told_apart.get(one, 1) for one in set(MetricName) - counted - beside}


def test_metrics_queries_use_indexes(api: Database) -> None:
    with unbound(api).connect() as connection:
        bodies = connection.exec_driver_sql(BODIES, (["operating_figures", "seal_lag"],)).scalars().all()
        connection.exec_driver_sql("SET enable_seqscan = off")
        plans = ["\n".join(connection.exec_driver_sql(f"EXPLAIN {body}").scalars()) for body in bodies]

    assert len(plans) == 2
    walked = set(re.findall(r"Seq Scan on (\w+)", "\n".join(plans)))
    assert walked & {"requests", "notifications", "unsealed", "events", "seals"} == set()
