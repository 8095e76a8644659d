"""What faults do to the servers themselves: Redis and Postgres."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from sqlalchemy import text

from chaos.plan import Fault
from chaos.stage import ChaosStack

KEYS = ("clock", "clock:leases", "notifications", "notifications:leases")
TABLES = ("requests", "events", "notifications", "unsealed", "decisions")
LOGINS = ("lockbox_api", "lockbox_worker", "lockbox_notifications", "lockbox_connectors")
SMALL = 1 << 20
DEAD = ("127.0.0.1", "1")
NO_ONE = ("NO", "ONE")
CUT = (0.2, 0.4, 0.6)
CUT_OFF = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE usename LIKE 'lockbox_%' AND datname = current_database()
"""


def restart(stage: ChaosStack, fault: Fault) -> None:
    """Kill a server at once and start it again."""
    stage.servers.kill(fault.target)
    stage.servers.start_again(fault.target)


def restart_empty(stage: ChaosStack, _: Fault) -> None:
    """Kill Redis and start it without its data."""
    stage.servers.kill("redis")
    stage.servers.start_again("redis", empty=True)


def cut_log(stage: ChaosStack, fault: Fault) -> None:
    """Kill Redis, cut off the end of the file from which it restores its data, and start it."""
    stage.servers.kill("redis")
    for log in (stage.servers.folder / "redis" / "appendonlydir").glob("*.incr.aof"):
        with log.open("r+b") as file:
            file.truncate(int(log.stat().st_size * CUT[fault.dice % len(CUT)]))
    stage.servers.start_again("redis")


def lose_key(stage: ChaosStack, fault: Fault) -> None:
    """Delete one of the keys that contain the schedule."""
    with stage.redis() as redis:
        redis.delete(f"{{lockbox}}:{KEYS[fault.dice % len(KEYS)]}")


def flush(stage: ChaosStack, _: Fault) -> None:
    """Delete everything that the stack keeps in Redis."""
    with stage.redis() as redis:
        redis.flushdb()


@contextmanager
def out_of_memory(stage: ChaosStack, _: Fault) -> Iterator[None]:
    """Make Redis refuse all writes that need memory."""
    with stage.redis() as redis:
        redis.config_set("maxmemory", SMALL)
        try:
            yield
        finally:
            redis.config_set("maxmemory", 0)


def stall(stage: ChaosStack, fault: Fault) -> None:
    """Make Redis answer no one for a while."""
    with stage.redis() as redis:
        redis.client_pause(int(fault.lasts * 1000))


@contextmanager
def wrong_password(stage: ChaosStack, _: Fault) -> Iterator[None]:
    """Change the password and close all connections except our own, which stays signed in."""
    redis = Redis.from_url(stage.servers.redis_url, single_connection_client=True)
    right = redis.config_get("requirepass")["requirepass"] or ""
    redis.config_set("requirepass", "another")
    redis.client_kill_filter(_type="normal", skipme=True)
    redis.client_kill_filter(_type="pubsub")
    try:
        yield
    finally:
        redis.config_set("requirepass", right)
        redis.close()


@contextmanager
def read_only(stage: ChaosStack, _: Fault) -> Iterator[None]:
    """Make Redis a replica of a server that does not exist: its data can be read, but not written."""
    with stage.redis() as redis:
        redis.replicaof(*DEAD)
        try:
            yield
        finally:
            redis.replicaof(*NO_ONE)


def cut_off(stage: ChaosStack, _: Fault) -> None:
    """Close all connections."""
    with stage.superuser.connect() as connection:
        connection.execute(text(CUT_OFF))


@contextmanager
def few_connections(stage: ChaosStack, fault: Fault) -> Iterator[None]:
    """Limit each database login to one or two connections, and close all connections."""
    with stage.superuser.connect() as connection:
        for login in LOGINS:
            connection.execute(text(f"ALTER ROLE {login} CONNECTION LIMIT {1 + fault.dice % 2}"))
        connection.execute(text(CUT_OFF))
        try:
            yield
        finally:
            for login in LOGINS:
                connection.execute(text(f"ALTER ROLE {login} CONNECTION LIMIT -1"))


@contextmanager
def lock(stage: ChaosStack, fault: Fault) -> Iterator[None]:
    """Lock a table, so that nobody can read or write it."""
    with stage.superuser.connect() as connection:
        connection.execute(text("BEGIN"))
        connection.execute(text(f"LOCK TABLE {TABLES[fault.dice % len(TABLES)]} IN ACCESS EXCLUSIVE MODE"))
        try:
            yield
        finally:
            connection.execute(text("ROLLBACK"))
