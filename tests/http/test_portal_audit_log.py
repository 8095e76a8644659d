"""The audit log in a browser: plain words, who may read whose, exports, and the checkpoint."""

import csv
import html
import io
import re
from datetime import UTC
from typing import Any

import pytest
from starlette.requests import Request

from api.portal.audit.audit_log import while_signed_in
from lockbox.audit.verifier.verify import GOOD, verify
from lockbox.database import Database
from lockbox.errors import NotSignedIn
from lockbox.identity import keyring
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.tenancy import id_of
from tests.each import each
from tests.http.portal import SESSION, OpenPortal, Portal, PortalPage
from tests.logs import public, sealed


@pytest.fixture(scope="module")
def audit_log(open_portal: OpenPortal, worker: Database) -> Portal:
    """A tenant whose audit log has an approved request, a denied one and one that is not sealed yet."""
    return told(open_portal(), worker)


def told(portal: Portal, worker: Database) -> Portal:
    """Submit and decide requests, and seal all events but the last."""
    world = portal.world
    opened = world.submit(justification="The mailbox <b>of</b> Anna").id
    world.act("ann", Action.APPROVE, opened, comment="Be QUICK")
    denied = world.submit(resources=["mailbox:bert@contoso.example"], service="onedrive").id
    world.act("amir", Action.DENY, denied)
    sealed(worker)
    world.submit(resources=["mailbox:carl@contoso.example"])
    return portal


def deeds(page: PortalPage) -> list[str]:
    """Return the actions that a page lists, newest first, without sign-ins and reads of the audit log."""
    found = re.findall(r"<p><b>([^<]*)</b>(?: <span class=\"quiet\">\(([^<]*)\)</span>)? ([^<]*)<br>", page.text)
    return [
        f"{html.unescape(who)}: {deed}" for who, _, deed in found if not re.search("this audit log|signed in", deed)
    ]


def readings(portal: Portal) -> int:
    """Count the audit log's events about its own reads and exports."""
    (found,) = portal.sql(
        "SELECT count(*) FROM events WHERE tenant_id = :t AND action LIKE 'audit_log_%'", t=portal.world.tenant.id
    )
    return int(found[0])


def looks(portal: Portal, who: str = "aude", **query: Any) -> PortalPage:
    return PortalPage(portal.by_mail(who).call("GET", "/audit-log", params=query))


def test_the_log_page_describes_each_event_and_shows_its_number_its_time_and_its_request(
    open_portal: OpenPortal, worker: Database
) -> None:
    portal = told(open_portal(), worker)
    portal.sql("UPDATE people SET time_zone = 'Asia/Tokyo' WHERE id = :id", id=id_of(portal.world, "aude"))

    page = portal.by_mail("aude").get("/audit-log")

    assert deeds(page) == [
        "Erin: submitted a request for access",
        "Amir: denied the request",
        "Erin: submitted a request for access",
        "Ann: approved the request",
        "Erin: submitted a request for access",
    ]
    assert "not sealed yet" in page.words
    assert "number 1" in page.words
    assert "Times are in Asia/Tokyo." in page.words
    assert "Comment Be QUICK" in page.words
    assert "The mailbox &lt;b&gt;of&lt;/b&gt; Anna" in page.text
    assert {link for link in page.read.links if link.startswith("/requests/")}
    assert set(page.read.named) <= page.read.labels


def test_every_search_field_of_the_log_page_works(audit_log: Portal) -> None:
    ann = str(id_of(audit_log.world, "ann"))
    (denied,) = audit_log.sql(
        "SELECT request_id, at FROM events WHERE tenant_id = :t AND action = 'deny'", t=audit_log.world.tenant.id
    )
    minute = f"{denied.at.astimezone(UTC):%Y-%m-%dT%H:%M}"

    assert deeds(looks(audit_log, action="deny")) == ["Amir: denied the request"]
    assert deeds(looks(audit_log, person=ann)) == ["Ann: approved the request"]
    assert len(deeds(looks(audit_log, request=str(denied.request_id)))) == 2
    assert len(deeds(looks(audit_log, service="onedrive"))) == 2
    assert deeds(looks(audit_log, text="quick")) == ["Ann: approved the request"]
    assert deeds(looks(audit_log, before="2026-01-01T00:00")) == []
    assert "No event that you can read matches." in looks(audit_log, after="2100-01-01T00:00").words
    assert deeds(looks(audit_log, after=minute, action="deny"))
    assert looks(audit_log, text="quick").form("/audit-log").fields["text"] == "quick"


