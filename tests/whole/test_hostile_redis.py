"""Arbitrary data in Redis: an attacker who can write there can at worst delay workers, and ends none of them."""

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.pidbox import Mailbox
from redis import Redis
from sqlalchemy.engine import make_url

from devstack.embedded import ServerAddresses
from lockbox.pubsub import GATES, OPERATORS, PAGES, SIDES, bell_of, channel_of
from lockbox.schedule import INDEXES
from lockbox.sql import new_id
from tests.whole.conftest import PATIENCE, RunningStack, stage_of, wait_until
from worker.message_filter import TASKS

PROCESSES = ("api", "worker", "notifications", "flower")
SEP = "\x06\x16"
QUEUES = {queue for task, queue in TASKS.items() if task != "lockbox.connect"}
"""Those that have workers in these processes."""
LISTS = [queue + step for queue in sorted(QUEUES) for step in ("", f"{SEP}3", f"{SEP}6", f"{SEP}9")]
SETS = [f"_kombu.binding.{name}" for name in ("celery.pidbox", "reply.celery.pidbox", "celeryev")]
ZSETS = [key for index in INDEXES for key in index.keys] + ["unacked_index", "_kombu.binding_deadlines"]
COMMANDS: dict[str, dict[str, Any]] = {
    "shutdown": {},
    "pool_grow": {"n": 50},
    "pool_shrink": {"n": 2},
    "pool_restart": {},
    "autoscale": {"max": 0, "min": 0},
    "rate_limit": {"task_name": "lockbox.expire", "rate_limit": "1/d"},
    "time_limit": {"task_name": "lockbox.expire", "hard": 0.001},
    "add_consumer": {"queue": "other"},
    "cancel_consumer": {"queue": "core"},
    "disable_events": {},
    "revoke": {"task_id": [str(new_id())], "terminate": True},
    "terminate": {"signal": "KILL", "task_id": str(new_id())},
    "hello": {"from_node": "x", "revoked": {str(new_id()): 1.0}},
    "election": {"id": "x", "topic": "y"},
    "objgraph": {},
    "memdump": {},
    "no_such_command": {},
}


def envelope(body: object, **changes: Any) -> dict[str, Any]:
    """Return a task in the form that it has in a Redis list, with changes."""
    encoded = base64.b64encode(json.dumps(body).encode()).decode()
    headers = {"task": "lockbox.expire", "id": str(new_id()), "lang": "py", "retries": 0, "timelimit": [None, None]}
    properties = {
        "delivery_tag": str(new_id()),
        "delivery_info": {"exchange": "", "routing_key": "core"},
        "body_encoding": "base64",
        "priority": 0,
    }
    usual = {"body": encoded, "headers": headers, "properties": properties}
    return usual | {"content-type": "application/json", "content-encoding": "utf-8"} | changes


def packed(body: object = ([[]], {}, {}), **changes: Any) -> bytes:
    return json.dumps(envelope(body, **changes)).encode()


GARBAGE = {
    "no text": b"\xff\xfe\x00\x80",
    "no JSON": b"{not json",
    "a number": b"42",
    "a list": b"[]",
    "too deep": b"[" * 100_000,
    "no envelope": b"{}",
    "no properties": json.dumps({"body": "e30=", "headers": {}}).encode(),
    "strange properties": packed(properties=[1]),
    "no tag": packed(properties={"body_encoding": "base64"}),
    "no base64": packed(body="!!!"),
    "unknown encoding of the body": packed(properties=envelope([])["properties"] | {"body_encoding": "rot13"}),
    "pickle": packed(**{"content-type": "application/x-python-serialize", "content-encoding": "binary"}),
    "unknown charset": packed(**{"content-encoding": "utf-99"}),
    "headers of no kind": packed(headers=[["task", "lockbox.expire"]]),
    "a task of no kind": packed(headers={"task": {"a": 1}, "id": 7}),
    "a body of no kind": packed("text"),
    "arguments of no kind": packed([{"ids": 1}, [], 3]),
    "ids of no kind": packed([[[1, None, {"a": []}]], {}, {}]),
    "an hour of retries": packed(headers={"task": "lockbox.expire", "id": str(new_id()), "eta": "x", "retries": "y"}),
    "huge": packed(["x" * 3_000_000]),
}


def redis_of(stage: RunningStack) -> "Redis":
    return Redis.from_url(stage.plan.redis_url)


def litter(redis: "Redis", number: int) -> None:
    """Put every kind of garbage into every list, hash, set, sorted set and channel that the product uses."""
    for key in LISTS:
        redis.lpush(key, *GARBAGE.values())
    for tag, item in enumerate(GARBAGE.values()):
        redis.hset("unacked", f"garbage-{tag}", item)
        redis.hset("unacked", f"triple-{tag}", json.dumps([item.decode(errors="replace")[:1000], "x", "y"]))
        redis.zadd("unacked_index", {f"garbage-{tag}": tag, f"triple-{tag}": tag, f"nothing-{tag}": 0})
        for key in SETS:
            redis.sadd(key, item[:1000], SEP.join(["x", "y", "core"]), SEP.join(["", "", "{lockbox}:clock"]))
        for key in ZSETS:
            member = item[:1000]
            redis.zadd(key, {member: 0, b"i" + member: math.inf, b"n" + member: -math.inf})
        news = [channel_of(number, side) for side in (None, *SIDES, OPERATORS, PAGES, GATES)]
        for channel in (f"/{number}.celery.pidbox", bell_of(number), *news):
            redis.publish(channel, item)


