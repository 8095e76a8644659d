"""The Redis sorted sets: what is promised, by due time. It knows (member, due) pairs and never reads Postgres."""

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Self, TypeVar
from uuid import uuid4

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from lockbox import presence, pubsub, queue_depth
from lockbox.failpoints import failpoint
from lockbox.pubsub import Listener, OnConnection, OnMessage
from lockbox.queue_depth import QueueDepth
from lockbox.redis_scripts import ARM, CLAIM, MARK

log = structlog.get_logger(__name__)

BELL = "{lockbox}:bell"
EPOCH, BEGUN = "epoch", "begun"
UUID_FORM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MOST_A_CALL = 500
LATE_MS = 30
TRICKLE = 10
ARM_TIMEOUT = 0.1
POLL_TIMEOUT = 2.0
BREAKER_SECONDS = 2.0

Answer = TypeVar("Answer")


class RedisUnavailable(Exception):  # noqa: N818 - a state of affairs that callers plan for
    """Redis can't be reached, or refuses; everything that it holds is in Postgres too."""


@dataclass(frozen=True)
class ScheduleIndex:
    """One sorted set with its lease set.

    `kinds` are what a member may be due for; an id has one member at a time. What falls due within `lead` may be
    claimed already: the way to whoever acts takes about as long. A claim is leased for `lease`;
    `budget` is how many members may be out on lease at once, so that a backlog waits here and not in a queue. While
    what is due in the index that it `yields_to` waits for too long, a trickle of this one is claimed, and nothing
    while more than one call's worth of that is out on lease.
    What is armed anew is told on the channel `news`, if there is one.
    """

    name: str
    kinds: tuple[str, ...]
    lease: timedelta
    budget: int
    yields_to: "ScheduleIndex | None" = None
    lead: timedelta = timedelta(0)
    news: str = ""

    @property
    def keys(self) -> tuple[str, str]:
        """The names of the sorted set and of its lease set."""
        return f"{{lockbox}}:{self.name}", f"{{lockbox}}:{self.name}:leases"


CLOCK = ScheduleIndex(
    "clock",
    ("time_out", "expire", "remind"),
    lease=timedelta(seconds=10),
    budget=5000,
    lead=timedelta(milliseconds=8),
    news=pubsub.CHANNEL,
)
NOTIFICATIONS = ScheduleIndex("notifications", ("notify",), lease=timedelta(seconds=60), budget=2000, yields_to=CLOCK)
INDEXES = (CLOCK, NOTIFICATIONS)


@dataclass(frozen=True)
class IndexEntry:
    """What an index has to hold of one id: due at an instant, due after a delay, or nothing any more."""

    id: str
    kind: str
    due: datetime | timedelta | None

    @property
    def score(self) -> str:
        """Milliseconds since 1970, rounded up; with a plus sign a delay from Redis' own now; or nothing."""
        if self.due is None:
            return ""
        if isinstance(self.due, timedelta):
            return f"+{math.ceil(self.due.total_seconds() * 1000)}"
        return str(math.ceil(self.due.timestamp() * 1000))


@dataclass(frozen=True)
class ScheduleClaim:
    """What a claim brought: ids by kind, how long nothing more is due, and whether the index is whole."""

    ids: dict[str, list[str]]
    idle: float
    whole: bool


