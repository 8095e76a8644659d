"""An erased tenant over HTTP, on pages and in the CLI: 409 for what changes it, and its log goes on."""

from typing import Any

import pytest
from sqlalchemy import Engine

from tests.database.tenancy import is_erased_now
from tests.each import each
from tests.http.door import Door, OpenDoor, facts
from tests.http.places import PROBE, around
from tests.http.portal import OpenPortal

CHANGES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/suspend", None),
    ("POST", "/resume", None),
    ("PUT", "/plan", {"plan": "standard"}),
    ("POST", "/recovery", {"name": "Nina", "address": "nina@contoso.example"}),
    ("DELETE", "/recovery/01a22ea7-5b48-7c6c-97a1-000000000000", None),
    ("PUT", "/hold", {"reason": "A demand by law"}),
    ("DELETE", "/hold", None),
    ("POST", "/gate-probes", PROBE),
]


@pytest.fixture(scope="module")
def erased(open_door: OpenDoor, root: Engine) -> Door:
    door = open_door()
    is_erased_now(door.world, root)
    return door


@each(("method", "path", "body"), CHANGES)
def test_every_change_of_an_erased_tenant_is_refused_as_a_conflict(
    erased: Door, method: str, path: str, body: dict[str, Any] | None
) -> None:
    answer = erased.call("olga", method, f"/v1/tenants/{erased.world.tenant.slug}{path}", json=body)

    said = facts(answer, 409, "tenant-erased")
    assert "off-boarded and erased" in said["detail"]


def test_declaring_outside_access_or_submitting_for_an_erased_tenant_is_a_conflict(erased: Door) -> None:
    at = f"/v1/tenants/{erased.world.tenant.slug}/outside-access"

    facts(erased.call("olga", "POST", at, json=around(erased)), 409, "tenant-erased")
    facts(erased.file(), 409, "tenant-erased")


def test_the_log_of_an_erased_tenant_is_readable_and_no_list_contains_the_tenant(erased: Door) -> None:
    slug = erased.world.tenant.slug
    read = erased.get("vera", "/v1/audit", tenant=slug)

    assert read.status_code == 200, read.text
    assert erased.get("vera", "/v1/audit/checkpoint", tenant=slug).status_code in {200, 404}
    assert slug not in {one["slug"] for one in erased.get("olga", "/v1/tenants", limit=200).json()["items"]}


def test_the_data_page_of_an_erased_tenant_says_why_it_holds_no_data(open_portal: OpenPortal, root: Engine) -> None:
    portal = open_portal()
    is_erased_now(portal.world, root)
    browser = portal.by_passkey("olga")
    at = f"/data/{portal.world.tenant.slug}"

    answer = browser.submit(browser.get(at), f"{at}/hold", reason="A demand by law")

    assert answer.status == 409
    assert "off-boarded and erased" in answer.words
