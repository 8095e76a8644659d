"""Kombu's Redis transport, extended so that a channel whose connection was closed reports it."""

# When the broker goes away, kombu asks a closed channel to restore or acknowledge the message in hand. The channel
# then fails with an AttributeError instead of a connection error (kombu 5.7). Celery takes this for a fault of its
# own and ends the worker. The message is not lost: the schedule hands it out again when its lease is over.
#
# Redis refuses writes if it lacks memory or is a replica. Celery takes this refusal, too, for a fault of its own: the
# worker ends with its pollers, and ends again after each restart. Here, the refusal becomes a connection error: the
# consumer waits and reconnects, and meanwhile the pollers act from Postgres.
#
# Anyone may have written what is in Redis. An item that is no Lockbox message would end the worker, and the next
# worker at its start. So `message_filter` admits or drops each item, and keys of a wrong type are deleted.

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty
from typing import Any

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.utils.encoding import bytes_to_str

from lockbox.failpoints import failpoint
from worker import message_filter
from worker.message_filter import CONTROL, QUEUES, REPLIES, Undecodable

log = structlog.get_logger(__name__)

SCHEMES = ("redis", "rediss")
EVENTS = "celeryev"
BOUND = re.compile(r"celeryev\.[\w.@-]+|[\w.@-]+\.(?:reply\.)?celery\.pidbox")
"""Names of queues to which messages other than tasks may be routed."""
SAID_EVERY = 1.0


class DropCounter:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._unsaid = 0
        self._said_at = float("-inf")

    def add(self, where: str, why: str, number: int = 1) -> None:
        with self._lock:
            self._counts[where] += number
            self._unsaid += number
            now = time.monotonic()
            if now - self._said_at < SAID_EVERY:
                return
            self._said_at, count, self._unsaid = now, self._unsaid, 0
        log.warning("broker.dropped", where=where, why=why, count=count)

    def take(self) -> dict[str, int]:
        with self._lock:
            taken, self._counts = dict(self._counts), Counter()
        return taken


dropped = DropCounter()


_KombuChannel: Any = redis.Channel  # the stubs lack most of it
_KombuQoS: Any = redis.QoS


class QoS(_KombuQoS):  # type: ignore[misc]  # of any type
    def append(self, message: Any, delivery_tag: str) -> None:  # noqa: ANN401 - kombu's signature
        failpoint("broker.after_pop")
        super().append(message, delivery_tag)
        failpoint("broker.after_receive")

    def ack(self, delivery_tag: str) -> None:
        failpoint("broker.before_ack")
        super().ack(delivery_tag)
        failpoint("broker.after_ack")

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:  # noqa: ANN401, FBT001, FBT002 - kombu's signature
        try:
            super().restore_by_tag(tag, client, leftmost)
        except self.channel.connection_errors:
            raise
        except Exception as error:  # noqa: BLE001 - the entry may hold anything
            self._remove_from_indices(tag).execute()
            dropped.add(self.unacked_key, type(error).__name__)


