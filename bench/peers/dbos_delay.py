"""DBOS: each deadline is a durable workflow, enqueued with a delay; `python -m bench.peers.dbos_delay` runs them."""

import threading
import time
from functools import cache

from dbos import DBOS, DBOSClient

from bench.peers import work

QUEUE = "work"
AT_ONCE = 32
POLL_SECONDS = 0.05


@DBOS.step()
def end_step(id_: str) -> None:
    """End a request that is due."""
    work.end(id_)


@DBOS.step()
def tell_step(id_: str, template: str) -> None:
    """Send a mail."""
    work.tell(id_, template)


@DBOS.workflow(name="end")
def end(id_: str, mails: int) -> None:
    """End a request that is due, durably, and have this many mails sent."""
    end_step(id_)
    for _ in range(mails):
        DBOS.enqueue_workflow(QUEUE, tell, id_, "expired")


@DBOS.workflow(name="tell")
def tell(id_: str, template: str) -> None:
    """Send a mail, durably."""
    tell_step(id_, template)


def arm(id_: str, due: float, mails: int) -> None:
    """Have a request ended at an instant, in seconds since 1970, and this many mails sent then."""
    delay = max(0.0, due - time.time())
    _client().enqueue({"workflow_name": "end", "queue_name": QUEUE, "delay_seconds": delay}, id_, mails)


def notify(id_: str, template: str) -> None:
    """Have a mail sent."""
    _client().enqueue({"workflow_name": "tell", "queue_name": QUEUE}, id_, template)


@cache
def _client() -> DBOSClient:
    return DBOSClient(system_database_url=_url())


def _url() -> str:
    return work.DATABASE_URL.replace("postgresql://", "postgresql+psycopg://")


def main() -> None:
    """Run workflows until the process is ended."""
    DBOS(config={"name": "peer", "system_database_url": _url(), "log_level": "WARNING"})
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=AT_ONCE, polling_interval_sec=POLL_SECONDS)
    threading.Event().wait()


if __name__ == "__main__":
    main()
