"""Scenes around requests: submitting, previewing, deciding, questions, ending; and others who are faster."""

from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import expect

from harness.people import sign_in
from lockbox.facts.enumerations import AuthMethod
from lockbox.requests.lifecycle import Action
from tests.whole.forms import Book
from tests.whole.people import choose, with_authenticator
from tests.whole.scenes import scene

TWO = ["mailbox:anna@contoso.example", "mailbox:bob@contoso.example"]
NEWER = "has changed since you read it"
SLOW = {"approval_window": 900, "review_window": 900}
SIGNED = "SELECT assertion IS NOT NULL AS is_signed FROM decisions WHERE request_id = :id AND decision = 'approve'"


@scene
def an_engineer_asks(book: Book) -> None:
    world = book.stage.world(**SLOW)
    page = book.at("/ask", world, "erin")
    preview = page.get_by_role("button", name="Preview")

    page.get_by_label("Customer", exact=True).select_option(world.tenant.slug)
    page.get_by_label("Service", exact=True).select_option("exchange-online")
    book.unsendable(preview, page.get_by_label("Resources"))
    page.get_by_label("Resources").fill("anna")
    page.get_by_label("Justification").fill("Her mailbox does not open")
    book.wrongly(preview, "Correct the fields that are marked below")
    page.get_by_label("Resources").fill(TWO[0])
    book.rightly(page.get_by_role("button", name="Preview"), "If nobody answers by then, access is refused.")
    book.rightly(page.get_by_role("button", name="Submit"), "Waiting")


@scene
def an_engineer_asks_again_for_what_got_no_answer(book: Book) -> None:
    world = book.stage.world(approval_window=1)
    request = world.fresh()
    book.stage.ends(request.id, "timed_out")
    page = book.at(f"/requests/{request.id}", world, "erin")

    book.rightly(page.get_by_role("button", name="Resubmit"), "This resubmits")


@scene
def an_engineer_withdraws_and_gives_back_on_the_list(book: Book) -> None:
    world = book.stage.world(**SLOW, quorum=2)
    waiting = world.fresh()
    page = book.at("/mine", world, "erin", java_script_enabled=False)
    page.locator("summary").first.click()
    page.get_by_label("Comment").fill("Somebody else has done it")
    world.act("ann", Action.APPROVE, waiting.id)

    book.wrongly(page.get_by_role("button", name="Cancel the request"), NEWER)
    book.rightly(page.get_by_role("button", name="Cancel the request"), "Cancelled by vendor")
    inside = world.fresh()
    for name in ("ann", "amir"):
        world.act(name, Action.APPROVE, inside.id)
    book.open(page, "/mine")
    page.locator("summary").first.click()
    page.get_by_label("Comment").fill("Done")
    world.act("abe", Action.REVOKE, inside.id)
    book.wrongly(page.get_by_role("button", name="Complete access"), NEWER, keeps=False)
    again = world.fresh()
    for name in ("ann", "amir"):
        world.act(name, Action.APPROVE, again.id)
    book.open(page, "/mine")
    page.locator("summary").first.click()
    book.rightly(page.get_by_role("button", name="Complete access"), "Completed")


@scene
def an_engineer_withdraws_and_gives_back_on_the_page(book: Book) -> None:
    world = book.stage.world(**SLOW, quorum=2)
    request = world.fresh()
    page = book.at(f"/requests/{request.id}", world, "erin", java_script_enabled=False)
    page.locator("#cancel-comment").fill("Somebody else has done it")
    world.act("ann", Action.APPROVE, request.id)

    book.wrongly(page.get_by_role("button", name="Cancel the request"), NEWER)
    book.rightly(page.get_by_role("button", name="Cancel the request"), "Cancelled by vendor")
    inside = world.fresh()
    for name in ("ann", "amir"):
        world.act(name, Action.APPROVE, inside.id)
    book.open(page, f"/requests/{inside.id}")
    page.locator("#complete-comment").fill("Done")
    book.rightly(page.get_by_role("button", name="Complete access"), "Completed")


def _several_at_once(book: Book, who: str, path: str, comment: str, *, act: str, done: str, **policy: Any) -> None:
    """Choose no request, then two, and check that both have ended as chosen."""
    world = book.stage.world(**SLOW, **policy)
    some = [world.fresh(), world.fresh()]
    page = book.at(path, world, who)
    page.get_by_label(comment).fill("Ask for one at a time")
    button = page.get_by_role("button", name=f"{act} the chosen requests")

    book.wrongly(button, "Choose at least one request")
    choose(page, 2)
    book.rightly(button, f"You {done} 2 requests")

    assert [book.stage.state(it.id) for it in some] == [done, done]


