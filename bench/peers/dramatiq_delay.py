"""dramatiq: each deadline is a message with a delay, kept by a worker until it is due."""

import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers import work

dramatiq.set_broker(RedisBroker(url=work.REDIS_URL))


@dramatiq.actor(max_retries=3)
def end(id_: str, mails: int) -> None:
    """End a request that is due, and have this many mails sent."""
    work.end(id_)
    for _ in range(mails):
        notify(id_, "expired")


@dramatiq.actor(max_retries=3)
def tell(id_: str, template: str) -> None:
    """Send a mail."""
    work.tell(id_, template)


def arm(id_: str, due: float, mails: int) -> None:
    """Have a request ended at an instant, in seconds since 1970, and this many mails sent then."""
    end.send_with_options(args=(id_, mails), delay=max(0, round(1000 * (due - time.time()))))


def notify(id_: str, template: str) -> None:
    """Have a mail sent."""
    tell.send(id_, template)
