"""Clocks that a test moves or stops."""

from datetime import datetime, timedelta

from lockbox.database import UnitOfWork, postgres_clock


class ShiftedClock:
    def __init__(self) -> None:
        self.shift = timedelta(0)

    def __call__(self, session: UnitOfWork) -> datetime:
        return postgres_clock(session) + self.shift


class StoppedClock:
    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self, _: UnitOfWork) -> datetime:
        return self.at
