"""The clock of Lockbox's database, as far ahead as it can be, and how long ago Lockbox was heard."""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

QUIET_SECONDS = 3.0
"""Nothing is allowed once the newest state that the guard knows to be current is older than this."""
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
    """Raises ValueError for anything but a moment with an offset."""
    if not isinstance(written, str) or len(written) > LONGEST_INSTANT:
        raise ValueError("a moment is not text")
    at = datetime.fromisoformat(written)
    if at.tzinfo is None:
        raise ValueError("a moment has no offset")
    return at.astimezone(UTC)


def microseconds(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND


class ClockKnowledge(NamedTuple):
    """By how many microseconds the database's clock is ahead of ours: at most, and at least by the last event.

    Everything up to `heard`, on our clock, is known.
    """

    most: float
    least: float
    heard: float


NOTHING = ClockKnowledge(float("inf"), float("-inf"), float("-inf"))


class DatabaseClock:
    """The time by the database, bounded by what the stream says.

    The first event of a connection was written after the request for it was sent, so the database's clock is ahead of
    ours by no more than its time less the moment of sending. The time in an answer bounds it likewise, so that a slow
    beginning of a connection does not count for as long as it lasts. What arrives later was written before it
    arrived, so the clock is ahead by no less than its time less the arrival: that reveals a clock that was set
    forward. One thread writes, any number reads.
    """

    def __init__(self, clock: Callable[[], float] = BOOT_CLOCK) -> None:
        self._clock = clock
        self._sent: float | None = None
        self._known: ClockKnowledge | None = None

    def note_sent(self) -> None:
        self._sent = self.moment()

    def moment(self) -> float:
        """Return our clock in microseconds: when a question is sent, for `bound`."""
        return self._clock() * 1e6

    def hear(self, at: int, *, current: int | None) -> None:
        """Take the database's time, in microseconds since 1970, from an event that has just arrived.

        Everything up to `current` is known with it; None if it says nothing of that.
        """
        most, _, heard = self._known or NOTHING
        if self._sent is not None:
            most, self._sent = min(at - self._sent, most), None
        if most < float("inf"):
            least = at - self.moment()
            most = max(most, least)
            self._known = ClockKnowledge(most, least, heard if current is None else current - most)

    def bound(self, sent: float, at: int) -> None:
        """Take the database's time from an answer to what was sent at this `moment`.

        The clock is ahead by at most that, and by at least what the last event says, which may be of another process
        of Lockbox that knows of a clock that was set forward since.
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
        """Return the database's time as far ahead as it can be, in microseconds; None after too long a silence."""
        known, now = self._known, self.moment()
        if known is None or now - known.heard >= QUIET_SECONDS * 1e6:
            return None
        return now + known.most
