"""Tenants over HTTP: who may see and change which tenants; all other tenants are not found."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from api.app import make_app
from catalogue.service_catalogue import Plan
from harness.people import SETTINGS
from lockbox.database import Database
from lockbox.sql import new_id
from tests.database.scenes import read
from tests.each import each
from tests.http.door import Door, OpenDoor, client, facts
from tests.http.places import somebody
from tests.mailbox import code_of
from tests.policy_setup import lay_down


def at(door: Door, tail: str = "", slug: str | None = None) -> str:
    return f"/v1/tenants/{slug or door.world.tenant.slug}{tail}"


def test_an_added_tenant_is_returned_with_its_location(fresh_door: Door) -> None:
    slug = f"fabrikam-{new_id().hex[-12:]}"
    body = {"slug": slug, "name": "Fabrikam", "admin": somebody()}

    answer = fresh_door.call("olga", "POST", "/v1/tenants", json=body)

    assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/tenants/{slug}")
    assert answer.json() == {
        "slug": slug,
        "name": "Fabrikam",
        "mode": "enforce",
        "effective_mode": "enforce",
        "consent_until": None,
        "plan": "standard",
        "suspended": False,
        "policy_version": None,
        "members": None,
        "open_windows": 0,
        "in_review": None,
        "longest_window": None,
        "stopped_since": None,
    }
    assert fresh_door.get("olga", at(fresh_door, slug=slug)).json() == answer.json()
    facts(fresh_door.call("olga", "POST", "/v1/tenants", json=body), 409, "slug-taken")


def test_no_answer_or_log_for_an_operator_contains_a_customers_invitation_code(
    fresh_door: Door, worker: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    slug = f"fabrikam-{new_id().hex[-12:]}"
    admin = somebody()
    capsys.readouterr()

    with capture_logs() as lines:
        answers = [
            fresh_door.call("olga", "POST", "/v1/tenants", json={"slug": slug, "name": "F", "admin": admin}),
            fresh_door.get("olga", at(fresh_door, slug=slug)),
            fresh_door.get("olga", "/v1/tenants", limit=200),
            fresh_door.call("olga", "POST", at(fresh_door, "/recovery", slug), json=somebody()),
        ]
        (first, second) = read(
            fresh_door.root,
            "SELECT i.id FROM invitations i JOIN tenants t ON t.id = i.tenant_id WHERE t.slug = :s ORDER BY i.id",
            s=slug,
        )
        code = code_of(worker, first.id)
        again = fresh_door.get("olga", at(fresh_door, "/invitations", slug))
    said = [*(f"{one.text} {one.headers}" for one in (*answers, again)), str(lines), *capsys.readouterr()]

    assert [answer.status_code for answer in answers] == [201, 200, 200, 201]
    facts(again, 403, "wrong-role")
    for secret in (code, code.replace("-", ""), admin["address"], str(first.id)):
        assert not [text for text in said if secret in text]
    assert answers[3].json()["id"] == str(second.id)


def test_only_an_engineer_sees_the_longest_window_that_a_tenant_permits(fresh_door: Door) -> None:
    lay_down(fresh_door.world, access_ceiling=1200)

    seen = {who: fresh_door.get(who, at(fresh_door)).json() for who in ("erin", "max", "olga", "vera", "ann")}

    assert {who: one["longest_window"] for who, one in seen.items()} == dict.fromkeys(seen) | {"erin": 1200}
    assert {name for name, value in seen["erin"].items() if value is not None} == {"slug", "name", "longest_window"}
    listed = {one["slug"]: one for one in fresh_door.get("erin", "/v1/tenants", limit=200).json()["items"]}
    assert listed[fresh_door.world.tenant.slug] == seen["erin"]


@pytest.mark.far
@each(
    ("field", "value"),
    [
        ("slug", ""),
        ("slug", "Fabrikam"),
        ("slug", "fabrikam-"),
        ("slug", "-fabrikam"),
        ("slug", "a" * 64),
        ("slug", None),
        ("name", ""),
        ("name", "a\nb"),
        ("name", "\u202eevil"),
        ("name", "a" * 201),
        ("plan", "Golden!"),
        ("plan", "golden"),
        ("admin", {"name": "Fay"}),
        ("admin", {"name": "Fay", "address": "fay"}),
        ("admin", {"name": "Fay", "address": "fay@"}),
        ("admin", {"name": "Fay", "address": "a b@c.example"}),
        ("admin", {"name": "Fay", "address": "fay@c.example\nBcc: x@y.example"}),
        ("admin", {"name": "Fay", "address": "<fay@c.example>"}),
        ("admin", {"name": "Fay", "address": "fay@c.example,x@y.example"}),
        ("admin", {"name": "Fay", "address": "fäy@c.example"}),
        ("admin", {"name": "Fay", "address": "a" * 320 + "@c.example"}),
        ("admin", {"name": "", "address": "fay@c.example"}),
        ("admin", {"name": "Fay", "address": "fay@c.example", "roles": ["approver"]}),
        ("mode", "off"),
        ("policy", {}),
    ],
)
def test_an_invalid_field_of_a_new_tenant_is_named_and_nothing_is_written(door: Door, field: str, value: Any) -> None:
    body = {"slug": f"new-{new_id().hex[-12:]}", "name": "New", "plan": "standard", "admin": somebody()}
    before = door.rows()

    answer = door.call("olga", "POST", "/v1/tenants", json=body | {field: value})

    said = answer.json()
    facts(answer, 422, said["code"])
    named = [said.get("field"), *(error["field"] for error in said.get("errors", []))]
    assert any(name and name.split(".")[0] == field for name in named)
    assert door.rows() == before


def test_the_vendor_lists_tenants_by_page_and_a_customer_sees_only_its_own_tenant(open_door: OpenDoor) -> None:
    door, *_ = (open_door() for _ in range(3))
    seen: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = door.get("vera", "/v1/tenants", limit=2, **cursor).json()
        seen += [item["slug"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}

    (row,) = read(door.root, "SELECT array_agg(slug) AS slugs FROM tenants")
    assert sorted(seen) == sorted(row.slugs)
    assert [one["slug"] for one in door.get("ann", "/v1/tenants").json()["items"]] == [door.world.tenant.slug]


def test_mode_plan_and_suspension_are_visible_to_members_operators_and_auditors(door: Door) -> None:
    shown = {who: door.get(who, at(door)).json() for who in ("erin", "max", "olga", "vera", "ann")}

    told = {who: [one[name] for name in ("name", "mode", "plan", "suspended")] for who, one in shown.items()}
    everything, name_alone = ["Contoso", "enforce", "standard", False], ["Contoso", None, None, None]
    assert told == {
        "erin": name_alone,
        "max": name_alone,
        "olga": everything,
        "vera": everything,
        "ann": everything,
    }
    assert {one["plan"] for one in door.get("erin", "/v1/tenants").json()["items"]} == {None}


@each("query", [{"cursor": "No Slug"}, {"limit": 0}, {"limit": 201}, {"limit": "x"}])
def test_an_invalid_query_for_tenants_is_refused(door: Door, query: dict[str, Any]) -> None:
    facts(door.get("olga", "/v1/tenants", **query), 422, "invalid-request")


@each("body", [{}, {"mode": "asleep"}, {"mode": None}, {"mode": "off", "closed": []}, []])
def test_an_invalid_tenant_mode_is_refused(door: Door, body: Any) -> None:
    facts(door.call("tara", "PUT", at(door, "/mode"), json=body), 422, "invalid-request")


def test_switching_to_mode_enforce_needs_an_entitled_plan_and_a_lapsed_plan_keeps_the_mode(
    open_door: OpenDoor,
) -> None:
    door = open_door()
    plans = {"standard": Plan(), "basic": Plan(lockbox=False)}
    catalogue = SETTINGS.catalogue.model_copy(update={"plans": plans})
    door.client = client(make_app(SETTINGS.model_copy(update={"catalogue": catalogue}), door.db))

    lapsed = door.call("olga", "PUT", at(door, "/plan"), json={"plan": "basic"})
    kept = door.get("tara", at(door)).json()["mode"]
    left = door.call("tara", "PUT", at(door, "/mode"), json={"mode": "observe"})
    refused = door.call("tara", "PUT", at(door, "/mode"), json={"mode": "enforce"})

    assert (lapsed.json()["plan"], kept, left.json()["mode"]) == ("basic", "enforce", "observe")
    facts(refused, 403, "licence-required")
    assert door.get("tara", at(door)).json()["mode"] == "observe"


def test_an_admin_who_stops_access_learns_only_how_many_requests_in_review_ended(fresh_door: Door) -> None:
    fresh_door.call("tara", "PUT", at(fresh_door, "/mode"), json={"mode": "observe"})
    in_review = fresh_door.pending()

    switched = fresh_door.call("tara", "PUT", at(fresh_door, "/mode"), json={"mode": "enforce"}).json()
    stopped = fresh_door.call("tara", "POST", at(fresh_door, "/emergency-stop")).json()

    assert switched == {"mode": "enforce", "closed": [], "in_review": 1}
    assert stopped == {"revoked": [], "denied": [], "denied_in_review": 1}
    facts(fresh_door.get("tara", f"/v1/requests/{in_review}"), 404, "not-found")
    assert fresh_door.get("max", f"/v1/requests/{in_review}").json()["state"] == "denied"


@each("name", ["", "  ", "a\nb", "\u202e", "a" * 201, 7, None])
def test_an_invalid_tenant_name_is_refused(door: Door, name: Any) -> None:
    facts(door.call("tara", "PUT", at(door, "/name"), json={"name": name}), 422, "invalid-request")


@each("slug", ["Contoso", "a b", "%00", "a" * 64, "'", "%F0%9F%94%90"])
def test_an_invalid_tenant_slug_is_refused(door: Door, slug: str) -> None:
    answer = door.get("olga", f"/v1/tenants/{slug}")

    facts(answer, 422, "invalid-request")
