"""Long words without spaces and texts of thousands of lines: no page grows wider, and nothing is hidden."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import ViewportSize, expect

from config.setting_fields import DEVELOPMENT_KEY
from harness.people import HERE, SETTINGS, World
from lockbox.admin import delegates, members, observers, policies, webhooks
from lockbox.admin.delegates import DelegationInput as WantedDelegate
from lockbox.admin.observers import ObserverInput as WantedObserver
from lockbox.admin.webhooks import WebhookInput as WantedEndpoint
from lockbox.admin.webhooks import WebhookUrlPolicy
from lockbox.database import now
from lockbox.notifications.endpoints import SecretVault
from lockbox.requests import questions
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.tenancy import does, invites
from tests.whole import people
from tests.whole.conftest import RunningStack, short
from tests.whole.people import PHONE, BrowserDesk, desk_of, overflow, violations

pytestmark = [
    pytest.mark.far,
    pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING),
    pytest.mark.timeout(240),
]

LAPTOP = ViewportSize(width=1280, height=800)
LARGER = ViewportSize(width=390, height=844)
BETWEEN = ViewportSize(width=620, height=800)
WORD, LOWER = "W" * 100, "w" * 63
LINES = "A\n" * 1990
REACH = WebhookUrlPolicy(SecretVault([DEVELOPMENT_KEY.get_secret_value()]), allow_http=True)
RENAMED = """
WITH named AS (UPDATE people SET name = :word || left(name, 1) WHERE id = ANY(:ids) RETURNING 1)
UPDATE tenants SET name = :word WHERE id = :tenant RETURNING (SELECT count(*) FROM named)
"""
PAGES = {
    "erin": ("/ask", "/ask?from={request}", "/mine", "/account", "/device", "/requests/{request}", "/nope"),
    "max": ("/review", "/open", "/requests", "/requests/{reviewed}"),
    "ann": (
        *("/waiting", "/open", "/requests", "/requests/{request}", "/requests/{denied}"),
        *("/requests/{request}/questions", "/tenants", "/proposals", "/account"),
    ),
    "tara": (
        "/tenants/{slug}",
        *(
            f"/tenants/{{slug}}/{page}"
            for page in ("policy", "tiers", "members", "delegates", "endpoints", "endpoints/{endpoint}", "observers")
        ),
        *(f"/tenants/{{slug}}/{page}" for page in ("mode", "unapproved-access", "gates", "emergency-stop")),
    ),
    "aude": ("/audit-log", "/audit-log/checkpoint", "/audit-log/verify"),
    "olga": ("/operations", "/tenants/nope"),
}


BROKEN = """
[...document.querySelectorAll('summary')]
    .filter(one => getComputedStyle(one).wordBreak !== 'normal').map(one => one.innerText)
