"""What I8 promises of the indexes, as chaos checks it: all of the next minute, and nothing beyond Postgres."""

import pytest
from sqlalchemy import Engine

from chaos import drift
from harness.people import World
from harness.stage import Urls
from lockbox.database import Database
from lockbox.reconcile import reconcile
from lockbox.schedule import CLOCK, INDEXES, IndexEntry


@pytest.fixture
def unarmed(world: World, worker: Database) -> str:
    """A request that is due in hours, committed by a process that could not arm it; both indexes are whole."""
    list(reconcile(worker, None))
    request = world.submit()
    assert all(worker.schedule.rebuild(index).is_whole() for index in INDEXES)
    worker.schedule.arm(CLOCK, [IndexEntry(str(request.id), "time_out", None)])
    return f"remind:{request.id}"


def test_what_was_never_armed_is_armed_in_its_last_minute_and_not_before(
    unarmed: str, worker: Database, superuser: Engine
) -> None:
    list(reconcile(worker, None))
    before = list(drift.differences(superuser, worker.schedule))
    drift.wind(superuser, worker.schedule)
    list(reconcile(worker, None))

    assert before == [f"clock lacks {unarmed}"]
    assert list(drift.differences(superuser, worker.schedule)) == []


def test_what_no_reconcile_arms_in_its_last_minute_is_found(
    unarmed: str, urls: Urls, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "RECONCILED_SECONDS", 0)

    found = drift.drift(superuser, urls.redis)

    assert found == [f"clock lacks {unarmed}"]
