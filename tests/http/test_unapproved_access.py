"""What can open without the customer's approval: the page, the API and the mode's page say so, truthfully."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, event

from gate import enforcement
from gate.memory_reader import GATE
from harness.people import World
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from lockbox.identity import authentication
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_parts import OverdueFinding
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import write_unchecked
from tests.database.test_pre_approvals import in_force
from tests.http.door import Door, OpenDoor, facts
from tests.http.portal import OpenPortal, Portal
from tests.policy_setup import lay_down, set_mode, stand_in

SERVICE = "exchange-online"
GLASS = Policy(vendor_review=False, break_glass_services=(SERVICE,), break_glass_ceiling=900)
ASK: dict[str, Any] = {"break_glass": True, "access_window": 900}
WITHOUT_GATES = "WITH gone AS (DELETE FROM enforcement_switches) DELETE FROM enforcements"
NOBODY = "Nobody from the vendor gets access without your approval."
FROM_NOW_ON = "From now on no one gets access without your approval."


def place(world: World) -> str:
    return f"/tenants/{world.tenant.slug}/unapproved-access"


def said(door: Door, who: str = "aude") -> dict[str, Any]:
    answer = door.get(who, f"/v1{place(door.world)}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def opened(found: dict[str, Any]) -> dict[str, tuple[int, str | None]]:
    return {one["way"]: (one["count"], one["newest"]) for one in found["opened"] if one["count"]}


@pytest.fixture(autouse=True)
def _no_gate_reports(root: Engine) -> Iterator[None]:
    """Begin and end without gates: the mode of a gate concerns the tenants of all tests."""
    write_unchecked(root, WITHOUT_GATES)
    yield
    write_unchecked(root, WITHOUT_GATES)


def reports(db: Database) -> None:
    """Let the gate of a service only report, as one that has never enforced may."""
    with db.transaction() as session:
        authentication.enter(session, GATE)
        enforcement.record(session, {"mail": enforcement.REPORT})


def breaks_glass(world: World) -> str:
    request = world.submit(**ASK)
    return str(world.act("max", Action.BREAK_GLASS, request.id, comment="Mail is down").id)


def test_the_api_says_if_no_unapproved_access_is_allowed(open_door: OpenDoor) -> None:
    door = open_door()

    found = said(door)

    assert (found["ways"], found["mode"], found["policy_verified"]) == ([], "enforce", True)
    assert (found["consent"], found["gates"], found["pre_approvals"], found["break_glass"]) == (None, [], [], None)
    assert opened(found) == {}
    assert {one["way"] for one in found["opened"]} >= {"mode", "break_glass", "delegate"}
    facts(door.get("erin", f"/v1{place(door.world)}"), 403, "wrong-role")


def test_the_api_lists_who_may_open_unapproved_access_how_often_and_what_was_opened(open_door: OpenDoor) -> None:
    door = open_door()
    world = door.world
    lay_down(world, break_glass_services=(SERVICE,), break_glass_ceiling=900, break_glass_people=None)
    stand_in(world, "aude", "ann")
    covered = in_force(world)
    by_glass = breaks_glass(world)
    by_pre_approval = str(world.submit(access_window=900).id)
    by_delegate = str(world.submit(resources=["mailbox:bob@elsewhere.example"]).id)
    door.act("aude", "approve", by_delegate)
    reports(door.db)

    found = said(door, "tara")

    assert found["ways"] == ["break_glass", "gate_report", "pre_approval"]
    glass, (one,), (delegation,) = found["break_glass"], found["pre_approvals"], found["delegations"]
    assert (glass["services"], glass["people"], glass["access_window"]) == ([SERVICE], None, 900)
    assert (glass["monthly"], glass["lately"], glass["overdue"], glass["stopped_since"]) == (2, 1, False, None)
    assert (one["id"], one["status"], one["used"]) == (str(covered), "in_force", 1)
    assert (delegation["delegate"]["name"], delegation["principal"]["name"], delegation["counts"]) == (
        *("Aude", "Ann", True),
    )
    assert [gate["service"] for gate in found["gates"]] == ["mail"]
    assert opened(found) == {
        "break_glass": (1, by_glass),
        "pre_approval": (1, by_pre_approval),
        "delegate": (1, by_delegate),
    }


def test_the_api_lists_people_named_for_break_glass_unless_only_one_person_is_named(open_door: OpenDoor) -> None:
    door = open_door()
    both = [str(door.world.people[who].person_id) for who in ("erin", "max")]
    lay_down(door.world, break_glass_services=(SERVICE,), break_glass_people=both)
    named = said(door)["break_glass"]["people"]
    lay_down(door.world, break_glass_services=(SERVICE,), break_glass_people=both[:1])

    assert {one["name"] for one in named} == {"Erin", "Max"}
    assert (said(door)["break_glass"], said(door)["ways"]) == (None, [])


def test_windows_opened_by_consent_and_windows_opened_by_mode_are_counted_separately(open_door: OpenDoor) -> None:
    door = open_door()
    until = datetime.now(UTC) + timedelta(hours=1)
    lay_down(door.world, consent={"mode": "observe", "until": until})
    by_consent = door.world.submit()
    door.world.act("max", Action.ENDORSE, by_consent.id)
    consented = said(door)
    lay_down(door.world)
    set_mode(door.world, Mode.OFF)
    by_mode = door.world.submit(resources=["mailbox:bob@contoso.example"])
    door.world.act("max", Action.ENDORSE, by_mode.id)

    found = said(door)

    assert (consented["ways"], consented["mode"]) == (["consent"], "observe")
    assert datetime.fromisoformat(consented["consent"]["until"]) == until
    assert (found["ways"], found["mode"], found["consent"]) == (["mode"], "off", None)
    assert opened(found) == {"consent": (1, str(by_consent.id)), "mode": (1, str(by_mode.id))}


@pytest.mark.parametrize("who", ["tara", "ann", "aude"])
def test_if_unapproved_access_is_impossible_pages_promise_that_no_one_gets_in_without_approval(
    open_portal: OpenPortal, who: str
) -> None:
    portal = open_portal()
    browser, root = portal.by_passkey(who), f"/tenants/{portal.world.tenant.slug}"

    mode, page, overview = browser.get(f"{root}/mode"), browser.get(place(portal.world)), browser.get(root)

    assert NOBODY in mode.words
    assert NOBODY in page.words
    assert "can open" not in page.words.split("Last 90 days", 1)[1]
    assert all(place(portal.world) in one.read.links for one in (mode, overview))
    assert "nothing can open" in overview.words


ALLOWED: dict[str, tuple[Callable[[Portal], object], str]] = {
    "break-glass": (lambda portal: lay_down(portal.world, break_glass_services=(SERVICE,)), "break-glass"),
    "a pre-approval": (lambda portal: in_force(portal.world), "pre-approvals"),
    "consent": (
        lambda portal: lay_down(
            portal.world, consent={"mode": "observe", "until": datetime.now(UTC) + timedelta(hours=1)}
        ),
        "your consent for a time",
    ),
    "the mode": (lambda portal: set_mode(portal.world, Mode.OBSERVE), "the mode"),
    "a gate that reports": (lambda portal: reports(portal.db), "gates that only report"),
}


@pytest.mark.parametrize(("allow", "words"), ALLOWED.values(), ids=ALLOWED)
def test_pages_name_each_way_to_unapproved_access_and_do_not_promise_that_all_access_needs_approval(
    open_portal: OpenPortal, allow: Callable[[Portal], object], words: str
) -> None:
    portal = open_portal(Policy(vendor_review=False))
    allow(portal)
    admin, root = portal.by_passkey("tara"), f"/tenants/{portal.world.tenant.slug}"

    mode, page, overview = admin.get(f"{root}/mode"), admin.get(place(portal.world)), admin.get(root)

    for one in (mode, page, overview):
        assert NOBODY not in one.words
        assert FROM_NOW_ON not in one.words
    assert f"Without your approval, access can open by {words} (" in mode.words
    assert f"can open by {words} (" in overview.words
    assert all(place(portal.world) in one.read.links for one in (mode, overview))
    assert page.text.count("can open</span>") == 1


def test_the_preview_of_mode_enforce_mentions_break_glass_if_the_policy_permits_it(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=False))
    set_mode(portal.world, Mode.OBSERVE)
    admin, here = portal.by_passkey("tara"), f"/tenants/{portal.world.tenant.slug}/mode"
    without = admin.submit(admin.get(here), here, mode="enforce")
    lay_down(portal.world, break_glass_services=(SERVICE,))

    preview = admin.submit(admin.get(here), here, mode="enforce")

    assert FROM_NOW_ON in without.words
    assert FROM_NOW_ON not in preview.words
    assert "From now on access needs your approval, but for break-glass (" in preview.words
    assert place(portal.world) in preview.read.links


def test_pages_mention_an_unapproved_window_that_is_still_open(
    open_portal: OpenPortal,
) -> None:
    portal = open_portal(GLASS)
    breaks_glass(portal.world)
    lay_down(portal.world)
    admin, root = portal.by_passkey("tara"), f"/tenants/{portal.world.tenant.slug}"

    mode, page = admin.get(f"{root}/mode"), admin.get(place(portal.world))
    set_mode(portal.world, Mode.OBSERVE)
    preview = admin.submit(admin.get(f"{root}/mode"), f"{root}/mode", mode="enforce")
    admin.submit(admin.get(f"{root}/emergency-stop"), f"{root}/emergency-stop")
    set_mode(portal.world, Mode.ENFORCE)
    stopped = admin.get(place(portal.world))

    for one in (mode, page):
        assert NOBODY not in one.words
        assert "1 window that was opened without it is still open" in one.words
    assert FROM_NOW_ON not in preview.words
    assert "1 window that was opened without it stays open until its end, or until you revoke it" in preview.words
    assert NOBODY in stopped.words


def test_the_unapproved_access_page_shows_the_newest_window_and_whether_break_glass_is_barred(
    open_portal: OpenPortal,
) -> None:
    portal = open_portal(GLASS)
    newest = breaks_glass(portal.world)
    admin, root = portal.by_passkey("tara"), f"/tenants/{portal.world.tenant.slug}"

    page = admin.get(place(portal.world))
    admin.submit(admin.get(f"{root}/emergency-stop"), f"{root}/emergency-stop")
    stopped, again = admin.get(place(portal.world)), admin.get(f"{root}/emergency-stop")

    assert "1 window opened; the newest" in page.words
    assert f"/requests/{newest}" in page.read.links
    assert "any engineer together with any manager of the vendor" in page.words
    assert "at most 15 min each" in page.words
    assert "at most 2 within 30 days; 1 so far" in page.words
    assert "Emergency stop bars it since" in stopped.words
    assert ("barred for now" in page.words, "barred for now" in stopped.words) == (False, True)
    assert "End it on the overview" in again.words


@pytest.mark.parametrize(
    ("term", "before", "after"),
    [
        (
            OverdueFinding.BLOCK,
            "none is overdue; an overdue one bars break-glass",
            "one of yours is overdue: there is no break-glass before you give it",
        ),
        (
            OverdueFinding.ALLOW_AND_ALARM,
            "none is overdue; an overdue one bars nothing, and raises an alarm",
            "one of yours is overdue: break-glass goes on, with an alarm",
        ),
    ],
)
def test_the_unapproved_access_page_says_what_an_overdue_finding_does(
    open_portal: OpenPortal, term: OverdueFinding, before: str, after: str
) -> None:
    portal = open_portal(GLASS.model_copy(update={"overdue_finding": term}))
    portal.world.act("ann", Action.REVOKE, UUID(breaks_glass(portal.world)))

    page = portal.by_passkey("ann").get(place(portal.world))
    portal.wait(hours=25)
    later = portal.by_passkey("ann").get(place(portal.world))

    assert (before in page.words, after in page.words) == (True, False)
    assert (before in later.words, after in later.words) == (False, True)


def test_opening_a_denied_break_glass_request_is_not_offered(open_portal: OpenPortal) -> None:
    portal = open_portal(GLASS)
    request = portal.world.submit(**ASK)
    admin, root = portal.by_passkey("tara"), f"/tenants/{portal.world.tenant.slug}"

    engineer = portal.by_passkey("erin")
    waiting = engineer.get(f"/requests/{request.id}")
    admin.submit(admin.get(f"{root}/emergency-stop"), f"{root}/emergency-stop")
    denied = engineer.get(f"/requests/{request.id}")

    offered = "can open this access without the customer"
    assert (offered in waiting.words, offered in denied.words) == (True, False)
    assert "It was asked for as an emergency, and was never opened." in denied.words


def test_the_unapproved_access_page_takes_few_sql_statements_for_any_number_of_windows(open_door: OpenDoor) -> None:
    door = open_door()
    in_force(door.world)
    stand_in(door.world, "aude", "ann")
    said(door)
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    event.listen(door.db.engine, "before_cursor_execute", note)
    try:
        said(door)
    finally:
        event.remove(door.db.engine, "before_cursor_execute", note)

    assert len(asked) <= 14, asked
