"""Scenes of a tenant's admins: mode, policy, who is asked, members, delegates, webhooks, observers, the end of it."""

import re
from datetime import timedelta

from playwright.sync_api import Page

from gate import enforcement
from gate.enforcement import ENFORCE, REPORT
from gate.memory_reader import GATE
from harness.webhook_receiver import WebhookReceiver, receiving
from lockbox.admin import recovery
from lockbox.identity import authentication
from lockbox.identity.roles import Role
from tests.database.tenancy import does
from tests.whole.conftest import wait_until
from tests.whole.forms import Book
from tests.whole.scenes import scene

SHOW = "Review changes"


def local(book: Book, **later: float) -> str:
    """Return a time after now, in UTC, in the format of the form field."""
    return (book.clock() + timedelta(**later)).strftime("%Y-%m-%dT%H:%M")


def governs(book: Book, page: str, who: str = "tara") -> Page:
    """Open a page of a new tenant as one of its people."""
    world = book.stage.world(approval_window=900)
    world.add("nils", Role.APPROVER, world.tenant.id)
    return book.at(f"/tenants/{world.tenant.slug}{page}", world, who)


def says(book: Book, *modes: str) -> None:
    """Record the mode that the vendor sets for a service's gate."""
    for mode in modes:
        with book.stage.db.transaction() as session:
            authentication.enter(session, GATE)
            enforcement.record(session, {"onedrive": mode})


@scene
def an_admin_lets_a_gate_report_and_takes_that_back(book: Book) -> None:
    says(book, ENFORCE, REPORT)
    page = governs(book, "/gates")
    allows = page.get_by_role("button", name="Allow the gate of OneDrive to report only")

    says(book, ENFORCE, REPORT)
    book.wrongly(allows, "changed")
    book.rightly(allows, "an admin allowed this gate to report only")
    book.rightly(page.get_by_role("button", name="Enforce at OneDrive again"), "It goes on enforcing until")


@scene
def an_admin_renames_the_tenant_and_leaves_it(book: Book) -> None:
    page = governs(book, "")
    named = page.get_by_label("Name of the organisation")

    named.fill(" ")
    book.wrongly(page.get_by_role("button", name="Rename"), "Name: ")
    named.fill("Contoso Limited")
    book.rightly(page.get_by_role("button", name="Rename"), "Contoso Limited")
    book.wrongly(page.get_by_role("button", name=re.compile("^Leave")), "admin")
    page = governs(book, "", "aude")
    book.rightly(page.get_by_role("button", name=re.compile("^Leave")))

    assert page.url.endswith("/requests")


@scene
def an_admin_shuts_everything(book: Book) -> None:
    world = book.stage.world(approval_window=900)
    request = world.fresh()
    page = book.at(f"/tenants/{world.tenant.slug}/emergency-stop", world, "tara")

    page.get_by_label("Why").fill("It is\u202e over")
    book.wrongly(page.get_by_role("button", name="Revoke and deny everything"), "readers would not see it")
    page.get_by_label("Why").fill("It is over")
    book.rightly(page.get_by_role("button", name="Revoke and deny everything"))

    assert book.stage.state(request.id) == "denied"
    book.rightly(page.get_by_role("button", name="End the emergency stop"), "Open windows")
    assert page.get_by_text("Emergency stop since").count() == 0


@scene
def an_admin_lets_the_vendor_decide(book: Book) -> None:
    page = governs(book, "/mode")
    mode = page.url

    page.get_by_label("Until").fill(local(book, days=-1))
    book.wrongly(page.get_by_role("button", name=SHOW).last, "still to come")
    page.get_by_label("Until").fill(local(book, days=1))
    book.rightly(page.get_by_role("button", name=SHOW).last, "Effect on")
    book.rightly(page.get_by_role("button", name="Save the policy"))
    page.goto(mode)
    book.rightly(page.get_by_role("button", name="Withdraw consent"), "Effect on")
    page.goto(mode)
    page.get_by_label("Who decides").select_option("observe")
    book.rightly(page.get_by_role("button", name=SHOW), "The vendor's managers open windows")
    book.rightly(page.get_by_role("button", name="Switch to observe"), "Now: observe")


@scene
def an_admin_changes_the_policy(book: Book) -> None:
    page = governs(book, "/policy")

    page.get_by_label("Approvals needed").fill("two")
    book.wrongly(page.get_by_role("button", name=SHOW).first, "Approvals needed: Write a whole number")
    page.get_by_label("Approvals needed").fill("2")
    book.rightly(page.get_by_role("button", name=SHOW).first, "→ 2")
    book.rightly(page.get_by_role("button", name="Save the policy"), "Version 2, in force since")
    page.get_by_text("The whole policy as text").click()
    page.get_by_label("The whole policy, as JSON").fill("{")
    book.wrongly(page.get_by_role("button", name=SHOW).last, "column 2: this is not JSON")
    page.get_by_label("The whole policy, as JSON").fill('{"quorum": 3}')
    book.rightly(page.get_by_role("button", name=SHOW).last, "→ 3")


@scene
def an_admin_says_who_is_asked_first(book: Book) -> None:
    page = governs(book, "/tiers")

    page.get_by_label("Ann", exact=True).check()
    book.wrongly(page.get_by_role("button", name=SHOW), "Give the new group a name")
    page.get_by_label("Name").fill("first-line")
    page.get_by_label("Notified", exact=True).select_option("1")
    book.rightly(page.get_by_role("button", name=SHOW), "first-line")