class Schedule:
    """The two sorted sets of one Lockbox on one Redis or Valkey; `patience` is how many seconds arming may wait."""

    def __init__(self, url: str, *, patience: float | None = None) -> None:
        self._arming = _client(url, timeout=patience or ARM_TIMEOUT)
        self._polling = _client(url, timeout=POLL_TIMEOUT)
        self._arm = self._arming.register_script(ARM)
        self._claim = self._polling.register_script(CLAIM)
        self._mark = self._polling.register_script(MARK)
        self._skip_until = 0.0

    def arm(self, index: ScheduleIndex, promises: Sequence[IndexEntry], *, only_missing: bool = False) -> bool:
        """Make the index hold exactly what is promised of these ids; drop their leases; ring if it is sooner.

        Arming, settling after a handler's commit, and rebuilding are this one operation, and but for rebuilding it
        is news. With `only_missing` an id that is held or leased is left alone. Never raises and never waits longer
        than its patience, a tenth of a second: after a failure the next calls are skipped for two seconds.

        Returns:
            Whether Redis took it.
        """
        if time.monotonic() < self._skip_until:
            return False
        try:
            for part in _parts(promises):
                told = "" if only_missing else index.news
                words: list[str | int] = [BELL, index.name, int(only_missing), told, len(index.kinds), *index.kinds]
                for (kind, score), alike in groupby(part, key=lambda one: (one.kind, one.score)):
                    words += [kind, score, " ".join(one.id for one in alike)]
                self._arm(keys=index.keys, args=words)
                failpoint("schedule.after_part")
        except RedisError as error:
            self._skip_until = time.monotonic() + BREAKER_SECONDS
            log.warning("schedule.arm_skipped", index=index.name, count=len(promises), error=type(error).__name__)
            return False
        return True

    def tell(self, ids: Iterable[str], side: str | None = None) -> None:
        """Tell whoever listens that these changed without a promise: one side alone, if it is named.

        Never raises and never waits longer than a tenth of a second, as arming does.
        """
        self._tried("tell", lambda: pubsub.publish(self._arming, ids, side))

    def listener(self, heard: OnMessage, turned: OnConnection) -> Listener:
        """Return a thread, not yet started, that calls these with what is told."""
        return Listener(self._polling, heard, turned)

    def mark_looking(self, of: str, person: str, since: datetime) -> bool:
        """Mark for five minutes that a person looks at something; return whether that is new. Never raises."""
        return bool(self._tried("look", lambda: presence.mark(self._arming, of, person, since)))

    def unmark_looking(self, of: str, person: str) -> bool:
        """Take that mark away; return whether there was one. Never raises."""
        return bool(self._tried("look", lambda: presence.unmark(self._arming, of, person)))

    def looking(self, of: str, people: Sequence[str]) -> Mapping[str, tuple[datetime, timedelta]]:
        """Return who of these looks, since when, and for how long that is known; nobody while Redis is away."""
        return self._tried("look", lambda: presence.marked(self._arming, of, people)) or {}

    def _tried(self, what: str, call: Callable[[], Answer]) -> Answer | None:
        """Make a call that may be lost; after a failure the next ones are skipped for two seconds."""
        if time.monotonic() < self._skip_until:
            return None
        try:
            return call()
        except RedisError as error:
            self._skip_until = time.monotonic() + BREAKER_SECONDS
            log.warning("schedule.skipped", what=what, error=type(error).__name__)
            return None

    def claim(self, index: ScheduleIndex, most: int = MOST_A_CALL) -> ScheduleClaim:
        """Move what is due to the lease set, and offer again what was leased for too long.

        Raises:
            RedisUnavailable: Redis can't be reached.
        """
        first = index.yields_to or index
        lease, lead, of_first = (int(span.total_seconds() * 1000) for span in (index.lease, index.lead, first.lease))
        try:
            args = [most, lease, index.budget, lead, MOST_A_CALL, of_first, LATE_MS, TRICKLE]
            keys = [*index.keys, *(first.keys if index.yields_to else ())]
            members, idle, last = self._claim(keys=keys, args=args)
        except RedisError as error:
            self._delete_strange_keys(error)
            raise RedisUnavailable(type(error).__name__) from error
        ids: dict[str, list[str]] = {}
        if members:
            failpoint("schedule.after_claim")
        for member in members:
            kind, _, name = member.decode(errors="replace").partition(":")
            if kind in index.kinds and UUID_FORM.fullmatch(name):
                ids.setdefault(kind, []).append(name)
            else:
                self._drop(index, member)
        mark = last.decode(errors="replace")
        if mark and not mark.startswith((EPOCH, BEGUN)):
            self._drop_false_mark(index, last)
        return ScheduleClaim(ids, int(idle) / 1000, mark.startswith(EPOCH))

    def _drop(self, index: ScheduleIndex, stranger: bytes) -> None:
        log.warning("schedule.stranger_dropped", index=index.name)
        try:
            for key in index.keys:
                self._polling.zrem(key, stranger)
        except RedisError as error:
            raise RedisUnavailable(type(error).__name__) from error

    def _drop_false_mark(self, index: ScheduleIndex, last: bytes) -> None:
        """Drop what is due never and is no mark of the index: it would hide the mark."""
        try:
            if self._polling.zscore(index.keys[0], last) == math.inf:
                self._drop(index, last)
        except RedisError as error:
            raise RedisUnavailable(type(error).__name__) from error

    def _delete_strange_keys(self, error: RedisError) -> None:
        """Delete each key of the indexes that is no sorted set, where that is what Redis complains of."""
        if not isinstance(error, ResponseError) or "WRONGTYPE" not in str(error):
            return
        for key in {key for index in INDEXES for key in index.keys}:
            try:
                if self._polling.type(key) not in {b"zset", b"none"}:
                    log.warning("schedule.strange_key_deleted", key=key)
                    self._polling.delete(key)
            except RedisError:
                return

    def is_whole(self, index: ScheduleIndex) -> bool:
        """Whether the index was completed under the very server process that answers now.

        Raises:
            RedisUnavailable: Redis can't be reached.
        """
        try:
            return self._polling.zscore(index.keys[0], self._epoch()) is not None
        except RedisError as error:
            raise RedisUnavailable(type(error).__name__) from error

    def begin_rebuild(self, index: ScheduleIndex) -> str:
        """Leave a mark in the index, which is not whole from here on, and return it; it goes with what is lost.

        Raises:
            RedisUnavailable: Redis can't be reached.
        """
        begun = f"{BEGUN}:{uuid4().hex}"
        try:
            self._polling.zremrangebyscore(index.keys[0], "+inf", "+inf")
            self._polling.zadd(index.keys[0], {begun: math.inf})
        except RedisError as error:
            raise RedisUnavailable(type(error).__name__) from error
        return begun

    def mark_whole(self, index: ScheduleIndex, begun: str) -> bool:
        """Note that everything which Postgres promises is in the index, unless it was lost since this was begun.

        Returns:
            Whether the mark of the rebuild was still there.

        Raises:
            RedisUnavailable: Redis can't be reached.
        """
        try:
            return bool(self._mark(keys=[index.keys[0]], args=[begun, self._epoch()]))
        except RedisError as error:
            raise RedisUnavailable(type(error).__name__) from error

    def ping(self) -> None:
        """Raise Away unless Redis answers and would not evict what it holds."""
        try:
            memory: Any = self._arming.info("memory")
        except RedisError as error:
            raise RedisUnavailable(type(error).__name__) from error
        if memory.get("maxmemory_policy", "noeviction") != "noeviction":
            raise RedisUnavailable("set maxmemory-policy to noeviction: this Redis may drop queues and schedules")

    def members(self, index: ScheduleIndex) -> dict[str, float]:
        """Return every member with its due time in ms, leases apart; for tests and operators, not for work."""
        pairs: Any = self._polling.zrange(index.keys[0], 0, -1, withscores=True)
        return {member.decode(): score for member, score in pairs if score != math.inf}

    def leased(self, index: ScheduleIndex) -> int:
        """Return how many members are out on lease: claimed, and not yet settled.

        Raises:
            RedisUnavailable: Redis can't be reached.
        """
        try:
            count: Any = self._polling.zcard(index.keys[1])
        except RedisError as error:
            raise RedisUnavailable(type(error).__name__) from error
        return int(count)

    def look(self, span: tuple[float, float]) -> QueueDepth:
        """Return what Redis holds: of clocks those that are due after the first and by the second of two ms.

        Raises:
            RedisUnavailable: Redis can't be reached.
        """
        try:
            return queue_depth.measure(self._polling, CLOCK.keys[0], NOTIFICATIONS.keys, span)
        except RedisError as error:
            raise RedisUnavailable(type(error).__name__) from error

    def bell(self, index: ScheduleIndex) -> "Bell":
        """Return a listener that wakes its owner when something sooner is armed on this index."""
        return Bell(self._polling, index)

    def close(self) -> None:
        """Close every connection."""
        self._arming.close()
        self._polling.close()

    def _epoch(self) -> str:
        server: Any = self._polling.info("server")
        return f"{EPOCH}:{server['run_id']}"