def number_of(stage: RunningStack) -> int:
    return int(make_url(stage.plan.redis_url).database or 0)


def answering(stage: RunningStack) -> set[str]:
    with Celery("stranger", broker=stage.plan.redis_url) as stranger:
        replies = stranger.control.ping(timeout=2) or []
    return {name.partition("@")[0] for reply in replies for name in reply}


def _replies(stranger: Celery, commands: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Broadcast commands with one ticket, and return the first two answers; both workers answer the last command.

    A worker handles them in order, so that an answer to an earlier command would come before those to the last.
    """
    ticket = str(new_id())
    with stranger.connection_or_acquire() as connection:
        mailbox: Any = Mailbox("celery", type="fanout", accept=["json"])(connection)
        channel = connection.default_channel
        for command, arguments in commands.items():
            mailbox._publish(command, arguments, reply_ticket=ticket, channel=channel)  # noqa: SLF001
        replies: list[dict[str, Any]] = mailbox._collect(ticket, limit=2, timeout=PATIENCE, channel=channel)  # noqa: SLF001
    return replies


def _pools(stranger: Celery) -> set[int]:
    """Return how many processes the core worker has; nothing if it does not answer in time."""
    stats = stranger.control.inspect(timeout=5).stats() or {}
    return {len(told["pool"]["processes"]) for name, told in stats.items() if name.startswith("core")}


def works(stage: RunningStack) -> None:
    """Check that approvers are prompted, a request times out, and both workers answer."""
    world = stage.world(approval_window=3)
    request = world.submit()
    wait_until(lambda: any(str(request.id) in mail for mail in stage.caught.texts()), "the approvers are prompted")
    stage.ends(request.id, "timed_out")
    both_answer(stage)


def both_answer(stage: RunningStack) -> None:
    wait_until(lambda: answering(stage) == {"core", "notifications"}, "both workers answer")


@pytest.fixture
def living(stage: RunningStack) -> Iterator[RunningStack]:
    """The stage; no process except Flower may end during the test."""
    before = {name: child.pid for name, child in stage.processes.running.items() if name != "flower"}
    yield stage
    assert stage.processes.ended().keys() <= {"flower"}
    assert {name: stage.processes.running[name].pid for name in before} == before


@pytest.mark.far
def test_any_garbage_in_redis_is_dropped_and_counted_and_ends_no_worker(living: RunningStack) -> None:
    redis = redis_of(living)

    for _ in range(3):
        litter(redis, number_of(living))

    works(living)
    wait_until(lambda: not any(redis.llen(key) for key in LISTS), "all lists are empty")
    wait_until(lambda: not redis.hlen("unacked"), "nothing of it is unacknowledged")
    query = "SELECT label, sum(count) AS n FROM counters WHERE name = 'dropped' GROUP BY label"
    wait_until(lambda: {row.label for row in living.rows(query)} >= QUEUES, "what was dropped is counted")
    living.events_are_whole()


@pytest.mark.far
def test_no_broadcast_through_a_hostile_redis_changes_a_worker(living: RunningStack) -> None:
    # A worker is ready a moment before it hears broadcasts, and what it did not hear it does not answer.
    both_answer(living)
    with Celery("stranger", broker=living.plan.redis_url) as stranger:
        for command, arguments in COMMANDS.items():
            stranger.control.broadcast(command, arguments=arguments)
        replies = _replies(stranger, COMMANDS | {"ping": {}})
        told = (_pools(stranger) for _ in range(12))
        pools = next(filter(None, told), None)

    assert [answer for reply in replies for answer in reply.values()] == [{"ok": "pong"}] * 2
    assert pools == {3}
    works(living)


KINDS = ["string", *(pytest.param(one, marks=pytest.mark.far) for one in ("list", "hash", "set", "zset"))]


@pytest.mark.far
@pytest.mark.parametrize("kind", KINDS)
def test_a_redis_key_of_another_type_delays_work_and_is_deleted(living: RunningStack, kind: str) -> None:
    redis = redis_of(living)
    make: dict[str, Callable[[str], object]] = {
        "string": lambda key: redis.set(key, "x"),
        "list": lambda key: redis.lpush(key, "x"),
        "hash": lambda key: redis.hset(key, "x", "y"),
        "set": lambda key: redis.sadd(key, "x"),
        "zset": lambda key: redis.zadd(key, {"x": 1}),
    }

    for key in (*LISTS, *SETS, *ZSETS, "unacked", "unacked_mutex"):
        redis.delete(key)
        make[kind](key)

    works(living)
    if kind == "hash":
        # Of that type it should be: nobody looks for what no index of it names.
        redis.hdel("unacked", "x")
    living.events_are_whole()


@pytest.mark.far
def test_workers_start_despite_garbage_already_in_redis(template: ServerAddresses, tmp_path: Path) -> None:
    with stage_of(template, tmp_path, names=()) as stage:
        redis = redis_of(stage)
        litter(redis, number_of(stage))
        for key in ("unacked", "core"):
            redis.delete(key)
            redis.set(key, "x")

        for name in ("worker", "notifications"):
            stage.processes.start(name)

        works(stage)
        assert stage.processes.ended() == {}
