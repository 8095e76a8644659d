"""The page of a request: what it shows, decisions on it, and a sentence for each refusal."""

import re
from dataclasses import replace
from typing import Any

import pytest

from gate import call_counts
from harness.stage import setting, unbound
from lockbox.identity.roles import Role
from lockbox.identity.time_zones import page_time
from lockbox.monitoring import status
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.database.scenes import write
from tests.each import each
from tests.http.portal import OpenPortal, Portal, PortalPage

BY_MAIL = Policy(vendor_review=False, mail_suffices=True)
STILL_OPEN = """
INSERT INTO connections (id, request_id, tenant_id, kind, target, state, run_at, created_at)
SELECT uuidv7(), id, tenant_id, 'webhook', 'orders', 'close_failed', now(), now() FROM requests WHERE id = :id
"""
USED = """
INSERT INTO window_uses
    (request_id, count, first_at, first_gateway, first_action, last_at, last_gateway, last_action, look_at)
VALUES
    (:id, 3, now() - interval '90 seconds', :gateway, 'read', now() - interval '60 seconds', :gateway, 'read', now())
"""
CLOSED = "UPDATE connections SET state = 'closed', run_at = NULL, closed_at = now() WHERE request_id = :id"
OURS = {"/static/htmx-4.0.1.min.js", "/static/portal.js"}
HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def lenient(open_portal: OpenPortal) -> Portal:
    """The pages of a world whose tenant lets a mailed code approve."""
    return open_portal(BY_MAIL)


@pytest.fixture
def easy(lenient: Portal) -> Portal:
    """The same world with a clock of the test's own."""
    return replace(lenient)


def offered(page: PortalPage) -> set[str]:
    """Return the actions on a request that a page offers."""
    actions = (re.fullmatch(r"/requests/[0-9a-f-]{36}/(\w+)", form.action) for form in page.read.forms)
    return {found[1] for found in actions if found} - {"look", "questions"}


def test_the_request_page_shows_requester_and_resource_and_reason_and_both_deadlines(easy: Portal) -> None:
    request = easy.world.fresh(access_window=5400, justification="It does not open.\nSince Monday.")

    _, page = easy.opened("ann", request.id)

    for words in (
        "Erin requests access to Exchange Online",
        request.resources[0],
        "Erin of the vendor wants to read 1 mailbox in Exchange Online at",
        "for 1 hour 30 minutes",
        "Support case: It does not open. Since Monday.",
        "CASE-1",
        "1 h 30 min",
        "Answer by",
        page_time(request.deadline_at),
        "if approved now",
        "0 of 1",
        "Erin (engineer) submitted the request",
        str(request.id),
    ):
        assert words in page.words
    assert offered(page) == {"approve", "deny"}


def test_the_request_page_and_the_operators_status_report_access_still_open_at_a_target(easy: Portal) -> None:
    request = easy.world.fresh()
    easy.world.act("ann", Action.APPROVE, request.id)
    write(unbound(easy.db), STILL_OPEN, id=request.id)

    _, page = easy.opened("ann", request.id)
    _, of_engineer = easy.opened("erin", request.id)

    assert (
        "orders: could not be closed yet: sessions that were open there may go on, and it is tried again"
        in page.words
    )
    assert "orders: could not be closed yet" in of_engineer.words
    assert (
        "let no call in by this access yet. Calls that the service checks by itself and does not report" in page.words
    )
    troubles = status.read(easy.db, with_redis=True).troubles
    assert "1 targets did not close their access: see docs/connectors.md" in troubles
    write(unbound(easy.db), CLOSED, id=request.id)
    _, page = easy.opened("ann", request.id)
    assert "orders: closed, and checked" in page.words


def test_the_timeline_shows_the_time_of_a_first_use_and_not_of_its_recording(easy: Portal) -> None:
    request = easy.world.fresh()
    easy.world.act("ann", Action.APPROVE, request.id)
    write(unbound(easy.db), USED, id=request.id, gateway=easy.world.people["gate"].person_id)

    assert sum(call_counts.record_uses(setting(easy.db))) == 1
    _, page = easy.opened("ann", request.id)

    (row,) = easy.sql("SELECT first_at, last_at FROM window_uses WHERE request_id = :id", id=request.id)
    assert f"Used 3 times at the gate , last at {page_time(row.last_at)}" in page.words
    assert f"The gate let the engineer in for the first time {page_time(row.first_at)}" in page.words


def test_an_approver_approves_for_a_shorter_time_with_a_comment(easy: Portal) -> None:
    request = easy.world.fresh(access_window=3600)
    browser, page = easy.opened("ann", request.id)

    after = browser.submit(page, "/approve", window="900", comment="Go\r\nahead")

    assert (after.status, after.path) == (200, f"/requests/{request.id}")
    assert "Ann (approver) approved" in after.words
    assert offered(after) == {"revoke"}
    (decision,) = easy.sql("SELECT * FROM decisions WHERE request_id = :r", r=request.id)
    assert (decision.access_window, decision.comment, decision.channel) == (900, "Go\nahead", "portal")
    assert (decision.means, decision.address, decision.user_agent) == ("mail", browser.address, browser.agent)


