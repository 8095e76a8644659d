"""A ticket system is asked about a case where a policy demands it: signed both ways, while no row is locked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from config.service_catalogue import CaseSystem
from lockbox.notifications.endpoints import new_secret
from lockbox.requests.policy_rules import Policy
from tests.http.door import Door, OpenDoor, facts
from tests.http.portal import SETTINGS, OpenPortal
from tests.policy_setup import lay_down

SECRET = new_secret()
OPEN = {"open": True, "assigned": True}


class Adapter(HTTPServer):
    """The adapter of a ticket system; `says` is what it answers, `signs` by what secret, None for nothing at all."""

    says: dict[str, Any] = OPEN
    signs: str = SECRET
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}/lockbox"


class Answers(BaseHTTPRequestHandler):
    """Verifies a question, and answers it signed."""

    server: Adapter

    def do_POST(self) -> None:
        """Answer."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(Webhook(SECRET).verify(body, dict(self.headers)))
        said, number, at = json.dumps(self.server.says), self.headers["webhook-id"], datetime.now(UTC)
        self.send_response(self.server.status)
        self.send_header("webhook-id", number)
        self.send_header("webhook-timestamp", str(int(at.timestamp())))
        self.send_header("webhook-signature", Webhook(self.server.signs).sign(number, at, said))
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def adapter() -> Iterator[Adapter]:
    """Run an adapter."""
    with Adapter() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def asked() -> Iterator[Adapter]:
    """An adapter of the test's own."""
    with adapter() as server:
        yield server


def settings_of(url: str | None) -> dict[str, Any]:
    """Return the settings with which a ticket system has this adapter."""
    system = CaseSystem(title="Helpdesk", address="https://helpdesk.vendor.example/", adapter=url)
    catalogue = SETTINGS.catalogue.model_copy(update={"case_systems": {"helpdesk": system}})
    secret = SecretStr(SECRET)
    return {"catalogue": catalogue, "case_adapter_secret": secret, "webhooks_allow_http": True}


def demanding(open_door: OpenDoor, demand: str, url: str | None) -> Door:
    """Return a world whose policy demands this of cases, at an API that knows the adapter."""
    door: Door = open_door(Policy.model_validate({"vendor_review": False, "unconfirmed_case": demand}))
    return door.with_settings(**settings_of(url))


def test_a_case_that_is_open_and_assigned_is_confirmed(open_door: OpenDoor, asked: Adapter) -> None:
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
def test_a_case_that_is_closed_or_somebody_elses_is_refused(open_door: OpenDoor, asked: Adapter, demand: str) -> None:
    door = demanding(open_door, demand, asked.url)
    before = door.rows()

    for says in ({"open": False, "assigned": True}, {"open": True, "assigned": False}):
        asked.says = says
        assert facts(door.file(case_system="helpdesk"), 422, "case-not-confirmed")["field"] == "case_ref"

    assert door.rows() == before


def test_what_is_no_signed_answer_to_this_question_confirms_nothing(open_door: OpenDoor, asked: Adapter) -> None:
    door = demanding(open_door, "refuse", asked.url)

    asked.signs = new_secret()
    facts(door.file(case_system="helpdesk"), 503, "case-system-down")
    asked.signs, asked.says = SECRET, {"open": True}
    facts(door.file(case_system="helpdesk"), 503, "case-system-down")
    asked.says, asked.status = OPEN, 500
    facts(door.file(case_system="helpdesk"), 503, "case-system-down")
    without = door.with_settings(**settings_of(None))
    facts(without.file(case_system="helpdesk"), 503, "case-system-down")


def test_without_an_answer_a_flag_is_shown_to_the_approvers(open_portal: OpenPortal) -> None:
    policy = Policy.model_validate({"vendor_review": False, "unconfirmed_case": "flag"})
    portal = open_portal(policy, SETTINGS.model_copy(update=settings_of("http://127.0.0.1:9/lockbox")))
    browser = portal.browser()
    browser.enter("erin")
    form = {
        "tenant": portal.world.tenant.slug,
        "service": "exchange-online",
        "resources": "mailbox:anna@contoso.example",
        "actions": "read",
        "reason_code": "support_case",
        "justification": "It does not open",
        "case_ref": "CASE-7",
        "case_system": "helpdesk",
        "access_window": "1800",
    }

    page = browser.submit(browser.submit(browser.get("/ask"), "/ask/preview", **form), "/ask")

    browser.enter("ann")
    assert "not confirmed: the ticket system could not be asked" in browser.get(page.path).words


def test_a_request_that_was_not_confirmed_is_not_approved_once_the_policy_refuses_such(
    open_door: OpenDoor,
) -> None:
    door = demanding(open_door, "flag", None)
    view = door.file(case_system="helpdesk").json()
    assert view["case_check"] == "unconfirmed"

    lay_down(door.world, unconfirmed_case="refuse")

    facts(door.act("ann", "approve", view["id"]), 422, "policy-not-met")


def test_where_the_policy_asks_for_nothing_nobody_is_asked(open_door: OpenDoor, asked: Adapter) -> None:
    door = demanding(open_door, "accept", asked.url)

    assert door.file(case_system="helpdesk").json()["case_check"] is None
    assert door.file(case_ref=None).json()["case_check"] is None
    assert asked.asked == []
