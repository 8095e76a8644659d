"""The circuit breaker, pace and free slots of one destination: a host for calls, or a domain for mails."""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Generic, TypeVar
from urllib.parse import urlsplit

WIDTH = 4
FIRST_PACE = 0.5
LEAST_PACE = 0.01
NEWEST_COUNTS = 0.2
LONGEST_WAIT = 3.0
MOST_LOAD = 200
MOST_URGENT = 50
FIRST_LOAD = 16
MOST_SILENCES = 3
FIRST_OPEN = 5.0
LONGEST_OPEN = 60.0
QUICK_PACE = 0.2
SOON = 4
LEAST_DEFERRAL = 0.25
LONGEST_DEFERRAL = 120.0
LONGEST_GAP = 0.001
OPEN_GAP = 0.02
PORTS = {"http": 80, "https": 443}

T = TypeVar("T")


class PeerResponse(Enum):
    """Whether the server answered (in any way), did not answer, or was never contacted."""

    ANSWER = auto()
    SILENCE = auto()
    NOTHING = auto()


class NotSent(StrEnum):
    CIRCUIT_OPEN = "circuit_open"
    FULL = "full"
    STOPPING = "stopping"
    TOO_OLD = "too_old"
    WITHDRAWN = "withdrawn"


@dataclass
class CircuitBreaker(Generic[T]):
    """The state of a destination and its sends; all times are seconds of the same clock.

    `load` counts the jobs that are in `queue`, are `running`, or have a promised slot. A destination is `proven` if
    its last send was answered; otherwise it gets at most `first_load` jobs. The circuit is open until `open_until`.
    After that, it allows one send at a time until a send is answered.
    """

    name: str
    first_load: int = FIRST_LOAD
    queue: deque[T] = field(default_factory=deque)
    load: int = 0
    running: int = 0
    pace: float = FIRST_PACE
    proven: bool = False
    silences: int = 0
    open_until: float | None = None
    open_for: float = FIRST_OPEN
    next_return: float = 0.0
    used_at: float = 0.0

    def wait(self, now: float, *, urgent: bool = False) -> float:
        """Return in how many seconds there may be room for a further job; 0.0 if there is room now."""
        if self.open_until is not None:
            if now < self.open_until:
                return self.open_until - now
            return max(self.pace, LEAST_DEFERRAL) if self.load else 0.0
        if urgent and self.proven and self.load < MOST_LOAD + MOST_URGENT:
            return 0.0
        expected = max(0, self.load + 1 - WIDTH) / WIDTH * self.pace
        has_room = self.load < MOST_LOAD and expected <= LONGEST_WAIT if self.proven else self.load < self.first_load
        # A busy machine may have slowed down a quick destination for a moment, so room may come sooner than expected.
        sooner = SOON if self.proven and self.pace <= QUICK_PACE else 1
        return 0.0 if has_room else max(min(expected, LONGEST_WAIT) / sooner, LEAST_DEFERRAL)

    def enter(self, now: float, *, urgent: bool = False) -> float:
        """Promise a slot and return 0.0; if none is free, return in how many seconds to try again.

        Jobs without a slot get successive times, so that they do not all come back at once.
        """
        self.used_at = now
        wait = self.wait(now, urgent=urgent)
        if not wait:
            self.load += 1
            return 0.0
        first = now + wait
        gap = min(self.pace / WIDTH, LONGEST_GAP) if self.open_until is None else OPEN_GAP
        self.next_return = max(self.next_return + gap, first)
        if self.next_return > now + LONGEST_DEFERRAL:
            self.next_return = first
        return self.next_return - now

    def is_ready(self, now: float) -> bool:
        return bool(self.queue) and self.running < (WIDTH if self.open_until is None else 1) and not self.is_open(now)

    def is_open(self, now: float) -> bool:
        return self.open_until is not None and now < self.open_until

    def is_forgettable(self, now: float, after: float) -> bool:
        return not self.load and not self.is_open(now) and now - self.used_at > after

    def end(self, now: float, seconds: float, said: PeerResponse) -> None:
        self.running -= 1
        self.load -= 1
        self.used_at = now
        if said is PeerResponse.NOTHING:
            return
        self.pace = max(LEAST_PACE, self.pace + NEWEST_COUNTS * (seconds - self.pace))
        self.proven = said is PeerResponse.ANSWER
        if said is PeerResponse.ANSWER:
            self._close()
        else:
            self._count_silence(now)

    def _close(self) -> None:
        self.silences = 0
        if self.open_until is not None:
            self.open_until, self.open_for, self.pace, self.next_return = None, FIRST_OPEN, FIRST_PACE, 0.0

    def _count_silence(self, now: float) -> None:
        self.silences += 1
        if self.open_until is None:
            if self.silences >= MOST_SILENCES:
                self.open_until = now + self.open_for
        elif now >= self.open_until:
            self.open_for = min(self.open_for * 2, LONGEST_OPEN)
            self.open_until = now + self.open_for


def host_of(url: str) -> str:
    """Host and port, in lower case."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or ''}:{parts.port or PORTS.get(parts.scheme, 0)}"
    except ValueError:
        return ":0"


def domain_of(address: str) -> str:
    """The domain, in lower case."""
    return address.rpartition("@")[2].strip().lower()
