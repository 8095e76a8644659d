"""Who sees what over HTTP: a hidden request looks as if it did not exist."""

import pytest

from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.each import each
from tests.http.door import Door, OpenDoor


@pytest.fixture(scope="module")
def guarded(open_door: OpenDoor) -> Door:
    """A world with vendor review, and Zoe of another tenant."""
    door = open_door(Policy())
    door.add_outsider(open_door())
    door.world.add("new", Role.ENGINEER)
    return door


@pytest.mark.parametrize("ending", [("max", Action.DENY), ("erin", Action.CANCEL)])
def test_a_request_ended_in_review_is_never_visible_to_the_customer(
    guarded: Door, ending: tuple[str, Action]
) -> None:
    request = guarded.world.submit()
    guarded.world.act(*ending, request.id)

    assert guarded.get("ann", f"/v1/requests/{request.id}").status_code == 404
    assert str(request.id) not in guarded.get("ann", "/v1/requests").text
    assert guarded.get("max", f"/v1/requests/{request.id}").status_code == 200


@each(
    ("who", "sees"),
    [
        ("erin", {"own", "told"}),
        ("eve", set()),
        ("max", {"own", "told"}),
        ("vera", {"own", "told"}),
        ("olga", set()),
        ("gate", set()),
        ("ann", {"told"}),
        ("tara", {"told"}),
        ("aude", {"told"}),
        ("zoe", set()),
        ("new", set()),
    ],
)
def test_lists_and_single_reads_agree_on_which_requests_are_visible(guarded: Door, who: str, sees: set[str]) -> None:
    told = guarded.world.submit()
    guarded.world.act("max", Action.ENDORSE, told.id)
    both = {"own": guarded.pending(), "told": str(told.id)}

    listed = {item["id"] for item in guarded.get(who, "/v1/requests", limit=200).json()["items"]}

    assert {name for name, one in both.items() if one in listed} == sees
    for name, one in both.items():
        for tail in ("", "/events"):
            assert guarded.get(who, f"/v1/requests/{one}{tail}").status_code == (200 if name in sees else 404)


def test_an_approver_of_two_tenants_sees_requests_of_both_tenants(guarded: Door, open_door: OpenDoor) -> None:
    other = open_door()
    here, there = guarded.world.submit(), other.world.submit()
    guarded.world.act("max", Action.ENDORSE, here.id)
    grant = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (gen_random_uuid(), :p, :t, 'approver')"
    both = guarded.world.add("both", Role.APPROVER, guarded.world.tenant.id)
    guarded.run_sql(grant, p=both.person_id, t=other.world.tenant.id)

    listed = {item["id"] for item in guarded.get("both", "/v1/requests").json()["items"]}

    assert {str(here.id), str(there.id)} <= listed
