"""Striking: what each kind of fault does, and how it is lifted again."""

import contextlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import httpx
import psutil
from celery import Celery
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chaos.hints import Fate
from chaos.plan import Fault
from chaos.proxy import Mode
from chaos.sinks import Manner
from chaos.stage import Stage
from cli.demo.flower import Flower
from config.embedded import EmbeddedRefused
from lockbox.ids import new_id

KEYS = ("clock", "clock:leases", "notices", "notices:leases")
TABLES = ("requests", "events", "notices", "unsealed", "decisions")
LOGINS = ("lockbox_api", "lockbox_worker")
TASKS = {"lockbox.time_out": "core", "lockbox.expire": "core", "lockbox.notify": "notify"}
SMALL = 1 << 20
CUT = (0.2, 0.4, 0.6)
CUT_OFF = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE usename LIKE 'lockbox_%' AND datname = current_database()
"""
SOME_OPEN = "SELECT id FROM requests WHERE wake_at IS NOT NULL ORDER BY id DESC LIMIT 50"
EXPECTED = (OSError, EmbeddedRefused, RedisError, SQLAlchemyError, psutil.Error, httpx.HTTPError)

Strike = Callable[[Stage, Fault], AbstractContextManager[None]]


class Striker:
    """Strikes as the plan says, each fault in a thread of its own, one at a time on each target.

    `done` counts the faults by kind, `missed` are those that could not be done.
    """

    def __init__(self, stage: Stage) -> None:
        self.done: Counter[str] = Counter()
        self.missed: list[str] = []
        self._stage = stage
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._pool = ThreadPoolExecutor(16, "chaos-strike")
        self._under_way: list[Future[None]] = []

    def strike(self, fault: Fault) -> None:
        """Begin with a fault."""
        lock = self._locks[fault.target]
        self._under_way.append(self._pool.submit(self._struck, fault, lock))

    def wait(self) -> None:
        """Wait until all are lifted."""
        for one in self._under_way:
            one.result()
        self._pool.shutdown()

    def _struck(self, fault: Fault, lock: threading.Lock) -> None:
        with lock:
            try:
                with STRIKES[fault.kind](self._stage, fault):
                    time.sleep(fault.lasts)
            except EXPECTED as error:
                self.missed.append(f"{fault.kind} {fault.target}: {type(error).__name__}")
            else:
                self.done[fault.kind] += 1


def once(do: Callable[[Stage, Fault], object]) -> Strike:
    """Return the strike that does something and lifts nothing."""

    @contextmanager
    def strike(stage: Stage, fault: Fault) -> Iterator[None]:
        do(stage, fault)
        yield

    return strike


@contextmanager
def freeze(stage: Stage, fault: Fault) -> Iterator[None]:
    if fault.target not in stage.servers.pids:
        with stage.crew.frozen(fault.target):
            yield
        return
    server = psutil.Process(stage.servers.pids[fault.target])
    family = [server, *server.children(recursive=True)]
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.suspend()
    try:
        yield
    finally:
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.resume()


def restart(stage: Stage, fault: Fault) -> None:
    stage.servers.kill(fault.target)
    stage.servers.start_again(fault.target)


def restart_empty(stage: Stage, _: Fault) -> None:
    stage.servers.kill("redis")
    stage.servers.start_again("redis", empty=True)


def cut_log(stage: Stage, fault: Fault) -> None:
    """Kill Redis, cut the end off the file that it would read its data from, and start it."""
    stage.servers.kill("redis")
    for log in (stage.servers.folder / "redis" / "appendonlydir").glob("*.incr.aof"):
        with log.open("r+b") as file:
            file.truncate(int(log.stat().st_size * CUT[fault.dice % len(CUT)]))
    stage.servers.start_again("redis")


def lose_key(stage: Stage, fault: Fault) -> None:
    with stage.redis() as redis:
        redis.delete(f"{{lockbox}}:{KEYS[fault.dice % len(KEYS)]}")


def flush(stage: Stage, _: Fault) -> None:
    with stage.redis() as redis:
        redis.flushall()


@contextmanager
def out_of_memory(stage: Stage, _: Fault) -> Iterator[None]:
    with stage.redis() as redis:
        redis.config_set("maxmemory", SMALL)
        try:
            yield
        finally:
            redis.config_set("maxmemory", 0)


def stall(stage: Stage, fault: Fault) -> None:
    with stage.redis() as redis:
        redis.client_pause(int(fault.lasts * 1000))


@contextmanager
def wrong_password(stage: Stage, _: Fault) -> Iterator[None]:
    """Change the password and hang up on everybody; who struck stays signed in on a connection of its own."""
    redis = Redis.from_url(stage.servers.redis_url, single_connection_client=True)
    right = redis.config_get("requirepass")["requirepass"]  # type: ignore[index]
    redis.config_set("requirepass", "another")
    redis.client_kill_filter(_type="normal", skipme=True)
    redis.client_kill_filter(_type="pubsub")
    try:
        yield
    finally:
        redis.config_set("requirepass", right)
        redis.close()


def cut_off(stage: Stage, _: Fault) -> None:
    with stage.superuser.connect() as connection:
        connection.execute(text(CUT_OFF))


@contextmanager
def few_connections(stage: Stage, fault: Fault) -> Iterator[None]:
    """Let each login have one or two connections, and hang up on all that there are."""
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
def lock(stage: Stage, fault: Fault) -> Iterator[None]:
    with stage.superuser.connect() as connection:
        connection.execute(text("BEGIN"))
        connection.execute(text(f"LOCK TABLE {TABLES[fault.dice % len(TABLES)]} IN ACCESS EXCLUSIVE MODE"))
        try:
            yield
        finally:
            connection.execute(text("ROLLBACK"))


@contextmanager
def network(stage: Stage, fault: Fault) -> Iterator[None]:
    """Turn a proxy or the sinks to the manner of this name. What is swallowed by a black hole arrives afterwards."""
    if fault.target in stage.proxies:
        proxy = stage.proxies[fault.target]
        stage.loop.do(proxy.turn(Mode(fault.kind)))
        try:
            yield
        finally:
            if fault.kind == Mode.BLACK_HOLE and fault.dice % 2:
                stage.loop.do(proxy.cut())
            stage.loop.do(proxy.turn(Mode.PASS))
        return
    sinks = stage.sinks(fault.target)
    for sink in sinks:
        stage.loop.do(sink.turn(Manner(fault.kind)))
    try:
        yield
    finally:
        for sink in sinks:
            stage.loop.do(sink.turn(Manner.TAKE))


def reset(stage: Stage, fault: Fault) -> None:
    stage.loop.do(stage.proxies[fault.target].cut())


@contextmanager
def triple(stage: Stage, _: Fault) -> Iterator[None]:
    stage.hints.fate = Fate.TRIPLE
    yield
    stage.hints.fate = Fate.PASS


@contextmanager
def shuffle(stage: Stage, fault: Fault) -> Iterator[None]:
    stage.hints.fate = Fate.HOLD if fault.kind == "shuffle" else Fate.LOSE
    try:
        yield
    finally:
        stage.hints.fate = Fate.PASS
        with stage.redis() as redis:
            stage.hints.release(redis, fault.dice)


def replay(stage: Stage, fault: Fault) -> None:
    with stage.redis() as redis:
        stage.hints.replay(redis, fault.dice)


def forge(stage: Stage, fault: Fault) -> None:
    """Send hints by hand: about what is open and not due, about nothing, of a wrong form, of tasks that are none."""
    with stage.superuser.connect() as connection:
        open_ = [str(one) for one in connection.execute(text(SOME_OPEN)).scalars()]
    with Celery("stranger", broker=stage.servers.redis_url) as stranger:
        stranger.conf.broker_transport_options = {"socket_timeout": 3, "socket_connect_timeout": 3}
        for task, queue in TASKS.items():
            for ids in (open_, [str(new_id())], ["not an id"], []):
                stranger.send_task(task, [ids], queue=queue, retry=False)
        for task in ("lockbox.approve", "lockbox.expire" if fault.dice % 2 else "lockbox.open"):
            stranger.send_task(task, [open_], kwargs={"state": "active"}, queue="core", retry=False)
        stranger.send_task("lockbox.reconcile", [], queue="maintenance", retry=False)


def control(stage: Stage, _: Fault) -> None:
    """Try everything that would change something in Flower, and note its answers."""
    flower = Flower(stage.plan)
    try:
        stage.controls.extend(flower.control().values())
    finally:
        flower.close()


STRIKES: dict[str, Strike] = {
    "kill": once(lambda stage, fault: stage.crew.kill(fault.target)),
    "kill_child": once(lambda stage, fault: stage.crew.kill_child(fault.target, fault.dice)),
    "freeze": freeze,
    "flush": once(flush),
    "lose_key": once(lose_key),
    "restart": once(restart),
    "restart_empty": once(restart_empty),
    "cut_log": once(cut_log),
    "out_of_memory": out_of_memory,
    "stall": once(stall),
    "wrong_password": wrong_password,
    "cut_off": once(cut_off),
    "few_connections": few_connections,
    "lock": lock,
    "refuse": network,
    "black_hole": network,
    "reset": once(reset),
    "slow": network,
    "busy": network,
    "cut": network,
    "no": network,
    "triple": triple,
    "shuffle": shuffle,
    "drop": shuffle,
    "forge": once(forge),
    "replay": once(replay),
    "control": once(control),
}
