"""Erasing a person: nothing names them any more, their acts remain, and sealed data is unchanged."""

import json
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from harness.people import SETTINGS, World
from harness.stage import Urls
from lockbox.admin import erasure, members, observers
from lockbox.admin.erasure import ErasureResult
from lockbox.admin.observers import ObserverInput
from lockbox.audit import events, refusals_log
from lockbox.audit.events import AUDIT_LOG_READ, VENDORS_LOG, Actor
from lockbox.audit.log.merkle import leaf_hash, root_of
from lockbox.audit.refusals_log import DECISION_REFUSED, RefusalEntry
from lockbox.audit.verifier.verify import GOOD
from lockbox.database import Database
from lockbox.errors import Conflict, NotFound
from lockbox.identity import authentication
from lockbox.owner_transaction import as_owner
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.audit_logs import recorded_changes
from tests.database.furnished import furnish
from tests.database.mentions import mentions
from tests.database.postbag import Postbag, open_notifications
from tests.database.rejecting_relay import RefusingMail
from tests.database.scenes import read, write, write_unchecked
from tests.database.tenancy import does, id_of, invites, names_delegate, with_delegates
from tests.database.test_exports import exported, vendors_log, verified
from tests.each import each
from tests.logs import sealed
from tests.policy_setup import stand_in

EMAIL = "SELECT email FROM people WHERE id = :id"
NAMED = """
INSERT INTO addresses (id, person_id, email, prompts, created_at, expires_at, confirmed_at)
SELECT uuidv7(), :person, 'lynn@contoso.example', true, now(), now() + interval '1 day',
    CASE WHEN :confirmed THEN now() END
"""
RENAMED = """
UPDATE event_details SET fields = jsonb_set(fields, '{name,1}', '"Annabel Unheard-of"')
WHERE fields #>> '{name,1}' = 'Ann'
"""
BODIES = "SELECT body FROM events ORDER BY id"
FIELDS = """
SELECT f.key AS field, f.value ->> 1 AS value, e.action FROM event_details d JOIN events e ON e.id = d.event_id
CROSS JOIN jsonb_each(d.fields) f ORDER BY d.event_id, f.key
"""


def erase(urls: Urls, person_id: UUID) -> ErasureResult:
    """Erase a person as the database owner."""
    with as_owner(urls.owner) as session:
        return erasure.erase(session, person_id)


@pytest.mark.far
def test_an_erased_person_is_named_nowhere_and_log_hashes_are_unchanged(
    api: Database, urls: Urls, superuser: Engine
) -> None:
    world = furnish(api)
    ann = world.people["ann"].person_id
    (person,) = read(api, "SELECT email FROM people WHERE id = :id", id=ann)
    write(superuser, "UPDATE people SET name = 'Annabel Unheard-of' WHERE id = :id", id=ann)
    write_unchecked(superuser, RENAMED)
    before = [bytes(row.body) for row in read(api, BODIES)]

    erased = erase(urls, ann)

    assert mentions(api, "Annabel Unheard-of") == set()
    assert mentions(api, person.email) == set()
    assert erased.details > 0
    after = [bytes(row.body) for row in read(api, BODIES)]
    assert after[: len(before)] == before
    assert root_of(map(leaf_hash, after[: len(before)])) == root_of(map(leaf_hash, before))


def test_the_acts_of_an_erased_person_stay_under_a_pseudonym(world: World, urls: Urls) -> None:
    request = world.act("ann", Action.DENY, world.submit().id, comment="Not today")
    ann = world.people["ann"].person_id

    erased = erase(urls, ann)

    (event,) = read(world.db, "SELECT id, actor_id, actor_role FROM events WHERE seq = 2")
    assert (event.actor_id, event.actor_role) == (ann, "approver")
    ((fields,),) = read(world.db, "SELECT fields FROM event_details WHERE event_id = :id", id=event.id)
    assert {name: value for name, (_, value) in fields.items()} == {"comment": "Not today"}
    (person,) = read(world.db, "SELECT name, side, disabled_at FROM people WHERE id = :id", id=ann)
    assert (person.name, person.side) == (erased.pseudonym, "customer")
    assert person.disabled_at is not None
    (decision,) = read(world.db, "SELECT decision, address, user_agent FROM decisions")
    assert tuple(decision) == ("deny", None, None)
    assert request.closed_at is not None


