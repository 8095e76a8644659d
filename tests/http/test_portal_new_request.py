"""The request form: it loses no input, previews who would be asked, and submits one request."""

import re
from typing import Any

import pytest

from devstack import run
from lockbox.facts.enumerations import Mode
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage
from tests.policy_setup import lay_down

ANNA = "mailbox:anna@contoso.example"
NEW = "SELECT * FROM requests WHERE tenant_id = :t ORDER BY id"


def written(portal: Portal, **changes: str) -> dict[str, str]:
    facts = {
        "tenant": portal.world.tenant.slug,
        "service": "exchange-online",
        "resources": f"{ANNA}\r\n\r\n  mailbox:bob@contoso.example",
        "actions": "read",
        "reason_code": "support_case",
        "justification": "It does not <b>open</b>\r\nat all",
        "case_ref": "CASE-7",
        "access_window": "1800",
    }
    return facts | changes


def previewed(browser: Browser, portal: Portal, **changes: str) -> PortalPage:
    """Fill in the form and open its preview."""
    return browser.submit(browser.get("/ask"), "/ask/preview", **written(portal, **changes))


def submitted(portal: Portal) -> list[Any]:
    return portal.sql(NEW, t=portal.world.tenant.id)


def test_every_field_of_the_request_form_is_labelled(portal: Portal) -> None:
    page = portal.by_mail("erin").get("/ask")

    assert page.status == 200
    assert "Contoso" in page.text
    for title in ("Exchange Online", "SharePoint Online", "OneDrive", "Support case", "Legal demand"):
        assert title in page.words
    assert set(page.read.named) <= page.read.labels


def test_the_request_form_offers_the_read_action_by_default(portal: Portal) -> None:
    page = portal.by_mail("erin").get("/ask")
    named = portal.by_mail("erin").get("/ask?service=sharepoint-online")

    for one in (page, named):
        assert one.form("/ask/preview").ticked["actions"] == ["read"]


def test_the_default_duration_of_the_request_form_is_allowed_by_the_demo_policy(portal: Portal) -> None:
    page = portal.by_mail("erin").get("/ask")

    assert int(page.form("/ask/preview").fields["access_window"]) <= run.POLICY.access_ceiling


def test_a_preview_on_the_request_form_says_who_is_asked_and_submits_nothing(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(require_case=True, quorum=2))
    browser, before = portal.by_mail("erin"), portal.count()

    page = previewed(browser, portal)

    assert page.status == 200
    # There are many of the vendor beside other tests, of whom five are named.
    assert re.search("(Max|Mia).*, of the vendor", page.words)
    for said in ("Ann", "Amir", "Abe", "Approvals needed 2", "4 h", "12 h", "30 min", "at most 4 h"):
        assert said in page.words
    assert "access is refused" in page.words
    assert "Submit" in page.words
    assert portal.count() == before


def test_a_submitted_request_form_is_stored_unchanged_and_leads_to_the_request_page(portal: Portal) -> None:
    browser = portal.by_mail("erin")

    page = browser.submit(previewed(browser, portal), "/ask")

    (request,) = submitted(portal)
    assert page.path == f"/requests/{request.id}"
    assert request.resources == [ANNA, "mailbox:bob@contoso.example"]
    assert request.justification == "It does not <b>open</b>\nat all"
    assert (request.case_ref, request.access_window, request.actions) == ("CASE-7", 1800, ["read"])
    assert (request.requester_id, request.state) == (portal.world.people["erin"].person_id, "pending")


def test_several_actions_are_submitted_as_chosen_on_the_request_form(portal: Portal) -> None:
    browser = portal.by_mail("erin")
    csrf = browser.get("/ask").form("/ask/preview").fields["csrf"]
    chosen: dict[str, Any] = written(portal) | {"csrf": csrf, "actions": ["read", "export"], "key": "k" * 22}

    answer = browser.send("/ask", chosen)

    assert answer.status_code == 303
    assert submitted(portal)[0].actions == ["read", "export"]


