"""Clocks that a test moves or stops."""

from datetime import datetime, timedelta

from lockbox.database import UnitOfWork, postgres_clock


class ShiftedClock:
    """The database's clock, moved by as much as a test likes."""

    def __init__(self) -> None:
        self.shift = timedelta(0)

    def __call__(self, session: UnitOfWork) -> datetime:
        """Read the shifted clock."""
        return postgres_clock(session) + self.shift


class StoppedClock:
    """The database's clock, standing at a moment until the test moves it."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self, _: UnitOfWork) -> datetime:
        """Read the clock."""
        return self.at