@scene
def an_approver_denies_several_at_once(book: Book) -> None:
    _several_at_once(book, "ann", "/waiting/deny", "Reason (required)", act="Deny", done="denied")


@scene
def a_manager_denies_several_at_once(book: Book) -> None:
    _several_at_once(book, "max", "/review/deny", "Reason (required)", act="Deny", done="denied", vendor_review=True)


@scene
def an_engineer_cancels_several_at_once(book: Book) -> None:
    _several_at_once(book, "erin", "/mine/cancel", "Comment (optional)", act="Cancel", done="cancelled")


@scene
def a_manager_looks_over_what_waits(book: Book) -> None:
    world = book.stage.world(**SLOW, vendor_review=True)
    first, second = world.fresh(), world.fresh()
    page = book.at("/review", world, "max", java_script_enabled=False)
    one, other = (
        page.get_by_role("listitem").filter(has=page.locator(f"#endorse-{it.id}")) for it in (first, second)
    )

    one.get_by_label("Reason (required)").fill("  ")
    book.wrongly(one.get_by_role("button", name="Deny"), "Say in a comment why you deny")
    one.get_by_label("Reason (required)").fill("Look at a copy first")
    book.rightly(one.get_by_role("button", name="Deny"))
    book.rightly(other.get_by_role("button", name="Endorse"))
    third = world.fresh()
    book.open(page, "/review")
    page.get_by_label("Comment (optional)").fill("Seen in the logs")
    world.act("mia", Action.ENDORSE, third.id)
    book.wrongly(page.get_by_role("button", name="Endorse"), NEWER, keeps=False)

    assert [book.stage.state(it.id) for it in (first, second, third)] == ["denied", "pending", "pending"]


@scene
def a_manager_endorses_on_the_page(book: Book) -> None:
    world = book.stage.world(**SLOW, vendor_review=True)
    request = world.fresh()
    page = book.at(f"/requests/{request.id}", world, "max")

    page.locator("#comment").fill("Seen in the logs")
    book.rightly(page.get_by_role("button", name="Endorse"), "Seen in the logs")

    assert book.stage.state(request.id) == "pending"


@scene
def an_approver_looks_approves_and_closes(book: Book) -> None:
    world = book.stage.world(**SLOW)
    request = world.submit(resources=TWO)
    page = book.at(f"/requests/{request.id}", world, "ann")

    book.rightly(page.get_by_role("button", name="I'm reviewing this"), "You are reviewing this")
    page.get_by_text("Approve only part of it").click()
    for one in TWO:
        page.get_by_label(one).uncheck()
    page.locator("#comment").fill("Nothing, then")
    page.get_by_label("Duration").select_option("300")
    book.wrongly(page.get_by_role("button", name="Approve"), "Keep at least one of the resources")
    page.get_by_label(TWO[0]).check()
    book.rightly(page.get_by_role("button", name="Approve"), "ends automatically")
    page.locator("#revoke-comment").fill("That was enough")
    book.rightly(page.locator("#revoke").get_by_role("button"), "That was enough")

    assert book.stage.state(request.id) == "revoked"


@scene
def an_approver_with_a_passkey_signs_or_approves_without_a_signature(book: Book) -> None:
    world = book.stage.world(**SLOW)
    signed, unsigned, withdrawn = world.fresh(), world.fresh(), world.fresh()
    page = book.at("/account", secret=sign_in(world.db, world.people["abe"], AuthMethod.OIDC))
    with_authenticator(page)
    page.get_by_label("Name of the new passkey").fill("my laptop")
    page.get_by_role("button", name="Add a passkey").click()
    book.sees(page, "my laptop", at="/account")

    book.open(page, f"/requests/{signed.id}")
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("#state")).to_contain_text("ends automatically")
    plain = book.at(f"/requests/{unsigned.id}", world, "abe", java_script_enabled=False)
    without = plain.get_by_role("button", name="Approve without a signature")
    book.rightly(plain.get_by_role("button", name="Approve"), "Nothing is approved until your passkey has signed.")
    book.rightly(without, "ends automatically")
    book.open(plain, f"/requests/{withdrawn.id}")
    book.rightly(plain.get_by_role("button", name="Approve"), "Nothing is approved until your passkey has signed.")
    world.act("erin", Action.CANCEL, withdrawn.id)
    book.wrongly(without, NEWER)

    rows = [book.stage.rows(SIGNED, id=str(one.id)) for one in (signed, unsigned, withdrawn)]
    assert [[row.is_signed for row in found] for found in rows] == [[True], [False], []]


