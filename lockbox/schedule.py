"""The schedule: Redis sorted sets of ids by due time, which can be rebuilt from Postgres.

Methods raise RedisUnavailable where Redis can't be reached, unless they say otherwise.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, TypeVar
from uuid import UUID, uuid4

import structlog
from redis import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from lockbox import pubsub, redis_scripts
from lockbox.failpoints import failpoint
from lockbox.pubsub import Bell, Listener, OnConnection, OnMessage
from lockbox.redis_scripts import ARM, CLAIM, MARK, QueueDepth, RedisUnavailable, redis_errors
from lockbox.text_rules import UUID_FORM

log = structlog.get_logger(__name__)

MOST_A_CALL = 500
BEFORE_OTHERS = timedelta(days=3650)
"""How much earlier than due an urgent entry is put into an index, so that it comes before all entries that are
late."""
URGENT_FROM = BEFORE_OTHERS / 2
LATE_MS, TRICKLE = 30, 10
ARM_TIMEOUT = 0.1
POLL_TIMEOUT = 2.0
BREAKER_SECONDS = 2.0

EPOCH, BEGUN = "epoch", "begun"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ScheduleIndex:
    """A sorted set of due ids and the set of its leases.

    `kinds` are the actions that a member may be due for; an id has one member at a time. Members due within `lead`
    may already be claimed. A claim is leased for `lease`. At most `budget` members are leased at once, so that a
    backlog waits here and not in a queue. The index in `yields_to` has priority: while that index is late, a claim
    gets at most `TRICKLE` members of this index; while more than one batch of that index is leased, a claim gets
    none. If `publishes`, armed ids are published. If `has_urgent`, urgent members are armed `BEFORE_OTHERS` early, to
    be claimed first.
    """

    name: str
    kinds: tuple[str, ...]
    lease: timedelta
    budget: int
    yields_to: "ScheduleIndex | None" = None
    lead: timedelta = timedelta(0)
    publishes: bool = False
    has_urgent: bool = False

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
    publishes=True,
)
NOTIFICATIONS = ScheduleIndex(
    "notifications", ("notify", "case_check"), timedelta(seconds=60), budget=2000, yields_to=CLOCK, has_urgent=True
)
CONNECTIONS = ScheduleIndex("connections", ("connect",), lease=timedelta(seconds=30), budget=500)
INDEXES = (CLOCK, NOTIFICATIONS, CONNECTIONS)


@dataclass(frozen=True)
class IndexEntry:
    """What an index holds for one id: due at an instant, due after a delay, or nothing."""

    id: str
    kind: str
    due: datetime | timedelta | None

    @property
    def score(self) -> str:
        """Milliseconds since 1970, rounded up; or `+` and a delay from Redis' own time; or an empty text."""
        if self.due is None:
            return ""
        if isinstance(self.due, timedelta):
            return f"+{math.ceil(self.due.total_seconds() * 1000)}"
        return str(math.ceil(self.due.timestamp() * 1000))


Promises = Mapping[ScheduleIndex, Sequence[IndexEntry]]
News = Mapping[str | None, Iterable[str]]


@dataclass(frozen=True)
class ScheduleClaim:
    """Claimed ids by kind, seconds until the next id is due, and whether the index is whole."""

    ids: dict[str, list[str]]
    idle: float
    whole: bool


class IndexRebuild:
    """The marker of an index: a member that is never due. It says that the index is whole, or how far a rebuild is.

    The marker is lost together with the index. A restart of Redis makes the marker invalid.
    """

    def __init__(self, client: Redis, key: str) -> None:
        self._client = client
        self._key = key
        self._mark = client.register_script(MARK)

    def is_whole(self) -> bool:
        with redis_errors():
            return self._client.zscore(self._key, self._epoch()) is not None

    def begin(self) -> tuple[str, UUID]:
        """Begin a rebuild or resume it; return its marker, and the last id that it has armed."""
        with redis_errors():
            begun = f"{BEGUN}:{self._run_id()}:"
            marks: Any = self._client.zrangebyscore(self._key, "+inf", "+inf")
            known = [mark for one in marks if (mark := one.decode(errors="replace")).startswith(begun)]
            if len(marks) == len(known) == 1 and UUID_FORM.fullmatch(after := known[0].rpartition(":")[2]):
                return known[0], UUID(after)
            after = UUID(int=0)
            mark = f"{begun}{uuid4().hex}:{after}"
            self._client.zremrangebyscore(self._key, "+inf", "+inf")
            self._client.zadd(self._key, {mark: math.inf})
        return mark, after

    def move(self, mark: str, after: UUID) -> str:
        """Record a rebuild's progress; return the new marker, or an empty text if the index was lost meanwhile."""
        moved = f"{mark.rpartition(':')[0]}:{after}"
        return moved if self._replace(mark, moved) else ""

    def complete(self, mark: str) -> bool:
        """Record that the index is whole; return False if the index was lost since the rebuild began."""
        return self._replace(mark, self._epoch())

    def _replace(self, mark: str, by: str) -> bool:
        with redis_errors():
            return bool(self._mark(keys=[self._key], args=[mark, by]))

    def _epoch(self) -> str:
        return f"{EPOCH}:{self._run_id()}"

    def _run_id(self) -> str:
        with redis_errors():
            server: Any = self._client.info("server")
        return str(server["run_id"])