@scene
def an_admin_sees_to_the_members(book: Book) -> None:
    page = governs(book, "/members")
    new = page.get_by_role("region", name="Invite somebody")

    new.get_by_label("Name").fill("Nora")
    new.get_by_label("Mail address").fill("nora@contoso.example")
    book.wrongly(new.get_by_role("button", name="Invite"), "Roles: choose at least one")
    new.get_by_label("auditor").check()
    book.rightly(new.get_by_role("button", name="Invite"), "nora@contoso.example")
    book.rightly(page.get_by_role("button", name="Withdraw the invitation of Nora"))
    page.get_by_label("Change Nils").click()
    theirs = page.get_by_role("listitem").filter(has_text="Nils")
    theirs.get_by_label("approver", exact=True).uncheck()
    book.wrongly(page.get_by_role("button", name="Save the roles of Nils"), "Roles: choose at least one")
    theirs.get_by_label("auditor", exact=True).check()
    book.rightly(page.get_by_role("button", name="Save the roles of Nils"))
    page.get_by_label("Change Nils").click()
    book.rightly(page.get_by_role("button", name="Allow Nils as a delegate"), "eligible as a delegate")
    page.get_by_label("Change Nils").click()
    book.rightly(page.get_by_role("button", name="Remove Nils"))

    assert "Nils" not in page.locator("main").inner_text()


@scene
def an_admin_disables_a_member_on_the_page_that_a_mail_leads_to(book: Book) -> None:
    world = book.stage.world(approval_window=900)
    page = book.at(f"/tenants/{world.tenant.slug}/members/{world.people['ann'].person_id}", world, "tara")

    book.rightly(page.get_by_role("button", name="Disable Ann"), "Abe")

    assert page.url.endswith("/members")
    assert not page.get_by_label("Change Ann").count()


@scene
def an_admin_names_a_delegate(book: Book) -> None:
    page = governs(book, "/members")
    page.get_by_label("Change Nils").click()
    book.rightly(page.get_by_role("button", name="Allow Nils as a delegate"))
    page.get_by_role("link", name="Delegates").first.click()
    book.look(page)
    button = page.get_by_role("button", name="Add delegate")

    page.get_by_label("For whom").select_option(label="Ann")
    page.get_by_label("From").fill(local(book, days=2))
    page.get_by_label("Until").fill(local(book, days=1))
    book.wrongly(button, "must end after it starts")
    page.get_by_label("From").fill("")
    book.rightly(button, "for Ann")
    book.rightly(
        page.get_by_role("button", name="End the delegation of Nils for Ann"), "no current or planned delegates"
    )


@scene
def an_admin_has_a_system_told(book: Book) -> None:
    with receiving() as receiver:
        page = governs(book, "/endpoints")
        book.unsendable(page.get_by_role("button", name="Add webhook"), page.get_by_label("Address"))
        page.get_by_label("Address").fill("ftp://hooks.contoso.example")
        page.get_by_label("Description").fill("the desk")
        book.wrongly(page.get_by_role("button", name="Add webhook"), "This URL cannot be called")
        page.get_by_label("Address").fill(receiver.url)
        book.rightly(page.get_by_role("button", name="Add webhook"), "It is shown only once")
        page.get_by_role("link", name="I have copied it").click()
        changed_and_tried(book, page, receiver)
        replaced_and_removed(book, page)


def changed_and_tried(book: Book, page: Page, receiver: WebhookReceiver) -> None:
    page.get_by_label("Address").fill("ftp://hooks.contoso.example")
    book.wrongly(page.get_by_role("button", name="Save"), "This URL cannot be called")
    page.get_by_label("Address").fill(f"{receiver.url}/other")
    book.rightly(page.get_by_role("button", name="Save"), "/other")
    book.rightly(page.get_by_role("button", name="Send a test"))
    wait_until(lambda: "/hook/other" in {call.path for call in receiver.calls}, "a call")
    again = page.get_by_role("button", name=re.compile("^Send .* again$")).first
    wait_until(lambda: page.reload() and again.count(), "the call in the log")
    book.rightly(again, "delivered")


def replaced_and_removed(book: Book, page: Page) -> None:
    book.rightly(page.get_by_role("button", name="Disable"), "by hand")
    page.get_by_label("Hours in which the old secret").fill("999")
    book.wrongly(page.get_by_role("button", name="Replace the secret"), "168")
    page.get_by_label("Hours in which the old secret").fill("1")
    book.rightly(page.get_by_role("button", name="Replace the secret"), "It is shown only once")
    page.get_by_role("link", name="I have copied it").click()
    book.rightly(page.get_by_role("button", name="Remove the webhook"), "There are no webhooks")


@scene
def an_admin_has_somebody_copied(book: Book) -> None:
    page = governs(book, "/observers")
    button = page.get_by_role("button", name="Add observer")

    page.get_by_label("Name").fill("The\u202e desk")
    page.get_by_label("Mail address").fill("desk@contoso.example")
    book.wrongly(button, "Name: ")
    page.get_by_label("Name").fill("The desk")
    book.rightly(button, "desk@contoso.example")
    book.rightly(page.get_by_role("button", name="Remove The desk"), "There are no observers")


@scene
def an_approver_objects_to_an_admin_whom_the_vendor_proposes(book: Book) -> None:
    world = book.stage.world()
    does(world, "olga", recovery.propose, name="Rita", address=f"rita-{world.tenant.slug}@contoso.example")
    page = book.at("/proposals", world, "ann")

    book.rightly(page.get_by_role("button", name="Object"), "no pending admin proposals")
