"""Kombu's Redis transport, where a channel whose connection was taken apart says so.

Kombu asks such a channel to give back or to acknowledge a hint that was in hand when the broker went away, and the
channel fails with an AttributeError where a connection error is meant (kombu 5.7). Celery takes it for a fault of its
own and ends the worker. The hint itself is no loss: the schedule gives it out again when its lease is over.

What Redis refuses, for want of memory or as a replica, Celery takes for a fault of its own too, and a worker that
ended would end again once it is back, its pollers with it. Here that is a connection error as well: the consumer
waits and comes again, and the pollers act from Postgres meanwhile.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis

from lockbox.failpoints import reach

SCHEMES = ("redis", "rediss")


class QoS(redis.QoS):
    """What was received and not yet acknowledged, with a failpoint at each step."""

    def append(self, message: Any, delivery_tag: str) -> None:  # noqa: ANN401 - kombu's signature
        """Note what has come."""
        reach("broker.after_pop")
        super().append(message, delivery_tag)
        reach("broker.after_receive")

    def ack(self, delivery_tag: str) -> None:
        """Forget what has run."""
        reach("broker.before_ack")
        super().ack(delivery_tag)
        reach("broker.after_ack")


class Channel(redis.Channel):
    """A channel that raises a connection error, which Celery waits out, when its connection is no more."""

    QoS = QoS
    _kept: Any = None

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:  # noqa: ANN401 - kombu's signature
        """Yield one client for all calls: kombu makes one for each, which takes longer than the call."""
        if client is None and (self._kept is None or self._kept.connection_pool is not self.pool):
            self._kept = self._create_client()  # type: ignore[attr-defined]  # not in the stubs
        yield self._kept if client is None else client

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        if getattr(self.connection, "client", None) is None:
            raise ConnectionAbortedError("the connection of this channel was lost and closed")
        parameters: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]  # not in the stubs
        return parameters


class Transport(redis.Transport):
    """The transport of redis:// and rediss://; an URL can name a transport by its scheme only."""

    Channel = Channel
    connection_errors = redis.Transport.connection_errors + redis.Transport.channel_errors


def register() -> None:
    """Let the schemes of Redis mean this transport in this process."""
    for scheme in SCHEMES:
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
