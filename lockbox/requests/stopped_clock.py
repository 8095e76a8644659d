"""How the approval clock stands while a question waits for its answer: pure, from one clock to the next."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil


@dataclass(frozen=True)
class Clock:
    """The clock of a request that waits for the customer.

    While it stands, `stopped_at` is since when, `stopped_deadline` the deadline that held until then, and
    `deadline_at` the last that this one may become. `stopped_for` is for how many seconds it stood before that.
    """

    deadline_at: datetime
    stopped_at: datetime | None = None
    stopped_deadline: datetime | None = None
    stopped_for: int = 0


def stopped(clock: Clock, window: int, at: datetime) -> Clock:
    """Return a clock that stands from now on, for at most one further window of so many seconds in all.

    One that stands already, or has stood for that long, is left as it is.
    """
    left = window - clock.stopped_for
    if clock.stopped_at is not None or left <= 0:
        return clock
    return Clock(clock.deadline_at + timedelta(seconds=left), at, clock.deadline_at, clock.stopped_for)


def resumed(clock: Clock, at: datetime) -> Clock:
    """Return a clock that goes on: its deadline has moved by the time that it stood, in whole seconds, rounded up."""
    if clock.stopped_at is None or clock.stopped_deadline is None:
        return clock
    moved = _moved(clock, at)
    return Clock(clock.stopped_deadline + timedelta(seconds=moved), stopped_for=clock.stopped_for + moved)


def stood(clock: Clock, at: datetime) -> timedelta:
    """Return for how long the clock has stood by now, all told."""
    return timedelta(seconds=clock.stopped_for + _moved(clock, at))


def _moved(clock: Clock, at: datetime) -> int:
    if clock.stopped_at is None or clock.stopped_deadline is None:
        return 0
    most = (clock.deadline_at - clock.stopped_deadline) // timedelta(seconds=1)
    return min(max(ceil((at - clock.stopped_at).total_seconds()), 0), most)
