"""Redis channels for changed ids and for bells, which wake pollers; and records of who is viewing a request.

Functions raise redis.exceptions.RedisError where Redis can't be reached.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import structlog
from redis import Redis
from redis.exceptions import RedisError

from lockbox.redis_scripts import RedisUnavailable, redis_errors

LASTS = timedelta(minutes=5)
log = structlog.get_logger(__name__)
SIDES = ("customer", "vendor")
OPERATORS = "operators"
"""The channel for changes of metrics only, such as finished notifications and new seals."""
ASK_AFTER = 5.0
REST = 1.0
PAGES = "pages"
"""The channel for requests whose pages show something new, such as uses and activity. Such news opens or ends no
window."""
GATES = "gates"
"""The channel for changed tokens and identities, which gates remember for some seconds."""
ENDS = "ends"
"""The channel for requests that have ended. Its readers learn of the change before all other readers."""
OnMessage = Callable[[frozenset[str], str | None], None]
OnConnection = Callable[[bool], None]


def _key(of: str, person: str) -> str:
    return f"{{lockbox}}:look:{of}:{person}"


def mark(client: "Redis", of: str, person: str, since: datetime) -> bool:
    """Record for five minutes that the person is viewing the request; return whether the record is new."""
    key = _key(of, person)
    with client.pipeline(transaction=False) as pipe:
        pipe.set(key, since.isoformat(), ex=LASTS, nx=True)
        pipe.expire(key, LASTS)
        is_new, _ = pipe.execute()
    return bool(is_new)


def unmark(client: "Redis", of: str, person: str) -> bool:
    return bool(client.delete(_key(of, person)))


def marked(client: "Redis", of: str, people: Sequence[str]) -> Mapping[str, tuple[datetime, timedelta]]:
    """Return which of these people are viewing the request: since when, and how much longer the record lasts."""
    with client.pipeline(transaction=False) as pipe:
        for one in people:
            pipe.get(_key(of, one))
            pipe.pttl(_key(of, one))
        answers: list[Any] = pipe.execute() if people else []
    found = {}
    for person, since, left in zip(people, answers[::2], answers[1::2], strict=True):
        at = _instant(since) if since is not None and left > 0 else None
        if at is not None:
            # Ignore a mark without an expiry.
            found[person] = at, timedelta(milliseconds=min(left, LASTS.total_seconds() * 1000))
    return found


def _instant(said: bytes) -> datetime | None:
    try:
        return datetime.fromisoformat(said.decode()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def database_number(client: "Redis") -> int:
    """Return the number of the client's Redis database: databases of one Redis share all channels."""
    return int(client.get_connection_kwargs().get("db") or 0)


def bell_of(number: int) -> str:
    return f"{{lockbox}}:{number}:bell"


def channel_of(number: int, side: str | None = None) -> str:
    """Return the channel for one side or for the operators; with None, the channel for everyone."""
    channel = f"{{lockbox}}:{number}:news"
    return f"{channel}:{side}" if side else channel


def publish(client: "Redis", ids: Iterable[str], side: str | None) -> None:
    """Publish to the current listeners; messages are not stored."""
    client.publish(channel_of(database_number(client), side), " ".join(ids))


class Listener(threading.Thread):
    """Listens until stopped, and reconnects after an outage of Redis.

    The thread calls `on_message` with ids and the side that they are meant for. It calls `on_connection` with True
    when it starts to listen (earlier messages were missed), and with False when it cannot listen. A failure, also in
    these callbacks, is logged, and the thread continues.
    """

    def __init__(self, client: "Redis", on_message: OnMessage, on_connection: OnConnection) -> None:
        super().__init__(name="news", daemon=True)
        self._client = client
        self._on_message = on_message
        self._on_connection = on_connection
        self._stopping = threading.Event()
        number = database_number(client)
        self._sides: dict[bytes, str | None] = {
            channel_of(number, one).encode(): one for one in (None, *SIDES, OPERATORS, PAGES, GATES, ENDS)
        }

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except (RedisError, OSError, ValueError) as error:
                if not self._stopping.is_set():
                    log.warning("live_updates.redis_away", error=type(error).__name__)
                self._turn_away()
            except Exception:
                log.exception("live_updates.failed")
                self._turn_away()

    def _turn_away(self) -> None:
        try:
            self._on_connection(False)
        except Exception:
            log.exception("live_updates.failed")
        self._stopping.wait(REST)

    def stop(self) -> None:
        self._stopping.set()
        if self.is_alive():
            self.join(REST + 1)

    def _listen(self) -> None:
        pubsub = self._client.pubsub()  # type: ignore[no-untyped-call]
        try:
            pubsub.subscribe(*self._sides)
            began = False
            last, asked = time.monotonic(), False
            while not self._stopping.is_set():
                message = pubsub.get_message(timeout=0.5)
                if message is None:
                    # A network that drops everything looks like an idle one, so a ping is sent.
                    if time.monotonic() - last > ASK_AFTER:
                        if asked:
                            raise TimeoutError
                        pubsub.ping()
                        last, asked = time.monotonic(), True
                    continue
                last, asked = time.monotonic(), False
                if message["type"] == "message":
                    self._tell(message["channel"], message["data"])
                elif message["type"] == "subscribe" and message["data"] == len(self._sides) and not began:
                    began = True
                    self._on_connection(True)
        finally:
            pubsub.close()

    def _tell(self, channel: bytes, said: bytes) -> None:
        ids = frozenset(said.decode("ascii", errors="replace").split())
        if channel in self._sides and ids:
            self._on_message(ids, self._sides[channel])


class Bell:
    """Sleeps until an id is due or armed; a lost message delays the wake-up by at most the timeout."""

    def __init__(self, client: "Redis", name: str) -> None:
        self._name = name.encode()
        self._channel = bell_of(database_number(client))
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._listening = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pubsub.close()

    def listen(self) -> None:
        """Subscribe if not yet done. Call it before a claim, so that no id armed after the claim is missed."""
        if self._listening:
            return
        with redis_errors():
            self._pubsub.subscribe(self._channel)
        self._listening = True

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                message = self._pubsub.get_message(timeout=left)
                if message and message["data"] == self._name:
                    return
        except (RedisError, OSError, ValueError) as error:
            self._listening = False
            self._pubsub.close()
            raise RedisUnavailable(type(error).__name__) from error
