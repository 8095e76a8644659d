"""Scenes of auditors: searching the audit log, exporting it, and verifying the export."""

import re

from playwright.sync_api import Locator, Page

from tests.whole.conftest import wait_until
from tests.whole.forms import Book
from tests.whole.scenes import scene


def reads(book: Book, page: str) -> Page:
    """Open a page of the audit log of a tenant with a request and a sealed event."""
    world = book.stage.world(approval_window=900)
    world.fresh()
    sealed = "SELECT count(*) AS them FROM events WHERE tenant_id = :id AND NOT EXISTS"
    sealed += " (SELECT 1 FROM unsealed u WHERE u.event_id = events.id)"
    wait_until(lambda: book.stage.rows(sealed, id=str(world.tenant.id))[0].them, "an event is sealed")
    return book.at(page, world, "aude")


@scene
def an_auditor_searches_and_takes_away_what_was_found(book: Book) -> None:
    page = reads(book, "/audit-log")

    page.get_by_label("Person, by id").fill("Erin")
    book.wrongly(page.get_by_role("button", name="Search"), "by its id")
    page.get_by_label("Person, by id").fill("Erin")
    book.wrongly(page.get_by_role("button", name="Export as CSV"), "by its id")
    page.get_by_label("Person, by id").fill("")
    page.get_by_label("Action", exact=True).select_option("submit")
    book.rightly(page.get_by_role("button", name="Search"), "Erin")
    table = book.downloads(page.get_by_role("button", name="Export as CSV"))
    proofs = book.downloads(page.get_by_role("button", name="Export with proofs"))

    assert b"submit" in table
    assert proofs.startswith(b"{")


@scene
def an_auditor_takes_all_away_and_verifies_it(book: Book) -> None:
    page = reads(book, "/audit-log/checkpoint")
    whole = page.get_by_role("button", name=re.compile(r"^Download \d+ events?$"))

    page.get_by_label("Size of an earlier checkpoint of yours").fill("one")
    book.wrongly(whole, "The size of an earlier checkpoint is")
    book.open(page, "/audit-log/checkpoint")
    export = book.downloads(whole)
    assert b"submit" in book.downloads(page.get_by_role("button", name="Download CSV"))
    book.open(page, "/audit-log/verify")
    _attach(page.get_by_label("The export"), export)
    trusted = page.get_by_label("Keys that you trust")
    ours = trusted.input_value()
    trusted.fill("nonsense")
    book.wrongly(page.get_by_role("button", name="Verify"), "nonsense")
    trusted.fill(ours)
    _attach(page.get_by_label("The export"), export)
    book.rightly(page.get_by_role("button", name="Verify"), "audit.ndjson")


@scene
def an_auditor_of_the_vendor_reads_statistics(book: Book) -> None:
    world = book.stage.world()
    world.fresh()
    page = book.at("/statistics", world, "vera")

    page.get_by_label("Organisation").select_option(world.tenant.slug)
    book.rightly(page.get_by_role("button", name="Show"), f"Statistics of {world.tenant.name}")
    table = book.downloads(page.get_by_role("button", name="Export as CSV"))

    assert b"group" in table


@scene
def somebody_searches_the_reference_of_the_api(book: Book) -> None:
    page = book.at("/docs")

    page.get_by_role("searchbox").fill("approve")
    book.rightly(page.get_by_role("button", name="Search"), "found for “approve”")


def _attach(field: Locator, content: bytes) -> None:
    field.set_input_files({"name": "audit.ndjson", "mimeType": "application/x-ndjson", "buffer": content})
