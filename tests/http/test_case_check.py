"""A ticket system is asked about a case if a policy demands it: signed both ways, and while no row is locked."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from api.incoming_request import WRITES
from harness.wait import within
from lockbox.database import Database
from lockbox.notifications.endpoints import new_secret
from lockbox.requests import case_check
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import NOTIFICATIONS
from tests.case_adapter import OPEN, CaseAdapterServer, answering, case_adapter, system_at
from tests.database.scenes import read
from tests.http.door import Door, OpenDoor, facts
from tests.http.portal import SETTINGS, OpenPortal
from tests.policy_setup import lay_down

CHECKS_OF = "SELECT FROM case_checks WHERE tenant_id = :tenant"
NOWHERE = "http://127.0.0.1:9/lockbox"
FORM = {
    "service": "exchange-online",
    "resources": "mailbox:anna@contoso.example",
    "actions": "read",
    "reason_code": "support_case",
    "justification": "It does not open",
    "case_ref": "CASE-7",
    "case_system": "helpdesk",
    "access_window": "1800",
}


@pytest.fixture
def work(api: Database) -> Iterator[Callable[[str | None], None]]:
    """Return a function that starts the notifications worker's part, with an adapter at this address."""
    with ExitStack() as running:
        yield lambda url: running.enter_context(answering(api, url))


