"""Postgres accepts every SQL statement of the project, so that a renamed column fails here and not at run time."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import pytest
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH, MAX_CACHED_STATEMENT_PARAMS
from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from lockbox.notifications.recipients import PROMPTED
from tests.check.sources import HOME, files, tree

PACKAGES = ("api", "cli", "config", "connectors", "gate", "lockbox", "worker")
# Alembic alone imports it.
MIGRATING = "lockbox.migrations.env"
# What is no whole statement, or put together where it runs; each with the tests that run it.
COMPOSED = {
    "lockbox.audit.event_search._filters": "two conditions of an ORM's SELECT: tests/database/test_audit_log.py",
    MIGRATING: "how long a migration waits for a lock",
    "lockbox.startup_checks.fits": "whether the database has revisions: tests/database/test_startup_checks.py",
    "lockbox.startup_checks.has_lagging_standby": "what a server asks: tests/database/test_startup_checks.py",
    "lockbox.requests.after_reviews._statement": "makes the statements at the top of its module, prepared here",
    "lockbox.requests.questions._statement": "makes the statements at the top of its module, prepared here",
    "lockbox.requests.transition._statement": "makes the statements at the top of its module, prepared here",
}
# Tables that grow with each request.
GROWING = [
    "decisions",
    "deliveries",
    "event_details",
    "events",
    "notifications",
    "outbox",
    "questions",
    "requests",
    "seals",
]
# What reads one of them as a whole, and why it may.
WHOLE = {
    "lockbox.admin.departures.CLOSE7": "what is left in the outbox of a tenant that leaves",
    "lockbox.admin.erased_texts.DETAILS": "an erasure looks at all that there is",
    "lockbox.admin.erased_texts.ROWS2": "an erasure looks at all that there is",
    "lockbox.admin.erased_texts.ROWS3": "an erasure looks at all that there is",
    "lockbox.admin.erasure.DETAILS": "an erasure looks at all that there is",
    "lockbox.admin.erasure.NAMING": "an erasure looks at all that there is",
    "lockbox.admin.erasure.ROWS": "an erasure looks at all that there is",
    "lockbox.admin.erasure.ROWS1": "an erasure looks at all that there is",
    "lockbox.admin.statistics.OF_ALL": "it joins a part that is cut off before",
    "lockbox.monitoring.invariants.FORGOTTEN": "the outbox holds what is open",
    "lockbox.monitoring.invariants.QUERIES3": "the outbox holds what is open",
    "lockbox.notifications.queue.DUE": "the outbox holds what is open",
}
PARAMETERS = text("SELECT name, coalesce(cardinality(parameter_types), 0) AS number FROM pg_prepared_statements")
TABLES = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'")
PARTIAL = text("SELECT indexrelid::regclass::text FROM pg_index WHERE indpred IS NOT NULL")
# Parameters as PREPARE has them: $1, $2, …
NUMBERED = make_url("postgresql+asyncpg://").get_dialect()()


def _inside(value: Any) -> Iterator[TextClause]:
    if isinstance(value, TextClause):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _inside(one)
    elif isinstance(value, (tuple, list, frozenset)):
        for one in value:
            yield from _inside(one)


@cache
def _statements() -> dict[str, TextClause]:
    """Return each statement that stands at the top of a module, by the name under which it stands there."""
    return {
        f"{name}.{key}{number or ''}": statement
        for name in (calls.path[0] for calls in _calls() if calls.imports_text)
        for key, value in vars(import_module(name)).items()
        for number, statement in enumerate(_inside(value))
    }


def _prepare(engine: Engine, statement: TextClause) -> str:
    """Return what Postgres says against a statement with parameters of whatever types it takes them to be."""
    compiled = str(statement.compile(dialect=NUMBERED)).strip()
    # What sets or locks is not prepared; it runs, and ends with the transaction.
    tried = compiled if compiled.startswith(("SET ", "LOCK ")) else f"PREPARE tried AS {compiled}"
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        try:
            connection.exec_driver_sql(tried.replace("%", "%%"))
        except DBAPIError as error:
            return str(error.orig).splitlines()[0]
        finally:
            connection.rollback()
            connection.exec_driver_sql("DEALLOCATE ALL")
    return ""


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for one in plan.get("Plans", ()):
        yield from _nodes(one)


def _plan(connection: Connection, statement: TextClause) -> list[dict[str, Any]]:
    compiled = str(statement.compile(dialect=NUMBERED)).strip()
    if not compiled.startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")):
        return []
    explained = f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {compiled}".replace("%", "%%")
    return list(_nodes(connection.exec_driver_sql(explained).scalar_one()[0]["Plan"]))


def _reads_whole(connection: Connection, statement: TextClause, partial: set[str]) -> bool:
    """Whether a statement can only read a growing table as a whole; an index of some of its rows counts as less."""
    return any(
        node.get("Relation Name") in GROWING
        and node["Node Type"] in {"Seq Scan", "Index Scan", "Index Only Scan"}
        and "Index Cond" not in node
        and node.get("Index Name") not in partial
        for node in _plan(connection, statement)
    )


class _Calls(ast.NodeVisitor):
    """Finds the functions that call `text`."""

    def __init__(self, name: str) -> None:
        self.path = [name]
        self.found: set[str] = set()
        self.at_the_top = 0
        self.imports_text = False

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module == "sqlalchemy" and self.path[0] != MIGRATING:
            self.imports_text |= "text" in {one.name for one in node.names}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.path.append(node.name)
        self.generic_visit(node)
        self.path.pop()

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id == "text":
            if len(self.path) > 1 or self.path == [MIGRATING]:
                self.found.add(".".join(self.path))
            else:
                self.at_the_top += 1
        self.generic_visit(node)


@cache
def _calls() -> list[_Calls]:
    calls = [
        _Calls(".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__"))
        for path in files(*PACKAGES)
    ]
    for module, path in zip(calls, files(*PACKAGES), strict=True):
        module.visit(tree(path))
    return calls


def test_postgres_accepts_every_statement(superuser: Engine) -> None:
    refused = {name: said for name, one in _statements().items() if (said := _prepare(superuser, one))}

    assert [f"{name}: {said}" for name, said in refused.items()] == []


def test_no_statement_is_too_large_to_be_kept_as_it_is_read() -> None:
    """Others are read anew by psycopg, letter by letter, each time that they are sent."""
    compiled = {name: one.compile() for name, one in _statements().items()}

    assert [name for name, one in compiled.items() if len(one.params) > MAX_CACHED_STATEMENT_PARAMS] == []
    assert [name for name, one in compiled.items() if len(str(one)) > MAX_CACHED_STATEMENT_LENGTH] == []


def test_no_statement_reads_all_that_ever_was_asked_but_those_named_with_a_reason(superuser: Engine) -> None:
    with superuser.connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")
        partial = set(connection.execute(PARTIAL).scalars())

        assert {name for name, one in _statements().items() if _reads_whole(connection, one, partial)} == WHOLE.keys()
        assert "ix_notifications_notified" in {node.get("Index Name") for node in _plan(connection, PROMPTED)}


def test_every_statement_stands_at_the_top_of_a_module_or_is_named_with_a_reason() -> None:
    assert set().union(*(one.found for one in _calls())) == COMPOSED.keys()
    assert len(_statements()) >= sum(one.at_the_top for one in _calls()) > 200


def _changed_by_columns(connection: Connection, statements: Mapping[str, TextClause]) -> dict[str, str]:
    """Return what Postgres says against statements that were prepared before each table got a column."""
    prepared: dict[str, str] = {}
    for number, (name, statement) in enumerate(statements.items()):
        compiled = str(statement.compile(dialect=NUMBERED)).strip()
        if not compiled.startswith(("SET ", "LOCK ", "DO ")):
            connection.exec_driver_sql(f"PREPARE kept{number} AS {compiled}".replace("%", "%%"))
            prepared[name] = f"kept{number}"
    values = {one.name: one.number for one in connection.execute(PARAMETERS)}
    for table in connection.execute(TABLES).scalars():
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN added text")
    # Whatever it reads by functions alone, each is looked at anew.
    connection.exec_driver_sql("CREATE SCHEMA added")
    connection.exec_driver_sql("SET LOCAL search_path = public, added")
    refused = {}
    for name, kept in prepared.items():
        given = f"({', '.join(['NULL'] * values[kept])})" if values[kept] else ""
        tried = connection.begin_nested()
        try:
            connection.exec_driver_sql(f"EXPLAIN EXECUTE {kept}{given}")
        except DBAPIError as error:
            refused[name] = str(error.orig).splitlines()[0]
        tried.rollback()
    return refused


# The planted ones show that this finds what it looks for.
def test_no_statement_is_refused_when_columns_are_added_after_it_was_prepared(superuser: Engine) -> None:
    planted = (
        "SELECT * FROM requests WHERE id = :id",
        "SELECT r.*, 1 FROM requests r",
        "SELECT * FROM marked_tokens(:ids)",
        "UPDATE requests SET reminders = 0 RETURNING *",
    )
    statements = {one: text(one) for one in planted} | _statements()
    with superuser.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        found = _changed_by_columns(connection, statements)
        connection.rollback()

    assert found == dict.fromkeys(planted, "cached plan must not change result type")


@pytest.mark.parametrize(
    "wrong",
    [
        "SELECT nothing FROM requests WHERE id = :id",
        "UPDATE requests SET quorum = CAST(:x AS text)",
        "SELECT gone(:x)",
    ],
)
def test_a_statement_that_does_not_fit_the_schema_would_be_seen(superuser: Engine, wrong: str) -> None:
    assert _prepare(superuser, text(wrong))
