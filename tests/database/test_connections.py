"""Database connections: one that Postgres has ended is replaced on use, and prepared statements are kept."""

import asyncio
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from sqlalchemy import Engine, TextClause, text
from sqlalchemy.exc import DataError, OperationalError

from harness.stage import Urls
from harness.wait import within
from lockbox import database
from lockbox.database import CONNECT_ARGS, make_engine
from lockbox.driver.prepared_statements import keep_prepared

KEPT_BY_NAME = text("SELECT name, statement FROM pg_prepared_statements")
READ = text("SELECT count(*) FROM people WHERE name = :name")
LETS_DIVIDE = text("SELECT 1 / CAST(:number AS integer)")
PID = text("SELECT pg_backend_pid()")
GOOD = (b"BEGIN", b"SELECT count(*) FROM people", b"COMMIT")
FAILING = (b"BEGIN", b"SELECT 1 / 0", *GOOD[1:])
KEPT_OF = "SELECT count(*) FROM pg_prepared_statements WHERE statement = %s"


def _use(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(PID).scalar_one())


def _ended(superuser: Engine, pid: int) -> bool:
    with superuser.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        found = connection.execute(text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid})
        return bool(found.scalar_one() == 0)


def test_an_idle_database_connection_is_tested_before_use(
    urls: Urls, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ASKED_AFTER", 0.0)
    engine = make_engine(urls.api, role="test", pool_size=1, overflow=0)
    first = _use(engine)
    assert within(5, lambda: _ended(superuser, first))

    second = _use(engine)

    assert second != first
    assert _use(engine) == second
    engine.dispose()


def test_the_first_failure_of_a_broken_connection_closes_all_idle_connections(
    urls: Urls, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ASKED_AFTER", 60.0)
    engine = make_engine(urls.api, role="test", pool_size=2, overflow=0)
    with engine.connect() as one, engine.connect() as other:
        pids = [int(each.execute(PID).scalar_one()) for each in (one, other)]
    assert within(5, lambda: all(_ended(superuser, pid) for pid in pids))

    with pytest.raises(OperationalError):
        _use(engine)

    assert _use(engine) not in pids
    with engine.connect() as one, engine.connect() as other:
        assert not {int(each.execute(PID).scalar_one()) for each in (one, other)} & set(pids)
    engine.dispose()


def _refused(engine: Engine, statement: TextClause, **values: object) -> None:
    with engine.connect() as connection:
        with suppress(DataError):
            connection.execute(statement, values)
        connection.rollback()


def _prepared(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        return {statement: name for name, statement in connection.execute(KEPT_BY_NAME)}


def test_prepared_statements_survive_a_statement_that_postgres_refuses(urls: Urls) -> None:
    engine = make_engine(urls.api, role="test", pool_size=1, overflow=0)
    for _ in range(3):
        _refused(engine, READ, name="Erin")
    names = {name for statement, name in _prepared(engine).items() if "FROM people" in statement}

    for _ in range(3):
        _refused(engine, READ, name="Erin")

    assert len(names) == 1
    assert {name for statement, name in _prepared(engine).items() if "FROM people" in statement} == names
    engine.dispose()


def test_a_failing_sql_statement_stays_prepared(urls: Urls) -> None:
    engine = make_engine(urls.api, role="test", pool_size=1, overflow=0)
    for number in (1, 1, 0, 0):
        _refused(engine, LETS_DIVIDE, number=number)

    with engine.connect() as connection:
        assert connection.execute(LETS_DIVIDE, {"number": 1}).scalar_one() == 1
    assert sum("1 / CAST" in statement for statement in _prepared(engine)) == 1
    engine.dispose()


def test_failing_sql_statements_do_not_accumulate_as_prepared_statements(urls: Urls) -> None:
    engine = make_engine(urls.api, role="test", pool_size=1, overflow=0)

    for _ in range(20):
        _refused(engine, LETS_DIVIDE, number=0)

    with engine.connect() as connection:
        found = connection.execute(KEPT_BY_NAME).all()
    assert sum("1 / CAST" in statement for _, statement in found) <= 1
    engine.dispose()


def test_an_sql_statement_not_prepared_in_a_failed_pipeline_is_prepared_later(urls: Urls) -> None:
    async def run() -> list[bool]:
        async with await AsyncConnection.connect(
            urls.api.replace("+psycopg", ""), autocommit=True, **CONNECT_ARGS
        ) as connection:
            keep_prepared(connection)
            ends = [await _piped(connection, *statements) for statements in (GOOD, FAILING, GOOD, GOOD, GOOD)]
            (kept,) = await (await connection.execute(KEPT_OF, [GOOD[1].decode()])).fetchall()
            return [*ends, kept == (1,)]

    assert asyncio.run(run()) == [True, False, True, True, True, True]


async def _piped(connection: AsyncConnection[Any], *statements: bytes) -> bool:
    """Send these SQL statements in one pipeline, and return whether all succeeded."""
    try:
        async with connection.pipeline():
            for statement in statements:
                await connection.execute(statement)
    except psycopg.Error:
        await connection.execute("ROLLBACK")
        return False
    return True


def test_the_installed_psycopg_is_the_version_whose_private_code_was_reviewed() -> None:
    read = "read psycopg/_preparing.py anew, see that KeptStatements still does what it says, then change this line"

    assert psycopg.__version__ == "3.3.9", read
