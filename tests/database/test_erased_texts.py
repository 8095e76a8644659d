"""Erasing the resources and reasons of requests from rows and both logs; what remains can still be verified."""

import json
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from harness.people import HERE, SETTINGS, World
from harness.stage import Urls
from lockbox.admin import erased_texts, erasure, retention, tenant_data, vendor_staff
from lockbox.audit.verifier.verify import GOOD
from lockbox.database import Database
from lockbox.errors import Conflict, NotFound
from lockbox.identity import authentication
from lockbox.identity.directory import DirectoryEntry
from lockbox.identity.roles import Role, Scope
from lockbox.owner_transaction import as_owner
from lockbox.requests import idempotency, questions, resubmission
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.audit_logs import last_change
from tests.database.mentions import mentions
from tests.database.scenes import read
from tests.database.tenancy import does, id_of
from tests.database.test_exports import exported, vendors_log, verified
from tests.database.test_retention import as_long_ago
from tests.each import each
from tests.logs import sealed

MARK = "Zanzibar-77"
BOXES = [
    f"mailbox:{MARK.lower()}@contoso.example",
    f"mailbox:other-{MARK.lower()}@contoso.example",
    "mailbox:c@d.example",
]
AN_HOUR_AGO = ("UPDATE requests SET closed_at = closed_at - interval '2 hours' WHERE closed_at IS NOT NULL",)
LONG_AGO = (
    "UPDATE events SET at = at - interval '100 days'",
    "UPDATE requests SET closed_at = closed_at - interval '100 days' WHERE closed_at IS NOT NULL",
)
TIMED_OUT = """
UPDATE requests SET state = 'timed_out', closed_at = now() - interval '2 hours', wake_at = NULL WHERE id = :id
"""
ROW = "SELECT justification, case_ref, resources, granted_resources, state FROM requests WHERE id = :id"


@pytest.fixture
def world(api: Database) -> World:
    """A world in which the vendor reviews first, so that both logs record a request."""
    return World.make(api, Policy())


def asked(world: World, **changes: Any) -> UUID:
    return world.act("max", Action.ENDORSE, world.fresh(**changes).id, comment="A real fault").id


def used(world: World) -> UUID:
    """Make an ended request that has the mark in every text."""
    request = world.submit(resources=BOXES, justification=f"Because of {MARK}", case_ref=f"CASE-{MARK}")
    world.act("max", Action.ENDORSE, request.id, comment=f"{MARK} is broken")
    with world.db.transaction() as session:
        asked = questions.ask(session, world.people["ann"], HERE, request.id, f"Is {MARK} needed?")
    with world.db.transaction() as session:
        questions.answer(session, world.people["erin"], HERE, request.id, asked.id, f"{MARK} is")
    opened = world.act("ann", Action.APPROVE, request.id, comment=f"Only {MARK}", resources=BOXES[1:])
    world.act("erin", Action.COMPLETE, opened.id)
    return request.id


def erase_texts(urls: Urls, request_id: UUID) -> int:
    with as_owner(urls.owner) as session:
        return erased_texts.erase(session, request_id).details


def by_hand(urls: Urls, *statements: str) -> None:
    """Run SQL statements as the database owner, in one transaction."""
    with as_owner(urls.owner) as session:
        for statement in statements:
            session.connection().exec_driver_sql(statement)


def as_api(world: World, statement: str) -> None:
    """Run an SQL statement as the API's database role, which claims to erase."""
    with world.db.transaction() as session:
        authentication.enter(session, world.people["ann"])
        session.execute(erased_texts.PURPOSE)
        session.connection().exec_driver_sql(statement)


def says(world: World, entry: DirectoryEntry) -> None:
    if "copier" not in world.people:
        world.add("copier", Role.SYSTEM, scopes={Scope.DIRECTORY_WRITE})
    with world.db.transaction() as session:
        vendor_staff.write_record(session, world.people["copier"], HERE, id_of(world, "erin"), entry)


def row(world: World, request_id: UUID) -> Any:
    (found,) = read(world.db, ROW, id=request_id)
    return found


