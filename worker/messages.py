"""Send Celery messages in batches, and send none to a queue that no worker empties.

Functions raise kombu.exceptions.OperationalError or BatchPublishError if the broker is unreachable.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError as BrokerAway

ACQUIRE_SECONDS = 5
FIRST, LATER = 0, 6
"""Priorities of kombu's Redis queues."""


def send(app: Celery, task: str, messages: Iterable[Sequence[object]], *, priority: int = FIRST) -> None:
    """Send a task once for each of these argument lists, in one pipeline. Workers take a lower `priority` first."""
    found = app.tasks[f"lockbox.{task}"]
    with app.producer_pool.acquire(block=True, timeout=ACQUIRE_SECONDS) as producer, _batch(producer):
        for arguments in messages:
            found.apply_async(tuple(arguments), producer=producer, retry=False, priority=priority)


def waiting(app: Celery, queue: str) -> int:
    """Count the messages in a queue that no worker has taken."""
    with app.producer_pool.acquire(block=True, timeout=ACQUIRE_SECONDS) as producer:
        channel: Any = producer.channel
        connection = channel.connection.client
        try:
            return int(channel.queue_declare(queue).message_count)
        except (*connection.connection_errors, *connection.channel_errors) as error:
            raise BrokerAway(type(error).__name__) from error


def _batch(producer: Any) -> AbstractContextManager[object]:  # noqa: ANN401 - kombu's stubs lack batch()
    batch: AbstractContextManager[object] = producer.batch()
    return batch
