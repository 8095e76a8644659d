"""Old rows of the delivery log are deleted in steps, by a database role that cannot delete recent rows."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from harness.people import World
from lockbox import reconcile as repairing
from lockbox.database import Database
from lockbox.reconcile import reconcile
from lockbox.requests.lifecycle import Action
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import read, write

AGED = "UPDATE deliveries SET at = now() - CAST(:age AS interval) WHERE id = :id"
FILL = """
INSERT INTO deliveries (id, notification_id, event_type, at, took_ms, answer)
SELECT uuidv7(), (SELECT id FROM notifications LIMIT 1), 'request.submitted', now() - CAST(:age AS interval) - :step
* n,
    1, ''
FROM generate_series(1, :number) n
"""
WIPE = text("DELETE FROM deliveries")


def left(db: Database) -> int:
    return len(read(db, "SELECT FROM deliveries"))


def fill(superuser: Engine, number: int, age: str) -> None:
    """Write `number` attempts by raw SQL, the first of that age, each further one a second older."""
    write(superuser, FILL, number=number, age=age, step=timedelta(seconds=1))


@pytest.fixture
def told(world: World, worker: Database, post: Postbag) -> World:
    world.submit()
    post.deliver(worker, open_notifications(worker))
    return world


@pytest.mark.far
def test_delivery_log_rows_are_deleted_after_the_configured_days(
    told: World, worker: Database, superuser: Engine
) -> None:
    ids = [row.id for row in read(worker, "SELECT id FROM deliveries ORDER BY id")]
    for one, age in zip(ids, ("90 days 1 second", "89 days 23 hours", "6 days"), strict=True):
        write(superuser, AGED, id=one, age=age)

    list(reconcile(worker, None))
    after_ninety = left(worker)
    list(reconcile(worker, None, deliveries_kept=timedelta(days=7)))

    assert (after_ninety, left(worker)) == (2, 1)
    assert len(read(worker, "SELECT FROM notifications WHERE outcome = 'sent'")) == 3
    assert len(read(worker, "SELECT FROM events WHERE seq IS NOT NULL")) == 1
    assert told.act("ann", Action.APPROVE, read(worker, "SELECT id FROM requests")[0].id).state == "active"


def test_old_delivery_log_rows_are_deleted_in_steps_beginning_with_the_oldest_rows(
    told: World, worker: Database, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairing, "PAGE", 20)
    fill(superuser, 50, "91 days")

    numbers = []
    for _ in range(4):
        list(reconcile(worker, None))
        numbers.append(left(told.db))
        if len(numbers) == 1:
            (row,) = read(worker, "SELECT max(now() - at) AS age FROM deliveries")
            oldest = row.age

    assert numbers == [33, 13, 3, 3]
    assert oldest < timedelta(days=91, seconds=40)


@pytest.mark.usefixtures("told")
def test_the_workers_database_role_cannot_read_answers_or_delete_log_rows_of_the_last_day(
    worker: Database, superuser: Engine
) -> None:
    fill(superuser, 5, "23 hours")
    fill(superuser, 5, "1 day 1 second")

    with worker.transaction() as session:
        gone = session.connection().execute(WIPE)

    assert (gone.rowcount, left(worker)) == (5, 8)
