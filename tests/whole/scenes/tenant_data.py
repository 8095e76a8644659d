"""Scenes about a tenant's data: exclusions, retention, legal holds, off-boarding, and the access review."""

import re

from tests.whole.forms import Book
from tests.whole.scenes import scene
from tests.whole.scenes.tenant_admin import governs

LAW = "Demands by law that forbid us to tell you"


@scene
def an_operator_states_exclusions_and_an_admin_acknowledges_them(book: Book) -> None:
    world = book.stage.world()
    olga = book.at("/exclusions", world, "olga")
    states = olga.get_by_role("button", name=re.compile(r"^Publish version \d"))

    olga.get_by_label("Text").fill("Demands\u202e by law")
    book.wrongly(states, "Text: ")
    olga.get_by_label("Text").fill(LAW)
    book.rightly(states, LAW)
    tara = book.at(f"/tenants/{world.tenant.slug}/exclusions", world, "tara")
    book.rightly(tara.get_by_role("button", name=re.compile(r"^Acknowledge version \d")), "Tara acknowledged version")


@scene
def an_admin_keeps_holds_and_asks_to_leave_and_stays(book: Book) -> None:
    page = governs(book, "/data")
    days, typed = page.get_by_label("Keep the log for (days)"), page.get_by_label("to confirm")
    slug = page.url.split("/")[-2]
    leaves = page.get_by_role("button", name="Request off-boarding")

    days.fill("7")
    book.wrongly(page.get_by_role("button", name="Save"), "Keep the log for 30 to")
    days.fill("400")
    book.rightly(page.get_by_role("button", name="Save"), "kept for 400 days")
    page.get_by_label("Reason").fill("  ")
    book.wrongly(page.get_by_role("button", name="Hold all data"), "Reason: ")
    page.get_by_label("Reason").fill("A dispute about an invoice")
    book.rightly(page.get_by_role("button", name="Hold all data"), "A dispute about an invoice")
    typed.fill(slug)
    book.wrongly(leaves, "There is a legal hold")
    book.rightly(page.get_by_role("button", name="Release the hold"))
    typed.fill("Contoso")
    book.wrongly(leaves, f"Type the short name {slug} to confirm")
    typed.fill(slug)
    book.rightly(leaves, "Off-boarding was requested")
    book.rightly(page.get_by_role("button", name="Withdraw off-boarding"), "Request off-boarding")


@scene
def an_operator_finds_a_customer_and_holds_all_of_its_data(book: Book) -> None:
    world = book.stage.world()
    olga = book.at("/data", world, "olga")
    customer = olga.get_by_role("textbox", name="Customer")
    shows = olga.get_by_role("button", name="Show", exact=True)

    customer.fill("nobody-at-all")
    book.wrongly(shows, "no")
    customer.fill(world.tenant.slug)
    book.rightly(shows, world.tenant.name)
    olga.get_by_label("Reason").fill("  ")
    book.wrongly(olga.get_by_role("button", name="Hold all data"), "Reason: ")
    olga.get_by_label("Reason").fill("A court has asked for it")
    book.rightly(olga.get_by_role("button", name="Hold all data"), "A court has asked for it")
    book.rightly(olga.get_by_role("button", name="Release the hold"), "Hold all data")


@scene
def an_admin_and_an_operator_export_who_has_access(book: Book) -> None:
    world = book.stage.world()
    for who, path, name in (("tara", f"/tenants/{world.tenant.slug}", b"Ann"), ("olga", "", b"Erin")):
        page = book.at(f"{path}/access-review", world, who)
        assert name in book.downloads(page.get_by_role("button", name="Export as CSV"))
