"""Administering a tenant apart from its policy: members, delegates, webhooks and the emergency stop."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from lockbox.admin import delegates, delivery_log, members, webhooks
from lockbox.audit.events import Origin
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.tenancy import does, id_of, members_of, reads
from tests.each import each
from tests.http.places import REACH, SENT, TRIED
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage
from tests.policy_setup import lay_down

URL = "https://hooks.contoso.example/lockbox"
FORMS = {
    "/name": {"name": "Fabrikam"},
    "/emergency-stop": {},
    "/mode/save": {"mode": "off"},
    "/members": {"name": "Nina", "address": "nina@contoso.example", "roles": "approver"},
    "/members/eligible": {"eligible": "yes"},
    "/members/remove": {},
    "/delegates": {"delegate": str(UUID(int=1)), "ends": "2100-01-01T10:00"},
    "/endpoints": {"url": URL},
    "/endpoints/turn": {"enabled": "no"},
    "/endpoints/rotate": {"hours": "0"},
    "/endpoints/test": {},
    "/endpoints/remove": {},
    "/observers": {"name": "Desk", "address": "desk@contoso.example"},
}


def with_csrf(browser: Browser, fields: dict[str, str]) -> dict[str, str]:
    """Return the fields with the form token of this browser's session."""
    return fields | {"csrf": browser.get("/account").form("/sign-out").fields["csrf"]}


def hook(portal: Portal) -> UUID:
    shown = does(portal.world, "tara", webhooks.add, webhooks.WebhookInput(URL, description="Ours"), reach=REACH)
    return shown.endpoint.id


def eligible(portal: Portal, name: str = "aude") -> str:
    """Make a person eligible as a delegate, and return their id."""
    does(portal.world, "tara", members.set_eligible, id_of(portal.world, name), eligible=True)
    return str(id_of(portal.world, name))


def standing_in(portal: Portal) -> list[tuple[str, str]]:
    return [(one.delegate, one.principal) for one in reads(portal.world, "tara", delegates.current)]


def tried(portal: Portal, one: UUID) -> tuple[str, str]:
    """Record a delivered call of a webhook; return the ids of the attempt and of its notification."""
    with portal.db.transaction() as session:
        caller = portal.world.people["tara"]
        notification = delivery_log.try_out(session, caller, Origin("api"), one)
    delivery = new_id()
    portal.sql(SENT, n=notification)
    portal.sql(TRIED, d=delivery, n=notification)
    return str(delivery), str(notification)


def test_the_tenant_overview_links_to_all_settings(portal: Portal) -> None:
    page = portal.by_passkey("tara").get(portal.here())

    for tail in (
        "/mode",
        "/policy",
        "/members",
        "/tiers",
        "/delegates",
        "/endpoints",
        "/observers",
        "/emergency-stop",
    ):
        assert portal.here(tail) in page.read.links
    assert "1 approval within 12 h, access for at most 4 h" in page.words
    assert "No delegates" in page.words


def test_the_page_of_an_emergency_stop_lists_the_requests_that_the_stop_ends(portal: Portal) -> None:
    opened, waiting = portal.world.submit(), portal.world.submit(resources=["mailbox:b@contoso.example"])
    portal.world.act("ann", Action.APPROVE, opened.id)
    lay_down(portal.world, vendor_review=True)
    in_review = portal.world.submit(resources=["mailbox:c@contoso.example"])
    browser = portal.by_passkey("tara")

    page = browser.get(portal.here("/emergency-stop"))
    done = browser.submit(page, "/emergency-stop", comment="We are being attacked")

    assert "Open windows: 1" in page.words
    assert "Waiting for your approval: 1" in page.words
    assert "In the vendor's review: 1" in page.words
    assert str(in_review.id) not in page.text
    assert {f"/requests/{one.id}" for one in (opened, waiting)} <= set(page.read.links)
    assert (done.status, done.path) == (200, portal.here())
    states = {row.id: row.state for row in portal.states()}
    assert [states[one.id] for one in (opened, waiting, in_review)] == ["revoked", "denied", "denied"]