def test_a_request_form_sent_twice_submits_once(portal: Portal) -> None:
    browser = portal.by_mail("erin")
    page = previewed(browser, portal)

    first, second = (browser.submit(page, "/ask") for _ in range(2))

    assert len(submitted(portal)) == 1
    assert first.path == second.path
    again = previewed(browser, portal, duplicate_reason="The first one is read-only")
    browser.submit(again, "/ask")
    assert len(submitted(portal)) == 2


def test_a_request_form_sent_again_with_changed_text_submits_nothing(portal: Portal) -> None:
    browser = portal.by_mail("erin")
    page = previewed(browser, portal)
    browser.submit(page, "/ask")

    refused = browser.submit(page, "/ask", justification="Something else")

    assert refused.status == 422
    assert "Something else" in refused.text
    assert len(submitted(portal)) == 1


@pytest.mark.parametrize("where", ["/ask/preview", "/ask"])
def test_the_request_form_reports_invalid_input_next_to_the_field_and_loses_no_input(
    portal: Portal, where: str
) -> None:
    browser = portal.by_mail("erin")
    csrf = browser.get("/ask").form("/ask/preview").fields["csrf"]
    typed = written(portal, resources=f"{ANNA}\nmailbox:*", justification=" ", service="", access_window="soon")
    fields = portal.filled(where, typed | {"csrf": csrf, "key": "k" * 22})

    page = browser.post(where, fields)

    assert page.status == 422
    assert "Line 2: name each resource; wildcards are not allowed." in page.words
    assert "Choose a service." in page.words
    assert "Say something." in page.words
    assert "Choose a duration." in page.words
    kept = page.form("/ask/preview").fields
    assert "mailbox:*" in kept["resources"]
    assert (kept["case_ref"], kept["tenant"]) == ("CASE-7", portal.world.tenant.slug)
    assert submitted(portal) == []


def test_a_policy_requirement_is_reported_next_to_its_form_field(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(require_case=True, justification_least=200, access_ceiling=600))
    browser = portal.by_mail("erin")

    page = previewed(browser, portal, case_ref="")

    assert "This request would be rejected:" in page.words
    assert "This tenant requires a support case. Name it." in page.words
    assert "Write at least 200 characters of justification." in page.words
    assert [form for form in page.read.forms if form.action == "/ask"] == []
    assert page.text.count("aria-invalid") == 3


def test_a_request_form_opened_before_a_stricter_policy_is_refused_and_keeps_its_text(portal: Portal) -> None:
    browser = portal.by_mail("erin")
    page = previewed(browser, portal)
    lay_down(portal.world, access_ceiling=600, vendor_review=False)

    refused = browser.submit(page, "/ask")

    assert refused.status == 422
    assert "The access window may be at most 10 min." in refused.words
    assert ANNA in refused.form("/ask/preview").fields["resources"]
    assert submitted(portal) == []


def test_the_request_form_says_if_the_customer_leaves_decisions_to_the_vendor(portal: Portal) -> None:
    portal.sql("UPDATE tenants SET mode = :m WHERE id = :t", m=Mode.OBSERVE.value, t=portal.world.tenant.id)

    page = previewed(portal.by_mail("erin"), portal)

    assert "has left this decision to the vendor: a manager opens access" in page.words


def test_the_form_to_resubmit_starts_with_the_values_of_the_earlier_request(portal: Portal) -> None:
    request = portal.world.submit(
        case_ref="CASE-9", access_window=5400, actions=["export"], justification="Old\nwords"
    )
    portal.world.act("ann", Action.DENY, request.id, comment="No")

    page = portal.by_mail("erin").get(f"/ask?from={request.id}")

    kept = page.form("/ask/preview").fields
    assert (kept["case_ref"], kept["access_window"], kept["service"]) == ("CASE-9", "5400", "exchange-online")
    assert kept["justification"].strip() == "Old\nwords"
    assert kept["resources"].strip() == ANNA
    assert 'value="export" checked' in page.text


@pytest.mark.parametrize("who", ["eve", "erin"])
def test_the_form_does_not_show_another_persons_request_for_resubmission(portal: Portal, who: str) -> None:
    theirs = portal.world.submit("eve" if who == "erin" else "erin").id

    shown = portal.by_mail(who).get(f"/ask?from={theirs}")
    nobodys = portal.by_mail(who).get(f"/ask?from={new_id()}")

    assert (shown.status, nobodys.status) == (404, 404)
    assert "mailbox" not in shown.text


