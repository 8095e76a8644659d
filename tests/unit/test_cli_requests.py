"""Requests by the command line: what each command sends, what it shows of the answer, and what it refuses to send."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import requests, route_command, submission
from cli.app import app
from tests.each import each

ONE, TWO = "01a2223a-d0f0-74e5-9a98-488fa0f86c5e", "01a2223a-d0f0-74e5-9a98-488fa0f86c5f"
AT, DUE, PAGE = "2026-11-29T08:00:00Z", "2026-11-30T12:00:00Z", "https://helpdesk.vendor.example/7"
WORKS = {"employing_entity": "Example Support GmbH", "office_country": "DE", "physical_country": "PL"}
CASE = {"case_ref": "CASE-7", "case_system": "helpdesk", "case_url": PAGE}
FINDING = {
    "due_at": DUE,
    "is_overdue": False,
    "finding": "not_justified",
    "found_at": DUE,
    "found_by": "Ann Archer",
    "comment": "We were awake",
    "may_find": False,
}
VIEW: dict[str, Any] = {
    "id": ONE,
    "asked": 2,
    "state": "active",
    "open": False,
    "version": 2,
    "follows": None,
    "max_uses": None,
    "deadline_at": "2026-12-01T10:00:00Z",
    "opens_at": "2026-12-01T08:00:00Z",
    "extends": ONE,
    "not_before": "2026-12-01T08:00:00Z",
    "created_at": "2026-11-29T08:05:00Z",
    "access_window": 7200,
    "requester": {"name": "Erin"},
    "tenant": "contoso",
    "service": "exchange-online",
    "actions": ["read"],
    "resources": ["mailbox:anna@contoso.example"],
    "level": None,
    "context": {},
    "reason_code": "other",
    "justification": "Why",
    "severity": "S1",
    "directory_as_of": AT,
    "sign_in": "session",
    "sign_in_means": "passkey",
    "signed_in_at": AT,
    "break_glass": True,
    "after_review": FINDING,
    "case_check": "unconfirmed",
    "duplicate_of": ONE,
    "duplicate_reason": "It is read-only",
    **WORKS,
    **CASE,
}
DECIDED = {
    "items": [
        {"request_id": ONE, "request": VIEW | {"state": "denied"}, "problem": None},
        {"request_id": TWO, "request": None, "problem": {"code": "too-late", "detail": "The deadline has passed."}},
    ]
}
SUBMIT = [
    *("request", "submit", "--tenant", "contoso", "--service", "exchange-online", "--resource", "mailbox:a"),
    *("--justification", "Why", "--window", "1h"),
]
BOTH = {"requests": [{"id": ONE}, {"id": TWO}]}
SENT: list[tuple[list[str], str, Any, list[str]]] = [
    (
        [*SUBMIT, "--break-glass"],
        "POST /v1/requests",
        {"break_glass": True},
        ["BREAK-GLASS: ", "with a passkey in a browser, 5 min before submitting"],
    ),
    (
        [*SUBMIT, "--case", "CASE-7", "--case-system", "helpdesk", "--case-url", PAGE, "--duplicate-reason", "Why"],
        "POST /v1/requests",
        CASE | {"duplicate_reason": "Why"},
        [
            "CASE-7 in helpdesk (NOT confirmed: the ticket system could not be asked)",
            *(PAGE, f"{ONE}: It is read-only"),
        ],
    ),
    (
        ["request", "deny", ONE, TWO, ONE, "--comment", "No case"],
        "POST /v1/requests/decisions",
        {"action": "deny", "comment": "No case", **BOTH},
        ["Denied", "refused", "The deadline has passed."],
    ),
]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def call(method: str, path: str, *, body: object = None, **_: object) -> Any:
        calls.append((f"{method} {path}", body))
        is_glass = isinstance(body, dict) and body.get("break_glass")
        return DECIDED if path.endswith("/decisions") else VIEW | ({"opens_at": None} if is_glass else {})

    for module in (requests, route_command, submission):
        monkeypatch.setattr(module, "call", call)
    return calls


@each(("words", "route", "body", "shows"), SENT)
def test_a_cli_command_sends_its_options_and_prints_the_answer(
    sent: list[Any], words: list[str], route: str, body: Any, shows: list[str]
) -> None:
    sent.clear()

    ended = CliRunner().invoke(app, words, env={"COLUMNS": "200"})

    ((called, given),) = sent
    assert called == route
    assert (given | body if route == "POST /v1/requests" else body) == given
    assert [text for text in shows if text not in ended.stdout] == []
    assert ended.exit_code == int(route.endswith("/decisions")), "one of two was refused"


@each(
    "words",
    [
        ["request", "finding", ONE, "fine", "--comment", "x"],
        ["request", "finding", ONE, "justified"],
        ["request", "deny", ONE, TWO, "--version", "2"],
        [*SUBMIT, "--not-before", "tomorrow"],
    ],
)
def test_contradictory_cli_options_are_not_sent(sent: list[Any], words: list[str]) -> None:
    ended = CliRunner().invoke(app, words)

    assert (ended.exit_code, sent) == (2, [])
    assert ("write a moment such as" in ended.output) == ("tomorrow" in words)


def test_the_json_output_of_the_cli_is_the_whole_answer(sent: list[Any]) -> None:
    ended = CliRunner().invoke(app, ["request", "endorse", ONE, TWO, "--output", "json"])

    assert json.loads(ended.stdout) == DECIDED
    assert sent == [("POST /v1/requests/decisions", {"action": "endorse", "comment": None, **BOTH})]


def test_the_close_case_command_repeats_until_no_request_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    portions, paths = 3, list[str]()

    def call(method: str, path: str, **_: object) -> Any:
        paths.append(f"{method} {path}")
        ended = [{"request_id": ONE, "tenant": "contoso", "state": "revoked"}] if len(paths) <= portions else []
        return {
            "case_system": "helpdesk",
            "case_ref": "CASE/7",
            "ended": ended,
            "left": max(portions - len(paths), 0),
        }

    for module in (requests, route_command):
        monkeypatch.setattr(module, "call", call)
    first, again = (CliRunner().invoke(app, ["request", "close-case", "helpdesk", "CASE/7"]) for _ in range(2))

    assert paths == ["POST /v1/cases/helpdesk/CASE%2F7/closed"] * (portions + 1)
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert first.stdout.count("revoked") == portions
    assert again.stdout == "Nothing was open for this case.\n"