def test_an_emergency_stop_with_an_invalid_comment_is_refused_and_keeps_the_comment(portal: Portal) -> None:
    request = portal.world.submit()
    browser = portal.by_passkey("tara")

    page = browser.submit(browser.get(portal.here("/emergency-stop")), "/emergency-stop", comment="a\u202eb")

    assert (page.status, "Not accepted: Why" in page.words) == (422, True)
    assert "a\u202eb" in page.form("/emergency-stop").fields["comment"]
    assert {row.id: row.state for row in portal.states()}[request.id] == "pending"


def test_the_member_list_shows_which_members_turned_prompts_off(portal: Portal) -> None:
    portal.sql("UPDATE people SET wants_prompts = false WHERE id = :id", id=id_of(portal.world, "ann"))

    page = portal.by_passkey("tara").get(portal.here("/members"))

    assert page.words.count("asked by mail only when there are too few other approvers") == 1


def test_an_admin_makes_a_member_eligible_as_a_delegate_and_ineligible_again(portal: Portal) -> None:
    browser = portal.by_passkey("tara")
    fields = with_csrf(browser, {"id": str(id_of(portal.world, "aude"))})

    allowed = browser.post(portal.here("/members/eligible"), fields | {"eligible": "yes"})
    between = members_of(portal.world)["Aude"].is_eligible
    browser.post(portal.here("/members/eligible"), fields | {"eligible": "no"})

    assert (allowed.path, between) == (portal.here("/members"), True)
    assert not members_of(portal.world)["Aude"].is_eligible


def test_an_approver_adds_a_delegate_until_a_local_time_and_ends_the_delegation(portal: Portal) -> None:
    aude = eligible(portal)
    portal.sql("UPDATE people SET time_zone = 'Asia/Tokyo' WHERE id = :id", id=id_of(portal.world, "ann"))
    browser = portal.by_passkey("ann")
    day = datetime.now(UTC) + timedelta(days=2)

    page = browser.submit(
        browser.get(portal.here("/delegates")), "/delegates", delegate=aude, ends=f"{day:%Y-%m-%d}T09:00"
    )
    named = standing_in(portal)
    (row,) = portal.sql("SELECT ends_at FROM delegations WHERE delegate_id = :d", d=aude)
    ended = browser.submit(page, "/delegates/end")

    assert (page.status, page.path) == (200, portal.here("/delegates"))
    assert "Aude for Ann now" in page.words
    assert (named, standing_in(portal)) == ([("Aude", "Ann")], [])
    assert row.ends_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M") == f"{day:%Y-%m-%d}T00:00"
    assert "There are no current or planned delegates" in ended.words


def test_adding_a_webhook_shows_its_secret_on_one_page(portal: Portal) -> None:
    browser = portal.by_passkey("tara")
    page = browser.get(portal.here("/endpoints"))

    shown = browser.submit(page, "/endpoints", url=URL, description="Ours", why="")
    listed = browser.get(portal.here("/endpoints"))
    (one,) = reads(portal.world, "tara", webhooks.listed)
    its = browser.get(portal.here(f"/endpoints/{one.id}"))

    assert shown.status == 200
    assert "whsec_" in shown.text
    assert shown.answer.headers["cache-control"] == "no-store"
    assert (one.url, one.description, one.event_types, one.with_justification) == (URL, "Ours", [], False)
    assert "Ours" in listed.words
    assert "whsec_" not in listed.text + its.text


