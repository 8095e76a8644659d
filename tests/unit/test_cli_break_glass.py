"""Break-glass by the command line: what is sent of it, and that it is shown before all else."""

from typing import Any

import pytest
from typer.testing import CliRunner

from cli import requests, submission
from cli.app import app
from tests.unit.test_cli_extensions import ASKED, ONE, VIEW

DUE = "2026-11-30T12:00:00Z"
FOUND = {
    "due_at": DUE,
    "is_overdue": False,
    "finding": "not_justified",
    "found_at": DUE,
    "found_by": "Ann Archer",
    "comment": "We were awake",
    "may_find": False,
}
OPENED = {"level": "read", "context": {}, "opens_at": None, "break_glass": True, "after_review": FOUND}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was sent to an API that takes it."""
    calls: list[Any] = []

    def call(method: str, path: str, *, body: object = None, **_: object) -> Any:
        calls.append((method, path, body))
        return FOUND if path.endswith("/finding") else VIEW | OPENED

    monkeypatch.setattr(requests, "call", call)
    monkeypatch.setattr(submission, "call", call)
    return calls


def run(*words: str) -> str:
    """Return what a command shows."""
    ended = CliRunner().invoke(app, ["request", *words], env={"COLUMNS": "200"})
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_a_request_for_break_glass_says_so(sent: list[Any]) -> None:
    shown = run("submit", *ASKED, "--window", "1h", "--break-glass")

    ((*_, body),) = sent
    assert body["break_glass"] is True
    assert "BREAK-GLASS: " in shown


def test_a_manager_opens_it_and_the_customer_finds(sent: list[Any]) -> None:
    opened = run("break-glass", ONE, "--comment", "Mail is down")
    found = run("finding", ONE, "not_justified", "--comment", "We were awake")

    assert sent[0] == ("POST", f"/v1/requests/{ONE}/break-glass", {"comment": "Mail is down"})
    assert sent[1][1:] == (f"/v1/requests/{ONE}/finding", {"finding": "not_justified", "comment": "We were awake"})
    assert "not justified, by Ann Archer" in opened
    assert "We were awake" in found


def test_a_finding_is_one_of_two_and_says_why() -> None:
    for words in (["finding", ONE, "fine", "--comment", "x"], ["finding", ONE, "justified"]):
        assert CliRunner().invoke(app, ["request", *words]).exit_code == 2
