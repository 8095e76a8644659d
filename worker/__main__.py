"""Start a worker: `core` keeps deadlines, `notifications` sends mail and webhooks, `connectors` opens access."""

import argparse
import gc
import logging
import os
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from catalogue.unsafe_settings import UnsafeSettings
from config import traces
from config.settings import Settings
from lockbox import failpoints
from lockbox.failpoints import UnknownFailpoint
from lockbox.startup_checks import ServerKind, StartupCheckFailed, wait_until_fit
from worker import journal
from worker.app import CONNECT, CORE, MAINTENANCE, NOTIFY, app
from worker.prefork import PreforkPool
from worker.runtime import CONNECTIONS, CONNECTOR_THREADS, CORE_CHILDREN, NOTIFY_THREADS, make, settings


@dataclass(frozen=True)
class WorkerKind:
    server: ServerKind
    pool: str | type[PreforkPool]
    concurrency: int
    queues: Sequence[str]
    niceness: int = 0


KINDS = {
    "core": WorkerKind(ServerKind.WORKER, PreforkPool, CORE_CHILDREN, [CORE, MAINTENANCE]),
    # A notify task waits for other servers to answer; a waiting thread costs little.
    "notifications": WorkerKind(ServerKind.NOTIFICATIONS, "threads", NOTIFY_THREADS, [NOTIFY], niceness=5),
    "connectors": WorkerKind(ServerKind.CONNECTORS, "threads", CONNECTOR_THREADS, [CONNECT]),
}
AUTOGROUP = Path("/proc/self/autogroup")
AUTOGROUP_TRIES = 10
CHANCE = random.SystemRandom()
HEARTBEAT_SECONDS = 5.0
"""Flower considers a worker alive for twice this interval after its last heartbeat."""


def main() -> None:
    # As in the API, imported objects stay, so the collector need not visit them. Child processes also share their
    # memory.
    gc.freeze()
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--name", help="node name, unique on this host")
    chosen = parser.parse_args()
    node = f"{chosen.name or chosen.kind}@{socket.gethostname()}"
    journal.begin(settings())
    _wait_until_fit(chosen.kind, node)
    kind = KINDS[chosen.kind]
    _give_way(kind.niceness)
    worker = app.Worker(
        hostname=node,
        pool_cls=kind.pool,
        concurrency=kind.concurrency,
        queues=kind.queues,
        loglevel=logging.INFO,
        quiet=settings().log_format == "json",
        without_gossip=True,
        without_mingle=True,
        heartbeat_interval=HEARTBEAT_SECONDS,
    )
    try:
        worker.start()
    finally:
        traces.stop()
    raise SystemExit(worker.exitcode)


def _give_way(niceness: int) -> None:
    """Run at a lower priority than the core worker: a flood of mail must not take the processor from a deadline.

    Linux compares the weights of whole sessions; a process's niceness counts only within its own session (sched(7)).
    So a session's leader also lowers the session's weight.
    """
    os.nice(niceness)
    if os.getsid(0) != os.getpid() or not AUTOGROUP.exists():
        return
    # Linux accepts one such write in a tenth of a second, from all unprivileged processes together.
    for _ in range(AUTOGROUP_TRIES):
        try:
            AUTOGROUP.write_text(str(niceness))
        except BlockingIOError:
            time.sleep(CHANCE.uniform(0.1, 0.3))
        except OSError:
            return
        else:
            return


def _wait_until_fit(kind: str, node: str) -> None:
    try:
        if kind == "notifications":
            settings().require("smtp_url")
            settings().require("notifications_database_url")
        if kind == "connectors":
            settings().require("connectors_database_url")
            settings().require("connector_targets")
        else:
            _opens_nothing(settings())
        if kind == "core":
            _can_seal(settings())
            _is_the_core(settings())
        failpoints.arm(settings().failpoint)
        traces.check(settings())
        database = make(settings()).database
        direct = database.direct if kind == "core" else None
        wait_until_fit(database.engine, KINDS[kind].server, connections=CONNECTIONS[kind], direct=direct, node=node)
    except (UnsafeSettings, UnknownFailpoint, StartupCheckFailed) as refused:
        raise SystemExit(f"lockbox: {refused}") from None
    database.dispose()


def _opens_nothing(settings: Settings) -> None:
    if settings.connectors_database_url:
        raise UnsafeSettings("LOCKBOX_CONNECTORS_DATABASE_URL is for the connector worker alone; unset it here")


def _is_the_core(settings: Settings) -> None:
    if settings.notifications_database_url:
        raise UnsafeSettings(
            "LOCKBOX_NOTIFICATIONS_DATABASE_URL is for the notifications worker alone; unset it here"
        )


def _can_seal(settings: Settings) -> None:
    if settings.environment == "production" and not settings.audit_key_files:
        raise UnsafeSettings("LOCKBOX_AUDIT_KEY_FILES is not set: make a key by `lockbox operate new-key FILE`")


main()
