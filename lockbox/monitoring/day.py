"""The last 24 hours by the hour: what was filed, decided and sent, and how late it was; numbers, and no names."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from lockbox.database import Database
from lockbox.monitoring import metrics

log = structlog.get_logger(__name__)

HOURS = 24
HOUR = timedelta(hours=1)
MOVES = frozenset({"filed", "decided", "timed_out"})
"""What requests did; the other counts, `sent` and `dead`, are of notices."""

READ = text("SELECT name, hour, value FROM operating_day()")


@dataclass(frozen=True)
class Day:
    """Numbers by name and hour. `hours` are the beginnings of 24 hours, the one that runs last."""

    hours: tuple[datetime, ...]
    numbers: Mapping[tuple[str, datetime], float]
    moves_from: datetime | None = None
    notices_from: datetime | None = None
    schedule_lag: float | None = None

    def counts(self, name: str) -> tuple[float | None, ...]:
        """Return how many there were in each hour; None for hours that lie before what could be counted."""
        since = self.moves_from if name in MOVES else self.notices_from
        return tuple(
            None if since and hour + HOUR <= since else self.numbers.get((name, hour), 0.0) for hour in self.hours
        )

    def worst(self, name: str) -> tuple[float | None, ...]:
        """Return the longest lag in each hour, in seconds; None where nobody looked."""
        return tuple(self.numbers.get((name, hour)) for hour in self.hours)


def read(database: Database) -> Day | None:
    """Ask Postgres, for a few seconds at most; None where it does not answer by then."""
    try:
        with database.transaction() as session:
            session.connection().execute(metrics.LIMITS)
            rows = session.connection().execute(READ).all()
    except SQLAlchemyError as error:
        log.warning("day.postgres_away", error=type(error).__name__)
        return None
    found = {(row.name, row.hour): row.value for row in rows}
    at = {row.name: row.hour for row in rows}
    begins = at["begins"]
    return Day(
        hours=tuple(begins + HOUR * number for number in range(HOURS)),
        numbers=found,
        moves_from=at.get("moves_from"),
        notices_from=at.get("notices_from"),
        schedule_lag=next((row.value for row in rows if row.name == "schedule_lag_now"), None),
    )
