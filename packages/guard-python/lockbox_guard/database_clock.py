"""The time of Lockbox's database: the latest that it can be, and how long ago Lockbox was last heard."""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

QUIET_SECONDS = 3.0
"""Nothing is allowed once the latest moment up to which the guard knows everything is longer ago than this."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LONGEST_INSTANT = 40


def _boot_clock() -> Callable[[], float]:
    if sys.platform != "win32" and hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic


BOOT_CLOCK = _boot_clock()
"""A timer in seconds that counts the machine's sleep too, if possible: what was heard before a sleep is old."""


def read_instant(written: object) -> datetime:
    """Raises ValueError for anything but a moment with an offset from UTC."""
    if not isinstance(written, str) or len(written) > LONGEST_INSTANT:
        raise ValueError("a moment is not text")
    at = datetime.fromisoformat(written)
    if at.tzinfo is None:
        raise ValueError("a moment has no offset")
    return at.astimezone(UTC)


def microseconds(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND


class ClockKnowledge(NamedTuple):
    """By how many microseconds the database's clock is ahead of ours: `most` at most, and `least` at least.

    `least` comes from the last event. The guard knows everything up to `heard`, a moment on our clock.
    """

    most: float
    least: float
    heard: float


NOTHING = ClockKnowledge(float("inf"), float("-inf"), float("-inf"))


class DatabaseClock:
    """The database's time, bounded by what the stream says.

    The first event of a connection was written after the request for it was sent. So the database's clock is ahead of
    ours by at most the event's time minus the moment of sending. The time in an answer gives a bound in the same way,
    so that a connection that began slowly does not have a bad bound for as long as it lasts. A later event was
    written before it arrived. So the clock is ahead by at least the event's time minus the moment of arrival: this
    reveals a clock that was set forward. One thread writes, any number of threads read.
    """

    def __init__(self, clock: Callable[[], float] = BOOT_CLOCK) -> None:
        self._clock = clock
        self._sent: float | None = None
        self._known: ClockKnowledge | None = None

    def note_sent(self) -> None:
        self._sent = self.moment()

    def moment(self) -> float:
        """Return our clock's time in microseconds. For `bound`, call this when a question is sent."""
        return self._clock() * 1e6

    def hear(self, at: int, *, current: int | None) -> None:
        """Learn the database's time, in microseconds since 1970, from an event that has just arrived.

        With this event, everything up to `current` is known; None if the event does not say so.
        """
        most, _, heard = self._known or NOTHING
        if self._sent is not None:
            most, self._sent = min(at - self._sent, most), None
        if most < float("inf"):
            least = at - self.moment()
            most = max(most, least)
            self._known = ClockKnowledge(most, least, heard if current is None else current - most)

    def bound(self, sent: float, at: int) -> None:
        """Learn the database's time from the answer to a question that was sent at the `moment` `sent`.

        The answer bounds from above how far the clock is ahead. The bound stays at least `least`, which the last
        event gave: another process of Lockbox may have written that event after the clock was set forward.
        """
        if self._known is not None:
            most, least, heard = self._known
            self._known = ClockKnowledge(max(min(at - sent, most), least), least, heard)

    def lose(self) -> None:
        """Allow nothing until Lockbox is heard again."""
        self._known = None

    @property
    def is_quiet(self) -> bool:
        """Whether Lockbox was not heard for so long that nothing is allowed."""
        return self.latest() is None

    def now(self) -> float | None:
        """Return the database's time, however long ago Lockbox was heard; None if never."""
        known = self._known
        return None if known is None else self.moment() + known.most

    def latest(self) -> float | None:
        """Return the latest that the database's time can be, in microseconds; None after too long a silence."""
        known, now = self._known, self.moment()
        if known is None or now - known.heard >= QUIET_SECONDS * 1e6:
            return None
        return now + known.most