@each(
    "query",
    [
        {"person": "ann"},
        {"request": "x"},
        {"action": "Not This"},
        {"service": "?"},
        {"after": "soon"},
        {"before": "2026-13-01T00:00"},
        {"text": "a\nb"},
        {"cursor": "x"},
    ],
)
def test_an_invalid_search_on_the_log_page_is_reported_and_stays_in_the_form(
    audit_log: Portal, query: dict[str, str]
) -> None:
    before = readings(audit_log)

    page = looks(audit_log, **{"text": "kept"} | query)

    assert page.status == 422
    assert page.form("/audit-log").fields["text"].startswith("kept" if "text" not in query else "a")
    assert readings(audit_log) == before


@pytest.mark.parametrize(
    ("zone", "query"),
    [("Asia/Tokyo", {"after": "0001-01-01T00:00"}), ("America/New_York", {"before": "9999-12-31T23:00"})],
)
def test_an_impossible_local_time_in_a_log_search_is_reported(
    open_portal: OpenPortal, zone: str, query: dict[str, str]
) -> None:
    portal = open_portal()
    portal.sql("UPDATE people SET time_zone = :zone WHERE id = :id", zone=zone, id=id_of(portal.world, "aude"))

    page = looks(portal, **query)

    assert page.status == 422
    assert "that a calendar holds" in page.words


@pytest.mark.far
def test_the_log_page_continues_on_a_second_page_with_the_same_filter(open_portal: OpenPortal) -> None:
    portal = open_portal()
    for number in range(55):
        portal.world.submit(resources=[f"mailbox:{number}@contoso.example"])
    browser = portal.by_mail("aude")

    first = browser.get("/audit-log?action=submit")
    (older,) = [link for link in first.read.links if "cursor=" in link]
    second = browser.get(older)

    assert (len(deeds(first)), len(deeds(second))) == (50, 5)
    assert not [link for link in second.read.links if "cursor=" in link]
    assert "action=submit" in older


def test_the_log_page_shows_only_request_events_until_the_reader_asks_for_everything(audit_log: Portal) -> None:
    browser = audit_log.by_mail("aude")
    browser.get("/audit-log")

    moves = browser.get("/audit-log")
    everything = browser.get("/audit-log?show=all")
    searched = browser.get("/audit-log?action=audit_log_read")

    assert "denied the request" in moves.words
    assert '</b> <span class="quiet">(auditor)</span> read this audit log' not in moves.text
    assert "show=all" in "".join(moves.read.links)
    assert '</b> <span class="quiet">(auditor)</span> read this audit log' in everything.text
    assert '</b> <span class="quiet">(auditor)</span> read this audit log' in searched.text


def test_the_page_of_the_vendors_log_shows_all_kinds_of_events(audit_log: Portal) -> None:
    browser = audit_log.by_mail("vera")
    browser.get("/audit-log")

    page = browser.get("/audit-log")

    assert "Only what happened to requests is shown" not in page.words
    assert "read this audit log" in "".join(deed for deed in re.findall("</span> ([^<]*)<br>", page.text))


def test_a_search_on_the_log_page_is_recorded_in_the_audit_log(audit_log: Portal) -> None:
    browser = audit_log.by_mail("aude")

    browser.get("/audit-log?action=deny")
    browser.get("/audit-log/export?format=csv&action=deny")

    page = browser.get("/audit-log?show=all")
    assert "read this audit log" in page.words
    assert "exported this audit log" in page.words
    assert "{&#34;action&#34;: &#34;deny&#34;}" in page.text


def test_opening_checkpoint_or_verify_pages_is_not_recorded(audit_log: Portal) -> None:
    browser, before = audit_log.by_mail("aude"), readings(audit_log)

    for path in ("/audit-log/checkpoint", "/audit-log/verify"):
        assert browser.get(path).status == 200

    assert readings(audit_log) == before


@pytest.mark.parametrize("path", ["/audit-log", "/audit-log/export", "/audit-log/checkpoint"])
def test_the_log_page_of_another_tenant_is_not_found(audit_log: Portal, open_portal: OpenPortal, path: str) -> None:
    elsewhere, browser = open_portal(), audit_log.by_mail("aude")

    theirs = browser.get(f"{path}?tenant={elsewhere.world.tenant.slug}")
    nobodys = browser.get(f"{path}?tenant=nobodys")

    assert (theirs.status, nobodys.status) == (404, 404)
    assert theirs.text == nobodys.text


