"""The rows that one real request left in whatever tables, and many requests with the same rows."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from lockbox.schedule import CLOCK, MOST_A_CALL, IndexEntry, Schedule

A_LOAD = 20_000
LEAST_ROWS = 2_000
FORGETTING = 0.7
LEAST_SECONDS = 0.8
WARY = 1.5
TRIES = 5
MISSED_SECONDS = 3

# Triggers and foreign keys are off while rows are copied: the originals were checked when they were written.
UNCHECKED = text("SET session_replication_role = replica")
CHECKED = text("RESET session_replication_role")
KINDS = {"active": "expire", "pending": "time_out"}
VERSIONS = {"active": 2, "pending": 1}
OF_EACH = {
    "case_ref": "'CASE-' || lpad((%(first)s + n.number)::text, 8, '0')",
    "deadline_at": "n.due",
    "wake_at": "n.due",
    "created_at": "now()",
    "asked_at": "now()",
}
OPENED = {"active": "now()", "pending": "NULL::timestamptz"}
REQUESTS, EVENTS = "requests", "events"
# A table belongs to requests if it has a column for a request or an event. Columns that no login may insert are left
# out, because a trigger fills them.
TABLES = text("""
SELECT c.relname AS name, array_agg(CAST(a.attname AS text) ORDER BY a.attnum) AS columns,
    array_agg(format_type(a.atttypid, NULL) ORDER BY a.attnum) AS types
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = CAST('public' AS regnamespace) AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
AND a.attgenerated = '' AND a.attidentity = ''
AND (has_column_privilege('lockbox_api', c.oid, a.attnum, 'INSERT')
    OR has_column_privilege('lockbox_worker', c.oid, a.attnum, 'INSERT'))
GROUP BY c.relname
HAVING c.relname = 'requests' OR array_agg(CAST(a.attname AS text)) && '{request_id,event_id}' ORDER BY c.relname
""")
IDS = text("SELECT id FROM events WHERE request_id = :id ORDER BY id")

Literals = Mapping[str, str]
"""A value of each column, as an SQL literal of its type."""


@dataclass(frozen=True)
class Footprint:
    """All rows of one request, by table, and the ids of its events in their order."""

    request: UUID
    events: Sequence[UUID]
    tables: Mapping[str, Sequence[Literals]]

    @classmethod
    def of(cls, connection: Connection, request: UUID) -> "Footprint":
        """Read the footprint of a request; the connection has every right."""
        events = connection.execute(IDS, {"id": request}).scalars().all()
        found = {
            table.name: _rows(connection, table.name, dict(zip(table.columns, table.types, strict=True)), request)
            for table in connection.execute(TABLES)
        }
        return cls(request, events, {name: rows for name, rows in found.items() if rows})

    def until(self, moves: int) -> "Footprint":
        """Return the footprint as it was after this many moves, except for the row of the request itself."""
        made = {row["id"] for row in self.tables[EVENTS] if not row["seq"].startswith("NULL")}
        numbers = [number for number, one in enumerate(self.events) if literal(one) in made]
        first = self.events[: numbers[moves]] if moves < len(numbers) else self.events
        later = {literal(event) for event in self.events[len(first) :]}
        kept = {
            name: [row for row in rows if not later & {row.get("event_id"), row["id"] if name == EVENTS else None}]
            for name, rows in self.tables.items()
        }
        if moves == 1:
            kept.pop("decisions", None)
        return Footprint(self.request, first, {name: rows for name, rows in kept.items() if rows})

    def since(self, before: "Footprint") -> "Footprint":
        """Return the rows added by the events since `before`, without the row of the request."""
        fresh = {
            name: [row for row in rows if row not in before.tables.get(name, ())]
            for name, rows in self.tables.items()
            if name != REQUESTS
        }
        events = [event for event in self.events if event not in before.events]
        return Footprint(self.request, events, {name: rows for name, rows in fresh.items() if rows})

    def changed(self, before: "Footprint") -> Literals:
        """Return the columns of the request's row whose values have changed since."""
        (now,), (then,) = self.tables[REQUESTS], before.tables[REQUESTS]
        return {name: value for name, value in now.items() if value != then[name]}

    def fresh(self) -> str:
        """Return the select list that gives the events new ids; `request_id` is not in it."""
        return ", ".join(f"uuidv7() AS event_{number}" for number in range(1, len(self.events) + 1))

    def inserts(self, changes: Mapping[str, Literals]) -> Iterator[tuple[str, str]]:
        """Yield each table with the SQL statement that writes its rows, with new ids, for each row of `n`.

        Args:
            changes: expressions over `n` that replace values, by table and column.
        """
        for table, rows in self.tables.items():
            columns = list(rows[0])
            selects = [self._select({**_escaped(row), **changes.get(table, {})}) for row in rows]
            yield table, f"INSERT INTO {table} ({', '.join(columns)}) {' UNION ALL '.join(selects)}"

    def _select(self, row: Literals) -> str:
        ids = {literal(self.request): "n.request_id"}
        ids |= {literal(one): f"n.event_{number}" for number, one in enumerate(self.events, 1)}
        own = {"id": "uuidv7()"} if row.get("id") not in ids else {}
        values = [
            own.get(name) or (self._body(value, ids) if name == "body" else ids.get(value, value))
            for name, value in row.items()
        ]
        return f"SELECT {', '.join(values)} FROM n"

    def _body(self, value: str, ids: Mapping[str, str]) -> str:
        """Return an SQL expression for the bytes of an event, in which its ids are replaced."""
        written = f"convert_from({value}, 'UTF8')"
        for known, fresh in ids.items():
            written = f"replace({written}, {known.removesuffix('::uuid')}, {fresh}::text)"
        return f"convert_to({written}, 'UTF8')"