def test_input_above_a_limit_of_the_request_form_is_reported_with_that_limit(portal: Portal) -> None:
    browser = portal.by_mail("erin")
    many = "\n".join(f"mailbox:{number}@contoso.example" for number in range(60))
    typed = written(portal, resources=many, justification="x" * 4001, case_ref="y" * 101)

    page = browser.submit(browser.get("/ask"), "/ask/preview", **typed)

    assert page.status == 422
    assert "Name at most 50, not 60." in page.words
    assert "Write at most 4000 characters." in page.words
    assert "Write at most 100 characters." in page.words
    assert page.form("/ask/preview").fields["resources"].split() == many.split()


def test_the_request_form_offers_no_window_above_the_customers_limit(open_portal: OpenPortal) -> None:
    portal = open_portal()
    lay_down(portal.world, access_ceiling=1200)
    browser = portal.by_mail("erin")

    chosen = browser.submit(browser.get("/ask"), "/ask/preview", **written(portal, access_window="900"))

    for page in (chosen, previewed(browser, portal, access_window="7200")):
        offered = [int(one) for one in re.findall(r'<option value="(\d+)"', page.text)]
        assert offered == [300, 900, 1200]


def offered(page: PortalPage) -> list[int]:
    """Return the windows that a form offers, in seconds."""
    return [int(one) for one in re.findall(r'<option value="(\d+)"', page.text)]


def test_before_any_preview_the_form_offers_only_durations_up_to_the_customers_maximum(
    open_portal: OpenPortal,
) -> None:
    portal = open_portal()
    lay_down(portal.world, access_ceiling=1200)
    request = portal.world.submit(access_window=900)
    browser, slug = portal.by_mail("erin"), portal.world.tenant.slug

    chosen, again = browser.get(f"/ask?tenant={slug}"), browser.get(f"/ask?from={request.id}")
    refused = browser.submit(
        browser.get("/ask"), "/ask/preview", **written(portal, service="", access_window="14400")
    )

    for page in (chosen, again, refused):
        assert offered(page) == [300, 900, 1200], page.path
    assert chosen.form("/ask/preview").fields["tenant"] == slug
    assert f'<option value="{slug}" data-longest="1200"' in chosen.text
    assert refused.form("/ask/preview").fields["access_window"] == "1200"


def test_before_a_customer_is_chosen_the_form_offers_durations_up_to_the_highest_maximum(portal: Portal) -> None:
    lay_down(portal.world, access_ceiling=3600)
    browser = portal.by_mail("erin")

    pages = [browser.get(path) for path in ("/ask", "/ask?tenant=nobody")]

    most = max(int(one) for one in re.findall(r'data-longest="(\d+)"', pages[0].text))
    for page in pages:
        assert max(offered(page)) == most


def test_pages_show_the_tenants_current_name(open_portal: OpenPortal) -> None:
    portal = open_portal()
    request, slug = portal.world.fresh(), portal.world.tenant.slug
    portal.world.act("ann", Action.APPROVE, request.id)
    portal.world.fresh()
    portal.sql("UPDATE tenants SET name = 'Renamed Corp' WHERE id = :t RETURNING id", t=portal.world.tenant.id)
    browser = portal.by_mail("erin")

    for place in ("/requests", "/mine", "/open", f"/requests/{request.id}"):
        page = browser.get(place)
        assert "Renamed Corp" in page.words, place
        assert slug not in page.words, place
    assert "Customer Renamed Corp" in " ".join(previewed(browser, portal).words.split())


def test_the_link_in_a_gate_refusal_fills_the_refused_call_into_the_form(portal: Portal) -> None:
    slug = portal.world.tenant.slug
    page = portal.by_mail("erin").get(
        f"/ask?tenant={slug}&service=exchange-online&resource=site%3A%3Cb%3E&action=export"
    )

    form = page.form("/ask/preview")
    assert form.fields["tenant"] == slug
    assert form.fields["service"] == "exchange-online"
    assert form.fields["resources"].strip() == "site:<b>"
    assert "site:&lt;b&gt;" in page.text
    assert 'value="export" checked' in page.text
    assert 'value="read" checked' not in page.text