class Schedule:
    """The sorted sets of one Lockbox on one Redis or Valkey; `patience` is how many seconds arming may take."""

    def __init__(self, url: str, *, patience: float | None = None) -> None:
        self._patience = patience or ARM_TIMEOUT
        self._arming = redis_scripts.connect(url, timeout=self._patience)
        self._polling = redis_scripts.connect(url, timeout=POLL_TIMEOUT)
        self._arm = self._arming.register_script(ARM)
        self._claim = self._polling.register_script(CLAIM)
        self._number = pubsub.database_number(self._arming)
        self._bell, self._news = pubsub.bell_of(self._number), pubsub.channel_of(self._number)
        self._skip_until = 0.0
        self._on_loop = redis_scripts.connect_on_loop(url)
        self._promised: dict[ScheduleIndex, list[IndexEntry]] = {}
        self._told: dict[str | None, dict[str, None]] = {}
        self._following: asyncio.Task[None] | None = None

    def arm(self, index: ScheduleIndex, promises: Sequence[IndexEntry], *, only_missing: bool = False) -> bool:
        """Make the index match Postgres for these ids, drop their leases, and wake a poller if one is now due first.

        With `only_missing`, an id that is in the index or leased is left as it is, and no id is published. Returns
        whether Redis accepted the entries. Never raises, and takes a tenth of a second at most. After a failure,
        calls are skipped for two seconds.
        """
        return self._tried("arm", lambda: self._arm_parts(index, promises, only_missing=only_missing)) or False

    def _arm_parts(self, index: ScheduleIndex, promises: Sequence[IndexEntry], *, only_missing: bool) -> bool:
        for words in self._parts(index, promises, only_missing=only_missing):
            self._arm(keys=index.keys, args=words)
            failpoint("schedule.after_part")
        return True

    def _parts(
        self, index: ScheduleIndex, promises: Sequence[IndexEntry], *, only_missing: bool = False
    ) -> Iterator[list[str | int]]:
        news = self._news if index.publishes and not only_missing else ""
        for start in range(0, len(promises), MOST_A_CALL):
            part = promises[start : start + MOST_A_CALL]
            words: list[str | int] = [self._bell, index.name, int(only_missing), news]
            words += [len(index.kinds), *index.kinds]
            for (kind, score), alike in groupby(part, key=lambda one: (one.kind, one.score)):
                words += [kind, score, " ".join(one.id for one in alike)]
            yield words

    def follow(self, promises: Promises, news: News) -> None:
        """Call `arm` and then `tell` in the background of the event loop."""
        for index, promised in promises.items():
            self._promised.setdefault(index, []).extend(promised)
        for side, ids in news.items():
            self._told.setdefault(side, {}).update(dict.fromkeys(ids))
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow_all())

    async def _follow_all(self) -> None:
        while self._promised or self._told:
            promised, told, self._promised, self._told = self._promised, self._told, {}, {}
            if time.monotonic() < self._skip_until:
                continue
            failpoint("pipeline.before_arm")
            try:
                await self._send_in_time(list(self._calls(promised, told)))
            except Exception as error:  # noqa: BLE001 - Postgres still holds what was promised
                self._skip("follow", error)
                continue
            failpoint("pipeline.after_arm")

    async def _send_in_time(self, calls: Sequence[tuple[str | int, ...]]) -> None:
        """After a timeout send the calls once more, because the event loop itself may have stalled."""
        try:
            async with asyncio.timeout(self._patience):
                await self._send(calls)
        except TimeoutError:
            async with asyncio.timeout(self._patience):
                await self._send(calls)

    def _calls(self, promises: Promises, news: News) -> Iterator[tuple[str | int, ...]]:
        for index, promised in promises.items():
            for words in self._parts(index, promised):
                yield "EVALSHA", self._arm.sha, len(index.keys), *index.keys, *words
        for side, ids in news.items():
            yield "PUBLISH", pubsub.channel_of(self._number, side), " ".join(ids)

    async def _send(self, calls: Iterable[tuple[str | int, ...]]) -> None:
        pipe = self._on_loop.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command(*call)
        try:
            await pipe.execute()
        except NoScriptError:
            await self._on_loop.script_load(ARM)
            await self._send(calls)

    async def followed(self) -> None:
        """Wait until everything passed to `follow` is sent, and close the event loop's connections."""
        while self._following is not None and not self._following.done():
            await self._following
        self._following = None
        await self._on_loop.aclose()

    def tell(self, ids: Iterable[str], side: str | None = None) -> None:
        """Publish ids that changed without being armed, to one side if `side` is set. Never raises."""
        self._tried("tell", lambda: pubsub.publish(self._arming, ids, side))

    def listener(self, on_message: OnMessage, on_connection: OnConnection) -> Listener:
        """Return a thread that is not yet started."""
        return Listener(self._polling, on_message, on_connection)

    def mark_looking(self, of: str, person: str, since: datetime) -> bool:
        """See `pubsub.mark`. Never raises."""
        return bool(self._tried("look", lambda: pubsub.mark(self._arming, of, person, since)))

    def unmark_looking(self, of: str, person: str) -> bool:
        """See `pubsub.unmark`. Never raises."""
        return bool(self._tried("look", lambda: pubsub.unmark(self._arming, of, person)))

    def looking(self, of: str, people: Sequence[str]) -> Mapping[str, tuple[datetime, timedelta]]:
        """See `pubsub.marked`. Never raises; without Redis, the result is empty."""
        return self._tried("look", lambda: pubsub.marked(self._arming, of, people)) or {}

    def _tried(self, what: str, call: Callable[[], Answer]) -> Answer | None:
        if time.monotonic() < self._skip_until:
            return None
        try:
            return call()
        except RedisError as error:
            self._skip(what, error)
            return None

    def _skip(self, what: str, error: Exception) -> None:
        self._skip_until = time.monotonic() + BREAKER_SECONDS
        log.warning("schedule.call_skipped", call=what, error=type(error).__name__)

    def claim(self, index: ScheduleIndex, most: int = MOST_A_CALL, *, urgent: bool = False) -> ScheduleClaim:
        """Move due members to the lease set, and claim members with an expired lease again.

        With `urgent`, only members that go before all others are claimed, regardless of the budget and other indexes.
        """
        yields_to = None if urgent else index.yields_to
        first = yields_to or index
        lease, lead, of_first = (int(span.total_seconds() * 1000) for span in (index.lease, index.lead, first.lease))
        try:
            back = int(URGENT_FROM.total_seconds() * 1000) if urgent else 0
            args = [most, lease, index.budget, lead, MOST_A_CALL, of_first, LATE_MS, TRICKLE, back]
            members, idle, last = self._claim(keys=[*index.keys, *(first.keys if yields_to else ())], args=args)
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
        log.warning("schedule.foreign_member_dropped", index=index.name)
        with redis_errors():
            for key in index.keys:
                self._polling.zrem(key, stranger)

    def _drop_false_mark(self, index: ScheduleIndex, last: bytes) -> None:
        """Drop a member that is never due, is not the index's marker, and would hide the marker."""
        with redis_errors():
            if self._polling.zscore(index.keys[0], last) == math.inf:
                self._drop(index, last)

    def _delete_strange_keys(self, error: RedisError) -> None:
        if not isinstance(error, ResponseError) or "WRONGTYPE" not in str(error):
            return
        for key in {key for index in INDEXES for key in index.keys}:
            try:
                if self._polling.type(key) not in {b"zset", b"none"}:
                    log.warning("schedule.foreign_key_deleted", key=key)
                    self._polling.delete(key)
            except RedisError:
                return

    def rebuild(self, index: ScheduleIndex) -> IndexRebuild:
        return IndexRebuild(self._polling, index.keys[0])

    def ping(self) -> None:
        """Raise RedisUnavailable unless Redis answers and is configured not to evict data."""
        with redis_errors():
            memory: Any = self._arming.info("memory")
        if memory.get("maxmemory_policy", "noeviction") != "noeviction":
            raise RedisUnavailable("set maxmemory-policy to noeviction: this Redis may drop queues and schedules")

    def members(self, index: ScheduleIndex) -> dict[str, float]:
        """Return the due time of each member that is not leased, in ms. For tests and operators only."""
        pairs: Any = self._polling.zrange(index.keys[0], 0, -1, withscores=True)
        return {member.decode(): score for member, score in pairs if score != math.inf}

    def leased(self, index: ScheduleIndex) -> int:
        with redis_errors():
            count: Any = self._polling.zcard(index.keys[1])
        return int(count)

    def look(self, span: tuple[float, float]) -> QueueDepth:
        """Timers count if due after `span[0]` and no later than `span[1]`, both in ms."""
        with redis_errors():
            return redis_scripts.measure(self._polling, CLOCK.keys[0], NOTIFICATIONS.keys, span)

    def bell(self, index: ScheduleIndex) -> Bell:
        return Bell(self._polling, index.name)

    def close(self) -> None:
        """An event loop in another thread must await `followed` first."""
        self._arming.close()
        self._polling.close()
        if self._following is not None and (loop := self._following.get_loop()).is_running():
            asyncio.run_coroutine_threadsafe(self.followed(), loop).result(POLL_TIMEOUT)
