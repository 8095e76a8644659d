"""Shared parts of tables and statements: ids, column types, lists of columns, bounded searches, and counters."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Enum,
    Integer,
    Select,
    Text,
    Uuid,
    func,
    literal_column,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import SQLCoreOperations
from sqlmodel import Field, SQLModel
from uuid_utils.compat import uuid7

DEADLINE_LAG = "deadline_lag"
ATTEMPT = "attempt"
DROPPED = "dropped"
LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, float("inf"))
"""Upper bounds in seconds; the last one is infinite."""
MOST_ROWS = 200
BACKEND = text("SELECT pg_backend_pid()")
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
SKEW = timedelta(minutes=10)
"""By how much the clock of an id's maker may differ from the database's."""
EPOCH, LAST_MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), 2**48 - 1
new_id = uuid7
"""Return a fresh UUIDv7."""


ELEMENT_TYPES = {"varchar": "text", "timestamp with time zone": "timestamptz", "float": "double precision"}
"""The types to which arrays of a column's values are cast, if they differ from the column's own type."""


def columns(kind: type[SQLModel], of: str, *names: str) -> str:
    """Return the named columns, or all, for a select list; `of` is the table's name or alias in the statement.

    Statements do not use `*`, because Postgres refuses a prepared `*` after a migration that adds a column.
    """
    return ", ".join(f"{of}.{name}" for name in _known(kind, names) or kind.model_fields)


def insert_list(kind: type[SQLModel], of: str = "", but: Collection[str] = ()) -> str:
    """Return table and columns for an INSERT, in the table's order, without `but` and generated columns."""
    return f"{kind.__tablename__}{of and f' AS {of}'} ({', '.join(_stored(kind, but))})"


def insert(
    kind: type[SQLModel], of: str = "", /, *, but: Collection[str] = (), prefix: str = "", **values: str
) -> str:
    """Return the statement that inserts a row.

    A value is the parameter with its column's name, or SQL from `values`.
    """
    given = (values.get(name) or _parameter(kind, name, prefix) for name in _stored(kind, but, values))
    return f"INSERT INTO {insert_list(kind, of, but)}\nVALUES ({', '.join(given)})"


def excluded(kind: type[SQLModel], but: Collection[str]) -> str:
    return ", ".join(f"{name} = excluded.{name}" for name in _stored(kind, but))


def insert_rows(kind: type[SQLModel], /, *, but: Collection[str] = (), prefix: str = "", **values: str) -> str:
    """Return the statement that inserts several rows.

    A column's values come from the array in the parameter with the column's name, or from an SQL expression in
    `values`, in which `n` is a row of the arrays.
    """
    stored = _stored(kind, but, values)
    given = ", ".join(values.get(name) or f"n.{name}" for name in stored)
    rows = unnested(kind, "n", *(name for name in stored if name not in values), prefix=prefix)
    return f"INSERT INTO {insert_list(kind, but=but)}\nSELECT {given} FROM {rows}"


def unnested(kind: type[SQLModel], of: str, *names: str, prefix: str = "") -> str:
    """Return an `unnest` of arrays; each array is the parameter with its column's name."""
    arrays = (f"CAST(:{prefix}{name} AS {_type(kind, name)}[])" for name in _known(kind, names))
    return f"unnest({', '.join(arrays)}) AS {of} ({', '.join(names)})"


def _known(kind: type[SQLModel], names: Iterable[str]) -> tuple[str, ...]:
    checked = tuple(names)
    if unknown := set(checked) - kind.model_fields.keys():
        raise LookupError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
    return checked


def _stored(kind: type[SQLModel], but: Collection[str], values: Iterable[str] = ()) -> tuple[str, ...]:
    _known(kind, (*but, *values))
    every = kind.metadata.tables[str(kind.__tablename__)].columns
    return tuple(one.name for one in every if one.computed is None and one.identity is None and one.name not in but)


def _type(kind: type[SQLModel], name: str) -> str:
    declared = kind.metadata.tables[str(kind.__tablename__)].columns[name].type
    compiled = declared.compile(dialect=postgresql.dialect()).partition("(")[0].lower()  # type: ignore[no-untyped-call]
    return ELEMENT_TYPES.get(compiled, compiled)


