"""The sending pool: one asyncio loop that serves destinations in turn, mails and webhooks separately; no database."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple, Protocol

import structlog

from lockbox.notifications.circuit_breaker import FIRST_LOAD, CircuitBreaker, NotSent, PeerResponse

log = structlog.get_logger(__name__)

MAILS_AT_ONCE = 16
HOOKS_AT_ONCE = 32
UNPROVEN_SHARE = 0.75
MOST_UNRECORDED = 50
"""How many sends of a channel may be unrecorded; if the process is killed, these may be sent twice."""
LONGEST_IN_QUEUE = 4.0
FORGOTTEN_SECONDS = 600.0
SWEEP_SECONDS = 60.0
IDLE_SECONDS = 2.0
TICK_SECONDS = 0.25
STOPPED_WAIT = 1.0
WITHDRAWN_WAIT = 1.0

Clock = Callable[[], float]


class SendJob(Protocol):
    """One mail or call to send; the loop awaits `run` and `rest`, which never block it; no method raises."""

    async def run(self) -> PeerResponse:
        """Send the mail or call, within its own time limit."""

    def finish(self, recorded: Callable[[], None]) -> None:
        """Pass the result to the recorder, and call `recorded` once it is recorded."""

    def give_back(self, why: NotSent, seconds: float, others: Sequence[Any] = ()) -> None:
        """Release this job and `others`: the pool has not tried them, and has no slot for them for `seconds`."""

    async def rest(self) -> None:
        """Close kept connections, because there is nothing more to send."""


@dataclass(frozen=True)
class QueuedJob:
    """Urgent jobs are queued before all others."""

    job: SendJob
    since: float
    is_urgent: bool = False


class StartedSend(NamedTuple):
    breaker: CircuitBreaker[QueuedJob]
    job: SendJob
    was_proven: bool


class SendingLoop:
    """An asyncio loop in a thread of its own, which runs while there is something to send and two seconds longer.

    The first send starts the thread, so that it runs in the process that sends, never before a fork. `channels` are
    called repeatedly, and return whether they are busy.
    """

    def __init__(self) -> None:
        self.channels: list[Callable[[], bool]] = []
        self.rest: Callable[[], Awaitable[None]] | None = None
        self._changing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._was_called = False

    def call(self, work: Callable[[], object]) -> None:
        """Run `work` in the loop; start the loop if it is not running.

        Raises:
            RuntimeError: no thread can be started.
        """
        with self._changing:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                try:
                    threading.Thread(target=self._run, args=(loop,), name="sending-loop", daemon=True).start()
                except RuntimeError:
                    loop.close()
                    raise
                self._loop = loop
            self._was_called = True
            self._loop.call_soon_threadsafe(work)

    @property
    def is_running(self) -> bool:
        with self._changing:
            return self._loop is not None

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        busy_at = time.monotonic()
        while time.monotonic() - busy_at <= IDLE_SECONDS or not await self._ended():
            await asyncio.sleep(min(TICK_SECONDS, IDLE_SECONDS))
            with self._changing:
                self._was_called = False
            # Our own lock is not held here: callers of this loop hold the lock of a channel.
            are_busy = [tend() for tend in self.channels]
            if any(are_busy):
                busy_at = time.monotonic()

    async def _ended(self) -> bool:
        """Close connections before another loop can use them; return True and end unless `call` has run meanwhile."""
        if self.rest:
            await self.rest()
        with self._changing:
            self._loop = self._loop if self._was_called else None
            return self._loop is None


class ChannelPool:
    """All destinations of one channel, served in turn, with a limit of simultaneous sends.

    Together, destinations whose last send was not answered use at most three quarters of the sends. However many of
    these hang, the other destinations continue.
    """

    def __init__(
        self,
        channel: str,
        at_once: int,
        clock: Clock = time.monotonic,
        *,
        first_load: int = FIRST_LOAD,
        loop: SendingLoop | None = None,
    ) -> None:
        self._channel = channel
        self._most = at_once
        self._most_unproven = max(1, int(at_once * UNPROVEN_SHARE))
        self._clock = clock
        self._first_load = first_load
        self._loop = loop or SendingLoop()
        self._loop.channels.append(self.tend)
        self._change = threading.Condition()
        self._breakers: dict[str, CircuitBreaker[QueuedJob]] = {}
        self._waiting: dict[str, CircuitBreaker[QueuedJob]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0
        self._unproven = 0
        self._unrecorded = 0
        self._swept_at = clock()
        self._is_woken = False
        self._stopping = False

    def enter(self, name: str, *, urgent: bool = False) -> float:
        """Promise a slot of a destination and return 0.0, or return in how many seconds to try again."""
        with self._change:
            if self._stopping:
                return STOPPED_WAIT
            now = self._clock()
            self._sweep(now)
            breaker = self._breakers.get(name) or self._breakers.setdefault(
                name, CircuitBreaker(name, self._first_load)
            )
            return breaker.enter(now, urgent=urgent)

    def obstacle(self, name: str) -> NotSent:
        with self._change:
            if self._stopping:
                return NotSent.STOPPING
            return NotSent.FULL if self._breakers[name].open_until is None else NotSent.CIRCUIT_OPEN

    def leave(self, name: str) -> None:
        with self._change:
            self._breakers[name].load -= 1

    def send(self, name: str, job: SendJob, *, urgent: bool = False) -> None:
        with self._change:
            breaker, now = self._breakers[name], self._clock()
            if not self._stopping and not breaker.is_open(now):
                _queue(breaker, QueuedJob(job, now, is_urgent=urgent))
                self._waiting.setdefault(name, breaker)
                self._wake()
                return
            breaker.load -= 1
            why, wait = (NotSent.STOPPING, 0.0) if self._stopping else (NotSent.CIRCUIT_OPEN, breaker.wait(now))
        job.give_back(why, wait)

    def withdraw(self, jobs: Collection[SendJob]) -> None:
        wanted = {id(job) for job in jobs}
        with self._change:
            left = [one for breaker in self._waiting.values() for one in _taken(breaker, wanted)]
            self._forget_empty()
        _give_back(left, NotSent.WITHDRAWN, WITHDRAWN_WAIT)

    def tend(self) -> bool:
        """Give back jobs queued for so long that their content may be outdated; return whether the pool is busy."""
        with self._change:
            oldest = self._clock() - LONGEST_IN_QUEUE
            left = [one for breaker in self._waiting.values() for one in _older(breaker, oldest)]
            self._forget_empty()
        _give_back(left, NotSent.TOO_OLD)
        return self.is_busy

    def stop(self, seconds: float) -> bool:
        """Accept no more jobs, give back queued jobs, and return whether all running sends end within `seconds`."""
        with self._change:
            self._stopping = True
            left = [one for breaker in self._waiting.values() for one in self._emptied(breaker)]
            self._waiting.clear()
        _give_back(left, NotSent.STOPPING)
        with self._change:
            return self._change.wait_for(lambda: not self._running, seconds)

    @property
    def is_busy(self) -> bool:
        with self._change:
            return bool(self._tasks or self._waiting)

    @property
    def remembered(self) -> int:
        with self._change:
            return len(self._breakers)

    def _wake(self) -> None:
        if self._is_woken or len(self._tasks) >= self._most or not self._ready():
            return
        try:
            self._loop.call(self._begin)
        except RuntimeError:
            log.warning("sending_pool.no_thread", channel=self._channel)
        else:
            self._is_woken = True

    def _begin(self) -> None:
        with self._change:
            self._is_woken = False
            while len(self._tasks) < self._most and (started := self._next()):
                task = asyncio.get_running_loop().create_task(self._work(started))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _work(self, started: StartedSend | None) -> None:
        while started:
            job = started.job
            self._loop.rest = job.rest
            began = self._clock()
            said = await job.run()
            self._end(started, self._clock() - began, said)
            job.finish(self._note_recorded)
            with self._change:
                self._running -= 1
                if self._stopping:
                    self._change.notify_all()
                started = self._next()

    def _next(self) -> StartedSend | None:
        breaker = self._ready()
        if breaker is None:
            return None
        queued = breaker.queue.popleft()
        # A destination that had its turn goes to the end of the line.
        del self._waiting[breaker.name]
        if breaker.queue:
            self._waiting[breaker.name] = breaker
        breaker.running += 1
        self._running += 1
        self._unrecorded += 1
        self._unproven += not breaker.proven
        return StartedSend(breaker, queued.job, breaker.proven)

    def _ready(self) -> CircuitBreaker[QueuedJob] | None:
        if self._unrecorded >= MOST_UNRECORDED:
            return None
        now, full = self._clock(), self._unproven >= self._most_unproven
        return next((one for one in self._waiting.values() if one.is_ready(now) and (one.proven or not full)), None)

    def _end(self, started: StartedSend, seconds: float, said: PeerResponse) -> None:
        breaker = started.breaker
        with self._change:
            now, was_shut = self._clock(), breaker.open_until
            breaker.end(now, seconds, said)
            self._unproven -= not started.was_proven
            is_open = breaker.is_open(now)
            left = self._emptied(breaker) if is_open else []
            if left:
                self._waiting.pop(breaker.name, None)
            wait = breaker.wait(now)
            self._wake()
        if is_open and breaker.open_until != was_shut:
            log.warning(
                "circuit_breaker.opened", channel=self._channel, destination=breaker.name, seconds=round(wait)
            )
        elif was_shut and breaker.open_until is None:
            log.info("circuit_breaker.closed", channel=self._channel, destination=breaker.name)
        _give_back(left, NotSent.CIRCUIT_OPEN, wait)

    def _note_recorded(self) -> None:
        with self._change:
            self._unrecorded -= 1
            self._wake()

    def _emptied(self, breaker: CircuitBreaker[QueuedJob]) -> list[QueuedJob]:
        left = list(breaker.queue)
        breaker.queue.clear()
        breaker.load -= len(left)
        return left

    def _forget_empty(self) -> None:
        for name in [name for name, breaker in self._waiting.items() if not breaker.queue]:
            del self._waiting[name]

    def _sweep(self, now: float) -> None:
        if now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        for breaker in [one for one in self._breakers.values() if one.is_forgettable(now, FORGOTTEN_SECONDS)]:
            del self._breakers[breaker.name]


class SendingPool:
    """The pools of mails and of webhooks; they share the loop but no slots, so that neither can starve the other.

    `first_load` is how many jobs a destination gets before it has answered once.
    """

    def __init__(
        self,
        *,
        mails_at_once: int = MAILS_AT_ONCE,
        hooks_at_once: int = HOOKS_AT_ONCE,
        clock: Clock = time.monotonic,
        first_load: int = FIRST_LOAD,
    ) -> None:
        self.clock = clock
        self.loop = SendingLoop()
        self.mail = ChannelPool("mail", mails_at_once, clock, first_load=first_load, loop=self.loop)
        self.hooks = ChannelPool("webhook", hooks_at_once, clock, first_load=first_load, loop=self.loop)

    def stop(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        # Both channels stop accepting jobs before either one is waited for.
        self.hooks.stop(0.0)
        return self.mail.stop(seconds) & self.hooks.stop(max(0.0, until - time.monotonic()))


def _queue(breaker: CircuitBreaker[QueuedJob], one: QueuedJob) -> None:
    before = takewhile(lambda other: other.is_urgent, breaker.queue)
    breaker.queue.insert(sum(1 for _ in before) if one.is_urgent else len(breaker.queue), one)


def _taken(breaker: CircuitBreaker[QueuedJob], wanted: Collection[int]) -> list[QueuedJob]:
    left = [one for one in breaker.queue if id(one.job) in wanted]
    breaker.queue = deque(one for one in breaker.queue if id(one.job) not in wanted)
    breaker.load -= len(left)
    return left


def _older(breaker: CircuitBreaker[QueuedJob], oldest: float) -> list[QueuedJob]:
    left = [one for one in breaker.queue if one.since < oldest]
    breaker.queue = deque(one for one in breaker.queue if one.since >= oldest)
    breaker.load -= len(left)
    return left


def _give_back(left: Sequence[QueuedJob], why: NotSent, seconds: float = 0.0) -> None:
    if left:
        first, *others = (one.job for one in left)
        first.give_back(why, seconds, others)
