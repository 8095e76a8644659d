"""The command `lockbox` against the API in process: further ways to access, from the request to its end."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from httpx import Response
from sqlalchemy import Engine

from harness.people import SETTINGS
from lockbox.identity.roles import BOUND_TO, Role, Scope
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.commands import Commands
from tests.database.tenancy import id_of, is_erased_now
from tests.http.door import OpenDoor
from tests.http.test_context import catalogue
from tests.policy_setup import group, lay_down

URL = "http://127.0.0.1:8000"
ANNA = "mailbox:anna@contoso.example"
GLASS = Policy(vendor_review=False, break_glass_services=("exchange-online",))

OpenTerminal = Callable[..., Commands]


@pytest.fixture
def open_terminal(open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenTerminal]:
    """Return what makes a new world with a policy, and a terminal in it; logs are as they were after the test."""
    kept = structlog.get_config()
    # A terminal prints what the command says, and not what the API logs in this process.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())

    def opened(*given: Any, **settings: Any) -> Commands:
        door = open_door(*given).with_settings(**settings)

        def request(method: str, url: str, **parts: Any) -> Response:
            return door.runner.run(door.client.request(method, url.removeprefix(URL), **parts))

        monkeypatch.setattr("cli.client.httpx.request", request)
        return Commands(door.world, URL)

    yield opened
    structlog.configure(**kept)


def asking(terminal: Commands, *more: object) -> list[object]:
    """Return the words of a good submission, and further ones."""
    asked = ["--tenant", terminal.world.tenant.slug, "--service", "exchange-online", "--resource", ANNA]
    return ["request", "submit", *asked, "--justification", "It does not open", "--window", "10m", *more]


def in_days(days: int) -> str:
    return f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT%H:%M:00Z}"


def test_more_time_is_said_with_its_end_and_with_less_if_less_was_approved(open_terminal: OpenTerminal) -> None:
    terminal = open_terminal()
    first = terminal.reads("erin", *asking(terminal))["id"]
    terminal.does("ann", "request", "approve", first)

    asked = terminal.does("erin", "request", "extend", first, "20m")
    terminal.is_refused("erin", "already-extended: ", "request", "extend", first, "5m")
    second = terminal.reads("erin", "request", "show", first)["extended_by"]
    approved = terminal.does("ann", "request", "approve", second, "--window", "5m")

    assert re.search(rf"^Extends +{first}: \+20 min until ", asked, re.MULTILINE)
    assert re.search(rf"^Extends +{first}: \+5 min until ", approved, re.MULTILINE)
    assert re.search(r"^State +Open from .* until ", approved, re.MULTILINE)


def test_a_later_start_is_asked_for_moved_and_shown(open_terminal: OpenTerminal) -> None:
    terminal = open_terminal()
    terminal.is_refused("erin", "policy-not-met: ", *asking(terminal, "--not-before", "2020-01-01T00:00Z"))
    asked = terminal.reads("erin", *asking(terminal, "--not-before", in_days(1)))

    terminal.is_refused("ann", "invalid-", "request", "approve", asked["id"], "--opens-at", in_days(0))
    approved = terminal.reads("ann", "request", "approve", asked["id"], "--opens-at", in_days(2))
    shown = terminal.does("erin", "request", "show", asked["id"])

    assert approved["opens_at"] == in_days(2)
    assert re.search(r"^Begins +\d{4}-", shown, re.MULTILINE)


def test_break_glass_is_opened_found_and_counted(open_terminal: OpenTerminal) -> None:
    terminal = open_terminal(GLASS)
    one = terminal.reads("erin", *asking(terminal, "--break-glass"))["id"]

    terminal.is_refused("max", "comment-required: ", "request", "break-glass", one)
    terminal.does("max", "request", "break-glass", one, "--comment", "Mail is down")
    listed = terminal.does("ann", "request", "list")
    terminal.does("ann", "request", "revoke", one)
    due = terminal.does("ann", "request", "findings")
    found = terminal.does("ann", "request", "finding", one, "not_justified", "--comment", "We were awake")
    shown = terminal.does("max", "request", "show", one)
    counted = terminal.does("aude", "audit", "statistics")

    assert "BREAK-GLASS: active" in listed
    assert re.search(rf"^{one} .* Erin .* Max ", due, re.MULTILINE)
    assert "We were awake" in found
    assert "not justified, by Ann" in shown
    assert terminal.does("ann", "request", "findings") == "None.\n"
    assert re.search(r"^all +- +1 +0 +0 +0 +1 +1 +0 +1 +- *$", counted, re.MULTILINE)
    assert re.search(r"^service +exchange-online +1 ", counted, re.MULTILINE)


@pytest.mark.far
def test_a_duplicate_says_why_and_a_closed_case_ends_both(open_terminal: OpenTerminal) -> None:
    terminal = open_terminal()
    bounds = {Scope.CASE_CLOSE.value, f"{BOUND_TO}{terminal.world.tenant.slug}"}
    terminal.world.add("desk", Role.SYSTEM, scopes=bounds)
    case = ("--case", "CASE-7", "--case-system", "helpdesk", "--case-url", "https://helpdesk.vendor.example/7")
    first = terminal.reads("erin", *asking(terminal, *case))["id"]
    terminal.does("ann", "request", "approve", first)

    terminal.is_refused("erin", "duplicate-request: ", *asking(terminal, *case))
    second = terminal.does("erin", *asking(terminal, *case, "--duplicate-reason", "To change it"))
    closed = terminal.does("desk", "request", "close-case", "helpdesk", "CASE-7")
    timeline = terminal.does("ann", "request", "events", first)

    assert f"{first}: To change it" in second
    assert "CASE-7 in helpdesk" in second
    assert re.findall(r"cancelled|revoked", closed) == ["revoked", "cancelled"]
    assert "The support case was closed." in timeline
    assert terminal.does("desk", "request", "close-case", "helpdesk", "CASE-7").startswith("Nothing was open")
    slug = terminal.world.tenant.slug
    assert f" case:close of {slug} " in terminal.does("desk", "token", "list")
    terminal.is_refused("erin", "wrong-role: ", "request", "close-case", "helpdesk", "CASE-7")


def test_steps_are_shown_and_who_has_to_wait_is_told_so(open_terminal: OpenTerminal) -> None:
    terminal = open_terminal()
    groups = {"security": group(terminal.world, "abe"), "legal": group(terminal.world, "ann")}
    lay_down(terminal.world, stages=[{"group": "security"}, {"group": "legal", "order": 2}], groups=groups)
    one = terminal.reads("erin", *asking(terminal))["id"]

    shown = terminal.does("ann", "request", "show", one)
    terminal.is_refused("ann", "earlier-step-first: ", "request", "approve", one)
    terminal.does("abe", "request", "approve", one)

    assert re.search(r"0 of 1 of security *$", shown, re.MULTILINE)
    assert re.search(r"0 of 1 of legal, in step 2 *$", shown, re.MULTILINE)
    assert "step 2 began, and its approvers were asked" in terminal.does("erin", "request", "events", one)


@pytest.mark.far
def test_what_is_approved_beforehand_is_named_where_it_opened_a_window(open_terminal: OpenTerminal) -> None:
    terminal = open_terminal()
    slug = terminal.world.tenant.slug
    what = ("--service", "exchange-online", "--action", "read", "--reason", "support_case", "--window", "15m")
    narrow = (slug, *what, "--uses", "2", "--until", in_days(3))

    refused = terminal.is_refused("tara", "invalid-", "pre-approval", "propose", *narrow, "--resource", "mailbox:*")
    one = terminal.reads("tara", "pre-approval", "propose", *narrow, "--resource", "mailbox:anna@*")["id"]
    terminal.is_refused("tara", "wrong-role: ", "pre-approval", "approve", slug, one)
    terminal.does("ann", "pre-approval", "approve", slug, one)
    opened = terminal.does("erin", *asking(terminal))
    listed = terminal.does("aude", "pre-approval", "list", slug)
    terminal.does("amir", "pre-approval", "revoke", slug, one)

    assert "Name at least a part of the id" in refused
    assert re.search(rf"^Pre-approval +{one} *$", opened, re.MULTILINE)
    assert "Open until" in opened
    assert " 1 of 2 " in listed
    assert " revoked " in terminal.does("erin", "request", "list")


def test_who_asks_from_where_is_written_by_a_job_and_shown(open_terminal: OpenTerminal) -> None:
    terminal = open_terminal()
    terminal.world.add("copier", Role.SYSTEM, scopes={Scope.DIRECTORY_WRITE})
    words = ("vendor", "set-directory", id_of(terminal.world, "erin"), "--entity", "Example Support GmbH")

    terminal.is_refused("copier", "invalid-request: ", *words, "--office", "Germany")
    terminal.is_refused("olga", "wrong-role: ", *words, "--office", "DE")
    written = terminal.does("copier", *words, "--office", "DE", "--located", "PL")
    terminal.is_refused("erin", "invalid-request: ", *asking(terminal, "--severity", "S9"))
    shown = terminal.does("erin", *asking(terminal, "--severity", "S1"))

    assert "Example Support GmbH" in written
    assert re.search(r"^Severity +S1 *$", shown, re.MULTILINE)
    assert re.search(r"^Location +Example Support GmbH, office in DE, located in PL", shown, re.MULTILINE)


def test_parameters_are_given_checked_and_shown_with_the_level(open_terminal: OpenTerminal) -> None:
    terminal = open_terminal(catalogue=catalogue(SETTINGS.catalogue))

    refused = terminal.is_refused("erin", "invalid-context: ", *asking(terminal, "--context", "environment=prod"))
    given = ("--context", "environment=staging", "--context", "rows=7", "--action", "export")
    shown = terminal.does("erin", *asking(terminal, *given))

    assert "Choose production, staging." in refused
    assert re.search(r"^Level +export *$", shown, re.MULTILINE)
    assert re.search(r"^Parameters +environment: staging; rows: 7 *$", shown, re.MULTILINE)


@pytest.mark.far
def test_what_is_kept_not_covered_and_who_may_approve(open_terminal: OpenTerminal, tmp_path: Any) -> None:
    terminal = open_terminal()
    slug = terminal.world.tenant.slug
    terminal.world.add("both", Role.ENGINEER)
    terminal.world.put_on_both_sides("both", Role.MANAGER)
    text = tmp_path / "exclusions.txt"
    text.write_text("Demands by law are not covered.\n", encoding="utf-8")

    terminal.does("olga", "exclusions", "state", text)
    asked = terminal.does("tara", "exclusions", "tenant", slug)
    version = terminal.reads("tara", "exclusions", "show")["version"]
    terminal.is_refused("tara", "not-found: ", "exclusions", "acknowledge", slug, "--version", version + 1)
    terminal.does("tara", "exclusions", "acknowledge", slug, "--version", version)
    listed = terminal.does("vera", "exclusions", "acknowledgements", "--limit", "200")
    terminal.is_refused("tara", "invalid-request: ", "data", "retention", slug, "--days", "7")
    terminal.does("tara", "data", "retention", slug, "--days", "90")
    held = terminal.does("tara", "data", "hold", slug, "--reason", "Dispute 4711")
    terminal.is_refused("tara", "conflict: ", "data", "leave", slug)
    theirs = terminal.does("olga", "data", "show", slug)
    review = terminal.does("tara", "member", "review", slug)

    assert "Demands by law are not covered." in asked
    assert re.search(rf"^{slug} +Contoso +{version} ", listed, re.MULTILINE)
    assert "90 days" in held
    assert "customer: Dispute 4711" in held
    assert "Dispute 4711" not in theirs
    assert re.search(r"^Ann .* yes +approver ", review, re.MULTILINE)
    assert re.search(
        r"Vendor staff with multiple roles:\n.*^Both +engineer, manager *$",
        review,
        re.DOTALL | re.MULTILINE,
    )


def test_what_can_open_without_approval_is_shown_with_who_and_how_often(open_terminal: OpenTerminal) -> None:
    terminal = open_terminal()
    slug = terminal.world.tenant.slug
    nothing = terminal.does("aude", "tenant", "unapproved-access", slug)
    lay_down(terminal.world, break_glass_services=("exchange-online",))
    request = terminal.world.submit(break_glass=True, access_window=900)
    terminal.world.act("max", Action.BREAK_GLASS, request.id, comment="Mail is down")

    shown = terminal.does("ann", "tenant", "unapproved-access", slug)
    said = terminal.reads("tara", "tenant", "unapproved-access", slug)
    terminal.does("tara", "tenant", "emergency-stop", slug)
    stopped = terminal.does("ann", "tenant", "unapproved-access", slug)

    assert ("barred now" in shown, "; barred now by an emergency stop" in stopped) == (False, True)
    assert "Nothing: nobody from the vendor gets access without the customer's approval." in nothing
    assert re.search(r"^Can open without approval +break-glass *$", shown, re.MULTILINE)
    assert re.search(
        r"^Break-glass +exchange-online, two of the vendor \(anybody\), 1 of 2 within 30", shown, re.MULTILINE
    )
    assert f"1, the newest {request.id}, " in shown
    assert said["ways"] == ["break_glass"]
    terminal.is_refused("erin", "wrong-role: ", "tenant", "unapproved-access", slug)


def test_a_tenant_that_was_erased_is_refused_with_why_and_listed_nowhere(
    open_terminal: OpenTerminal, root: Engine
) -> None:
    terminal = open_terminal()
    slug = terminal.world.tenant.slug
    is_erased_now(terminal.world, root)

    for words in (["resume", slug], ["plan", slug, "standard"], ["suspend", slug, "--yes"]):
        terminal.is_refused("olga", "tenant-erased: ", "tenant", *words)
    named = ["--name", "Nina", "--email", "nina@contoso.example"]
    terminal.is_refused("olga", "tenant-erased: ", "tenant", "recover", slug, *named)
    assert slug not in terminal.does("olga", "tenant", "list", "--limit", "200")
