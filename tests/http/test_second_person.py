"""On whose behalf a move was made: principals of delegates, engineers of systems, and the names that are shown."""

from typing import Any

import pytest
from sqlalchemy import text

from harness.people import HERE, SETTINGS, World
from harness.stage import unbound
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity.roles import Caller, Role, Scope
from lockbox.requests import decide
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import write_unchecked
from tests.http.door import Door
from tests.http.portal import Browser, OpenPortal, Portal
from tests.policy_setup import signed_in, stand_in

FORGET_PRINCIPAL = "UPDATE event_details SET fields = fields - 'principal_1'"
FORGET = """
UPDATE events SET body = convert_to((convert_from(body, 'utf8')::jsonb #- '{personal,principal_1}')::text, 'utf8')
WHERE request_id = :id
"""


def with_dora(world: World, *principals: str) -> Caller:
    """Make Dora, who is no approver, a delegate of these principals."""
    dora = world.add("dora", Role.AUDITOR, world.tenant.id)
    for principal in principals:
        stand_in(world, "dora", principal)
    return dora


def named(world: World, *names: str) -> list[dict[str, str]]:
    """Return people as the API names them, ordered by id."""
    people = [{"id": str(world.people[name].person_id), "name": name.capitalize()} for name in names]
    return sorted(people, key=lambda person: person["id"])


def last(door: Door, who: str, request_id: object) -> dict[str, Any]:
    """Return the last event of a request as a person reads it."""
    item: dict[str, Any] = door.get(who, f"/v1/requests/{request_id}/events").json()["items"][-1]
    return item


def approves(world: World, caller: Caller, request: AccessRequest) -> None:
    with world.db.transaction() as session:
        decide.act(session, caller, HERE, request.id, DecisionInput(Action.APPROVE))


@pytest.mark.parametrize("who", ["ann", "tara", "aude", "erin", "max", "vera"])
def test_readers_of_a_decision_see_the_delegates_principal(fresh_door: Door, who: str) -> None:
    world = fresh_door.world
    with_dora(world, "ann", "amir")
    request_id = fresh_door.pending()
    fresh_door.act("dora", "approve", request_id)

    event = last(fresh_door, who, request_id)
    (decision,) = fresh_door.get(who, f"/v1/requests/{request_id}").json()["decisions"]

    both = named(world, "ann", "amir")
    assert (event["principals"], event["on_behalf_of"], event["means"]) == (both, both[0], "sample")
    assert (decision["decision"], decision["by"]["name"], decision["role"]) == ("approve", "Dora", "approver")
    assert (decision["principals"], decision["on_behalf_of"], decision["means"]) == (both, both[0], "sample")
    assert decision["at"] == event["at"]


def test_the_event_of_an_approver_who_is_also_a_delegate_names_the_principal_too(fresh_door: Door) -> None:
    world = fresh_door.world
    stand_in(world, "amir", "ann")
    request_id = fresh_door.pending()

    fresh_door.act("amir", "approve", request_id)

    event = last(fresh_door, "ann", request_id)
    assert (event["actor"]["name"], event["principals"]) == ("Amir", named(world, "ann"))
    assert event["on_behalf_of"] == named(world, "ann")[0]


def test_the_decision_of_a_person_acting_for_themselves_names_no_principal(fresh_door: Door) -> None:
    request_id = fresh_door.active()

    event = last(fresh_door, "ann", request_id)

    assert (event["on_behalf_of"], event["principals"]) == (None, [])


def test_an_engineer_whose_request_a_system_submitted_is_named(fresh_door: Door) -> None:
    world = fresh_door.world
    world.add("bot", Role.SYSTEM, scopes={Scope.REQUESTS_FILE}, services=set(SETTINGS.catalogue.services))
    submitted = fresh_door.file("bot", engineer=str(world.people["erin"].person_id)).json()

    event = last(fresh_door, "ann", submitted["id"])

    assert (event["actor"]["name"], event["on_behalf_of"]) == ("Bot", named(world, "erin")[0])


def test_erasing_the_name_of_a_principal_leaves_the_id(fresh_door: Door) -> None:
    world = fresh_door.world
    with_dora(world, "ann")
    request_id = fresh_door.pending()
    fresh_door.act("dora", "approve", request_id)
    write_unchecked(fresh_door.root, FORGET_PRINCIPAL)

    event = last(fresh_door, "ann", request_id)

    assert event["principals"] == [{"id": str(world.people["ann"].person_id), "name": "erased"}]


def test_an_old_event_without_stored_names_shows_names_the_reader_may_see(fresh_door: Door) -> None:
    world = fresh_door.world
    with_dora(world, "ann")
    request_id = fresh_door.pending()
    fresh_door.act("dora", "approve", request_id)
    with unbound(world.db).begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(FORGET), {"id": request_id})
        connection.execute(text(FORGET_PRINCIPAL))

    assert last(fresh_door, "tara", request_id)["principals"] == named(world, "ann")
    assert [one["name"] for one in last(fresh_door, "erin", request_id)["principals"]] == ["erased"]


def shown(portal: Portal, who: str, request_id: object) -> str:
    """Return what the page of a request says to a person."""
    browser = Browser(portal)
    browser.enter(who)
    return browser.get(f"/requests/{request_id}").words


def test_the_request_page_shows_a_delegates_principal_and_sign_in(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=False, mail_suffices=True))
    world = portal.world
    with_dora(world, "ann", "amir")
    request = world.submit()
    approves(world, signed_in(world, "dora", AuthMethod.MAIL), request)

    for who in ("ann", "tara", "erin"):
        page = shown(portal, who, request.id)
        both = ", ".join(one["name"] for one in named(world, "ann", "amir"))
        assert f"Dora (approver, on behalf of {both}) approved" in page
        assert "signed in by a code from a mail alone" in page
