"""Counts that only grow, for whoever watches: rows that a statement adds beside what it does; their sums count."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

DEADLINE_LAG = "deadline_lag"
ATTEMPT = "attempt"
DROPPED = "dropped"
LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, float("inf"))
"""Upper bounds in seconds; the last one has none."""
MOST_ROWS = 200

ADD_LAGS = """
lags AS (
    INSERT INTO tallies (name, label, count, total)
    SELECT 'deadline_lag', * FROM unnest(CAST(:lag_label AS text[]), CAST(:lag_count AS bigint[]),
        CAST(:lag_total AS double precision[]))
)"""
ADD_DROPPED = text("""
INSERT INTO tallies (name, label, count, total)
SELECT 'dropped', d.label, d.number, 0
FROM unnest(CAST(:labels AS text[]), CAST(:numbers AS bigint[])) AS d (label, number)
""")
FOLD = text("""
WITH gone AS (
    DELETE FROM tallies WHERE (SELECT count(*) FROM tallies) > :most RETURNING name, label, count, total
)
INSERT INTO tallies (name, label, count, total)
SELECT name, label, sum(count), sum(total) FROM gone GROUP BY name, label
""")


def lags(seconds: Iterable[float]) -> dict[str, Any]:
    """Return the parameters of ADD_LAGS for deadlines that the clock came to so many seconds late."""
    counts: Counter[float] = Counter()
    totals: Counter[float] = Counter()
    for lag in seconds:
        bound = LAG_BUCKETS[bisect_left(LAG_BUCKETS, lag)]
        counts[bound] += 1
        totals[bound] += lag  # type: ignore[assignment]  # a sum of seconds, not a count
    return {
        "lag_label": [str(bound) for bound in counts],
        "lag_count": list(counts.values()),
        "lag_total": [totals[bound] for bound in counts],
    }


def add_dropped(session: Session, counts: Mapping[str, int]) -> None:
    """Add how many messages of the broker were dropped, by where they stood."""
    values = {"labels": list(counts), "numbers": list(counts.values())}
    session.connection().execute(ADD_DROPPED, values)