def _parameter(kind: type[SQLModel], name: str, prefix: str) -> str:
    declared = kind.metadata.tables[str(kind.__tablename__)].columns[name].type
    is_cast = isinstance(declared, (ARRAY, JSONB))
    return f"CAST(:{prefix}{name} AS {_type(kind, name)})" if is_cast else f":{prefix}{name}"


class CounterTotal(SQLModel, table=True):
    """A part of a count. All rows of one name and label are added up; `total` is the sum of the counted values."""

    __tablename__ = "counters"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str = Field(max_length=24)
    label: str = Field(max_length=48)
    count: int = Field(sa_type=BigInteger)
    total: float


COUNTERS = insert_list(CounterTotal, but={"id"})
ADD_LAGS = f"lags AS ({insert_rows(CounterTotal, but={'id'}, prefix='lag_', name=repr(DEADLINE_LAG))})"
ADD_DROPPED = text(insert_rows(CounterTotal, but={"id"}, name=repr(DROPPED), total="0"))
FOLD = text(f"""
WITH gone AS (
    DELETE FROM counters WHERE (SELECT count(*) FROM counters) > :most RETURNING name, label, count, total
)
INSERT INTO {COUNTERS}
SELECT name, label, sum(count), sum(total) FROM gone GROUP BY name, label
""")  # noqa: S608 - ours


def lags(seconds: Iterable[float]) -> dict[str, Any]:
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


def id_at(moment: datetime, further: timedelta) -> UUID:
    """Return the lowest id that can be made at `moment` plus `further`."""
    milliseconds = (moment - EPOCH + further) // timedelta(milliseconds=1)
    return UUID(int=min(max(milliseconds, 0), LAST_MILLISECOND) << 80)


def written(number: int) -> ColumnElement[int]:
    """Return a number as a literal: for an unknown limit, Postgres' planner expects a tenth of all rows."""
    return literal_column(str(number), Integer)


def only(column: SQLCoreOperations[Any], one: UUID | None) -> ColumnElement[bool]:
    """Return the condition that a column equals one id, written as a range.

    Postgres estimates a range at one row in 200, and a limit that is a parameter at a tenth of these rows. A
    statement that orders by the column and has such a limit therefore reads the index that begins with the column,
    whether the table has three ids or thousands.
    """
    return column.between(one, one)


def look_through(
    kind: type[Any],
    branches: Sequence[Select[Any]],
    filters: Callable[[type[Any]], Sequence[ColumnElement[bool]]],
    *,
    most_looked: int,
    limit: int,
    bound: Callable[[int], int | ColumnElement[int]] = int,
) -> Select[UUID | None, UUID | None]:
    """Return the query for the newest matching ids; each result has the last id that was read, and a matching id.

    The last id is returned even if no row matches; it is null if no more rows are left. `branches` are queries for
    rows of `kind`, each with the newest row first; no row is in two branches. `filters` returns the conditions on the
    rows of `kind` or of an alias of it. `most_looked` limits the rows read in all branches together. `bound` writes
    the number of rows that a branch reads into the query.
    """
    each = most_looked // len(branches) or 1
    ids = [one.with_only_columns(one.selected_columns.id) for one in branches]
    ends = [one.offset(bound(each - 1)).limit(written(1)).scalar_subquery() for one in ids]
    end = select(func.greatest(*ends).label("id")).offset(written(0)).cte("end_of_look")
    parts = []
    for branch in branches:
        rows = aliased(kind, branch.limit(bound(each)).subquery(kind.__tablename__))
        parts.append(select(rows.id).where(*filters(rows)).order_by(rows.id.desc()).limit(written(limit)))
    found = union_all(*parts).subquery("found")
    is_looked_at = or_(end.c.id.is_(None), found.c.id >= end.c.id)
    query = select(end.c.id, found.c.id).select_from(end.outerjoin(found, is_looked_at))
    return query.order_by(found.c.id.desc()).limit(written(limit))


def words(kind: type[StrEnum]) -> Enum:
    return Enum(
        kind,
        native_enum=False,
        create_constraint=False,
        length=24,
        values_callable=lambda members: [member.value for member in members],
    )


def is_pooled(connection: Connection) -> bool:
    """Return whether a pooler is between us and Postgres: it reports another backend process than the real one."""
    met = connection.connection.driver_connection
    return bool(met and met.info.backend_pid != connection.execute(BACKEND).scalar_one())
