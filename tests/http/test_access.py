"""The access check over HTTP: what a guarded system asks before it serves."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from lockbox.identity.roles import Role, Scope
from tests.each import each
from tests.http.door import Door, OpenDoor, facts


def refused(door: Door, who: str = "gate", **changes: str) -> None:
    facts(door.ask(who, **changes), 403, "no-open-window")


@pytest.fixture(scope="module")
def opened(open_door: OpenDoor) -> Door:
    door = open_door()
    door.active(resources=["mailbox:anna@contoso.example", "site:HR"], actions=["read", "export"])
    return door


def test_an_access_check_with_an_open_window_returns_the_request_and_the_windows_deadline(door: Door) -> None:
    request_id = door.active(access_window=600, resources=["site:one"])
    opened_at = datetime.fromisoformat(door.get("erin", f"/v1/requests/{request_id}").json()["opened_at"])

    answer = door.ask("gate", resource="site:one")

    assert answer.status_code == 200
    body = answer.json()
    about = {name: body.pop(name) for name in ("tenant", "service", "resource", "action", "engineer")}
    assert about == {
        "tenant": door.world.tenant.slug,
        "service": "exchange-online",
        "resource": "site:one",
        "action": "read",
        "engineer": str(door.world.people["erin"].person_id),
    }
    assert body.keys() == {"open", "request_id", "deadline_at", "uses_left", "break_glass"}
    assert (body["open"], body["request_id"]) == (True, request_id)
    assert datetime.fromisoformat(body["deadline_at"]) == opened_at + timedelta(seconds=600)
    assert answer.headers["cache-control"] == "no-store"


def test_an_engineer_may_check_access_of_their_own_windows(opened: Door) -> None:
    assert opened.ask("erin").status_code == 200
    refused(opened, "eve", engineer="eve")


def test_the_window_of_one_engineer_does_not_cover_another_engineer(opened: Door) -> None:
    refused(opened, engineer="eve")
    refused(opened, engineer="max")


def test_a_system_without_the_access_check_scope_or_the_service_may_not_check_access(opened: Door) -> None:
    opened.world.add("filer", Role.SYSTEM, scopes={Scope.REQUESTS_FILE}, services={"exchange-online"})
    opened.world.add("drive", Role.SYSTEM, scopes={Scope.ACCESS_CHECK}, services={"onedrive"})
    opened.world.add("bare", Role.SYSTEM, scopes={Scope.ACCESS_CHECK})

    for who in ("filer", "drive", "bare"):
        lacks = "needs the scope access:check" if who == "filer" else "is not bound to the service exchange-online"
        assert f"{lacks}: create a token" in facts(opened.ask(who), 403, "wrong-role")["detail"]
    refused(opened, "drive", service="onedrive")


@each(
    "change",
    [
        {"resource": "mailbox:bob@contoso.example"},
        {"resource": "mailbox:Anna@contoso.example"},
        {"resource": "mailbox:anna@contoso.example.evil"},
        {"resource": "mailbox:anna@contoso.exampl"},
        {"resource": "site:hr"},
        {"resource": "site:HR/"},
        {"resource": "mailbox:ann\u0430@contoso.example"},
        {"action": "change"},
        {"action": "rea"},
        {"service": "onedrive"},
        {"tenant": "no-such-tenant"},
    ],
)
def test_an_access_check_compares_names_exactly(opened: Door, change: dict[str, str]) -> None:
    assert opened.ask("gate", resource="site:HR", action="export").status_code == 200

    refused(opened, **change)


@each("change", [{"resource": "mailbox:*"}, {"resource": "*"}, {"action": "*"}, {"tenant": "%"}])
def test_an_access_check_with_a_wildcard_is_refused_as_invalid(opened: Door, change: dict[str, str]) -> None:
    facts(opened.ask("gate", **change), 422, "invalid-request")


def test_a_window_at_one_tenant_does_not_cover_another_tenant(opened: Door, open_door: OpenDoor) -> None:
    refused(opened, tenant=open_door().world.tenant.slug)


@each("ending", [("erin", "complete"), ("ann", "revoke"), ("tara", "revoke"), ("max", "revoke")])
def test_access_through_an_ended_window_is_refused_at_once(door: Door, ending: tuple[str, str]) -> None:
    request_id = door.active(resources=["site:ended"])
    assert door.ask("gate", resource="site:ended").status_code == 200

    door.act(*ending, request_id)

    refused(door, resource="site:ended")


def test_an_unapproved_request_opens_no_window(door: Door) -> None:
    door.pending(resources=["site:waiting"])

    refused(door, resource="site:waiting")


def test_a_window_closes_at_its_deadline_without_a_running_worker(door: Door) -> None:
    request_id = door.active(access_window=600, resources=["site:timed"])

    assert door.later(seconds=540).ask("gate", resource="site:timed").status_code == 200
    refused(door.later(seconds=600), resource="site:timed")
    view = door.later(seconds=600).get("erin", f"/v1/requests/{request_id}").json()
    assert (view["state"], view["open"]) == ("active", False)


def test_access_is_allowed_until_the_last_microsecond_before_the_deadline(door: Door) -> None:
    door.active(access_window=60, resources=["site:edge"])
    due = datetime.fromisoformat(door.ask("gate", resource="site:edge").json()["deadline_at"])

    assert door.at(due - timedelta(microseconds=1)).ask("gate", resource="site:edge").status_code == 200
    refused(door.at(due), resource="site:edge")


def test_the_resource_of_one_window_and_the_action_of_another_do_not_combine(fresh_door: Door) -> None:
    fresh_door.active(resources=["site:a"], actions=["read"])
    fresh_door.active(resources=["site:b"], actions=["export"])

    assert fresh_door.ask("gate", resource="site:a", action="read").status_code == 200
    refused(fresh_door, resource="site:a", action="export")


@each("missing", ["tenant", "service", "resource", "action", "engineer"])
def test_every_parameter_of_an_access_check_is_required(door: Door, missing: str) -> None:
    question = {"tenant": "a", "service": "b", "resource": "site:c", "action": "read", "engineer": str(UUID(int=1))}
    del question[missing]

    body = facts(door.get("gate", "/v1/access", **question), 422, "invalid-request")

    assert [error["field"] for error in body["errors"]] == [missing]


@each("part", ["tenant", "service", "resource", "action", "engineer"])
@each("value", ["\x00", "a\x00b", "", "🔐", "a" * 300, "\udcff".encode("utf-8", "surrogatepass")])
def test_an_invalid_access_check_is_refused(door: Door, part: str, value: str) -> None:
    question = {"tenant": "a", "service": "b", "resource": "site:c", "action": "read", "engineer": str(UUID(int=1))}

    answer = door.get("gate", "/v1/access", **(question | {part: value}))

    facts(answer, 422, "invalid-request")