def test_an_action_that_the_person_may_not_take_is_refused_with_a_reason(easy: Portal) -> None:
    request = easy.world.fresh()
    browser, page = easy.opened("aude", request.id)
    fields = page.form("/sign-out").fields | {"version": "1"}
    before = easy.count()

    answer = browser.post(f"/requests/{request.id}/approve", fields)

    assert answer.status == 403
    assert "You have read-only access to this request" in answer.words
    assert easy.count() == before


def test_a_partly_met_quorum_is_shown_and_people_who_voted_are_not_asked_again(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=False, mail_suffices=True, quorum=2))
    request = portal.world.submit()
    browser, page = portal.opened("ann", request.id)

    after = browser.submit(page, "/approve", comment="One")
    again = browser.post(f"/requests/{request.id}/approve", page.form("/approve").fields | {"version": "2"})

    assert "Access opens only if 2 approvers approve" in page.words
    assert "1 of 2" in after.words
    assert offered(after) == {"deny"}
    assert (again.status, "It counts once" in again.words) == (409, True)


def test_a_delegate_is_offered_the_principals_actions_and_decides_under_the_delegates_name(
    open_portal: OpenPortal,
) -> None:
    portal = open_portal(BY_MAIL)
    people = portal.world.people
    portal.sql(
        "INSERT INTO eligible_delegates (tenant_id, person_id) VALUES (:t, :d)",
        t=portal.world.tenant.id,
        d=people["aude"].person_id,
    )
    portal.sql(
        """INSERT INTO delegations (id, tenant_id, principal_id, delegate_id, starts_at, ends_at, made_by, created_at)
        VALUES (uuidv7(), :t, :p, :d, now() - interval '1 hour', now() + interval '1 hour', :p, now())""",
        t=portal.world.tenant.id,
        p=people["ann"].person_id,
        d=people["aude"].person_id,
    )
    browser, page = portal.opened("aude", portal.world.submit().id)

    after = browser.submit(page, "/approve")

    assert offered(page) == {"approve", "deny"}
    assert "Aude (approver, on behalf of Ann) approved" in after.words


def test_a_decision_on_an_outdated_page_says_what_changed(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=False, mail_suffices=True, quorum=2))
    request = portal.world.submit()
    browser, page = portal.opened("ann", request.id)
    portal.world.act("amir", Action.APPROVE, request.id, comment="Looks fine")

    answer = browser.submit(page, "/deny", comment="My long thoughts")

    assert answer.status == 412
    assert "The request has changed since you read it" in answer.words
    assert re.search(r"Since you looked: Amir \(approver\) approved .* Looks fine", answer.words)
    assert answer.form("/deny").fields["comment"] == "My long thoughts"
    assert answer.form("/deny").fields["version"] == "2"
    assert portal.sql("SELECT state FROM requests WHERE id = :r", r=request.id)[0].state == "pending"


def test_a_decision_after_the_deadline_changes_nothing(easy: Portal) -> None:
    request = easy.world.fresh()
    browser, page = easy.opened("ann", request.id)
    easy.wait(hours=12)
    browser.enter("ann")
    fields = page.form("/approve").fields | browser.get("/account").form("/sign-out").fields

    answer = browser.post(f"/requests/{request.id}/approve", fields)

    assert (answer.status, "The deadline has passed" in answer.words) == (409, True)
    assert offered(answer) == set()
    assert "access is refused" in answer.words


@each(
    "fields",
    [
        *({"window": window} for window in ("3601", "0", "-5", "x", "1e3", "\u0663", "9" * 9)),
        *({"version": version} for version in ("", "0", "-1", "x", "9999999999")),
    ],
)
def test_an_approval_with_an_invalid_duration_or_an_invalid_version_opens_no_window(
    easy: Portal, fields: dict[str, str]
) -> None:
    request = easy.world.fresh(access_window=3600)
    browser, page = easy.opened("ann", request.id)
    before = easy.states()

    answer = browser.submit(page, "/approve", **fields)

    assert answer.status == 422
    assert easy.states() == before


@each("comment", ["x" * 2001, "a\x00b", "a\u202eb"])
def test_a_comment_that_is_too_long_or_has_hidden_characters_is_refused(easy: Portal, comment: str) -> None:
    request = easy.world.fresh()
    browser, page = easy.opened("ann", request.id)

    answer = browser.submit(page, "/deny", comment=comment)

    assert (answer.status, "Your comment, the time or the uses were not accepted" in answer.words) == (422, True)
    assert ("write at most 2000 characters." in answer.words) is (len(comment) > 2000)
    assert offered(answer) == {"approve", "deny"}


