"""An open page in a real browser: it updates itself, keeps what people type, and says who decided."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from playwright.sync_api import Page, expect

from config.settings import Settings
from harness.people import HERE, World
from harness.ports import own_port
from harness.stage import Urls, hang_up_on_listeners
from lockbox.identity.roles import Role
from lockbox.requests import inbox, questions
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.database.test_extensions import extended
from tests.http.page_browser import browser, desk
from tests.http.portal import OpenPortal
from tests.http.streams import Live, serving
from tests.policy_setup import lay_down
from tests.whole import people
from tests.whole.people import BrowserDesk, violations

__all__ = ["browser", "desk"]
pytestmark = [pytest.mark.far, pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING)]

BY_MAIL = Policy(vendor_review=False, mail_suffices=True, quorum=2)
FIFTEEN_SECONDS = 15_000
# Each time that the buttons of a decision can no longer be pressed, or can be again: which those are, and what a
# finger reaches that is put in the middle of the first one.
PAUSES = """() => {
  window.pauses = [];
  const look = () => {
    const here = document.getElementById("answer"), button = here.querySelector("button:not([hidden])");
    const { left, top, width, height } = button.getBoundingClientRect();
    const reached = document.elementFromPoint(left + width / 2, top + height / 2)?.closest("button") === button;
    window.pauses.push({ at: performance.now(), words: button.innerText, inert: here.inert, reached });
  };
  new MutationObserver(look).observe(document.body, { attributeFilter: ["inert"], subtree: true });
}"""


@pytest.fixture(scope="module")
def live(open_portal: OpenPortal) -> Iterator[Live]:
    """A world's pages on a real server, at an address without TLS."""
    port = own_port()
    settings = Settings(environment="test", public_url=f"http://127.0.0.1:{port}")
    with serving(open_portal(BY_MAIL, settings), port, beat=0.5, pause=0.2) as found:
        yield found


def _opened(live: Live, desk: BrowserDesk, name: str, path: str) -> Page:
    page = desk.person(secret=live.secret(name))
    page.goto(f"{live.url}{path}")
    return page


def _asked(world: World, name: str, request: AccessRequest, text: str) -> UUID:
    with world.db.transaction() as session:
        return questions.ask(session, world.people[name], HERE, request.id, text).id


def test_after_a_decision_elsewhere_an_open_page_disables_its_buttons_and_names_the_decider(
    live: Live, desk: BrowserDesk
) -> None:
    request = live.portal.world.fresh()
    page = _opened(live, desk, "ann", f"/requests/{request.id}")
    comment, deny = page.locator("#comment"), page.get_by_role("button", name="Deny", exact=True)
    comment.fill("My long thoughts")
    expect(deny).to_be_enabled()

    live.portal.world.act("amir", Action.DENY, request.id)

    expect(page.get_by_role("status")).to_contain_text("Amir denied it")
    expect(deny).to_be_disabled()
    expect(page.get_by_role("button", name="Approve")).to_be_disabled()
    expect(page.locator("#state .eyebrow .state")).to_have_text("Denied")
    expect(comment).to_have_value("My long thoughts")
    expect(comment).to_be_focused()


def test_the_open_page_of_an_undecided_request_gets_its_new_version(live: Live, desk: BrowserDesk) -> None:
    request = live.portal.world.fresh()
    page = _opened(live, desk, "ann", f"/requests/{request.id}")

    live.portal.world.act("amir", Action.APPROVE, request.id)
    expect(page.locator("#announcement")).to_contain_text("Amir approved it")
    page.locator("#comment").fill("No need")
    page.get_by_role("button", name="Deny", exact=True).click()

    expect(page.locator("#state")).to_contain_text("Denied")
    expect(page.locator("main")).not_to_contain_text("Since you looked")


