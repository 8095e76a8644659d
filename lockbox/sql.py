"""Write Postgres arrays as literals, for statements that write hundreds of rows at once."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any
from uuid import UUID

import uuid_utils
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
NULL = "NULL"
WORDS_KEPT = 1024


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


def new_id() -> UUID:
    """Return a fresh UUIDv7."""
    return uuid7()


def new_id_text() -> str:
    """Return a fresh UUIDv7 as text, without creating an object for each of thousands."""
    return str(uuid_utils.uuid7())


def words(kind: type[StrEnum]) -> Enum:
    """Return the column type of an enumeration: its values as text; a CHECK refuses others."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=False,
        length=24,
        values_callable=lambda members: [member.value for member in members],
    )


def array(values: Iterable[UUID | datetime | int | str | None]) -> str:
    """Return the literal of an array of ids, instants, numbers or our own plain words.

    The driver quotes and escapes each element, which took half the time of a batch. Text that people wrote never goes
    through here: anything but plain words is refused.

    Raises:
        ValueError: a text is not a plain word, or a value is of another type.
    """
    return "{" + ",".join([WRITTEN.get(type(value), _refuse)(value) for value in values]) + "}"


def listed(ids: Iterable[str]) -> str:
    """Return the literal of an array of ids that `lockbox.sql` made as text."""
    return "{" + ",".join(ids) + "}"


@lru_cache(WORDS_KEPT)
def _word(value: str) -> str:
    if not value.replace("_", "").isalnum():
        raise ValueError("only plain words go into an array literal")
    return str(value)


@lru_cache(WORDS_KEPT)
def _instant(value: datetime) -> str:
    return f'"{value.isoformat()}"'


def _refuse(value: object) -> str:
    if isinstance(value, StrEnum):
        return _word(value.value)
    raise ValueError(f"no {type(value).__name__} goes into an array literal")


WRITTEN: dict[type, Callable[..., str]] = {
    type(None): lambda _: NULL,
    UUID: lambda value: f"{value.int:032x}",
    datetime: _instant,
    int: str,
    str: _word,
}
"""The literal form of each type."""
