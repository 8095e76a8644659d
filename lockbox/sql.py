"""Shared parts of tables and statements: ids, column types, and counters."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, Enum, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import SQLModel
from uuid_utils.compat import uuid7

DEADLINE_LAG = "deadline_lag"
ATTEMPT = "attempt"
DROPPED = "dropped"
LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, float("inf"))
"""Upper bounds in seconds; the last one has none."""
MOST_ROWS = 200
ADD_LAGS = """
lags AS (
    INSERT INTO counters (name, label, count, total)
    SELECT 'deadline_lag', * FROM unnest(CAST(:lag_label AS text[]), CAST(:lag_count AS bigint[]),
        CAST(:lag_total AS double precision[]))
)"""
ADD_DROPPED = text("""
INSERT INTO counters (name, label, count, total)
SELECT 'dropped', d.label, d.number, 0
FROM unnest(CAST(:labels AS text[]), CAST(:numbers AS bigint[])) AS d (label, number)
""")
FOLD = text("""
WITH gone AS (
    DELETE FROM counters WHERE (SELECT count(*) FROM counters) > :most RETURNING name, label, count, total
)
INSERT INTO counters (name, label, count, total)
SELECT name, label, sum(count), sum(total) FROM gone GROUP BY name, label
""")
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
Instant = DateTime(timezone=True)
Texts = ARRAY(Text())
Instants = ARRAY(Instant)
Ids = ARRAY(Uuid())
new_id = uuid7
"""Return a fresh UUIDv7."""


def lags(seconds: Iterable[float]) -> dict[str, Any]:
    """Return the parameters of ADD_LAGS for deadlines that the clock handled so many seconds late."""
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


def words(kind: type[StrEnum]) -> Enum:
    """Return the column type of an enumeration: its values as text; a CHECK refuses others."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=False,
        length=24,
        values_callable=lambda members: [member.value for member in members],
    )