"""


@pytest.fixture(scope="module")
def desk(stage: RunningStack) -> Iterator[BrowserDesk]:
    with desk_of(stage) as found:
        yield found


@pytest.fixture(scope="module")
def hostile(stage: RunningStack) -> tuple[World, dict[str, str]]:
    """A world in which every name that people can choose is one long word."""
    world = stage.world(approval_window=3600, review_window=3600)
    said: dict[str, Any] = {
        "justification": WORD * 20,
        "case_ref": WORD,
        "resources": [f"mailbox:{LOWER * 3}@contoso.example"],
    }
    request, denied, opened = (world.submit(**said, access_window=600) for _ in range(3))
    world.act("ann", Action.DENY, denied.id, comment=WORD * 10)
    world.act("ann", Action.APPROVE, opened.id, comment=WORD * 10)
    with world.db.transaction() as session:
        at = now(session)
        asked = questions.ask(session, world.people["ann"], HERE, request.id, WORD * 10)
        questions.answer(session, world.people["erin"], HERE, request.id, asked.id, WORD * 10)
    invites(world, name=WORD, address=f"{LOWER}@{LOWER}.example")
    watched = WantedObserver(WORD, f"{LOWER}@{LOWER}.{LOWER}.example")
    does(world, "tara", observers.add, watched, services=SETTINGS.catalogue.services)
    called = WantedEndpoint(f"http://127.0.0.1:9/{LOWER * 3}", description=WORD)
    endpoint = does(world, "tara", webhooks.add, called, reach=REACH)
    does(world, "tara", members.set_eligible, world.people["aude"].person_id, eligible=True)
    stands_in = WantedDelegate(world.people["aude"].person_id, at + timedelta(days=1))
    does(world, "ann", delegates.add_delegation, stands_in)
    groups = {LOWER: (world.people["ann"].person_id,)}
    grouped = short(
        approval_window=3600,
        review_window=3600,
        groups=groups,
        tiers=[[LOWER]],
        stages=[{"group": LOWER, "quorum": 1}],
        rules=[{"name": WORD, "match": {"resources": [f"mailbox:{LOWER}*"]}, "terms": {"quorum": 2}}],
    )
    does(world, "tara", policies.change, grouped)
    reviewed = world.submit(**said)
    ids = [caller.person_id for caller in world.people.values()]
    assert stage.rows(RENAMED, word=WORD, ids=ids, tenant=world.tenant.id)
    places = {"request": request, "denied": denied, "reviewed": reviewed}
    return world, {
        **{name: str(one.id) for name, one in places.items()},
        "slug": world.tenant.slug,
        "endpoint": str(endpoint.endpoint.id),
    }


@pytest.mark.parametrize("who", PAGES)
def test_no_portal_page_overflows_with_long_words(
    desk: BrowserDesk, hostile: tuple[World, dict[str, str]], who: str
) -> None:
    world, places = hostile
    page = desk.person(world, who)
    wider: dict[str, int] = {}

    for path in PAGES[who]:
        page.goto(path.format(**places), wait_until="domcontentloaded")
        # What is folded is there as well.
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        for size in (PHONE, LARGER, BETWEEN, LAPTOP):
            page.set_viewport_size(size)
            wider[f"{path} at {size['width']}"] = overflow(page)

    assert {where: much for where, much in wider.items() if much > 0} == {}
    assert page.evaluate(BROKEN) == [], "ordinary words are broken in the middle"


@pytest.mark.parametrize("size", [PHONE, LAPTOP], ids=["phone", "laptop"])
@pytest.mark.parametrize("java_script_enabled", [True, False], ids=["script", "plain"])
def test_a_long_reason_hides_neither_deadlines_nor_buttons_of_a_page(
    stage: RunningStack, desk: BrowserDesk, size: ViewportSize, *, java_script_enabled: bool
) -> None:
    world = stage.world(approval_window=900)
    request = world.fresh(justification=LINES, resources=[f"mailbox:{new_id()}@contoso.example" for _ in range(50)])
    ann = desk.person(world, "ann", viewport=size, java_script_enabled=java_script_enabled)

    ann.goto(f"/requests/{request.id}")

    clock = ann.locator(".clock dt", has_text="Answer by").bounding_box()
    assert clock is not None
    assert clock["y"] < size["height"]
    for name in ("Deny", "Approve"):
        expect(ann.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)
    assert overflow(ann) <= 0


def test_a_long_reason_on_a_page_is_readable_by_keyboard_and_printed_whole(
    stage: RunningStack, desk: BrowserDesk
) -> None:
    world = stage.world(approval_window=900, review_window=900, vendor_review=True)
    request = world.fresh(justification=LINES + "the end")
    max_ = desk.person(world, "max")

    for path in (f"/requests/{request.id}", "/review"):
        max_.goto(path)
        why = max_.get_by_role("group", name="Justification")
        on_screen = why.evaluate("one => [one.clientHeight, one.scrollHeight]")
        why.focus()
        max_.keyboard.press("End")
        expect(why).to_be_focused()
        max_.wait_for_function("one => one.scrollTop > 1000", arg=why.element_handle())
        found = violations(max_)
        max_.emulate_media(media="print")
        printed = why.evaluate("one => [one.clientHeight, one.scrollHeight]")
        max_.emulate_media(media="screen")

        assert on_screen[0] < 250
        assert on_screen[1] > 40_000
        assert printed[0] == printed[1] > 40_000
        assert found == []


def test_a_short_reason_on_a_page_is_shown_whole(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(approval_window=900)
    request = world.fresh(justification="It does not open.\nSince Monday.")
    ann = desk.person(world, "ann")

    ann.goto(f"/requests/{request.id}")

    expect(ann.locator("#state")).to_contain_text("It does not open.")
    assert ann.locator("#state [tabindex]").count() == 0
