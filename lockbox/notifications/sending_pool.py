"""The sending pool: threads that serve each destination in turn, mails and webhooks apart; no database."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import structlog

from lockbox.notifications.circuit_breaker import FIRST_LOAD, CircuitBreaker, PeerResponse

log = structlog.get_logger(__name__)

MAIL_THREADS = 16
HOOK_THREADS = 32
UNPROVEN_SHARE = 0.75
LONGEST_IN_QUEUE = 10.0
IDLE_SECONDS = 2.0
FORGOTTEN_SECONDS = 600.0
SWEEP_SECONDS = 60.0
STOPPED_WAIT = 1.0
PORTS = {"http": 80, "https": 443}

Clock = Callable[[], float]


class SendJob(Protocol):
    """One thing to send. Its calls come from a thread of the pool, but for `give_back`, and raise nothing."""

    def run(self) -> PeerResponse:
        """Send it, within a deadline of its own."""

    def finish(self) -> None:
        """Record how it went; its slot is free by now."""

    def give_back(self, seconds: float, others: Sequence[Any] = ()) -> None:
        """Take it back, and others of its kind with it: they were not tried, and there is no room for so long."""

    def rest(self) -> None:
        """Close what this thread holds open, for it has nothing more to do."""


@dataclass(frozen=True)
class QueuedJob:
    """A job in its queue, and since when it is there."""

    job: SendJob
    since: float


class ChannelPool:
    """All destinations of one channel, and the threads that serve them in turn.

    Lanes that have not proven to answer get three quarters of the threads at most, all together: however many of
    them hang, the others go on.
    """

    def __init__(
        self, channel: str, threads: int, clock: Clock = time.monotonic, *, first_load: int = FIRST_LOAD
    ) -> None:
        self._channel = channel
        self._most = threads
        self._most_unproven = max(1, int(threads * UNPROVEN_SHARE))
        self._clock = clock
        self._first_load = first_load
        self._change = threading.Condition()
        self._breakers: dict[str, CircuitBreaker[QueuedJob]] = {}
        self._waiting: dict[str, CircuitBreaker[QueuedJob]] = {}
        self._threads = 0
        self._idle = 0
        self._unproven = 0
        self._swept_at = clock()
        self._stopping = False

    def enter(self, name: str) -> float:
        """Promise a slot of a destination and return 0.0, or return in how many seconds to come again."""
        with self._change:
            if self._stopping:
                return STOPPED_WAIT
            now = self._clock()
            self._sweep(now)
            breaker = self._breakers.get(name) or self._breakers.setdefault(
                name, CircuitBreaker(name, self._first_load)
            )
            return breaker.enter(now)

    def leave(self, name: str) -> None:
        """Give back a slot that was promised and is not needed."""
        with self._change:
            self._breakers[name].load -= 1

    def send(self, name: str, job: SendJob) -> None:
        """Queue a job in the slot that was promised to it."""
        with self._change:
            breaker, now = self._breakers[name], self._clock()
            if not self._stopping and not breaker.is_shut(now):
                breaker.queue.append(QueuedJob(job, now))
                self._waiting.setdefault(name, breaker)
                self._wake()
                return
            breaker.load -= 1
            wait = 0.0 if self._stopping else breaker.wait(now)
        job.give_back(wait)

    def stop(self, seconds: float) -> bool:
        """Take nothing more and give back what waits; return whether what runs has ended within that time."""
        with self._change:
            self._stopping = True
            left = [one for breaker in self._waiting.values() for one in self._emptied(breaker)]
            self._waiting.clear()
            self._change.notify_all()
        _give_back(left, 0.0)
        with self._change:
            return self._change.wait_for(lambda: self._threads == self._idle, seconds)

    @property
    def size(self) -> tuple[int, int]:
        """How many destinations are remembered, and how many threads there are."""
        with self._change:
            return len(self._breakers), self._threads

    def _work(self) -> None:
        last: SendJob | None = None
        while found := self._next():
            breaker, queued, unproven, waited = found
            last = queued.job
            if waited > LONGEST_IN_QUEUE:
                self._end(breaker, 0.0, PeerResponse.NOTHING, unproven=unproven)
                last.give_back(0.0)
            else:
                began = self._clock()
                said = last.run()
                self._end(breaker, self._clock() - began, said, unproven=unproven)
                last.finish()
            with self._change:
                self._idle += 1
                if self._stopping:
                    self._change.notify_all()
        if last:
            last.rest()

    def _next(self) -> tuple[CircuitBreaker[QueuedJob], QueuedJob, bool, float] | None:
        """Return what to send next; None where nothing has come for a while, or nothing more will."""
        until = time.monotonic() + IDLE_SECONDS
        with self._change:
            while not (breaker := self._ready()):
                left = until - time.monotonic()
                if self._stopping or left <= 0:
                    self._threads -= 1
                    self._idle -= 1
                    return None
                self._change.wait(left)
            queued = breaker.queue.popleft()
            # Whoever had its turn goes to the end of the row.
            del self._waiting[breaker.name]
            if breaker.queue:
                self._waiting[breaker.name] = breaker
            breaker.running += 1
            unproven = not breaker.proven
            self._unproven += unproven
            self._idle -= 1
            self._wake()
            return breaker, queued, unproven, self._clock() - queued.since

    def _ready(self) -> CircuitBreaker[QueuedJob] | None:
        now, full = self._clock(), self._unproven >= self._most_unproven
        return next((one for one in self._waiting.values() if one.is_ready(now) and (one.proven or not full)), None)

    def _wake(self) -> None:
        """Have one thread more look, if there is something for it."""
        if not self._ready():
            return
        if self._idle:
            self._change.notify()
        elif self._threads < self._most:
            try:
                threading.Thread(target=self._work, name=f"{self._channel}-sender", daemon=True).start()
            except RuntimeError:
                log.warning("sending_pool.no_thread", channel=self._channel, threads=self._threads)
            else:
                self._threads += 1
                self._idle += 1

    def _end(self, breaker: CircuitBreaker[QueuedJob], seconds: float, said: PeerResponse, *, unproven: bool) -> None:
        with self._change:
            now, was_shut = self._clock(), breaker.shut_until
            breaker.end(now, seconds, said)
            self._unproven -= unproven
            is_shut = breaker.is_shut(now)
            left = self._emptied(breaker) if is_shut else []
            if left:
                self._waiting.pop(breaker.name, None)
            wait = breaker.wait(now)
            self._wake()
        if is_shut and breaker.shut_until != was_shut:
            log.warning(
                "circuit_breaker.opened", channel=self._channel, destination=breaker.name, seconds=round(wait)
            )
        elif was_shut and breaker.shut_until is None:
            log.info("circuit_breaker.closed", channel=self._channel, destination=breaker.name)
        _give_back(left, wait)

    def _emptied(self, breaker: CircuitBreaker[QueuedJob]) -> list[QueuedJob]:
        left = list(breaker.queue)
        breaker.queue.clear()
        breaker.load -= len(left)
        return left

    def _sweep(self, now: float) -> None:
        if now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        for breaker in [one for one in self._breakers.values() if one.is_forgettable(now, FORGOTTEN_SECONDS)]:
            del self._breakers[breaker.name]


class SendingPool:
    """Both ways out, which share nothing: neither can starve the other. Threads are started as they are needed.

    `first_load` is how many a destination lets in before it has proven to answer, and `clock` tells the time.
    """

    def __init__(
        self,
        *,
        mail_threads: int = MAIL_THREADS,
        hook_threads: int = HOOK_THREADS,
        clock: Clock = time.monotonic,
        first_load: int = FIRST_LOAD,
    ) -> None:
        self.clock = clock
        self.mail = ChannelPool("mail", mail_threads, clock, first_load=first_load)
        self.hooks = ChannelPool("webhook", hook_threads, clock, first_load=first_load)

    def stop(self, seconds: float) -> bool:
        """Take nothing more, give back what waits, and wait that long for what runs; return whether it has ended."""
        until = time.monotonic() + seconds
        # Both first take nothing more, then each is waited for.
        self.hooks.stop(0.0)
        return self.mail.stop(seconds) & self.hooks.stop(max(0.0, until - time.monotonic()))


def host_of(url: str) -> str:
    """Return the destination of a webhook: host and port, in small letters."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or ''}:{parts.port or PORTS.get(parts.scheme, 0)}"
    except ValueError:
        return ":0"


def domain_of(address: str) -> str:
    """Return the destination of a mail: its domain, in small letters."""
    return address.rpartition("@")[2].strip().lower()


def _give_back(left: Sequence[QueuedJob], seconds: float) -> None:
    if left:
        first, *others = (one.job for one in left)
        first.give_back(seconds, others)