def test_erasing_a_person_keeps_the_names_of_other_people(world: World, urls: Urls) -> None:
    world.act("ann", Action.DENY, world.submit().id)
    world.add("joanna", world_role(world), world.tenant.id)
    world.act("amir", Action.DENY, world.fresh().id)

    erase(urls, world.people["ann"].person_id)

    named = read(world.db, "SELECT fields #>> '{name,1}' AS name FROM event_details WHERE fields ? 'name'")
    assert {row.name for row in named} == {"Erin", "Amir"}
    assert [row.name for row in read(world.db, "SELECT name FROM people WHERE name = 'Joanna'")] == ["Joanna"]


def world_role(world: World) -> Any:
    (standing,) = world.people["ann"].standings
    return standing.role


def test_a_delegates_event_no_longer_names_an_erased_principal(api: Database, urls: Urls) -> None:
    world = World.make(api, Policy(vendor_review=False))
    stand_in(world, "aude", "ann")
    stand_in(world, "aude", "amir")
    world.act("aude", Action.DENY, world.submit().id)

    erase(urls, world.people["ann"].person_id)

    named = [row.value for row in read(api, FIELDS) if row.field.startswith("principal_")]
    assert named == ["Amir"]


@pytest.mark.parametrize("who", ["ann", "aude"])
def test_no_event_names_an_erased_delegate_or_principal(api: Database, urls: Urls, who: str) -> None:
    world = with_delegates(api)
    names_delegate(world)

    erase(urls, id_of(world, who))

    named = {row.field: row.value for row in read(api, FIELDS) if row.action == "delegate_named"}
    left = {"principal": "Ann", "delegate": "Aude"}
    assert {field: named.get(field) for field in left} == {
        field: None if name == who.capitalize() else name for field, name in left.items()
    }


def test_people_who_acted_on_an_erased_person_stay_named(world: World, urls: Urls) -> None:
    does(world, "tara", members.remove, id_of(world, "ann"))

    erase(urls, id_of(world, "ann"))

    named = {row.field: row.value for row in read(world.db, FIELDS) if row.action == "member_removed"}
    assert named.get("name") == "Tara"
    assert "member" not in named


@pytest.mark.parametrize("address", ["lynn@contoso.example", "nn@contoso.example.org", "x.nn@contoso.example"])
def test_people_with_a_similar_address_stay_named(world: World, urls: Urls, superuser: Engine, address: str) -> None:
    write(superuser, "UPDATE people SET email = 'nn@contoso.example' WHERE id = :id", id=id_of(world, "ann"))
    invites(world, name="Lynn", address=address)
    does(world, "tara", observers.add, ObserverInput("Lynn", address), services=SETTINGS.catalogue.services)
    _look_for(world, f"is {address}, whose Annual report")
    before = [row for row in read(world.db, FIELDS) if row.field in {"member", "observer", "wanted"}]

    erase(urls, id_of(world, "ann"))

    assert [row for row in read(world.db, FIELDS) if row.field in {"member", "observer", "wanted"}] == before
    names = read(world.db, "SELECT name FROM invitations UNION ALL SELECT name FROM observers")
    assert [row.name for row in names] == ["Lynn", "Lynn"]


def test_searching_an_erased_name_or_address_finds_nothing(world: World, urls: Urls, superuser: Engine) -> None:
    write(superuser, "UPDATE people SET name = 'Ann \"A.\" Ö' WHERE id = :id", id=id_of(world, "ann"))
    (person,) = read(world.db, "SELECT email FROM people WHERE id = :id", id=id_of(world, "ann"))
    for word in ('Was it ANN "A." Ö?', f"({person.email.upper()}).", "Ann", 'ann "A." Öz'):
        _look_for(world, word)

    erase(urls, id_of(world, "ann"))

    wanted = [json.loads(row.value)["text"] for row in read(world.db, FIELDS) if row.field == "wanted"]
    assert wanted == ["Ann", 'ann "A." Öz']


