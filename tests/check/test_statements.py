"""Postgres accepts every SQL statement of the project: a renamed column fails here, not at run time.

Statements that a function builds on the models are not checked here: mypy checks their columns as attributes of
classes, which tests/database/test_migrations.py compares with the schema.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import psycopg
import pytest
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH, MAX_CACHED_STATEMENT_PARAMS
from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from lockbox.notifications.recipients import PROMPTED
from tests.check.sources import HOME, files, tree

PACKAGES = ("api", "catalogue", "cli", "config", "connectors", "devstack", "gate", "lockbox", "worker")
# Conditions of statements that are built on the models, and what they are read in.
CONDITIONS = {
    "lockbox.audit.event_search.OF_SERVICE": "SELECT FROM events WHERE id = :id AND ",
    "lockbox.audit.event_search.SAYS": "SELECT FROM events WHERE id = :id AND ",
}
# How a statement says "all columns": count(*) and products are none.
ALL_COLUMNS = re.compile(r"(?:\bSELECT|\bDISTINCT|\bRETURNING|,|\.)\s*\*|(?<!LOCK )\bTABLE\s", re.IGNORECASE)
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
FUNCTIONS = text("""
SELECT p.oid::regproc::text AS name, p.pronargs FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'public'::regnamespace AND l.lanname = 'plpgsql' AND p.prorettype <> 'trigger'::regtype
""")
# An undefined column, function or table.
NOT_THERE = {"42703", "42883", "42P01"}
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
    """Return each SQL statement at the top of a module, by its name there."""
    every = {
        f"{name}.{key}{number or ''}": statement
        for name in (calls.path[0] for calls in _calls() if calls.imports_text)
        for key, value in vars(import_module(name)).items()
        for number, statement in enumerate(_inside(value))
    }
    return every | {name: text(f"{before}{every[name]}") for name, before in CONDITIONS.items()}


def _compiled(statement: TextClause) -> str:
    return str(statement.compile(dialect=NUMBERED)).strip()


def _refused(engine: Engine, statements: Mapping[str, TextClause]) -> list[str]:
    """Return why Postgres refuses SQL statements, with the parameter types that it infers."""
    refused = []
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        for name, statement in statements.items():
            compiled = _compiled(statement)
            # What sets or locks is not prepared; it runs, and ends with the transaction.
            tried = compiled if compiled.startswith(("SET ", "LOCK ")) else f"PREPARE tried AS {compiled}"
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute(tried.encode())
            except psycopg.Error as error:
                refused.append(f"{name}: {str(error).splitlines()[0]}")
            connection.execute("DEALLOCATE ALL")
    return refused


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for one in plan.get("Plans", ()):
        yield from _nodes(one)


def _plan(connection: Connection, statement: TextClause) -> list[dict[str, Any]]:
    compiled = _compiled(statement)
    if not compiled.startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")):
        return []
    explained = f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {compiled}".replace("%", "%%")
    return list(_nodes(connection.exec_driver_sql(explained).scalar_one()[0]["Plan"]))


def _reads_whole(connection: Connection, statement: TextClause, partial: set[str]) -> bool:
    """Return whether an SQL statement must read a whole growing table; a partial index does not count as whole."""
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
        if node.module == "sqlalchemy":
            self.imports_text |= "text" in {one.name for one in node.names}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.path.append(node.name)
        self.generic_visit(node)
        self.path.pop()

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id == "text":
            if len(self.path) > 1:
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


@cache
def _names() -> frozenset[str]:
    """Return all names that the product uses outside imports."""
    nodes = (node for path in files(*PACKAGES) for node in ast.walk(tree(path)))
    return frozenset(node.id for node in nodes if isinstance(node, ast.Name))


def test_postgres_accepts_every_sql_statement(superuser: Engine) -> None:
    assert _refused(superuser, _statements()) == []


def test_no_sql_statement_selects_all_columns() -> None:
    assert [name for name, one in _statements().items() if ALL_COLUMNS.search(str(one))] == []


@pytest.mark.parametrize("planted", ["SELECT  * FROM x", "SELECT a, * FROM x", "SELECT r.* FROM x r", "TABLE x"])
def test_an_sql_statement_that_selects_all_columns_would_be_detected(planted: str) -> None:
    assert ALL_COLUMNS.search(planted)
    assert not ALL_COLUMNS.search("SELECT count(*), 2 * a FROM x")


def test_each_table_class_is_used_by_the_product() -> None:
    """Tables that only database functions write and read have no class."""
    every = (node for path in files(*PACKAGES) for node in tree(path).body if isinstance(node, ast.ClassDef))
    classes = {one.name for one in every if "table" in {keyword.arg for keyword in one.keywords}}

    assert classes - _names() == set()
    assert len(classes) > 50


# plpgsql reads the statements of a body when it comes to them: it comes to some without any row and argument.
def test_database_functions_name_existing_tables_and_columns(superuser: Engine) -> None:
    with superuser.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        functions = connection.execute(FUNCTIONS).all()
        said = {}
        for function in functions:
            tried = connection.begin_nested()
            try:
                connection.exec_driver_sql(f"SELECT {function.name}({', '.join(['NULL'] * function.pronargs)})")
            except DBAPIError as error:
                said[function.name] = getattr(error.orig, "sqlstate", "")
            tried.rollback()

    assert {name: state for name, state in said.items() if state in NOT_THERE} == {}
    assert len(functions) >= 10


def test_no_sql_statement_is_too_large_to_be_prepared() -> None:
    """Larger statements are parsed again by psycopg, letter by letter, each time that they are sent."""
    compiled = {name: one.compile() for name, one in _statements().items()}

    assert [name for name, one in compiled.items() if len(one.params) > MAX_CACHED_STATEMENT_PARAMS] == []
    assert [name for name, one in compiled.items() if len(str(one)) > MAX_CACHED_STATEMENT_LENGTH] == []


def test_only_the_listed_sql_statements_scan_a_whole_growing_table(superuser: Engine) -> None:
    with superuser.connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")
        partial = set(connection.execute(PARTIAL).scalars())

        assert {name for name, one in _statements().items() if _reads_whole(connection, one, partial)} == WHOLE.keys()
        assert "ix_notifications_notified" in {node.get("Index Name") for node in _plan(connection, PROMPTED)}


def test_every_sql_statement_is_defined_at_the_top_of_a_module() -> None:
    assert set().union(*(call.found for call in _calls())) == set()
    assert len(_statements()) >= sum(call.at_the_top for call in _calls()) > 200


def _changed_by_columns(connection: Connection, statements: Mapping[str, TextClause]) -> dict[str, str]:
    """Return why Postgres refuses SQL statements that were prepared before each table got a further column."""
    prepared: dict[str, str] = {}
    for number, (name, statement) in enumerate(statements.items()):
        compiled = _compiled(statement)
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
def test_prepared_sql_statements_survive_added_columns(superuser: Engine) -> None:
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
def test_an_sql_statement_that_does_not_fit_the_schema_would_be_detected(superuser: Engine, wrong: str) -> None:
    assert len(_refused(superuser, {"wrong": text(wrong)})) == 1
