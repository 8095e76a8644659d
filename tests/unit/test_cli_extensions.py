"""More time and later starts by the command line: what is sent, and what is no moment."""

from typing import Any

import pytest
from typer.testing import CliRunner

from cli import requests, submission
from cli.app import app

ONE = "01a2223a-d0f0-74e5-9a98-488fa0f86c5e"
VIEW: dict[str, Any] = {
    "id": ONE,
    "asked": 2,
    "state": "active",
    "open": False,
    "deadline_at": "2026-12-01T10:00:00Z",
    "opens_at": "2026-12-01T08:00:00Z",
    "not_before": "2026-12-01T08:00:00Z",
    "extends": ONE,
    "requester": {"name": "Erin"},
    "tenant": "contoso",
    "service": "exchange-online",
    "resources": ["mailbox:anna@contoso.example"],
    "actions": ["read"],
    "level": None,
    "context": {},
    "reason_code": "other",
    "justification": "Why",
    "case_ref": None,
    "case_system": None,
    "case_url": None,
    "duplicate_of": None,
    "duplicate_reason": None,
    "access_window": 7200,
    "max_uses": None,
    "version": 2,
    "follows": None,
}
ASKED = ["--tenant", "contoso", "--service", "exchange-online", "--resource", "mailbox:a", "--justification", "Why"]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was sent to an API that takes it."""
    calls: list[Any] = []

    def call(method: str, path: str, *, body: object = None, **_: object) -> Any:
        calls.append((method, path, body))
        return VIEW

    monkeypatch.setattr(requests, "call", call)
    monkeypatch.setattr(submission, "call", call)
    return calls


def test_more_time_is_requested_by_one_command(sent: list[Any]) -> None:
    ended = CliRunner().invoke(app, ["request", "extend", ONE, "2h"])

    assert sent == [("POST", f"/v1/requests/{ONE}/extend", {"access_window": 7200, "justification": None})]
    assert (ended.exit_code, "Open from" in ended.stdout, "Extends" in ended.stdout) == (0, True, True)


def test_a_start_is_sent_as_an_instant(sent: list[Any]) -> None:
    runner = CliRunner()
    asked = runner.invoke(
        app, ["request", "submit", *ASKED, "--window", "1h", "--not-before", "2026-12-01T09:00+01:00"]
    )
    approved = runner.invoke(app, ["request", "approve", ONE, "--opens-at", "2026-12-01T08:00Z"])

    assert (asked.exit_code, approved.exit_code) == (0, 0)
    assert sent[0][2]["not_before"] == sent[1][2]["opens_at"] == "2026-12-01T08:00:00+00:00"


def test_what_is_no_moment_is_refused(sent: list[Any]) -> None:
    ended = CliRunner().invoke(app, ["request", "submit", *ASKED, "--window", "1h", "--not-before", "tomorrow"])

    assert (ended.exit_code, sent) == (2, [])
    assert "write a moment such as" in ended.output