def _look_for(world: World, word: str) -> None:
    tara = Actor(id_of(world, "tara"), "tenant_admin", "Tara")
    with world.db.transaction() as session:
        authentication.enter(session, world.people["tara"])
        events.record(session, tara, AUDIT_LOG_READ, logs=[world.tenant.id], wanted={"text": word}, count=0)


@pytest.mark.parametrize("confirmed", [False, True])
def test_erasing_a_person_keeps_the_address_of_another_person_in_a_text(
    world: World, urls: Urls, superuser: Engine, *, confirmed: bool
) -> None:
    invites(world, name="Lynn", address="lynn@contoso.example")
    for who in ("ann", "amir") if confirmed else ("ann",):
        write(superuser, NAMED, person=id_of(world, who), confirmed=confirmed)

    erase(urls, id_of(world, "ann"))

    assert [row.name for row in read(world.db, "SELECT name FROM invitations")] == ["Lynn"]
    emails = [row.email for row in read(world.db, "SELECT email FROM addresses")]
    assert emails.count("lynn@contoso.example") == (1 if confirmed else 0)


def test_the_erasure_of_a_former_member_is_recorded_in_the_log_of_the_former_tenant(world: World, urls: Urls) -> None:
    world.act("ann", Action.DENY, world.submit().id)
    does(world, "tara", members.remove, id_of(world, "ann"))

    erase(urls, id_of(world, "ann"))

    rows = read(world.db, "SELECT tenant_id FROM events WHERE action = 'person_erased'")
    assert [row.tenant_id for row in rows] == [world.tenant.id]


def test_each_audit_log_that_loses_a_name_records_the_erasure(world: World, urls: Urls) -> None:
    world.act("ann", Action.DENY, world.submit().id)

    erase(urls, id_of(world, "erin"))

    rows = read(world.db, "SELECT tenant_id FROM events WHERE action = 'person_erased'")
    assert {row.tenant_id for row in rows} == {None, world.tenant.id}


@pytest.mark.far
def test_the_recorded_answer_of_a_mail_relay_no_longer_contains_the_erased_address(
    world: World, urls: Urls, worker: Database, post: Postbag
) -> None:
    emails = {who: read(world.db, EMAIL, id=id_of(world, who))[0].email for who in ("ann", "amir")}
    world.fresh()
    post.mailing = RefusingMail()
    post.deliver(worker, open_notifications(worker))
    before = mentions(world.db, emails["amir"])

    erase(urls, id_of(world, "ann"))

    noted = {one for one in before if one.startswith("event_details.recipient_")}
    assert before - noted == {"people.email", "deliveries.answer", "notifications.last_error"}
    assert noted
    assert mentions(world.db, emails["ann"]) == set()
    assert mentions(world.db, emails["amir"]) == before


def test_refusals_of_an_erased_person_are_still_counted(world: World, urls: Urls) -> None:
    ann = id_of(world, "ann")
    with world.db.transaction() as session:
        refusals_log.count(session, RefusalEntry(DECISION_REFUSED, {}, ann, personal={"name": "Ann"}))

    erase(urls, ann)

    (row,) = read(world.db, "SELECT person_id, personal, count FROM refused")
    assert tuple(row) == (ann, {}, 1)


def test_the_erasure_event_names_the_person_by_id_and_can_be_read_by_the_persons_tenants(
    world: World, urls: Urls
) -> None:
    ann = world.people["ann"].person_id

    erase(urls, ann)

    (told,) = [change for change in recorded_changes(world.db) if change.action == "person_erased"]
    assert (told.role, told.facts["person_id"]) == ("owner", str(ann))
    assert told.facts["tenant_id"] == str(world.tenant.id)
    assert told.details == {}