@scene
def an_approver_closes_from_the_list_too_late(book: Book) -> None:
    world = book.stage.world(**SLOW)
    request = world.fresh()
    world.act("ann", Action.APPROVE, request.id)
    page = book.at("/open", world, "ann", java_script_enabled=False)
    page.get_by_label("Comment").fill("That was enough")
    world.act("erin", Action.COMPLETE, request.id)

    book.wrongly(page.get_by_role("button", name="Revoke"), NEWER, keeps=False)


@scene
def an_approver_asks_something_and_says_no(book: Book) -> None:
    world = book.stage.world(**SLOW)
    request = world.fresh()
    ann = book.at(f"/requests/{request.id}", world, "ann")

    ann.get_by_label("Your question to Erin").fill("   ")
    book.wrongly(ann.get_by_role("button", name="Ask", exact=True), "say something")
    ann.get_by_label("Your question to Erin").fill("Which folder?")
    book.rightly(ann.get_by_role("button", name="Ask", exact=True), "Which folder?")
    erin = book.at(f"/requests/{request.id}/questions", world, "erin")
    erin.get_by_label("Your answer").fill("  ")
    book.wrongly(erin.get_by_role("button", name="Answer"), "say something")
    erin.get_by_label("Your answer").fill("The inbox")
    book.rightly(erin.get_by_role("button", name="Answer"), "The inbox")
    book.open(ann, f"/requests/{request.id}")
    book.unsendable(ann.get_by_role("button", name="Deny", exact=True), ann.locator("#comment"))
    ann.locator("#comment").fill("  ")
    book.wrongly(ann.get_by_role("button", name="Deny", exact=True), "Say in a comment why you deny")
    ann.locator("#comment").fill("Ask the owner first")
    book.rightly(ann.get_by_role("button", name="Deny", exact=True), "Ask the owner first")


@scene
def somebody_looks_for_an_earlier_request(book: Book) -> None:
    world = book.stage.world(**SLOW)
    world.fresh()
    page = book.at("/requests", world, "abe")

    page.get_by_label("Submitted from").fill("2026-11-02")
    page.get_by_label("Submitted until").fill("2026-11-01")
    book.wrongly(page.get_by_role("button", name="Show", exact=True), "The first day is after the last day")
    for name in ("Submitted from", "Submitted until"):
        page.get_by_label(name).fill("")
    page.get_by_label("Engineer").fill("eri")
    book.rightly(page.get_by_role("button", name="Show", exact=True), "for Erin")


@scene
def an_engineer_asks_for_more_time(book: Book) -> None:
    world = book.stage.world(**SLOW)
    request = world.fresh(access_window=3600)
    world.act("ann", Action.APPROVE, request.id)
    page = book.at(f"/requests/{request.id}", world, "erin")
    more = page.get_by_role("button", name="Request more time")

    page.get_by_label("More time").select_option("1800")
    page.get_by_label("Justification").fill("It takes\u202e longer")
    book.wrongly(more, "Justification: ")
    page.get_by_label("Justification").fill("It takes longer")
    book.rightly(more, "This goes on from the end of")

    assert book.stage.state(request.id) == "active"


@scene
def a_manager_breaks_the_glass_and_an_approver_gives_the_finding(book: Book) -> None:
    world = book.stage.world(**SLOW, break_glass_services=("exchange-online",))
    erin = book.at("/ask", world, "erin")
    erin.get_by_label("Customer", exact=True).select_option(world.tenant.slug)
    erin.get_by_label("Service", exact=True).select_option("exchange-online")
    erin.get_by_label("Resources").fill(TWO[0])
    erin.get_by_label("Justification").fill("Mail is down")
    erin.get_by_label("Duration").select_option("900")
    erin.get_by_text("Emergency: break-glass").click()
    erin.get_by_label("A manager may open this without the customer").check()
    book.rightly(erin.get_by_role("button", name="Preview"), "Open until")
    book.rightly(erin.get_by_role("button", name="Submit"), "Break-glass.")
    path = urlsplit(erin.url).path
    boss = book.at(path, world, "max")
    opens = boss.get_by_role("button", name="Break the glass")
    boss.locator("#break_glass-comment").fill("  ")
    book.wrongly(opens, "Say in a comment why")
    boss.locator("#break_glass-comment").fill("Nobody of theirs can be reached")
    book.rightly(opens, "You broke the glass")

    ann = book.at(path, world, "ann")
    ann.locator("#revoke-comment").fill("I am here")
    book.rightly(ann.locator("#revoke").get_by_role("button"), "I am here")
    gives = ann.get_by_role("button", name="Give the finding")
    book.unsendable(gives, ann.get_by_label("Justified", exact=True))
    ann.get_by_label("Not justified").check()
    ann.get_by_label("Reason").fill("  ")
    book.wrongly(gives, "Say in a comment why you find this")
    ann.get_by_label("Reason").fill("I could have been asked")
    book.rightly(gives, "Found not justified by Ann")
