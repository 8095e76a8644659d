"""What each kind of fault does, and how it is lifted again."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import psutil
from celery import Celery
from redis.exceptions import RedisError
from sqlalchemy import text

from chaos import servers
from chaos.celery_messages import MessageFate
from chaos.plan import Fault
from chaos.stage import ChaosStack
from devstack.flower import Flower
from harness.network import ProxyMode
from harness.sinks import Manner
from lockbox.sql import new_id

TASKS = {"lockbox.time_out": "core", "lockbox.expire": "core", "lockbox.notify": "notify"}
SOME_OPEN = "SELECT id FROM requests WHERE wake_at IS NOT NULL ORDER BY id DESC LIMIT 50"

Strike = Callable[[ChaosStack, Fault], AbstractContextManager[None]]


def once(do: Callable[[ChaosStack, Fault], object]) -> Strike:
    """Return a strike that does something, and lifts nothing afterwards."""

    @contextmanager
    def strike(stage: ChaosStack, fault: Fault) -> Iterator[None]:
        do(stage, fault)
        yield

    return strike


@contextmanager
def freeze(stage: ChaosStack, fault: Fault) -> Iterator[None]:
    """SIGSTOP a process or a server with its children, and let them continue afterwards."""
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


@contextmanager
def network(stage: ChaosStack, fault: Fault) -> Iterator[None]:
    """Switch a proxy or the sinks to the mode that the fault names. What a black hole swallows arrives afterwards."""
    if fault.target in stage.proxies:
        proxy = stage.proxies[fault.target]
        stage.loop.do(proxy.turn(ProxyMode(fault.kind)))
        try:
            yield
        finally:
            if fault.kind == ProxyMode.BLACK_HOLE and fault.dice % 2:
                stage.loop.do(proxy.cut())
            stage.loop.do(proxy.turn(ProxyMode.PASS))
        return
    sinks = stage.sinks(fault.target)
    for sink in sinks:
        stage.loop.do(sink.turn(Manner(fault.kind)))
    try:
        yield
    finally:
        for sink in sinks:
            stage.loop.do(sink.turn(Manner.TAKE))


@contextmanager
def partition(stage: ChaosStack, fault: Fault) -> Iterator[None]:
    """Cut the guard off for longer than it may go without news: refuse connections, or swallow what is sent."""
    kind = ProxyMode.REFUSE if fault.dice % 4 == 0 else ProxyMode.BLACK_HOLE
    with network(stage, replace(fault, kind=kind)):
        yield


def reset(stage: ChaosStack, fault: Fault) -> None:
    """Reset all connections, whatever is being sent."""
    stage.loop.do(stage.proxies[fault.target].cut())


@contextmanager
def triple(stage: ChaosStack, _: Fault) -> Iterator[None]:
    """Deliver every message three times."""
    stage.messages.fate = MessageFate.TRIPLE
    yield
    stage.messages.fate = MessageFate.PASS


@contextmanager
def shuffle(stage: ChaosStack, fault: Fault) -> Iterator[None]:
    """Hold messages back and deliver them in any order, or never."""
    stage.messages.fate = MessageFate.HOLD if fault.kind == "shuffle" else MessageFate.LOSE
    try:
        yield
    finally:
        stage.messages.fate = MessageFate.PASS
        # If Redis is away now, the messages are released when everything is healed.
        with contextlib.suppress(RedisError), stage.redis() as redis:
            stage.messages.release(redis, fault.dice)


def replay(stage: ChaosStack, fault: Fault) -> None:
    """Deliver earlier messages once more."""
    with stage.redis() as redis:
        stage.messages.replay(redis, fault.dice)


def forge(stage: ChaosStack, fault: Fault) -> None:
    """Send forged messages: about open requests that are not due, about nothing, malformed, and of unknown tasks."""
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


def control(stage: ChaosStack, _: Fault) -> None:
    """Try everything that would change something in Flower, and note its answers."""
    with Flower(stage.plan) as flower:
        stage.controls.extend(flower.control().values())


STRIKES: dict[str, Strike] = {
    "kill": once(lambda stage, fault: stage.crew.kill(fault.target)),
    "kill_child": once(lambda stage, fault: stage.crew.kill_child(fault.target, fault.dice)),
    "freeze": freeze,
    "flush": once(servers.flush),
    "lose_key": once(servers.lose_key),
    "restart": once(servers.restart),
    "restart_empty": once(servers.restart_empty),
    "cut_log": once(servers.cut_log),
    "out_of_memory": servers.out_of_memory,
    "stall": once(servers.stall),
    "wrong_password": servers.wrong_password,
    "read_only": servers.read_only,
    "cut_off": once(servers.cut_off),
    "few_connections": servers.few_connections,
    "lock": servers.lock,
    "refuse": network,
    "black_hole": network,
    "reset": once(reset),
    "slow": network,
    "partition": partition,
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