class LockboxChannel(_KombuChannel):  # type: ignore[misc]  # of any type
    """A channel that raises a connection error when its connection is closed; Celery then waits and reconnects."""

    QoS = QoS
    _kept: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - kombu's signature
        super().__init__(*args, **kwargs)
        self._delete_strange_keys()

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:  # noqa: ANN401 - kombu's signature
        """Yield one client for all calls. Kombu makes a client for each call, which takes longer than the call."""
        if client is None and (self._kept is None or self._kept.connection_pool is not self.pool):
            self._kept = self._create_client()
        yield self._kept if client is None else client

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        if getattr(self.connection, "client", None) is None:
            raise ConnectionAbortedError("the connection of this channel was lost and closed")
        parameters: dict[str, Any] = super()._connparams(asynchronous)
        return parameters

    def get_table(self, exchange: str) -> list[tuple[str, ...]]:
        with self.conn_or_acquire() as client:
            found = client.smembers(self.keyprefix_queue % exchange)
        rows = (tuple(one.decode(errors="replace").split(self.sep)) for one in found)
        return [row for row in rows if len(row) == 3 and BOUND.fullmatch(row[2])]  # noqa: PLR2004 - key, pattern, queue

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:  # noqa: ANN401 - kombu's signature
        """If the key for an answer or an event is not a list, drop the message without failing."""
        try:
            super()._put(queue, message, **kwargs)
        except self.ResponseError as error:
            if queue in QUEUES:
                raise
            dropped.add(_where(queue), type(error).__name__)

    def _brpop_read(self, **options: Any) -> bool:  # noqa: ANN401 - kombu's signature
        """Deliver a queue's item if it is a valid message. Raises queue.Empty if no item came."""
        try:
            answer = self._answer(**options)
            if not answer:
                raise Empty
            queue = bytes_to_str(answer[0]).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self._deliver_admitted(queue, answer[1])
            return True
        finally:
            self._in_poll = None

    def _answer(self, **options: Any) -> Any:  # noqa: ANN401 - kombu's signature
        try:
            return self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise

    def _deliver_admitted(self, queue: str, item: bytes) -> None:
        with suppress(Empty):
            self.connection._deliver(self._admitted(queue, item), queue)  # noqa: SLF001 - as kombu does

    def _get(self, queue: str) -> dict[str, Any]:
        with self.conn_or_acquire() as client:
            for priority in self.priority_steps:
                item = client.rpop(self._q_for_pri(queue, priority))
                if item:
                    return self._admitted(queue, item)
        raise Empty

    def _admitted(self, queue: str, item: bytes) -> dict[str, Any]:
        try:
            return message_filter.task(item, queue) if queue in QUEUES else message_filter.other(item)
        except Undecodable as why:
            dropped.add(_where(queue), str(why))
            raise Empty from None

    def _receive_one(self, c: Any) -> bool:  # noqa: ANN401 - kombu's signature
        """Deliver a channel's item. Raises queue.Empty unless it is a question that we answer, or an event."""
        try:
            response = c.parse_response()
        except self.connection_errors:
            self._in_listen = None
            raise
        said = self._handle_message(c, response) if isinstance(response, list | tuple) else None
        if not said or not bytes_to_str(said["type"]).endswith("message") or not said["data"]:
            return False
        topic = said["channel"].decode(errors="replace").removeprefix(self.keyprefix_fanout)
        exchange = topic.split("/", 1)[0]
        queue = self._fanout_to_queue.get(exchange)
        if queue is None:
            return False
        try:
            message = (message_filter.control if exchange == CONTROL else message_filter.other)(said["data"])
        except Undecodable as why:
            dropped.add(CONTROL if exchange == CONTROL else "others", str(why))
            raise Empty from None
        self.connection._deliver(message, queue)  # noqa: SLF001 - as kombu does
        return True

    def _delete_strange_keys(self) -> None:
        """Delete each of the broker's keys that has the wrong type, because such a key blocks the broker."""
        lists = [self._q_for_pri(queue, step) for queue in QUEUES for step in self.priority_steps]
        exchanges = (CONTROL, REPLIES, EVENTS)
        sets = [
            key % (exchange,)
            for exchange in exchanges
            for key in (self.keyprefix_queue, self.keyprefix_binding_permanent)
        ]
        wanted = (
            dict.fromkeys(lists, "list")
            | dict.fromkeys(sets, "set")
            | {
                self.unacked_key: "hash",
                self.unacked_index_key: "zset",
                self.unacked_mutex_key: "string",
                self.keyprefix_binding_deadlines: "zset",
            }
        )
        with self.conn_or_acquire() as client:
            with client.pipeline(transaction=False) as pipe:
                for key in wanted:
                    pipe.type(key)
                pipe.pttl(self.unacked_mutex_key)
                *types, left = pipe.execute()
            strange = [
                key
                for (key, type_), found in zip(wanted.items(), types, strict=True)
                if found.decode() not in {type_, "none"}
            ]
            # The mutex normally expires within minutes. One without an expiry would stay.
            strange += [self.unacked_mutex_key] if left == -1 else []
            if strange:
                client.delete(*strange)
                dropped.add("keys", "type", len(strange))


def _where(queue: str) -> str:
    return queue if queue in QUEUES else "others"


class Transport(redis.Transport):
    Channel = LockboxChannel
    connection_errors = redis.Transport.connection_errors + redis.Transport.channel_errors


def register() -> None:
    for scheme in SCHEMES:
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