def literal(id_: UUID) -> str:
    """Return an id as Postgres writes its literal in a footprint."""
    return f"'{id_}'::uuid"


def _escaped(row: Literals) -> Literals:
    """Return a row that is safe in an SQL statement with parameters."""
    return {name: value.replace("%", "%%") for name, value in row.items()}


def _rows(connection: Connection, table: str, columns: Mapping[str, str], request: UUID) -> list[dict[str, str]]:
    by_event = "event_id IN (SELECT id FROM events WHERE request_id = :id)"
    where = " OR ".join(
        condition
        for column, condition in (
            ("request_id", "request_id = :id"),
            ("event_id", by_event),
        )
        if column in columns
    )
    chosen = ", ".join(
        f"coalesce(quote_literal({name}), 'NULL') || '::{kind}' AS {name}" for name, kind in columns.items()
    )
    query = f"SELECT {chosen} FROM {table} WHERE {'id = :id' if table == REQUESTS else where}"
    found = connection.execute(text(query), {"id": request}).mappings().all()
    return [dict(row) for row in found]


@dataclass
class Pace:
    """How many seconds it lately took to load and arm a row; due times are chosen by it."""

    seconds_each: float = 1 / 3000

    def ahead(self, count: int) -> timedelta:
        """Return how far ahead the due times have to be."""
        return timedelta(seconds=LEAST_SECONDS + WARY * count * self.seconds_each)

    def learn(self, count: int, seconds: float) -> None:
        """Learn how long so many rows took: an increase counts at once, a decrease little by little."""
        self.seconds_each = max(seconds / max(count, LEAST_ROWS), FORGETTING * self.seconds_each)


@dataclass(frozen=True)
class LoadedRows:
    """The ids of the loaded requests in the order in which they are due, and their due times."""

    ids: list[UUID]
    dues: list[datetime]

    @property
    def due(self) -> datetime:
        """The first due time, which is that of all unless they were spread."""
        return self.dues[0]


def clock(engine: Engine) -> datetime:
    """Return the time by Postgres' clock."""
    with engine.connect() as connection:
        now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def load(
    engine: Engine,
    schedule: Schedule | None,
    pattern: Footprint,
    *,
    state: str,
    count: int,
    due: datetime,
    step: timedelta = timedelta(0),
) -> LoadedRows:
    """Write this many requests in a state in which the pattern once was; if a schedule is given, arm them in it.

    Args:
        engine: has every right.
        schedule: where the requests are armed.
        pattern: the rows of a request that was submitted and approved.
        state: `pending` or `active`.
        count: how many.
        due: when the first request is due.
        step: how much later each next request is due.

    Raises:
        RuntimeError: Redis did not take the load.
    """
    rows: list[Row[Any]] = []
    with engine.connect() as connection:
        connection.execute(UNCHECKED)
        statement = _statement(pattern, state)
        for start in range(0, count, A_LOAD):
            values = {
                "due": due + start * step,
                "step": step,
                "first": start,
                "count": min(A_LOAD, count - start),
            }
            rows += connection.exec_driver_sql(statement, values).all()
        connection.execute(CHECKED)
        if count > 1:
            connection.execute(text(f"ANALYZE {', '.join(pattern.tables)}"))
            connection.execute(text("CHECKPOINT"))
    rows.sort(key=lambda row: row.deadline_at)
    for start in range(0, len(rows), MOST_A_CALL) if schedule else ():
        part = [IndexEntry(str(row.id), KINDS[state], row.deadline_at) for row in rows[start : start + MOST_A_CALL]]
        if schedule:
            _arm(schedule, part)
    return LoadedRows([row.id for row in rows], [row.deadline_at for row in rows])


def _statement(pattern: Footprint, state: str) -> str:
    """Return SQL that copies, many times, the rows of a request that was submitted, or that was approved too."""
    wanted = pattern.until(VERSIONS[state])
    row = {"state": f"'{state}'", "version": str(VERSIONS[state]), "opened_at": OPENED[state], **OF_EACH}
    inserts = [f"{table}_rows AS ({insert})" for table, insert in wanted.inserts({REQUESTS: row})]
    due = "%(due)s::timestamptz + (number - 1) * %(step)s::interval AS due"
    numbers = "generate_series(1, %(count)s) AS number"
    made = f"SELECT uuidv7() AS request_id, {wanted.fresh()}, number, {due} FROM {numbers}"
    return f"WITH n AS MATERIALIZED ({made}), {', '.join(inserts)} SELECT request_id AS id, due AS deadline_at FROM n"


def _arm(schedule: Schedule, part: list[IndexEntry]) -> None:
    for _ in range(TRIES):
        if schedule.arm(CLOCK, part):
            return
        time.sleep(1)
    raise RuntimeError("Redis did not take the load")


def load_ahead(
    engine: Engine, schedule: Schedule, pattern: Footprint, pace: Pace, *, state: str, count: int, step: timedelta
) -> LoadedRows:
    """Load requests that fall due soon, but after loading has ended, and learn from how long loading took.

    If a request falls due before the last one is armed, the requests are left to end, and another load is tried,
    twice as far ahead.

    Raises:
        RuntimeError: loading took too long each time.
    """
    for tried in range(TRIES):
        began = time.monotonic()
        due = clock(engine) + pace.ahead(count) * 2**tried
        loaded = load(engine, schedule, pattern, state=state, count=count, due=due, step=step)
        pace.learn(count, time.monotonic() - began)
        if clock(engine) < loaded.due:
            return loaded
        time.sleep(MISSED_SECONDS)
    raise RuntimeError(f"loading {count} requests takes ever longer; run the benchmark on a quiet machine")
