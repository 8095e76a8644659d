"""How often somebody has tried to sign in: the login of the API counts on, and forgets nothing before its time."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.people import World
from lockbox import reconcile
from lockbox.database import Database
from lockbox.identity import attempt_limits
from lockbox.identity.attempt_limits import AttemptLimits
from tests.database.scenes import read, write_unchecked

LIMITS = AttemptLimits(per_account=2, per_address=100)
BEGUN = """
INSERT INTO sign_ins (id, browser_hash, means, email, code_nonce, tries, created_at, expires_at, used_at)
VALUES (uuidv7(), decode(repeat('00', 36), 'hex'), 'mail', 'ann@contoso.example', '', 4, now(),
    now() + interval '10 minutes', now())
"""
FORGOTTEN = {
    "fewer": "UPDATE sign_in_counts SET count = 1",
    "below nothing": "UPDATE sign_in_counts SET count = -1000000, since = clock_timestamp()",
    "from anew": "UPDATE sign_in_counts SET count = 1, since = clock_timestamp()",
    "from long ago": "UPDATE sign_in_counts SET since = 'epoch'",
    "of somebody else": "UPDATE sign_in_counts SET key = sha256(key)",
    "gone": "DELETE FROM sign_in_counts",
    "credit": "INSERT INTO sign_in_counts VALUES (sha256('x'), now(), -1000000)",
}


def tried(db: Database, account: str = "ann@contoso.example") -> timedelta | None:
    with db.transaction() as session:
        return attempt_limits.count(session, LIMITS, account=account).wait


def does(db: Database, statement: str) -> Callable[[], None]:
    def run() -> None:
        with db.transaction() as session:
            session.execute(text(statement))

    return run


@pytest.mark.parametrize("statement", FORGOTTEN.values(), ids=FORGOTTEN)
def test_the_login_of_the_api_forgets_no_attempt(world: World, statement: str) -> None:
    waits = [tried(world.db) for _ in range(3)]

    with pytest.raises(DBAPIError):
        does(world.db, statement)()

    assert waits[:2] == [None, None]
    assert waits[2] is not None
    assert tried(world.db) is not None


@pytest.mark.parametrize("change", ["tries = 0", "used_at = NULL", "used_at = now() + interval '1 second'"])
def test_the_login_of_the_api_gives_no_further_tries_at_a_code(world: World, superuser: Engine, change: str) -> None:
    write_unchecked(superuser, BEGUN)
    (row,) = read(superuser, "SELECT id FROM sign_ins")

    with world.db.transaction() as session:
        session.execute(text("SELECT set_config('lockbox.sign_in', :id, true)"), {"id": str(row.id)})
        with pytest.raises(DBAPIError, match="has no more tries"):
            session.execute(text(f"UPDATE sign_ins SET {change}"))  # noqa: S608 - ours


def test_after_ten_minutes_it_is_counted_from_anew_and_after_an_hour_forgotten(
    world: World, worker: Database, superuser: Engine
) -> None:
    for _ in range(3):
        tried(world.db)
    assert tried(world.db) is not None
    write_unchecked(superuser, "UPDATE sign_in_counts SET since = since - interval '10 minutes'")
    assert tried(world.db) is None

    with pytest.raises(DBAPIError, match="for ten minutes"):
        does(worker, "DELETE FROM sign_in_counts WHERE since < now() + interval '1 minute'")()
    list(reconcile.reconcile(worker, None))
    assert len(read(superuser, "SELECT FROM sign_in_counts")) == 1

    write_unchecked(superuser, "UPDATE sign_in_counts SET since = since - interval '1 hour'")
    list(reconcile.reconcile(worker, None))
    assert read(superuser, "SELECT FROM sign_in_counts") == []