def test_erasing_the_texts_of_a_request_erases_answers_stored_for_repeated_calls_too(
    world: World, urls: Urls, superuser: Engine
) -> None:
    request_id, other = used(world), asked(world)
    with world.db.transaction() as session:
        authentication.enter(session, world.people["erin"])
        for key, one in (("first", request_id), ("second", other)):
            answer = {"id": str(one), "justification": f"Because of {MARK}"}
            idempotency.keep(session, id_of(world, "erin"), key, b"body", json.dumps(answer))
    as_long_ago(superuser, *AN_HOUR_AGO)

    erase_texts(urls, request_id)

    assert [row.key for row in read(world.db, "SELECT key FROM idempotency_keys")] == ["second"]


def test_erased_texts_are_gone_and_the_logs_of_both_sides_still_verify(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    request_id = used(world)
    sealed(worker)
    before = mentions(world.db, MARK)
    as_long_ago(superuser, *AN_HOUR_AGO)

    details = erase_texts(urls, request_id)
    sealed(worker)

    assert {"requests.resources", "requests.justification", "decisions.comment", "decisions.resources"} <= before
    assert mentions(world.db, MARK) == set()
    assert details > 6
    assert (last_change(world.db).action, last_change(world.db).facts["count"]) == ("texts_erased", details)
    found = row(world, request_id)
    assert (found.justification, found.case_ref, found.state) == ("erased", "erased", "completed")
    assert found.resources == ["erased:1", "erased:2", "erased:3"]
    assert found.granted_resources == ["erased:2", "erased:3"]
    assert verified(exported(world)).exit_code == GOOD
    assert verified(vendors_log(world)).exit_code == GOOD


def test_erasing_texts_keeps_people_and_times_and_a_second_erasure_changes_nothing(
    world: World, urls: Urls, superuser: Engine
) -> None:
    request_id = used(world)
    as_long_ago(superuser, *AN_HOUR_AGO)
    erase_texts(urls, request_id)
    names = read(world.db, "SELECT fields #>> '{name,1}' AS name FROM event_details WHERE fields ? 'name' ORDER BY 1")
    assert {"Ann", "Erin"} <= {one.name for one in names}
    before = row(world, request_id)

    assert erase_texts(urls, request_id) == 0
    assert row(world, request_id) == before


def test_an_open_or_recently_closed_request_is_not_erased(world: World, urls: Urls) -> None:
    for request_id in (world.submit().id, used(world)):
        with pytest.raises(Conflict):
            erase_texts(urls, request_id)
    with pytest.raises(NotFound):
        erase_texts(urls, world.tenant.id)


def test_an_erased_request_cannot_be_resubmitted(world: World, urls: Urls, superuser: Engine) -> None:
    request_id = asked(world)
    as_long_ago(superuser, TIMED_OUT, id=request_id)
    erase_texts(urls, request_id)

    with world.db.transaction() as session, pytest.raises(Conflict, match="was erased"):
        resubmission.resubmit(session, world.people["erin"], HERE, request_id, SETTINGS.catalogue.services)


@pytest.mark.far
def test_retention_of_the_tenants_log_also_erases_texts_in_the_request_row_and_vendors_log(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    request_id = used(world)
    sealed(worker)
    as_long_ago(superuser, *LONG_AGO)
    # The vendor keeps its own log for ever; the tenant's is kept for thirty days.
    does(world, "tara", tenant_data.keep_for, 30, most=None)

    (removed,) = retention.retain(partial(as_owner, urls.owner), None)

    assert removed.log_id == world.tenant.id
    assert mentions(world.db, MARK) == set()
    assert row(world, request_id).resources == ["erased:1", "erased:2", "erased:3"]


@pytest.mark.far
@pytest.mark.parametrize("texts", [False, True])
def test_erasing_a_person_removes_texts_that_contain_their_address(
    world: World, urls: Urls, superuser: Engine, *, texts: bool
) -> None:
    (ann,) = read(world.db, "SELECT email FROM people WHERE id = :id", id=id_of(world, "ann"))
    named = world.act("amir", Action.DENY, asked(world, resources=[f"mailbox:{ann.email}"]), comment="No").id
    other = world.act("ann", Action.DENY, asked(world, justification=f"Because of {MARK}"), comment=MARK).id
    as_long_ago(superuser, *AN_HOUR_AGO)

    with as_owner(urls.owner) as session:
        erased = erasure.erase(session, id_of(world, "ann"), texts=texts)

    assert mentions(world.db, ann.email) == set()
    assert (row(world, named).resources, erased.requests) == (["erased:1"], 1)
    assert row(world, other).justification == f"Because of {MARK}"
    comments = {"decisions.comment", "event_details.comment"}
    assert mentions(world.db, MARK) & comments == (set() if texts else comments)


@pytest.mark.far
def test_erasing_an_engineer_with_texts_removes_all_texts_of_the_engineer(
    world: World, urls: Urls, superuser: Engine
) -> None:
    used(world)
    as_long_ago(superuser, *AN_HOUR_AGO)

    with as_owner(urls.owner) as session:
        erasure.erase(session, id_of(world, "erin"), texts=True)

    assert mentions(world.db, MARK) == set()


WORKED = """
SELECT num_nonnulls(employing_entity, office_country, physical_country) AS said, sign_in, directory_as_of
FROM requests WHERE id = :id
"""
SAID = """
SELECT f.key FROM event_details d, jsonb_each(d.fields) AS f
WHERE f.key IN ('employing_entity', 'office_country', 'physical_country')
"""
THERE = DirectoryEntry(f"{MARK} GmbH", "DE", "PL")


@pytest.mark.far
def test_erasing_texts_erases_the_requesters_location(world: World, urls: Urls, superuser: Engine) -> None:
    says(world, THERE)
    request_id = used(world)
    as_long_ago(superuser, *AN_HOUR_AGO)

    erase_texts(urls, request_id)

    (worked,) = read(world.db, WORKED, id=request_id)
    assert (worked.said, worked.sign_in) == (0, "token")
    assert worked.directory_as_of is not None
    assert mentions(world.db, MARK) == {"directory_records.employing_entity", "event_details.employing_entity"}


@pytest.mark.far
def test_erasing_a_person_erases_the_location_of_that_person_permanently(
    world: World, worker: Database, urls: Urls
) -> None:
    says(world, THERE)
    request_id = world.act("ann", Action.DENY, asked(world)).id
    says(world, DirectoryEntry(f"{MARK} Inc", "US", "US"))
    sealed(worker)
    assert len(read(world.db, SAID)) > 6

    with as_owner(urls.owner) as session:
        erasure.erase(session, id_of(world, "erin"))
    sealed(worker)

    assert mentions(world.db, MARK) == set()
    assert read(world.db, SAID) == []
    assert read(world.db, "SELECT FROM directory_records") == []
    assert read(world.db, WORKED, id=request_id)[0].said == 0
    for export in (exported(world), vendors_log(world)):
        assert verified(export).exit_code == GOOD
    with pytest.raises(NotFound):
        says(world, THERE)


def test_erasing_a_persons_location_keeps_other_peoples_locations(world: World, urls: Urls) -> None:
    says(world, THERE)
    request_id = world.act("ann", Action.DENY, asked(world)).id
    before = len(read(world.db, SAID))

    with as_owner(urls.owner) as session:
        erasure.erase(session, id_of(world, "ann"))

    assert read(world.db, WORKED, id=request_id)[0].said == 3
    assert len(read(world.db, SAID)) == before


@each(
    "statement",
    [
        "UPDATE requests SET justification = 'erased'",
        "UPDATE requests SET physical_country = NULL",
        "UPDATE requests SET granted_resources = NULL",
        "UPDATE decisions SET comment = NULL",
        "UPDATE decisions SET signed_content = NULL",
    ],
)
def test_only_the_database_owners_command_erases_texts(world: World, urls: Urls, statement: str) -> None:
    used(world)

    with pytest.raises(DBAPIError):
        as_api(world, statement)
    with pytest.raises(DBAPIError):
        by_hand(urls, statement)


def test_the_erasing_owner_cannot_change_open_requests_or_decisions(world: World, urls: Urls) -> None:
    world.act("ann", Action.APPROVE, asked(world))

    for statement in (
        "UPDATE requests SET justification = 'erased'",
        "UPDATE decisions SET decision = 'deny'",
        "UPDATE requests SET quorum = 9",
        "UPDATE requests SET physical_country = 'DE'",
    ):
        with pytest.raises(DBAPIError):
            by_hand(urls, "SELECT set_config('lockbox.owner_command', 'erase', true)", statement)


def test_texts_are_erased_only_after_the_hour_in_which_activity_may_still_be_reported() -> None:
    assert timedelta(hours=1) == erased_texts.SETTLED