def test_vendor_auditors_read_vendor_and_tenant_logs_without_hidden_values(
    audit_log: Portal,
) -> None:
    own = looks(audit_log, "vera")
    theirs = looks(audit_log, "vera", tenant=audit_log.world.tenant.slug, action="approve")
    words = looks(audit_log, "vera", tenant=audit_log.world.tenant.slug, text="quick")

    assert "Audit log of the vendor itself" in own.words
    assert "submitted a request for access" not in deeds(own)
    assert "Ann: approved the request" in deeds(theirs)
    assert "QUICK" not in theirs.text
    assert "The mailbox" not in looks(audit_log, "vera", tenant=audit_log.world.tenant.slug, action="submit").text
    assert (words.status, "Leave out `text`" in words.words) == (422, True)


def test_a_reader_of_several_audit_logs_chooses_one_log(open_portal: OpenPortal) -> None:
    first, second = open_portal(), open_portal()
    second.sql(
        "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (:id, :p, :t, 'auditor')",
        id=new_id(),
        p=id_of(first.world, "aude"),
        t=second.world.tenant.id,
    )
    second.world.submit()

    page = looks(first)
    other = looks(first, tenant=second.world.tenant.slug)

    assert second.world.tenant.slug in page.text
    assert "Erin: submitted a request for access" in deeds(other)
    assert Role.AUDITOR in {one.role for one in first.world.people["aude"].standings}


def test_an_export_from_the_log_page_can_be_verified_and_its_csv_obeys_the_filter(audit_log: Portal) -> None:
    browser = audit_log.by_mail("aude")

    whole = browser.call("GET", "/audit-log/export", params={"since": "2"})
    table = browser.call("GET", "/audit-log/export", params={"format": "csv", "action": "deny", "text": ""})

    result = verify(whole.content.splitlines(keepends=True), [public(), keyring.ephemeral().public])
    assert (result.exit_code, set(result.header.consistency)) == (GOOD, {2})
    assert "attachment" in whole.headers["content-disposition"]
    assert (whole.headers["cache-control"], whole.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert [row["User"] for row in csv.DictReader(io.StringIO(table.text))] == ["Amir"]


@pytest.mark.parametrize("query", [{"since": "x"}, {"since": "9" * 12}, {"since": "9" * 30}, {"person": "x"}])
def test_an_export_with_an_invalid_query_is_reported_and_not_recorded(
    audit_log: Portal, query: dict[str, str]
) -> None:
    before = readings(audit_log)

    page = PortalPage(audit_log.by_mail("aude").call("GET", "/audit-log/export", params=query))

    assert (page.status, 'role="alert"' in page.text) == (422, True)
    assert readings(audit_log) == before


def test_the_checkpoint_page_shows_the_checkpoint_and_the_keys_and_the_verify_command(audit_log: Portal) -> None:
    page = audit_log.by_mail("aude").get("/audit-log/checkpoint")

    text = html.unescape(page.text)
    assert f"lockbox.test/audit/{audit_log.world.tenant.id}" in text
    assert public().text in text
    assert public().fingerprint in text
    assert "lockbox audit verify audit.ndjson --checkpoint checkpoint.txt" in text
    assert {form.action for form in page.read.forms} == {"/sign-out", "/account/preferences", "/audit-log/export"}


def test_the_checkpoint_page_of_an_unsealed_log_says_that_no_event_is_sealed(portal: Portal) -> None:
    browser = portal.by_mail("aude")

    shown, exported = browser.get("/audit-log/checkpoint"), browser.get("/audit-log/export")

    assert (shown.status, "This log has no sealed events yet" in shown.words) == (200, True)
    assert exported.status == 404


def test_an_export_ends_when_its_reader_signs_out(audit_log: Portal) -> None:
    browser = audit_log.by_mail("aude")
    shown = Request({"type": "http", "headers": [(b"cookie", f"{SESSION}={browser.session}".encode())]})
    opened = while_signed_in(audit_log.db.transaction, shown, audit_log.settings)

    with opened():
        pass
    browser.submit(browser.get("/account"), "/sign-out")

    with pytest.raises(NotSignedIn), opened():
        pass