def test_erasure_is_refused_for_unknown_or_erased_people_and_requesters_of_pending_requests(
    world: World, urls: Urls
) -> None:
    world.submit()
    ann = world.people["ann"].person_id
    erase(urls, ann)

    with pytest.raises(Conflict):
        erase(urls, world.people["erin"].person_id)
    for unknown in (ann, world.tenant.id):
        with pytest.raises(NotFound):
            erase(urls, unknown)


@pytest.mark.far
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM event_details",
        "UPDATE event_details SET fields = '{}'",
        "DELETE FROM events",
        "UPDATE decisions SET address = NULL",
        "DELETE FROM decisions",
        "UPDATE events SET body = ''",
    ],
)
@pytest.mark.parametrize("errand", ["erase", "retain"])
@pytest.mark.parametrize("login", ["api", "worker"])
def test_no_database_role_of_a_server_erases_a_person(
    world: World, urls: Urls, login: str, errand: str, statement: str
) -> None:
    world.act("ann", Action.DENY, world.submit().id)
    engine = create_engine(getattr(urls, login), poolclass=NullPool)

    with engine.begin() as connection:
        connection.execute(text("SELECT set_config('lockbox.owner_command', :errand, true)"), {"errand": errand})
        with pytest.raises(DBAPIError, match="permission denied"):
            connection.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    ["UPDATE decisions SET decision = 'approve'", "UPDATE decisions SET comment = 'x'", "DELETE FROM decisions"],
)
def test_the_database_owner_can_change_no_decision_when_erasing_a_person(
    world: World, urls: Urls, statement: str
) -> None:
    world.act("ann", Action.DENY, world.submit().id)

    engine = create_engine(urls.owner, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(erasure.PURPOSE)
        with pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event_details SET fields = jsonb_set(fields, '{name,1}', '\"Bill\"')",
        "UPDATE event_details SET fields = jsonb_set(fields, '{name}', '[]')",
        "UPDATE event_details SET fields = fields #- '{name,1}'",
        'UPDATE event_details SET fields = fields || \'{"remark"\\: ["", "forged"]}\'',
        "UPDATE event_details SET event_id = uuidv7()",
        "DELETE FROM event_details",
        "TRUNCATE event_details",
    ],
)
def test_the_database_owner_can_remove_only_whole_fields_when_erasing_a_person(
    world: World, urls: Urls, statement: str
) -> None:
    world.act("ann", Action.DENY, world.submit().id)

    engine = create_engine(urls.owner, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(erasure.PURPOSE)
        connection.execute(text("UPDATE event_details SET fields = fields - 'address'"))
        with pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text(statement))


@each("statement", ["UPDATE event_details SET fields = fields - 'name'", "DELETE FROM event_details"])
def test_the_database_owner_can_remove_fields_only_as_part_of_an_erasure(
    world: World, urls: Urls, statement: str
) -> None:
    world.submit()

    engine = create_engine(urls.owner, poolclass=NullPool)
    with engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text(statement))


@pytest.mark.far
def test_an_engineers_name_is_erased_from_the_logs_of_both_sides(api: Database, worker: Database, urls: Urls) -> None:
    world = World.make(api, Policy(vendor_review=True))
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)
    world.act("ann", Action.DENY, request.id)
    sealed(worker)
    named = """
    SELECT e.internal FROM event_details d JOIN events e ON e.id = d.event_id
    WHERE 'Erin' IN (d.fields #>> '{name,1}', d.fields #>> '{engineer,1}')
    """
    assert {row.internal for row in read(api, named)} == {True, False}

    erase(urls, world.people["erin"].person_id)
    sealed(worker)

    assert read(api, named) == []
    told = read(api, "SELECT log_id, tenant_id FROM events WHERE action = 'person_erased' ORDER BY log_id")
    assert [tuple(row) for row in told] == [(VENDORS_LOG, None), (world.tenant.id, world.tenant.id)]
    for export in (exported(world), vendors_log(world)):
        result = verified(export)
        assert result.exit_code == GOOD, result.findings
