"""The query plans of all SQL statements that a call runs, as Postgres logs them, and which parts of them grow."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.errors import Diagnostic
from sqlalchemy import Engine, event, make_url, text

from harness.stage import run_as_superuser

PLAN = re.compile(r"duration: [0-9.]+ ms +plan:\n(\{.*\})", re.DOTALL)
SETTINGS = {
    "session_preload_libraries": "'auto_explain'",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "'json'",
    "auto_explain.log_level": "'notice'",
}
MOST_REMOVED = 1000
MOST_READ = 3500
"""What one statement may read of tables that grow: a thousand looked through, twice where the end is looked up."""
GROWING = text("""
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND reltuples > 5000
""")
READERS = {"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Tid Scan", "Sample Scan"}
REMOVED = "Rows Removed by"


def note_plans(superuser_url: str) -> None:
    """Have Postgres send the plan of each SQL statement, also inside functions, to the client that runs it."""
    name = make_url(superuser_url).database
    run_as_superuser(
        superuser_url, *(f"ALTER DATABASE {name} SET {key} = {value}" for key, value in SETTINGS.items())
    )


@dataclass
class SeenPlan:
    """An SQL statement that was run, and the nodes of its plan."""

    statement: str
    nodes: list[dict[str, Any]]

    def __str__(self) -> str:
        """Return the SQL statement, and a line for each node that reads a table."""
        lines = (
            f"{node['Node Type']} {_table(node)} {node.get('Index Name', '')}: {_rows(node)} rows, "
            f"{node.get('Index Cond', '')} FILTER {node.get('Filter', '')}"
            for node in self.nodes
            if _table(node)
        )
        return "\n".join([self.statement, *lines])

    def read(self, growing: frozenset[str]) -> int:
        """Return how many rows the statement read of growing tables."""
        return sum(_rows(node) for node in self.nodes if node["Node Type"] in READERS and _table(node) in growing)

    def faults(self, growing: frozenset[str], most_counted: int = 0) -> Iterator[str]:
        """Yield the nodes that read more as tables grow; `most_counted` raises the limits for counts."""
        most_read, most_removed = max(MOST_READ, most_counted), max(MOST_REMOVED, most_counted)
        for node in self.nodes:
            if node["Node Type"] == "Seq Scan" and _table(node) in growing:
                yield f"a sequential scan of {_table(node)}"
            # A table of a few rows is scanned as often as it is joined.
            grows = not _table(node) or _table(node) in growing
            if grows and (removed := _removed(node)) > most_removed:
                yield f"{removed} rows removed by a filter: {node['Node Type']} of {_table(node)}"
        if (count := self.read(growing)) > most_read:
            yield f"{count} rows read"


@dataclass
class PlanLog:
    """The SQL statements that ran on an engine since the log was last read."""

    plans: list[SeenPlan] = field(default_factory=list)

    def note(self, said: Diagnostic) -> None:
        found = PLAN.search(said.message_primary or "")
        if found:
            plan = json.loads(found[1])
            self.plans.append(SeenPlan(plan["Query Text"], list(_walk(plan["Plan"]))))

    @contextmanager
    def kept(self) -> Iterator[list[SeenPlan]]:
        """Yield the list of plans of all that runs inside the block; it is complete when the block ends."""
        self.plans = []
        yield self.plans


def plans_of(engine: Engine) -> PlanLog:
    """Return a log of the plans of all that runs on connections which the engine opens from now on."""
    log = PlanLog()

    def listen(connection: psycopg.Connection[Any], _: object) -> None:
        connection.add_notice_handler(log.note)

    event.listen(engine, "connect", listen)
    return log


def growing_tables(engine: Engine) -> frozenset[str]:
    """Return the tables that hold more than some thousand rows."""
    with engine.connect() as connection:
        return frozenset(connection.execute(GROWING).scalars())


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for part in node.get("Plans", ()):
        yield from _walk(part)


def _table(node: dict[str, Any]) -> str:
    return str(node.get("Relation Name", ""))


def _rows(node: dict[str, Any]) -> int:
    found: float = node.get("Actual Rows", 0) * node.get("Actual Loops", 0)
    return round(found) + _removed(node)


def _removed(node: dict[str, Any]) -> int:
    """Return how many rows a node read and discarded, in all its loops."""
    each: float = sum(value for name, value in node.items() if name.startswith(REMOVED))
    loops: float = node.get("Actual Loops", 1)
    return round(each * loops)
