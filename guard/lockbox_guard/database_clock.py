"""The clock of Lockbox's database, as far ahead as it can be, and how long ago Lockbox was heard."""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

QUIET_SECONDS = 3.0
"""So long after what a heartbeat says of, nothing is allowed any more."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LONGEST_INSTANT = 40


def _boot_clock() -> Callable[[], float]:
    if sys.platform != "win32" and hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic


BOOT_CLOCK = _boot_clock()
"""Seconds that go on while the machine sleeps, where it can say: what was heard before that is old."""


def read_instant(written: object) -> datetime:
    """Return a moment that Lockbox wrote.

    Raises:
        ValueError: it is none, or has no offset.
    """
    if not isinstance(written, str) or len(written) > LONGEST_INSTANT:
        raise ValueError("a moment is not text")
    at = datetime.fromisoformat(written)
    if at.tzinfo is None:
        raise ValueError("a moment has no offset")
    return at.astimezone(UTC)


def microseconds(at: datetime) -> int:
    """Return a moment as microseconds since 1970."""
    return (at - EPOCH) // MICROSECOND


class DatabaseClock:
    """The time by the database, from what the stream says it is.

    The first event of a connection was written after the request for it was sent, so the database's clock is ahead of
    ours by no more than the time in it less the moment of sending. What arrives later was written before it arrived,
    so the clock is ahead by no less than the time in it less the arrival: by that a clock that was set forward shows.
    One thread writes, any number reads.
    """

    def __init__(self, clock: Callable[[], float] = BOOT_CLOCK) -> None:
        self._clock = clock
        self._sent: float | None = None
        # By how many microseconds the database's clock is ahead of ours at most, and the time heard last.
        self._known: tuple[float, float] | None = None

    def note_sent(self) -> None:
        """Note that the stream is asked for now."""
        self._sent = self._clock() * 1e6

    def hear(self, at: int, *, current: int | None) -> None:
        """Take the time by the database out of an event that has just arrived; microseconds since 1970.

        Everything that was so until `current` is known with it; None if it says nothing of that.
        """
        ahead, heard = self._known or (float("inf"), float("-inf"))
        if self._sent is not None:
            ahead, self._sent = min(at - self._sent, ahead), None
        least = at - self._clock() * 1e6
        if ahead < float("inf"):
            self._known = (max(ahead, least), heard if current is None else float(current))

    def lose(self) -> None:
        """Forget what was heard: nothing is allowed until Lockbox is heard again."""
        self._known = None

    @property
    def is_quiet(self) -> bool:
        """Whether Lockbox was not heard for so long that nothing is allowed."""
        return self.latest() is None

    def now(self) -> float | None:
        """Return the time by the database, however long ago it was heard; None if it never was."""
        known = self._known
        return None if known is None else self._clock() * 1e6 + known[0]

    def latest(self) -> float | None:
        """Return the time by the database as far ahead as it can be, in microseconds; None after too long a quiet."""
        known = self._known
        if known is None:
            return None
        now = self._clock() * 1e6 + known[0]
        return now if now - known[1] < QUIET_SECONDS * 1e6 else None
