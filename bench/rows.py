"""The rows that one real request left, whatever the tables, and statements that write the same rows for others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

REQUESTS, EVENTS = "requests", "events"
# A table belongs to requests if it names a request or an event; what a trigger fills nobody else may write.
TABLES = text("""
SELECT c.relname AS name, array_agg(CAST(a.attname AS text) ORDER BY a.attnum) AS columns,
    array_agg(format_type(a.atttypid, NULL) ORDER BY a.attnum) AS types
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = CAST('public' AS regnamespace) AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
AND a.attgenerated = '' AND a.attidentity = ''
AND (has_table_privilege('lockbox_api', c.oid, 'INSERT') OR has_table_privilege('lockbox_worker', c.oid, 'INSERT')
    OR has_any_column_privilege('lockbox_api', c.oid, 'INSERT'))
GROUP BY c.relname
HAVING c.relname = 'requests' OR array_agg(CAST(a.attname AS text)) && '{request_id,event_id}' ORDER BY c.relname
""")
IDS = text("SELECT id FROM events WHERE request_id = :id ORDER BY id")

Row = Mapping[str, str]
"""A value of each column, as an SQL literal of its type."""


@dataclass(frozen=True)
class Footprint:
    """All rows of one request, by table, and the ids of its moves in their order."""

    request: UUID
    moves: Sequence[UUID]
    tables: Mapping[str, Sequence[Row]]

    @classmethod
    def of(cls, connection: Connection, request: UUID) -> "Footprint":
        """Read it, with every right."""
        moves = connection.execute(IDS, {"id": request}).scalars().all()
        found = {
            table.name: _rows(connection, table.name, dict(zip(table.columns, table.types, strict=True)), request)
            for table in connection.execute(TABLES)
        }
        return cls(request, moves, {name: rows for name, rows in found.items() if rows})

    def until(self, moves: int) -> "Footprint":
        """Return what it was like after its first so many moves, but for the row of the request itself."""
        later = {literal(one) for one in self.moves[moves:]}
        kept = {
            name: [row for row in rows if not later & {row.get("event_id"), row["id"] if name == EVENTS else None}]
            for name, rows in self.tables.items()
        }
        if moves == 1:
            kept.pop("decisions", None)
        return Footprint(self.request, self.moves[:moves], {name: rows for name, rows in kept.items() if rows})

    def since(self, before: "Footprint") -> "Footprint":
        """Return what the moves that came after it have added, but for the row of the request."""
        fresh = {
            name: [row for row in rows if row not in before.tables.get(name, ())]
            for name, rows in self.tables.items()
            if name != REQUESTS
        }
        moves = [one for one in self.moves if one not in before.moves]
        return Footprint(self.request, moves, {name: rows for name, rows in fresh.items() if rows})

    def changed(self, before: "Footprint") -> Row:
        """Return the columns of the request's row that have other values by now."""
        (now,), (then,) = self.tables[REQUESTS], before.tables[REQUESTS]
        return {name: value for name, value in now.items() if value != then[name]}

    def fresh(self) -> str:
        """Return the select list that gives a request and its moves new ids, but for `request_id` itself."""
        return ", ".join(f"uuidv7() AS event_{number}" for number in range(1, len(self.moves) + 1))

    def inserts(self, changes: Mapping[str, Row]) -> Iterator[tuple[str, str]]:
        """Yield a table and the statement that writes its rows for each row of `n`, by new ids.

        Args:
            changes: expressions over `n` in the place of values, by table and column.
        """
        for table, rows in self.tables.items():
            columns = list(rows[0])
            selects = [self._select({**_escaped(row), **changes.get(table, {})}) for row in rows]
            yield table, f"INSERT INTO {table} ({', '.join(columns)}) {' UNION ALL '.join(selects)}"

    def _select(self, row: Row) -> str:
        ids = {literal(self.request): "n.request_id"}
        ids |= {literal(one): f"n.event_{number}" for number, one in enumerate(self.moves, 1)}
        own = {"id": "uuidv7()"} if row.get("id") not in ids else {}
        values = [
            own.get(name) or (self._body(value, ids) if name == "body" else ids.get(value, value))
            for name, value in row.items()
        ]
        return f"SELECT {', '.join(values)} FROM n"

    def _body(self, value: str, ids: Mapping[str, str]) -> str:
        """Return an expression for the bytes of an event, which name its ids."""
        written = f"convert_from({value}, 'UTF8')"
        for known, fresh in ids.items():
            written = f"replace({written}, {known.removesuffix('::uuid')}, {fresh}::text)"
        return f"convert_to({written}, 'UTF8')"


def literal(id_: UUID) -> str:
    """Return an id as Postgres writes its literal here."""
    return f"'{id_}'::uuid"


def _escaped(row: Row) -> Row:
    """Return a row for a statement with parameters."""
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
