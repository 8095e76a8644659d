"""The portal in a real browser on the real stack: whole stories, races, phones, no script, and what attackers try."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from playwright.sync_api import Page, expect

from harness.people import World
from lockbox import database
from lockbox.requests.inbox import MOST
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from tests.whole import people
from tests.whole.conftest import RunningStack, wait_until
from tests.whole.people import PHONE, BrowserDesk, desk_of, overflow
from tests.whole.post import address_of, code_to, mails_to

pytestmark = [
    pytest.mark.far,
    pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING),
    pytest.mark.timeout(240),
]

REASON = "The index of the mailbox is broken, and only its owner's folders show how."
NOTIFIED_ASIDE = "SELECT id FROM events WHERE request_id = :id AND action = 'notified' AND NOT internal"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def browser(stage: RunningStack) -> Iterator[BrowserDesk]:
    with desk_of(stage) as found:
        yield found


@pytest.fixture
def desk(browser: BrowserDesk) -> Iterator[BrowserDesk]:
    yield browser
    browser.leave()


def door(stage: RunningStack, world: World) -> int:
    """Check as a guarded system does whether Erin may read the mailbox, and return the status."""
    with stage.as_(world, "gate") as gate:
        return gate.get("/v1/access", params=world.question()).status_code


def told(stage: RunningStack, world: World) -> AccessRequest:
    """Submit a request, and wait until every approver is notified; with none notified, it would end differently."""
    request = world.submit()
    wait_until(lambda: not stage.open_notifications(world), "the approvers are told")
    return request


def ask(page: Page, world: World, resources: str = "mailbox:anna@contoso.example", why: str = REASON) -> str:
    """Fill in the request form, look at the preview, submit, and return the request's id."""
    page.goto("/ask")
    customer = page.get_by_label("Customer", exact=True)
    if customer.evaluate("one => one.tagName") == "SELECT":
        customer.select_option(world.tenant.slug)
    else:
        customer.fill(world.tenant.slug)
    page.get_by_label("Service", exact=True).select_option("exchange-online")
    page.get_by_label("Resources").fill(resources)
    page.get_by_label("Justification").fill(why)
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("If nobody answers by then, access is refused.")).to_be_visible()
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile(r"/requests/[0-9a-f-]{36}\?done=submit$"))
    return page.url.rsplit("/", 1)[1].partition("?")[0]


def test_three_people_run_a_request_through_the_portal_from_start_to_end(
    stage: RunningStack, desk: BrowserDesk
) -> None:
    world = stage.world(vendor_review=True, approval_window=900, review_window=900)
    erin, max_, ann = (desk.person(world, name) for name in ("erin", "max", "ann"))
    address = address_of(stage, world, "ann")

    one = ask(erin, world, "mailbox:anna@contoso.example\nmailbox:bob@contoso.example")
    max_.goto("/review")
    max_.get_by_role("button", name="Endorse").click()
    wait_until(lambda: mails_to(stage, address), "Ann is prompted")
    ann.goto("/waiting")
    ann.get_by_role("link", name="Review and decide").click()
    before = door(stage, world)
    ann.get_by_text("Approve only part of it").click()
    ann.get_by_label("mailbox:bob@contoso.example").uncheck()
    ann.get_by_label("Duration").select_option("300")
    ann.locator("#comment").fill("Only this one")
    ann.get_by_role("button", name="Approve").click()
    expect(ann.get_by_text("ends automatically")).to_be_visible()
    while_open = door(stage, world)
    # The requester's page was open all along, and says so by itself.
    expect(erin.locator("#state")).to_contain_text("Open until")
    erin.goto("/mine")
    ann.goto("/open")
    ann.get_by_role("button", name=re.compile("Revoke")).click()
    expect(ann.locator("#state")).to_contain_text("Revoked")
    after = door(stage, world)
    ann.goto("/requests")

    assert (before, while_open, after) == (403, 200, 403)
    expect(ann.locator("main")).to_contain_text("Revoked")
    assert stage.state(one) == "revoked"
    (kept,) = stage.rows("SELECT granted_resources AS kept FROM requests WHERE id = :id", id=one)
    assert kept.kept == ["mailbox:anna@contoso.example"]
    stage.events_are_whole()


def test_a_denial_in_the_browser_needs_a_reason_which_the_requester_can_read(
    stage: RunningStack, desk: BrowserDesk
) -> None:
    world = stage.world(approval_window=900)
    request = world.submit()
    ann, erin = desk.person(world, "ann"), desk.person(world, "erin")

    ann.goto(f"/requests/{request.id}")
    ann.get_by_role("button", name="Deny", exact=True).click()
    refused_by_the_browser = stage.state(request.id)
    ann.locator("#comment").fill("Ask the owner of the mailbox first")
    ann.get_by_role("button", name="Deny", exact=True).click()
    expect(ann.locator("#state")).to_contain_text("Denied")
    erin.goto(f"/requests/{request.id}")

    assert refused_by_the_browser == "pending"
    expect(erin.locator("main")).to_contain_text("Ask the owner of the mailbox first")


