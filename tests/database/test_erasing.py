"""Erasing a person: nothing names them any more, what they did stays, and what was sealed is as it was."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from lockbox.audit.merkle import leaf_hash, root_of
from lockbox.database import Database, as_owner
from lockbox.refusals import Conflict, Unknown
from lockbox.requests.lifecycle import Action
from lockbox.requests.rules import Policy
from lockbox.tenancy import erasure
from lockbox.tenancy.erasure import Erased
from tests.builders import Urls, World
from tests.database.furnished import furnish
from tests.database.scenes import read, write
from tests.database.trails import changes_told
from tests.ruling import stand_in

EVERYTHING = """
SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
"""
BODIES = "SELECT body FROM events ORDER BY id"
GIVEN_AWAY = ("Ann", "ann-", "203.0.113.9", "Unheard-of browser")


def erase(urls: Urls, person_id: UUID) -> Erased:
    """Erase somebody as the owner of the database."""
    with as_owner(urls.owner) as session:
        return erasure.erase(session, person_id)


def rows_with(house: Database, word: str) -> list[str]:
    """Return each row, of whatever table, in which something is said; ids of the person are none."""
    found = []
    for table in read(house, EVERYTHING):
        query = f"SELECT t::text AS row FROM {table.name} t WHERE position(:word IN t::text) > 0"  # noqa: S608 - ours
        found += [f"{table.name}: {row.row}" for row in read(house, query, word=word)]
    return found


def test_nothing_names_them_any_more_and_what_was_hashed_is_untouched(
    api: Database, urls: Urls, superuser: Engine
) -> None:
    world = furnish(api)
    ann = world.people["ann"].person_id
    (person,) = read(api, "SELECT email FROM people WHERE id = :id", id=ann)
    write(superuser, "UPDATE people SET name = 'Annabel Unheard-of' WHERE id = :id", id=ann)
    write(superuser, "UPDATE event_details SET value = 'Annabel Unheard-of' WHERE value = 'Ann'")
    before = [bytes(row.body) for row in read(api, BODIES)]

    erased = erase(urls, ann)

    assert rows_with(api, "Annabel Unheard-of") == []
    assert rows_with(api, person.email) == []
    assert erased.details > 0
    after = [bytes(row.body) for row in read(api, BODIES)]
    assert after[: len(before)] == before
    assert root_of(map(leaf_hash, after[: len(before)])) == root_of(map(leaf_hash, before))


def test_what_they_did_stays_under_a_name_that_says_nothing(world: World, urls: Urls) -> None:
    request = world.act("ann", Action.DENY, world.submit().id, comment="Not today")
    ann = world.people["ann"].person_id

    erased = erase(urls, ann)

    (event,) = read(world.house, "SELECT id, actor_id, actor_role FROM events WHERE seq = 2")
    assert (event.actor_id, event.actor_role) == (ann, "approver")
    details = read(world.house, "SELECT field, value FROM event_details WHERE event_id = :id", id=event.id)
    assert {row.field: row.value for row in details} == {"comment": "Not today"}
    (person,) = read(world.house, "SELECT name, side, disabled_at FROM people WHERE id = :id", id=ann)
    assert (person.name, person.side) == (erased.pseudonym, "customer")
    assert person.disabled_at is not None
    (decision,) = read(world.house, "SELECT verdict, address, user_agent FROM decisions")
    assert tuple(decision) == ("deny", None, None)
    assert request.closed_at is not None


def test_others_keep_their_names(world: World, urls: Urls) -> None:
    world.act("ann", Action.DENY, world.submit().id)
    world.add("joanna", world_role(world), world.tenant.id)
    world.act("amir", Action.DENY, world.fresh().id)

    erase(urls, world.people["ann"].person_id)

    names = {row.value for row in read(world.house, "SELECT value FROM event_details WHERE field = 'name'")}
    assert names == {"Erin", "Amir"}
    assert [row.name for row in read(world.house, "SELECT name FROM people WHERE name = 'Joanna'")] == ["Joanna"]


def world_role(world: World) -> Any:
    (standing,) = world.people["ann"].standings
    return standing.role


def test_whoever_is_named_by_a_deputy_is_named_no_longer(api: Database, urls: Urls) -> None:
    world = World.make(api, Policy(vendor_review=False))
    stand_in(world, "aude", "ann")
    stand_in(world, "aude", "amir")
    world.act("aude", Action.DENY, world.submit().id)

    erase(urls, world.people["ann"].person_id)

    named = {
        row.field: row.value
        for row in read(api, "SELECT field, value FROM event_details WHERE starts_with(field, 'principal_')")
    }
    assert list(named.values()) == ["Amir"]


def test_the_event_says_who_in_an_id_and_each_of_their_tenants_reads_it(world: World, urls: Urls) -> None:
    ann = world.people["ann"].person_id

    erase(urls, ann)

    (told,) = [one for one in changes_told(world.house) if one.action == "person_erased"]
    assert (told.role, told.facts["person_id"]) == ("owner", str(ann))
    assert told.facts["tenant_id"] == str(world.tenant.id)
    assert told.details == {}


def test_whoever_still_waits_or_is_gone_or_was_never_there_is_not_erased(world: World, urls: Urls) -> None:
    world.submit()
    ann = world.people["ann"].person_id
    erase(urls, ann)

    with pytest.raises(Conflict):
        erase(urls, world.people["erin"].person_id)
    for unknown in (ann, world.tenant.id):
        with pytest.raises(Unknown):
            erase(urls, unknown)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM event_details",
        "DELETE FROM events",
        "UPDATE decisions SET address = NULL",
        "DELETE FROM decisions",
        "UPDATE events SET body = ''",
    ],
)
@pytest.mark.parametrize("errand", ["erase", "retain"])
@pytest.mark.parametrize("login", ["api", "worker"])
def test_no_server_erases_whatever_it_says_that_it_is_about(
    world: World, urls: Urls, login: str, errand: str, statement: str
) -> None:
    world.act("ann", Action.DENY, world.submit().id)
    engine = create_engine(getattr(urls, login), poolclass=NullPool)

    with engine.begin() as connection:
        connection.execute(text("SELECT set_config('lockbox.errand', :errand, true)"), {"errand": errand})
        with pytest.raises(DBAPIError, match="permission denied"):
            connection.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    ["UPDATE decisions SET verdict = 'approve'", "UPDATE decisions SET comment = 'x'", "DELETE FROM decisions"],
)
def test_even_an_erasing_owner_changes_nothing_that_was_decided(world: World, urls: Urls, statement: str) -> None:
    world.act("ann", Action.DENY, world.submit().id)

    engine = create_engine(urls.owner, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(erasure.ERRAND)
        with pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text(statement))
