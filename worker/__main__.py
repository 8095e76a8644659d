"""Starts a worker: `python -m worker core` runs the clock, `python -m worker notices` sends mail and webhooks."""

import argparse
import os
import time

import structlog
from sqlalchemy.exc import OperationalError

from config.settings import UnsafeSettings
from lockbox.standing import NotFit, Server, check
from worker.app import CORE, MAINTENANCE, NOTIFY, app
from worker.runtime import make, settings

log = structlog.get_logger(__name__)

WAIT_FOR_POSTGRES = 30

KINDS = {
    "core": ["--pool=prefork", f"--queues={CORE},{MAINTENANCE}"],
    "notices": ["--pool=threads", f"--queues={NOTIFY}"],
}
CONCURRENCY = {"core": 2, "notices": 8}
NICE = {"core": 0, "notices": 5}


def main() -> None:
    """Check the login, then hand over to Celery."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--concurrency", type=int, help="pool children or threads")
    parser.add_argument("--name", help="node name, unique on this host")
    chosen = parser.parse_args()
    _wait_until_fit()
    # The clock goes first: a flood of mail may not take the processor from a deadline.
    os.nice(NICE[chosen.kind])
    app.worker_main(
        [
            "worker",
            *KINDS[chosen.kind],
            f"--concurrency={chosen.concurrency or CONCURRENCY[chosen.kind]}",
            f"--hostname={chosen.name or chosen.kind}@%h",
            "--without-gossip",
            "--without-mingle",
            "--loglevel=info",
        ]
    )


def _wait_until_fit() -> None:
    try:
        engine = make(settings()).database.engine
    except UnsafeSettings as unsafe:
        raise SystemExit(f"lockbox: {unsafe}") from None
    for second in range(WAIT_FOR_POSTGRES, -1, -1):
        try:
            check(engine, Server.WORKER)
        except NotFit as unfit:
            raise SystemExit(f"lockbox: {unfit}") from None
        except OperationalError as away:
            if second == 0:
                raise SystemExit("lockbox: Postgres cannot be reached at LOCKBOX_WORKER_DATABASE_URL") from away
            time.sleep(1)
        else:
            engine.dispose()
            return


main()
