"""Fields that depend on each other: the API accepts and refuses what the OpenAPI document says."""

import json
from typing import Any

import jsonschema_rs
import pytest

from api import document
from lockbox.identity.roles import Role
from tests.database.tenancy import id_of
from tests.each import each
from tests.http.door import Door, OpenDoor
from tests.http.places import pre_approval

DOCUMENT: dict[str, Any] = json.loads(document.FILE.read_text(encoding="utf-8"))
PAGE = "https://helpdesk.vendor.example/cases/CASE-7"
SERVICE = "exchange-online"
SLUG = "{slug}"


@pytest.fixture(scope="module")
def shared(open_door: OpenDoor) -> Door:
    door = open_door()
    door.world.add("machine", Role.SYSTEM)
    return door


def is_said_to_be_taken(schema: str, body: dict[str, Any]) -> bool:
    whole = {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True).is_valid(body)


@each(
    ("changes", "is_taken"),
    [
        ({"case_system": "helpdesk"}, True),
        ({"case_system": "helpdesk", "case_url": PAGE}, True),
        ({"case_ref": None, "case_system": None, "case_url": None}, True),
        ({"case_ref": None, "case_system": "helpdesk"}, False),
        ({"case_url": PAGE}, True),
        ({"case_ref": None, "case_url": PAGE}, False),
        ({"case_ref": None, "case_system": "helpdesk", "case_url": PAGE}, False),
    ],
)
def test_a_request_can_name_a_case_system_or_case_page_only_with_a_case_number(
    shared: Door, changes: dict[str, Any], *, is_taken: bool
) -> None:
    body = shared.world.body(**changes)

    answer = shared.call("erin", "POST", "/v1/requests/preview", json=body)

    assert (is_said_to_be_taken("NewRequest", body), answer.status_code) == (is_taken, 200 if is_taken else 422)


@each(
    ("bounds", "is_taken"),
    [
        ({}, True),
        ({"scopes": ["access:check"], "services": [SERVICE, SERVICE]}, True),
        ({"scopes": ["case:close", "requests:file"], "tenants": [SLUG]}, True),
        ({"scopes": ["case:close"]}, False),
        ({"scopes": ["case:close"], "tenants": []}, False),
        ({"scopes": ["access:check"], "tenants": [SLUG]}, False),
        ({"tenants": [SLUG]}, False),
        ({"scopes": ["gate:nginx", "gate:nginx"], "services": [SERVICE]}, True),
        ({"scopes": ["gate:nginx"]}, False),
        ({"scopes": ["gate:nginx", "access:check"], "services": [SERVICE]}, False),
        ({"scopes": ["gate:nginx", "gate:guard"], "services": [SERVICE]}, False),
    ],
)
def test_the_services_and_tenants_of_a_token_must_match_the_tokens_scopes(
    shared: Door, bounds: dict[str, Any], *, is_taken: bool
) -> None:
    slug = shared.world.tenant.slug
    body = {"name": "Machine"} | {name: [one.format(slug=slug) for one in some] for name, some in bounds.items()}

    answer = shared.call("machine", "POST", "/v1/tokens", json=body)

    assert (is_said_to_be_taken("NewToken", body), answer.status_code) == (is_taken, 201 if is_taken else 422)


@each(
    ("body", "is_taken"),
    [
        ({"roles": ["manager", "engineer"], "review_tier": 2}, True),
        ({"roles": ["engineer"], "review_tier": None}, True),
        ({"roles": ["engineer"], "review_tier": 2}, False),
    ],
)
def test_only_people_with_the_manager_role_can_be_given_a_review_tier(
    shared: Door, body: dict[str, Any], *, is_taken: bool
) -> None:
    address = f"/v1/vendor/members/{id_of(shared.world, 'mia')}"

    answer = shared.call("olga", "PUT", address, json=body, headers={"if-match": "*"})

    assert (is_said_to_be_taken("ColleagueChange", body), answer.status_code) == (is_taken, 200 if is_taken else 422)


@each(
    ("resource", "is_taken"),
    [("mailbox:**anna", True), ("mailbox:a*", True), ("mailbox:*", False), ("mailbox:**", False)],
)
def test_a_pre_approvals_resource_pattern_must_contain_part_of_the_resource_id(
    shared: Door, resource: str, *, is_taken: bool
) -> None:
    body = pre_approval() | {"resource": resource}

    answer = shared.call("tara", "POST", f"/v1/tenants/{shared.world.tenant.slug}/pre-approvals", json=body)

    assert (is_said_to_be_taken("NewPreApproval", body), answer.status_code) == (is_taken, 201 if is_taken else 422)