class Bell:
    """Sleeps until something is due or armed; a lost bell costs at most the time-out that was asked for."""

    def __init__(self, client: "Redis", index: ScheduleIndex) -> None:
        self._index = index
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._listening = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pubsub.close()

    def listen(self) -> None:
        """Subscribe, if not yet done; call it before the claim, so that nothing armed after the claim is missed.

        Raises:
            RedisUnavailable: Redis can't be reached.
        """
        if self._listening:
            return
        try:
            self._pubsub.subscribe(BELL)
        except RedisError as error:
            raise RedisUnavailable(type(error).__name__) from error
        self._listening = True

    def wait(self, seconds: float) -> None:
        """Sleep for at most that long.

        Raises:
            RedisUnavailable: the connection broke; listen again before the next claim.
        """
        until = time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                message = self._pubsub.get_message(timeout=left)
                if message and message["data"] == self._index.name.encode():
                    return
        except (RedisError, OSError, ValueError) as error:
            self._listening = False
            self._pubsub.close()
            raise RedisUnavailable(type(error).__name__) from error


def _client(url: str, *, timeout: float) -> "Redis":
    return Redis.from_url(
        url,
        protocol=2,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )


def _parts(promises: Sequence[IndexEntry]) -> Iterator[Iterable[IndexEntry]]:
    return (promises[start : start + MOST_A_CALL] for start in range(0, len(promises), MOST_A_CALL))