@each(
    ("fields", "says"),
    [
        ({"url": "http://hooks.contoso.example/"}, "be called: the address is not https"),
        ({"url": "https://10.0.0.1/"}, "be called"),
        ({"url": ""}, "Not accepted: Address: write something."),
        ({"events": "request.nothing"}, "There is no event request.nothing"),
        ({"form": "xml"}, "Not accepted: Form: choose json or"),
        ({"description": "x" * 300}, "Not accepted: What it is: write at most 200 characters."),
    ],
)
def test_an_invalid_webhook_is_reported_and_stays_in_the_form(
    portal: Portal, fields: dict[str, str], says: str
) -> None:
    browser = portal.by_passkey("tara")
    written = {"url": URL, "description": "Ours"} | fields
    form = browser.get(portal.here("/endpoints")).form("/endpoints").fields
    kept = {name: value for name, value in form.items() if name not in {"events", "why"}}

    page = browser.post(portal.here("/endpoints"), kept | written)

    assert (page.status, says in page.words) == (422, True)
    again = page.form("/endpoints").fields
    assert (again["url"], again["description"]) == (written["url"], written["description"])
    assert reads(portal.world, "tara", webhooks.listed) == []


def test_the_delivery_log_shows_the_outcome_of_each_call_and_offers_to_repeat_ended_calls(portal: Portal) -> None:
    one, browser = hook(portal), portal.by_passkey("tara")
    delivery, notification = tried(portal, one)
    page = browser.get(portal.here(f"/endpoints/{one}"))

    again = browser.submit(page, "/redeliver")
    too_soon = browser.post(
        portal.here("/endpoints/redeliver"), with_csrf(browser, {"id": str(one), "delivery": delivery})
    )

    assert "endpoint.test delivered" in page.words
    assert "answered 204 after 5 ms · done" in page.words
    assert notification in page.words
    assert "next try on" in again.words
    assert not [form for form in again.read.forms if form.action.endswith("/redeliver")]
    assert (too_soon.status, "still being retried" in too_soon.words) == (409, True)


@pytest.mark.far
@pytest.mark.parametrize(("means", "minutes"), [(AuthMethod.MAIL, 0), (AuthMethod.PASSKEY, 16)])
def test_a_person_with_a_weak_or_old_sign_in_is_sent_to_sign_in_again_and_back(
    portal: Portal, means: AuthMethod, minutes: int
) -> None:
    one, aude = hook(portal), eligible(portal)
    browser = portal.entered("tara", means)
    portal.wait(minutes=minutes)
    near = f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%dT%H:%M}"

    pages: list[tuple[PortalPage, str]] = [
        (browser.submit(browser.get(portal.here(f"/endpoints/{one}")), "/rotate"), f"/endpoints/{one}"),
        (browser.submit(browser.get(portal.here("/endpoints")), "/endpoints", url=URL), "/endpoints"),
        (
            browser.submit(browser.get(portal.here("/delegates")), "/delegates", delegate=aude, ends=near),
            "/delegates",
        ),
        (browser.submit(browser.get(portal.here("/observers")), "/observers", **FORMS["/observers"]), "/observers"),
        (browser.submit(browser.get(portal.here()), "/name", name="Fabrikam"), ""),
    ]

    for page, tail in pages:
        assert page.status == 403
        assert f"/sign-in?next={portal.here(tail)}" in page.read.links
    assert standing_in(portal) == []
    assert "whsec_" not in "".join(page.text for page, _ in pages)


def test_an_admin_of_two_tenants_sees_the_webhooks_of_each_tenant_separately(
    portal: Portal, open_portal: OpenPortal
) -> None:
    elsewhere = open_portal()
    portal.sql(
        "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (:id, :p, :t, 'tenant_admin')",
        id=new_id(),
        p=id_of(portal.world, "tara"),
        t=elsewhere.world.tenant.id,
    )
    theirs, browser = hook(elsewhere), portal.by_passkey("tara")

    here_ = browser.get(portal.here(f"/endpoints/{theirs}"))
    there = browser.get(elsewhere.here(f"/endpoints/{theirs}"))
    removed = browser.post(portal.here("/endpoints/remove"), with_csrf(browser, {"id": str(theirs)}))

    assert (here_.status, there.status, removed.status) == (404, 200, 404)
    assert Role.TENANT_ADMIN in members_of(portal.world)["Tara"].roles