def test_a_person_who_decides_too_late_in_a_race_sees_who_decided(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(approval_window=900)
    request = world.submit()
    ann, amir = desk.person(world, "ann"), desk.person(world, "amir", java_script_enabled=False)
    ann.goto(f"/requests/{request.id}")
    amir.goto(f"/requests/{request.id}")
    ann.locator("#comment").fill("I am still writing")

    world.act("abe", Action.DENY, request.id)

    expect(ann.locator("#announcement")).to_contain_text("Abe denied it")
    expect(ann.get_by_role("button", name="Approve")).to_be_disabled()
    assert ann.locator("#comment").input_value() == "I am still writing"
    amir.get_by_role("button", name="Approve").click()
    expect(amir.get_by_role("alert").first).to_contain_text("Abe")
    assert stage.state(request.id) == "denied"


def test_a_request_page_announces_moves_but_not_notifications_that_it_adds_to_the_timeline(
    stage: RunningStack, desk: BrowserDesk
) -> None:
    world = stage.world(approval_window=900)
    request = world.submit()
    ann = desk.person(world, "ann")
    ann.goto(f"/requests/{request.id}")
    world.act("abe", Action.DENY, request.id)
    expect(ann.locator("#announcement")).to_contain_text("Abe denied it")
    wait_until(lambda: len(stage.rows(NOTIFIED_ASIDE, id=str(request.id))) == 2, "both moves' mails are settled")

    with world.db.transaction() as session:
        database.publish_after_commit(session, [request.id])

    expect(ann.locator("#timeline li", has_text="Notification")).to_have_count(2)
    expect(ann.locator("#announcement")).to_contain_text("Abe denied it")


def test_an_open_request_page_says_that_the_approval_deadline_has_passed(
    stage: RunningStack, desk: BrowserDesk
) -> None:
    told(stage, stage.world(approval_window=900))
    world = stage.world(approval_window=10)
    ann = desk.person(world, "ann")
    request = told(stage, world)

    ann.goto(f"/requests/{request.id}")

    expect(ann.locator("#state")).to_contain_text("Timed out", timeout=30_000)
    expect(ann.get_by_role("button", name="Approve")).to_have_count(0)
    stage.ends(request.id, "timed_out")


def test_a_window_moved_to_the_next_page_of_a_list_is_not_called_closed(
    stage: RunningStack, desk: BrowserDesk
) -> None:
    world = stage.world(approval_window=900)
    opened = [world.fresh(access_window=3600) for _ in range(MOST)]
    for one in opened:
        world.act("amir", Action.APPROVE, one.id)
    ann, last = desk.person(world, "ann"), opened[-1]
    ann.goto("/open")
    card = ann.locator(f"li:has(#open-{last.id})")
    expect(card).to_contain_text("Open until")
    expect(ann.locator("#later")).not_to_contain_text("Next page")

    for _ in range(2):
        world.act("amir", Action.APPROVE, world.fresh("eve", access_window=600).id)

    expect(ann.locator("#later")).to_contain_text("Next page")
    expect(ann.locator("#announcement")).to_contain_text("What comes after these is on the next page now.")
    expect(card).to_have_count(0)
    written = ann.locator(f"li:has(#open-{opened[-3].id})")
    written.get_by_label("Comment").fill("Enough")
    for _ in range(3):
        world.act("amir", Action.APPROVE, world.fresh("eve", access_window=600).id)
    expect(ann.locator(f"#open-{opened[-4].id}")).to_have_count(0)
    expect(written).to_contain_text("Open until")
    expect(written.get_by_role("button")).to_be_enabled()
    world.act("abe", Action.REVOKE, opened[0].id)
    expect(ann.locator("#announcement")).to_contain_text("Abe revoked the access")
    expect(ann.locator(f"#open-{opened[0].id}")).to_have_count(0)
    ann.get_by_role("link", name="Next page").click()
    expect(ann.locator(f"#open-{last.id}")).to_contain_text("Open until")
    world.act("abe", Action.REVOKE, last.id)
    expect(ann.locator("#announcement")).to_contain_text("Abe revoked the access")
    expect(ann.locator(f"#open-{last.id}")).to_have_count(0)


def test_every_portal_page_works_without_script(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(vendor_review=True, approval_window=900, review_window=900)
    erin, max_, ann = (desk.person(world, name, java_script_enabled=False) for name in ("erin", "max", "ann"))

    one = ask(erin, world)
    max_.goto("/review")
    max_.get_by_role("button", name="Endorse").click()
    ann.goto(f"/requests/{one}")
    ann.locator("#question-text, textarea[name=text]").first.fill("Which folder?")
    ann.get_by_role("button", name=re.compile("^Ask")).first.click()
    erin.goto(f"/requests/{one}")
    erin.locator("textarea[name=text]").first.fill("The inbox")
    erin.get_by_role("button", name=re.compile("Answer")).first.click()
    ann.goto(f"/requests/{one}")
    ann.get_by_role("button", name="Approve").click()
    opened = door(stage, world)
    erin.goto("/mine")
    erin.locator("summary").first.click()
    erin.get_by_role("button", name="Complete access").click()

    assert opened == 200
    assert stage.state(one) == "completed"
    ann.goto(f"/requests/{one}")
    expect(ann.locator("main")).to_contain_text("The inbox")


def test_on_a_phone_an_approver_signed_in_by_a_mailed_code_can_deny_but_not_approve(
    stage: RunningStack, desk: BrowserDesk
) -> None:
    world = stage.world(approval_window=900)
    request = world.submit()
    address = address_of(stage, world, "ann")
    phone = desk.person(viewport=PHONE, has_touch=True)

    phone.goto(f"/requests/{request.id}")
    phone.locator("#address").fill(address)
    phone.get_by_role("button", name="Mail me a code").tap()
    phone.locator("#code").fill(code_to(stage, address))
    phone.get_by_role("button", name="Sign in", exact=True).tap()
    phone.wait_for_url(re.compile(f"/requests/{request.id}$"))
    wider = overflow(phone)
    expect(phone.locator("#answer")).to_contain_text("is not enough here")
    expect(phone.get_by_role("button", name="Approve")).to_have_count(0)
    expect(phone.get_by_role("link", name="Sign in again")).to_be_visible()
    phone.locator("#comment").fill("Call me first")
    phone.get_by_role("button", name="Deny", exact=True).tap()

    expect(phone.locator("#state")).to_contain_text("Denied")
    assert wider <= 0
    assert stage.state(request.id) == "denied"


def test_any_text_written_by_people_is_escaped_on_pages(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(approval_window=900)
    erin, ann = desk.person(world, "erin"), desk.person(world, "ann")

    one = ask(erin, world, why=HOSTILE)
    ann.goto(f"/requests/{one}")

    expect(ann.locator("main")).to_contain_text("document.title='owned'")
    assert "owned" not in ann.title()
    assert ann.locator("main img").count() == 0


def test_a_portal_form_works_only_once_and_only_in_its_own_session(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(approval_window=900, quorum=2)
    request = world.submit()
    ann, amir = desk.person(world, "ann"), desk.person(world, "amir")
    ann.goto(f"/requests/{request.id}")
    form = ann.locator("form[action$='/approve']")
    fields: dict[str, str | float | bool] = {"comment": ""}
    for name in ("csrf", "version"):
        fields[name] = form.locator(f"input[name={name}]").input_value()
    url = f"/requests/{request.id}/approve"
    ours = {"origin": desk.home, "sec-fetch-site": "same-origin"}

    as_amir = amir.request.post(url, form=fields, headers=ours)
    without = ann.request.post(url, form=fields | {"csrf": ""}, headers=ours)
    from_elsewhere = ann.request.post(url, form=fields, headers={"origin": "https://evil.test"})
    nothing_yet = stage.rows("SELECT 1 FROM decisions WHERE request_id = :id", id=str(request.id))
    once = ann.request.post(url, form=fields, headers=ours)
    again = ann.request.post(url, form=fields, headers=ours)

    assert [one.status for one in (as_amir, without, from_elsewhere)] == [403, 403, 403]
    assert nothing_yet == []
    assert (once.status, again.status) == (200, 200)
    assert len(stage.rows("SELECT 1 FROM decisions WHERE request_id = :id", id=str(request.id))) == 1


class Frame(BaseHTTPRequestHandler):
    """A foreign page that shows a portal page in a frame."""

    shown = ""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(f"<iframe src='{self.shown}' width=800 height=600></iframe>".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_no_portal_page_is_shown_in_a_foreign_frame(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(approval_window=900)
    request = world.submit()
    ann = desk.person(world, "ann")
    Frame.shown = f"{desk.home}/requests/{request.id}"
    server = HTTPServer(("127.0.0.1", 0), Frame)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        tab = ann.context.new_page()
        tab.goto(f"http://localhost:{server.server_port}/")
        framed = tab.frames[1]

        assert framed.url == "chrome-error://chromewebdata/"
        assert framed.locator("text=Approve").count() == 0
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_link_checker_following_all_links_changes_nothing(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(approval_window=900)
    request = world.submit()
    ann = desk.person(world, "ann")
    cookies = {cookie["name"]: cookie["value"] for cookie in ann.context.cookies()}
    links = {"/waiting", "/open", "/requests", f"/requests/{request.id}"}
    version = stage.rows("SELECT version FROM requests WHERE id = :id", id=str(request.id))

    with httpx.Client(
        base_url=desk.home, cookies=cookies, headers={"sec-purpose": "prefetch"}, trust_env=False
    ) as it:
        for path in links:
            for method in ("GET", "HEAD"):
                it.request(method, path)
        for action in ("approve", "deny", "revoke"):
            assert it.get(f"/requests/{request.id}/{action}").status_code in {404, 405}

    assert stage.rows("SELECT version FROM requests WHERE id = :id", id=str(request.id)) == version
