"""How far announcements to all logs have got: the core worker's role cannot record more than the logs contain."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from gate import definition_records, enforcement
from gate.memory_reader import GATE
from harness.people import World
from lockbox.admin import exclusions
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.database import Database, UnitOfWork, now
from lockbox.identity import authentication
from lockbox.notifications import announcements
from tests.database.scenes import read, write_unchecked
from tests.database.tenancy import manages
from tests.database.test_definition_records import A, starts
from tests.each import each

BACK = "UPDATE tenants SET created_at = created_at - interval '40 days'"
FORWARD = "UPDATE {} SET announced_to = CAST(:to AS uuid)"
EVERYBODY = exclusions.EVERYBODY
ANNOUNCE = {
    "exclusions": exclusions.announce,
    "gate_definitions": definition_records.announce,
    "enforcement_switches": enforcement.announce,
}


@pytest.fixture(name="news")
def _news(world: World, superuser: Engine) -> World:
    """A world with an old tenant, and with something of each kind that is not yet announced in any log."""
    write_unchecked(superuser, BACK)
    manages(world, "olga", exclusions.state, "A text")
    starts(world.db, A)
    with world.db.transaction() as session:
        authentication.enter(session, GATE)
        enforcement.record(session, {"mail": enforcement.REPORT})
    write_unchecked(superuser, "UPDATE exclusions SET created_at = created_at - interval '2 minutes'")
    return world


@each(
    ("table", "to"),
    [*((table, EVERYBODY) for table in ANNOUNCE), *((table, exclusions.NOBODY) for table in list(ANNOUNCE)[1:])],
)
def test_the_core_workers_database_role_cannot_mark_an_announcement_as_made(
    news: World, worker: Database, table: str, to: object
) -> None:
    with pytest.raises(DBAPIError, match="was not told so far"), worker.transaction() as session:
        session.execute(text(FORWARD.format(table)), {"to": to})

    assert read(news.db, "SELECT FROM events WHERE actor_role = 'clock'") == []


@each("table", ANNOUNCE)
def test_the_recorded_progress_of_announcements_never_goes_back(news: World, worker: Database, table: str) -> None:
    assert sum(ANNOUNCE[table](worker)) >= 1
    assert list(ANNOUNCE[table](worker)) == []
    (row,) = read(worker, f"SELECT announced_to FROM {table}")  # noqa: S608 - ours
    assert row.announced_to >= news.tenant.id

    with pytest.raises(DBAPIError, match="was not told so far"), worker.transaction() as session:
        session.execute(text(FORWARD.format(table)), {"to": exclusions.NOBODY})


def said(news: World, session: UnitOfWork, **changes: Any) -> AuditEvent:
    facts = {"version": 1, "text": "A text", "sha256": hashlib.sha256(b"A text").hexdigest(), **changes}
    return AuditEvent(
        at=now(session), action=exclusions.CHANGED, actor=THE_CLOCK, tenant_id=news.tenant.id, facts=facts
    )


def tells(news: World, worker: Database, tell: Callable[[UnitOfWork, AuditEvent], None], **changes: Any) -> None:
    """Write an event about exclusions, and record that they were announced to everyone."""
    with worker.transaction() as session:
        tell(session, said(news, session, **changes))
        session.execute(text(FORWARD.format("exclusions")), {"to": EVERYBODY})


def test_exclusions_count_as_announced_only_if_an_event_of_that_version_has_mails(
    news: World, worker: Database
) -> None:
    with pytest.raises(DBAPIError, match="was not told so far"):
        tells(news, worker, announcements.record)
    with pytest.raises(DBAPIError, match="was not told so far"):
        tells(news, worker, announcements.announce, version=2)

    tells(news, worker, announcements.announce)


def test_the_apis_database_role_adds_no_gate_switch_that_counts_as_announced(news: World) -> None:
    added = """
    INSERT INTO enforcement_switches (id, enforcement_id, revision, wanted, was_enforced, switched_at, announced_to)
    SELECT uuidv7(), id, revision + 1, 'report', false, now(), :to FROM enforcements
    """
    with news.db.transaction() as session:
        authentication.enter(session, GATE)
        with pytest.raises(DBAPIError, match="was told to nobody yet"):
            session.execute(text(added), {"to": EVERYBODY})