def test_untouched_forms_on_an_open_page_are_updated_when_the_request_changes(live: Live, desk: BrowserDesk) -> None:
    world = live.portal.world
    request = world.fresh()
    ann, erin = (_opened(live, desk, name, f"/requests/{request.id}") for name in ("ann", "erin"))
    expect(ann.get_by_role("button", name="Approve")).to_be_enabled()
    expect(erin.get_by_role("button", name="Cancel the request")).to_be_enabled()

    for name in ("amir", "abe"):
        world.act(name, Action.APPROVE, request.id)

    expect(ann.get_by_role("button", name="Approve")).to_have_count(0)
    expect(erin.get_by_role("button", name="Cancel the request")).to_have_count(0)
    expect(erin.get_by_role("button", name="Complete access")).to_be_enabled()
    for page in (ann, erin):
        expect(page.get_by_role("status")).to_contain_text("Abe approved it.")
        expect(page.get_by_role("status")).not_to_contain_text("again")
    ann.get_by_role("button", name="Revoke access").click()
    expect(ann.locator("#done")).to_contain_text("You revoked the access.")
    expect(erin.locator("#answer button")).to_have_count(0)


def test_an_extension_of_a_just_revoked_window_can_no_longer_be_approved(live: Live, desk: BrowserDesk) -> None:
    world = live.portal.world
    first = world.fresh()
    for name in ("amir", "abe"):
        world.act(name, Action.APPROVE, first.id)
    page = _opened(live, desk, "ann", f"/requests/{extended(world, first.id).id}")
    expect(page.get_by_role("button", name="Approve")).to_be_enabled()

    world.act("amir", Action.REVOKE, first.id)

    expect(page.locator("#state .eyebrow .state")).to_have_text("Nothing to decide: the window was revoked")
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)


def test_buttons_that_newly_appear_on_an_open_page_are_disabled_for_a_second(live: Live, desk: BrowserDesk) -> None:
    world = live.portal.world
    request = world.fresh()
    world.act("amir", Action.APPROVE, request.id)
    page = _opened(live, desk, "ann", f"/requests/{request.id}")
    expect(page.get_by_role("button", name="Approve")).to_be_enabled()
    page.evaluate(PAUSES)

    world.act("abe", Action.APPROVE, request.id)
    page.wait_for_function("() => window.pauses.length === 2")

    begun, ended = page.evaluate("window.pauses")
    assert (begun["words"], begun["inert"], begun["reached"]) == ("Revoke access", True, False)
    assert (ended["words"], ended["inert"], ended["reached"]) == ("Revoke access", False, True)
    assert ended["at"] - begun["at"] > 900
    page.get_by_role("button", name="Revoke access").click()
    expect(page.locator("#done")).to_contain_text("You revoked the access.")


def test_a_page_refreshed_without_a_new_move_shows_no_announcement(live: Live, desk: BrowserDesk) -> None:
    request = live.portal.world.fresh()
    page = _opened(live, desk, "ann", f"/requests/{request.id}")
    until = page.locator("[data-now] time").first
    was = until.get_attribute("datetime") or ""

    live.portal.db.schedule.tell([str(request.id)], None)

    expect(until).not_to_have_attribute("datetime", was)
    expect(page.locator("#announcement")).to_have_text("")


def test_the_presence_of_another_person_appears_and_disappears_on_an_open_page(live: Live, desk: BrowserDesk) -> None:
    request, db = live.portal.world.fresh(), live.portal.db
    amir = live.portal.world.people["amir"]
    page = _opened(live, desk, "ann", f"/requests/{request.id}")

    with db.transaction() as session:
        inbox.begin(session, db.schedule, amir, request.id)
    expect(page.locator("#presence")).to_contain_text("Amir is reviewing this")
    with db.transaction() as session:
        inbox.end(session, db.schedule, amir, request.id)

    expect(page.locator("#presence")).not_to_contain_text("Amir is reviewing this")