@pytest.mark.parametrize("name", ["eve", "olga", "gate", "zoe"])
def test_requests_of_other_people_look_nonexistent(easy: Portal, open_portal: OpenPortal, name: str) -> None:
    if name == "zoe":
        easy.world.add("zoe", Role.APPROVER, open_portal().world.tenant.id)
    request = easy.world.fresh()
    browser = easy.by_mail(name)
    fields = browser.get("/account").form("/sign-out").fields | {"version": "1"}

    def without_id(page: PortalPage) -> str:
        return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "…", page.text)

    theirs, nobodys, malformed = (browser.get(f"/requests/{one}") for one in (request.id, new_id(), "not-an-id"))
    acted, acted_on_nothing = (browser.post(f"/requests/{one}/deny", fields) for one in (request.id, new_id()))

    assert theirs.status == nobodys.status == malformed.status == acted.status == 404
    assert theirs.text == nobodys.text == malformed.text
    assert without_id(acted) == without_id(acted_on_nothing)
    assert set(theirs.answer.headers) == set(nobodys.answer.headers)


def test_an_anonymous_reader_learns_nothing_of_a_request(easy: Portal) -> None:
    request = easy.world.fresh()
    browser = easy.browser()

    theirs, nobodys = browser.get(f"/requests/{request.id}"), browser.get(f"/requests/{UUID_LIKE}")

    assert theirs.text.replace(str(request.id), UUID_LIKE) == nobodys.text
    assert theirs.path == "/sign-in"


UUID_LIKE = "01a20e89-0294-736c-b49a-5a0327678385"


@pytest.mark.far
@pytest.mark.parametrize(
    "changes",
    [
        {"justification": HOSTILE, "case_ref": HOSTILE[:100]},
        {"justification": "'; DROP TABLE requests; --", "case_ref": "${7*7}"},
        {"resources": ["mailbox:<b>anna</b>@contoso.example", 'site:"><script>x</script>']},
    ],
)
def test_texts_of_a_request_are_escaped(open_portal: OpenPortal, changes: dict[str, Any]) -> None:
    easy = open_portal(BY_MAIL)
    easy.sql("UPDATE people SET name = :n WHERE id = :p", n=HOSTILE, p=easy.world.people["eve"].person_id)
    request = easy.world.fresh("eve", **changes)

    browser, page = easy.opened("ann", request.id)
    refused = browser.submit(page, "/approve", comment=HOSTILE, window="x")
    after = browser.submit(page, "/deny", comment=HOSTILE)

    for one in (page, refused, after, browser.get("/requests")):
        assert set(one.read.scripts) == OURS
        assert "<img" not in one.text
        assert "<b>anna" not in one.text
        assert "onerror=alert(1)&gt;" in one.text
        assert "7 * 7" in one.text
    assert refused.form("/approve").fields["comment"] == HOSTILE


def test_a_person_with_a_hostile_name_can_use_all_their_pages(open_portal: OpenPortal) -> None:
    easy = open_portal(BY_MAIL)
    easy.sql("UPDATE people SET name = :n WHERE id = :p", n=HOSTILE, p=easy.world.people["ann"].person_id)
    browser = easy.browser(agent=HOSTILE)

    page = browser.sign_in("ann", "/account")

    assert page.path == "/account"
    assert set(page.read.scripts) == OURS
    assert "<img" not in page.text
    assert "<img" not in browser.get("/sign-in").text


def before(page: PortalPage) -> str:
    found = re.search(r'<section aria-labelledby="before">.*?</section>', page.text, re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", found[0]).split()) if found else ""


def test_the_request_page_says_how_earlier_similar_requests_ended(open_portal: OpenPortal) -> None:
    portal = open_portal(BY_MAIL)
    denied = portal.world.submit(resources=["mailbox:other@contoso.example"])
    portal.world.act("ann", Action.DENY, denied.id)
    portal.world.submit(case_ref=None, resources=["mailbox:third@contoso.example"])
    request, unlike = (
        portal.world.submit(),
        portal.world.submit(case_ref=None, resources=["mailbox:x@contoso.example"]),
    )

    _, page = portal.opened("amir", request.id)

    assert re.fullmatch(r"Earlier requests for the same case or resource Erin Denied by Ann \w{3} .*", before(page))
    assert f"/requests/{denied.id}" in page.read.links
    assert before(portal.opened("amir", denied.id)[1]) == ""
    assert before(portal.opened("amir", unlike.id)[1]) == ""


@pytest.mark.far
def test_the_request_page_names_no_earlier_request_hidden_from_its_reader(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(mail_suffices=True))
    withheld = portal.world.submit("eve")
    portal.world.act("max", Action.DENY, withheld.id)
    request = portal.world.submit()
    portal.world.act("max", Action.ENDORSE, request.id)

    told = {
        name: before(portal.opened(name, request.id)[1]) for name in ("ann", "tara", "aude", "erin", "mia", "vera")
    }

    assert {name for name, words in told.items() if words} == {"mia", "vera"}
    assert "Eve Denied by Max" in told["mia"]
