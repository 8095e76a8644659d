"""An erased tenant over HTTP, on pages and in the CLI: changes get 409, and its log continues."""

import json
from collections import defaultdict
from uuid import UUID

import pytest
from sqlalchemy import Engine

from api import document
from lockbox.audit.verifier.verify import GOOD, verify
from lockbox.database import Database
from tests.database.tenancy import is_erased_now
from tests.each import each
from tests.http.door import Door, OpenDoor, facts
from tests.http.places import RouteExample, place_of
from tests.http.portal import OpenPortal
from tests.http.test_tenant_data import pages
from tests.logs import public, sealed

AT_TENANT = "/v1/tenants/{slug}/"
CHANGES_NOTHING = {"POST /v1/tenants/{slug}/preview"}
CHANGES = sorted(
    f"{method.upper()} {path}"
    for path, methods in json.loads(document.FILE.read_text(encoding="utf-8"))["paths"].items()
    for method in methods
    if path.startswith(AT_TENANT) and method != "get"
)


@pytest.fixture(scope="module")
def erased(open_door: OpenDoor, root: Engine, worker: Database) -> Door:
    door = open_door()
    door.pending()
    sealed(worker)
    is_erased_now(door.world, root)
    return door


@pytest.fixture(scope="module")
def living(open_door: OpenDoor) -> Door:
    """Another tenant, whose rows the calls name: an erased tenant refuses a call before it looks up a row."""
    return open_door()


@each("route", [route for route in CHANGES if route not in CHANGES_NOTHING])
def test_every_change_of_an_erased_tenant_is_refused_as_a_conflict(erased: Door, living: Door, route: str) -> None:
    method, path = route.split()
    example = RouteExample() if method == "DELETE" else place_of(living, route)
    ids = defaultdict(lambda: UUID(int=1), example.ids, slug=erased.world.tenant.slug)
    before = erased.rows()

    answer = erased.call("olga", method, path.format_map(ids), json=example.body, headers=example.headers)

    said = facts(answer, 409, "tenant-erased")
    assert "off-boarded and erased" in said["detail"]
    assert erased.rows() == before
    assert set(CHANGES) > CHANGES_NOTHING


def test_submitting_for_an_erased_tenant_is_a_conflict(erased: Door) -> None:
    facts(erased.file(), 409, "tenant-erased")


def test_the_log_of_an_erased_tenant_can_be_read_exported_and_verified(erased: Door) -> None:
    slug = erased.world.tenant.slug
    read = erased.get("vera", "/v1/audit", tenant=slug)
    checkpoint = erased.get("vera", "/v1/audit/checkpoint", tenant=slug)
    export = erased.get("vera", "/v1/audit/export", tenant=slug)

    assert (read.status_code, checkpoint.status_code, export.status_code) == (200, 200, 200)
    result = verify(export.content.splitlines(keepends=True), [public()])
    assert (result.exit_code, result.events) == (GOOD, checkpoint.json()["size"])


def test_no_list_of_the_vendor_contains_an_erased_tenant(erased: Door, living: Door) -> None:
    here = living.world.tenant.slug
    assert living.call("tara", "PUT", f"/v1/tenants/{here}/retention", json={"days": 60}).is_success

    tenants = [one["slug"] for one in erased.get("olga", "/v1/tenants", limit=200).json()["items"]]
    acknowledged = erased.get("olga", "/v1/exclusions/acknowledgements", limit=200).json()["items"]

    for slugs in (
        tenants,
        [one["tenant"] for one in acknowledged],
        [page["tenant"] for page in pages(erased, "olga")],
    ):
        assert here in slugs
        assert erased.world.tenant.slug not in slugs


def test_the_data_page_of_an_erased_tenant_says_why_it_holds_no_data(open_portal: OpenPortal, root: Engine) -> None:
    portal = open_portal()
    is_erased_now(portal.world, root)
    browser = portal.by_passkey("olga")
    at = f"/data/{portal.world.tenant.slug}"

    answer = browser.submit(browser.get(at), f"{at}/hold", reason="A demand by law")

    assert answer.status == 409
    assert "off-boarded and erased" in answer.words