def test_an_error_message_on_a_page_survives_live_news(live: Live, desk: BrowserDesk) -> None:
    request = live.portal.world.fresh()
    page = _opened(live, desk, "ann", f"/requests/{request.id}")
    question = page.get_by_label("Your question to Erin")
    question.fill("\u202eWhich folder?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("alert")).to_be_focused()
    question.evaluate("(field) => field.blur()")

    with page.expect_response("**/questions"):
        live.portal.world.act("amir", Action.DENY, request.id)
    page.evaluate("() => new Promise((shown) => requestAnimationFrame(() => requestAnimationFrame(shown)))")

    expect(question).to_have_value("\u202eWhich folder?")


def test_an_answer_appears_on_the_page_while_another_question_is_being_written(live: Live, desk: BrowserDesk) -> None:
    world = live.portal.world
    request = world.fresh()
    question = _asked(world, "ann", request, "Which folder?")
    page = _opened(live, desk, "ann", f"/requests/{request.id}")
    talk, next_question = page.get_by_role("region", name="Questions"), page.get_by_label("Your question to Erin")
    expect(talk).to_contain_text("There is no answer yet.")
    next_question.fill("And until")

    with live.portal.db.transaction() as session:
        questions.answer(session, world.people["erin"], HERE, request.id, question, "The inbox")

    expect(talk).to_contain_text("The inbox")
    expect(talk).not_to_contain_text("There is no answer yet.")
    expect(next_question).to_have_value("And until")
    expect(next_question).to_be_focused()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_enabled()


def test_a_question_appears_on_the_page_while_an_answer_is_being_written(live: Live, desk: BrowserDesk) -> None:
    world = live.portal.world
    request = world.fresh()
    first = _asked(world, "ann", request, "Which folder?")
    page = _opened(live, desk, "erin", f"/requests/{request.id}/questions")
    answer = page.locator(f"#answer-{first}")
    answer.fill("The in")

    second = _asked(world, "amir", request, "Until when?")
    expect(page.locator(f"#answer-{second}")).to_be_visible()
    with live.portal.db.transaction() as session:
        questions.answer(session, world.people["erin"], HERE, request.id, first, "The inbox")

    own = page.locator(f"#asked-{first}")
    expect(own).to_contain_text("The inbox")
    expect(own.get_by_role("button", name="Answer")).to_be_disabled()
    expect(page.locator(f"#asked-{second}").get_by_role("button", name="Answer")).to_be_enabled()
    expect(answer).to_have_value("The in")
    expect(answer).to_be_focused()


def test_a_question_being_written_cannot_be_sent_once_the_request_is_denied(live: Live, desk: BrowserDesk) -> None:
    request = live.portal.world.fresh()
    page = _opened(live, desk, "ann", f"/requests/{request.id}")
    question, ask = page.get_by_label("Your question to Erin"), page.get_by_role("button", name="Ask", exact=True)
    question.fill("Which folder")

    live.portal.world.act("amir", Action.DENY, request.id)

    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    expect(ask).to_be_disabled()
    expect(question).to_have_value("Which folder")
    expect(question).to_be_focused()
    assert violations(page) == []


def test_the_open_page_of_a_person_who_loses_their_role_keeps_only_the_typed_text(
    live: Live, desk: BrowserDesk
) -> None:
    world = live.portal.world
    world.add("art", Role.APPROVER, world.tenant.id)
    request = world.fresh()
    page = _opened(live, desk, "art", f"/requests/{request.id}")
    main = page.locator("main")
    expect(main).to_contain_text("The mailbox does not open")
    page.locator("#comment").fill("My long thoughts")

    live.portal.sql("DELETE FROM memberships WHERE person_id = :p", p=world.people["art"].person_id)

    expect(page.locator("#announcement")).to_contain_text("This page is no longer open to you.")
    expect(main.get_by_role("heading", level=1)).to_have_text("No longer open to you")
    expect(main.get_by_role("heading", level=1)).to_be_focused()
    expect(main).not_to_contain_text("The mailbox does not open")
    expect(main).not_to_contain_text("Erin")
    expect(main.locator("form, button")).to_have_count(0)
    expect(main.get_by_role("link")).to_have_attribute("href", "/")
    expect(main.locator("blockquote")).to_have_text("My long thoughts")
    expect(page).to_have_title("No longer open to you · Lockbox")
    assert violations(page) == []


def test_the_figures_on_the_operations_page_update_without_a_reload(live: Live, desk: BrowserDesk) -> None:
    page = _opened(live, desk, "olga", "/operations")
    waiting = page.locator("#by-state li", has_text="Waiting").locator("b")
    before = int(waiting.inner_text().replace(",", ""))

    live.portal.world.fresh()

    expect(waiting).to_have_text(f"{before + 1:,}")
    expect(page.locator("#announcement")).to_have_text("")


def test_an_open_page_whose_session_ended_says_so(live: Live, desk: BrowserDesk) -> None:
    request = live.portal.world.fresh()
    page = _opened(live, desk, "abe", f"/requests/{request.id}")
    expect(page.locator("#announcement")).to_have_text("")

    live.portal.sql(
        "UPDATE sessions SET revoked_at = now() WHERE person_id = :p", p=live.portal.world.people["abe"].person_id
    )

    expect(page.locator("#announcement")).to_contain_text("You are no longer signed in.", timeout=20_000)
    expect(page.locator("#announcement a")).to_have_attribute("href", f"/sign-in?next=%2Frequests%2F{request.id}")
    expect(page.locator("main form, main button")).to_have_count(0)
    expect(page.locator("main")).not_to_contain_text("The mailbox does not open")


def test_an_open_page_shows_a_decision_without_a_manual_reload_although_redis_was_lost(
    live: Live, desk: BrowserDesk, urls: Urls
) -> None:
    request = live.portal.world.fresh()
    page = _opened(live, desk, "ann", f"/requests/{request.id}")
    hang_up_on_listeners(urls.redis)

    live.portal.world.act("amir", Action.DENY, request.id)

    expect(page.locator("#announcement")).to_contain_text("Amir denied it", timeout=20_000)


# The stream breaks off several times before the page looks, by the browser's own time.
@pytest.mark.far
def test_an_open_page_reloads_in_time_even_if_its_live_stream_breaks_repeatedly(
    live: Live, desk: BrowserDesk
) -> None:
    request = live.portal.world.fresh()
    page = desk.person(secret=live.secret("ann"), polls=True)
    page.route("**/live?*", lambda route: route.abort())
    page.goto(f"{live.url}/requests/{request.id}")

    live.portal.world.act("amir", Action.DENY, request.id)

    expect(page.locator("#announcement")).to_contain_text("Amir denied it", timeout=40_000)


def test_a_page_that_may_not_open_a_live_stream_reloads_every_fifteen_seconds(
    open_portal: OpenPortal, browser: BrowserDesk
) -> None:
    port = own_port()
    settings = Settings(environment="test", public_url=f"http://127.0.0.1:{port}", live_streams=0)
    with serving(open_portal(BY_MAIL, settings), port) as live:
        desk = BrowserDesk(browser.browser, live.url)
        request = live.portal.world.fresh()
        page = desk.person(secret=live.secret("ann"), polls=True)
        page.clock.install()
        with page.expect_response("**/live?*"):
            page.goto(f"{live.url}/requests/{request.id}")

        live.portal.world.act("amir", Action.DENY, request.id)
        page.clock.fast_forward(FIFTEEN_SECONDS)

        expect(page.locator("#announcement")).to_contain_text("Amir denied it", timeout=30_000)
        desk.leave()


def test_the_request_form_offers_only_durations_that_the_chosen_customer_allows(
    live: Live, desk: BrowserDesk
) -> None:
    strict, generous = World.make(live.portal.db), live.portal.world
    lay_down(strict, access_ceiling=1200)
    page = _opened(live, desk, "erin", f"/ask?tenant={generous.tenant.slug}")
    customer, windows = page.get_by_label("Customer", exact=True), page.get_by_label("Duration")
    windows.select_option("14400")

    customer.select_option(strict.tenant.slug)

    expect(windows.locator("option")).to_have_text(["5 min", "15 min", "20 min"])
    expect(windows).to_have_value("1200")
    customer.select_option(generous.tenant.slug)
    expect(windows.locator("option")).to_have_text(["5 min", "15 min", "20 min", "30 min", "1 h", "2 h", "4 h"])
    expect(windows).to_have_value("1200")