@pytest.fixture
def asked(work: Callable[[str | None], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[CaseAdapterServer]:
    """An adapter of the test's own, and a worker that asks it; engineers wait long for the answer."""
    monkeypatch.setattr(case_check, "SECONDS", 60.0)
    with case_adapter() as server:
        work(server.url)
        yield server


def settings_of(url: str | None) -> dict[str, Any]:
    """Return the settings of an API whose ticket system has this adapter."""
    return {"catalogue": SETTINGS.catalogue.model_copy(update={"case_systems": {"helpdesk": system_at(url)}})}


def demanding(open_door: OpenDoor, demand: str, url: str | None) -> Door:
    """Return a world whose policy demands this of cases, at an API that knows the adapter."""
    door: Door = open_door(Policy.model_validate({"vendor_review": False, "unconfirmed_case": demand}))
    return door.with_settings(**settings_of(url))


def test_a_submission_with_an_open_case_assigned_to_the_engineer_is_confirmed(
    open_door: OpenDoor, asked: CaseAdapterServer
) -> None:
    door = demanding(open_door, "refuse", asked.url)

    view = door.file(case_ref="CASE-7", case_system="helpdesk").json()

    assert view["case_check"] == "confirmed"
    (question,) = asked.asked
    erin = door.world.people["erin"].person_id
    assert question["type"] == "case.check"
    assert question["data"]["case_ref"] == "CASE-7"
    assert question["data"]["tenant"] == door.world.tenant.slug
    assert question["data"]["engineer"]["id"] == str(erin)
    assert "@" in question["data"]["engineer"]["email"]
    assert door.act("ann", "approve", view["id"]).status_code == 200


@pytest.mark.parametrize("demand", ["flag", "refuse"])
def test_a_request_is_refused_if_its_case_is_closed_or_not_assigned_to_the_engineer(
    open_door: OpenDoor, asked: CaseAdapterServer, demand: str
) -> None:
    door = demanding(open_door, demand, asked.url)
    before = door.rows()

    for says in ({"open": False, "assigned": True}, {"open": True, "assigned": False}):
        asked.says = says
        assert facts(door.file(case_system="helpdesk"), 422, "case-not-confirmed")["field"] == "case_ref"

    assert door.rows() == before


def test_an_unsigned_or_mismatched_case_adapter_answer_confirms_nothing(
    open_door: OpenDoor, asked: CaseAdapterServer
) -> None:
    door = demanding(open_door, "refuse", asked.url)

    asked.signs = new_secret()
    facts(door.file(case_system="helpdesk"), 503, "case-system-down")
    without = door.with_settings(**settings_of(None))
    facts(without.file(case_system="helpdesk"), 503, "case-system-down")


@pytest.mark.far
def test_approvers_see_a_flag_if_the_case_adapter_could_not_be_asked(
    open_portal: OpenPortal, work: Callable[[str | None], None]
) -> None:
    policy = Policy.model_validate({"vendor_review": False, "unconfirmed_case": "flag"})
    work(NOWHERE)
    portal = open_portal(policy, SETTINGS.model_copy(update=settings_of(NOWHERE)))
    browser = portal.by_mail("erin")
    form = FORM | {"tenant": portal.world.tenant.slug}

    page = browser.submit(browser.submit(browser.get("/ask"), "/ask/preview", **form), "/ask")

    browser.enter("ann")
    assert "not confirmed: the ticket system could not be asked" in browser.get(page.path).words


def test_an_unconfirmed_case_blocks_the_approval_once_the_policy_refuses_unconfirmed_cases(
    open_door: OpenDoor,
) -> None:
    door = demanding(open_door, "flag", None)
    view = door.file(case_system="helpdesk").json()
    assert view["case_check"] == "unconfirmed"

    lay_down(door.world, unconfirmed_case="refuse")

    facts(door.act("ann", "approve", view["id"]), 422, "policy-not-met")


def test_no_case_adapter_is_asked_unless_the_policy_demands_it(open_door: OpenDoor, asked: CaseAdapterServer) -> None:
    door = demanding(open_door, "accept", asked.url)

    assert door.file(case_system="helpdesk").json()["case_check"] is None
    assert door.file(case_ref=None).json()["case_check"] is None
    assert asked.asked == []


@pytest.mark.far
def test_the_policy_refuses_or_flags_a_request_if_the_ticket_system_does_not_answer(
    open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_check, "SECONDS", 0.2)
    nobody_answers = NOWHERE
    before = demanding(open_door, "refuse", nobody_answers)
    rows = before.rows()

    assert facts(before.file(case_system="helpdesk"), 503, "case-system-down")["field"] == "case_ref"
    assert before.rows() == rows
    assert demanding(open_door, "flag", nobody_answers).file(case_system="helpdesk").json()["case_check"] == (
        "unconfirmed"
    )
    assert not [member for member in before.db.schedule.members(NOTIFICATIONS) if member.startswith("case_check:")]


def test_forms_waiting_for_a_case_adapter_take_no_slots_of_other_calls(
    open_portal: OpenPortal, asked: CaseAdapterServer
) -> None:
    policy = Policy.model_validate({"vendor_review": False, "unconfirmed_case": "refuse"})
    portal = open_portal(policy, SETTINGS.model_copy(update=settings_of(asked.url)))
    forms = [FORM | {"tenant": portal.world.tenant.slug, "case_ref": f"CASE-{one}"} for one in range(WRITES.most + 1)]
    browsers = [portal.browser() for _ in forms]
    for browser in browsers:
        browser.enter("erin")
    pages = [
        browser.submit(browser.get("/ask"), "/ask/preview", **form)
        for browser, form in zip(browsers, forms, strict=True)
    ]
    asked.goes_on.clear()
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(browser.submit, page, "/ask") for browser, page in zip(browsers, pages, strict=True)]
        try:
            assert within(30, lambda: len(read(portal.db, CHECKS_OF, tenant=portal.world.tenant.id)) == len(forms))
            assert browsers[0].submit(pages[0], "/ask/preview").status == 200
        finally:
            asked.goes_on.set()
        answered = [one.result(60) for one in waiting]

    assert all(page.path.startswith("/requests/") for page in answered)


@pytest.mark.far
def test_a_request_form_is_submitted_once_the_case_is_confirmed(
    open_portal: OpenPortal, asked: CaseAdapterServer
) -> None:
    policy = Policy.model_validate({"vendor_review": False, "unconfirmed_case": "refuse"})
    portal = open_portal(policy, SETTINGS.model_copy(update=settings_of(asked.url)))
    browser = portal.by_mail("erin")
    form = FORM | {"tenant": portal.world.tenant.slug}
    asked.says = {"open": False, "assigned": True}

    page = browser.submit(browser.submit(browser.get("/ask"), "/ask/preview", **form), "/ask")
    assert page.status == 422
    assert "this case is not open" in page.words

    asked.says = OPEN
    page = browser.submit(browser.submit(page, "/ask/preview"), "/ask")
    assert "confirmed" in page.words
    assert page.path.startswith("/requests/")


def test_case_checks_are_limited_for_each_person(open_door: OpenDoor, asked: CaseAdapterServer) -> None:
    door = demanding(open_door, "refuse", asked.url).with_settings(submissions_per_person=3)
    asked.says = {"open": False, "assigned": True}

    answers = [door.file(case_system="helpdesk") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [422, 422, 422, 429]
    assert answers[-1].headers["retry-after"] == "60"
    assert len(asked.asked) == 3
