"""The tasks on connections that Postgres has ended."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from harness.people import World
from harness.wait import within
from lockbox.database import Database
from tests.database.scenes import set_back, state_of
from worker import tasks
from worker.runtime import Runtime

CUT = text("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE usename = 'lockbox_worker' AND datname = current_database()
""")


@pytest.mark.usefixtures("alone")
def test_a_hint_whose_connection_was_cut_is_done_all_the_same(
    world: World, worker: Database, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "runtime", lambda: Runtime(worker, None, timedelta(days=90), None))
    request = world.submit()
    set_back(superuser, [request.id], 0)
    with worker.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    with superuser.connect() as connection:
        assert connection.execute(CUT).scalar_one() > 0
        assert within(5, lambda: connection.execute(CUT).scalar_one() == 0)

    tasks.time_out([str(request.id)])

    assert state_of(worker, request.id) == "timed_out"
