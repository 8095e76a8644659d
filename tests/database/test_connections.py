"""Connections that Postgres has ended: whoever takes one that lay idle gets another, and all go with the first."""

import time

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from harness.stage import Urls
from harness.wait import within
from lockbox import database
from lockbox.database import make_engine

PID = text("SELECT pg_backend_pid()")


def _use(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(PID).scalar_one())


def _ended(superuser: Engine, pid: int) -> bool:
    with superuser.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        found = connection.execute(text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid})
        return bool(found.scalar_one() == 0)


def test_a_connection_that_lay_idle_is_asked_first(
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


def test_no_setting_of_the_role_ends_a_connection_that_lies_idle(urls: Urls, superuser: Engine) -> None:
    with superuser.connect() as connection:
        connection.execute(text("ALTER ROLE lockbox_api SET idle_session_timeout = '100ms'"))
    try:
        engine = make_engine(urls.api, role="test", pool_size=1, overflow=0)
        first = _use(engine)
        time.sleep(0.5)

        assert _use(engine) == first
    finally:
        with superuser.connect() as connection:
            connection.execute(text("ALTER ROLE lockbox_api RESET idle_session_timeout"))
    engine.dispose()


def test_one_that_was_just_used_fails_once_and_takes_the_others_along(urls: Urls, superuser: Engine) -> None:
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
