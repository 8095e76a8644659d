"""Plain Celery: each deadline is a task with an `eta`, kept by a worker until it is due."""

from datetime import UTC, datetime

from celery import Celery

from bench.peers import work

DAYS = 7 * 24 * 3600

app = Celery("celery_eta", broker=work.REDIS_URL)
app.conf.update(
    task_ignore_result=True,
    # A task that was lost with its worker is offered again after the time-out, which must be longer than every eta.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_transport_options={"visibility_timeout": DAYS},
    broker_connection_retry_on_startup=True,
    enable_utc=True,
    timezone="UTC",
)


@app.task(name="end")
def end(id_: str, mails: int) -> None:
    """End a request that is due, and have this many mails sent."""
    work.end(id_)
    for _ in range(mails):
        notify(id_, "expired")


@app.task(name="tell")
def tell(id_: str, template: str) -> None:
    """Send a mail."""
    work.tell(id_, template)


def arm(id_: str, due: float, mails: int) -> None:
    """Have a request ended at an instant, in seconds since 1970, and this many mails sent then."""
    end.apply_async((id_, mails), eta=datetime.fromtimestamp(due, UTC))


def notify(id_: str, template: str) -> None:
    """Have a mail sent."""
    tell.delay(id_, template)
