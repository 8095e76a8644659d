"""A tenant's data over HTTP and on its page: retention, legal holds, and off-boarding."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.http.door import Door, OpenDoor, facts
from tests.http.portal import Portal

LIST = "/v1/vendor/data"


def pages(door: Door, who: str) -> Iterator[dict[str, Any]]:
    """Yield the tenants of the list, which is read in pages of one."""
    cursor: dict[str, str] = {}
    while True:
        page = door.get(who, LIST, limit=1, **cursor).json()
        yield from page["items"]
        if page["next_cursor"] is None:
            return
        cursor = {"cursor": page["next_cursor"]}


def test_operators_and_auditors_list_tenants_with_holds_retention_or_off_boarding(open_door: OpenDoor) -> None:
    door, other, plain = open_door(), open_door(), open_door()
    slug, at = door.world.tenant.slug, f"/v1/tenants/{door.world.tenant.slug}"
    other.call("tara", "PUT", f"/v1/tenants/{other.world.tenant.slug}/retention", json={"days": 60})
    door.call("tara", "PUT", f"{at}/off-boarding")
    door.call("olga", "PUT", f"{at}/hold", json={"reason": "A demand by law"})
    door.call("tara", "PUT", f"{at}/hold", json={"reason": "Dispute 4711"})

    found = {page["tenant"]: page for page in pages(door, "olga")}
    one, kept = found[slug], found[other.world.tenant.slug]

    assert list(found) == sorted(found)
    assert found == {page["tenant"]: page for page in pages(door, "vera")}
    assert plain.world.tenant.slug not in found
    assert (one["held_by"], one["retention_days"]) == (["vendor", "customer"], None)
    assert (one["offboarding_asked_at"] is None, one["offboarding_closed_at"]) == (False, None)
    assert (kept["held_by"], kept["retention_days"], kept["offboarding_asked_at"]) == ([], 60, None)


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 201}, {"cursor": "No slug"}, {"held": "true"}])
def test_an_impossible_page_number_of_tenant_data_is_refused(door: Door, query: dict[str, object]) -> None:
    facts(door.get("olga", LIST, **query), 422, "invalid-request")


@pytest.mark.parametrize(
    ("place", "body"),
    [
        ("retention", {"days": 29}),
        ("retention", {"days": 36_501}),
        ("retention", {"days": "90"}),
        ("retention", {"days": 90.5}),
        ("retention", {}),
        ("hold", {"reason": " "}),
        ("hold", {"reason": "x" * 2001}),
        ("hold", {}),
    ],
)
def test_invalid_input_about_tenant_data_is_refused(door: Door, place: str, body: dict[str, object]) -> None:
    answer = door.call("tara", "PUT", f"/v1/tenants/{door.world.tenant.slug}/{place}", json=body)

    facts(answer, 422, "invalid-request")


@pytest.mark.far
def test_the_data_page_sets_retention_legal_hold_and_off_boarding(portal: Portal) -> None:
    here, admin = f"/tenants/{portal.world.tenant.slug}/data", portal.by_passkey("tara")
    page = admin.get(here)
    assert "kept indefinitely (vendor default)" in page.words

    short = admin.submit(page, f"{here}/retention", days="7")
    admin.submit(admin.get(here), f"{here}/retention", days="60")
    admin.submit(admin.get(here), f"{here}/hold", reason="Dispute 4711")
    held = admin.get(here)
    admin.submit(held, f"{here}/release")
    wrong = admin.submit(admin.get(here), f"{here}/off-board", typed="northwind")
    admin.submit(admin.get(here), f"{here}/off-board", typed=portal.world.tenant.slug)
    leaving = admin.get(here)
    approver = portal.by_passkey("ann").get(here)
    admin.submit(leaving, f"{here}/stay")
    stays = admin.get(here)

    assert "Keep the log for 30 to 36500 days." in short.words
    assert "kept for 60 days" in held.words
    assert "yours" in held.words
    assert "Dispute 4711" in held.words
    assert "Type the short name" in wrong.words
    assert "Off-boarding was requested on" in leaving.words
    assert "by Tara. The vendor will export all data of this organisation, and then erase it." in leaving.words
    assert "Withdraw off-boarding" not in approver.words
    assert "Off-boarding was requested" not in stays.words


@pytest.mark.parametrize("days", ["x", "-1", "1.5", "٣٠"])
def test_an_invalid_number_on_the_data_page_is_refused(portal: Portal, days: str) -> None:
    here, admin = f"/tenants/{portal.world.tenant.slug}/data", portal.by_passkey("tara")

    assert (
        "Write a whole number of days, or nothing."
        in admin.submit(admin.get(here), f"{here}/retention", days=days).words
    )


@pytest.mark.far
def test_an_operator_sets_a_hold_on_a_page_and_each_side_reads_only_its_own_reason(portal: Portal) -> None:
    slug = portal.world.tenant.slug
    here, theirs = f"/data/{slug}", f"/tenants/{slug}/data"
    operator, admin, auditor = (portal.by_passkey(name) for name in ("olga", "tara", "vera"))
    admin.submit(admin.get(theirs), f"{theirs}/retention", days="60")

    page = operator.get(f"/data?tenant={slug.upper()}")
    empty = operator.submit(page, f"{here}/hold", reason=" ")
    operator.submit(empty, f"{here}/hold", reason="Dispute 4711")
    held, shown = operator.get(here), admin.get(theirs)
    listed = auditor.get("/data")
    operator.submit(held, f"{here}/release")

    assert page.path == here
    assert "kept for 60 days (set by an admin of the customer)" in page.words
    assert (empty.status, "Reason: " in empty.words) == (422, True)
    assert "the vendor's , since" in held.words
    assert "by Olga: Dispute 4711" in held.words
    assert "the vendor's , since" in shown.words
    assert "Dispute 4711" not in shown.words + listed.words
    assert f"{slug} legal hold of the vendor log kept for 60 days" in listed.words
    assert not [form for form in auditor.get(here).read.forms if form.action.startswith("/data/")]
    assert "none" in operator.get(here).words


@pytest.mark.parametrize("typed", ["nobody", "%00", "../x", "x" * 64])
def test_the_data_page_says_if_an_operator_typed_an_unknown_tenant(portal: Portal, typed: str) -> None:
    page = portal.by_passkey("olga").get(f"/data?tenant={typed}")

    assert (page.status, "There is no such tenant." in page.words) == (404, True)
