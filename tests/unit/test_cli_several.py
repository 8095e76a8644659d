"""Several requests are denied by one command, which lists what became of each."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import requests
from cli.app import app

ONE, TWO = "01a2223a-d0f0-74e5-9a98-488fa0f86c5e", "01a2223a-d0f0-74e5-9a98-488fa0f86c5f"
DENIED = {"id": ONE, "state": "denied", "open": False, "deadline_at": "2026-01-01T01:00:00Z"}
RESULTS = {
    "items": [
        {"request_id": ONE, "request": DENIED, "problem": None},
        {"request_id": TWO, "request": None, "problem": {"code": "too-late", "detail": "The deadline has passed."}},
    ]
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was sent to an API that denies the first of two requests."""
    calls: list[Any] = []

    def call(method: str, path: str, *, body: object = None, **_: object) -> Any:
        calls.append((method, path, body))
        return RESULTS

    monkeypatch.setattr(requests, "call", call)
    return calls


def test_several_are_decided_by_one_call_and_what_became_of_each_is_listed(sent: list[Any]) -> None:
    ended = CliRunner().invoke(app, ["request", "deny", ONE, TWO, ONE, "--comment", "No case"])

    body = {"action": "deny", "comment": "No case", "requests": [{"id": ONE}, {"id": TWO}]}
    assert sent == [("POST", "/v1/requests/decisions", body)]
    assert (ended.exit_code, "Denied" in ended.stdout) == (1, True)
    assert "refused" in ended.stdout
    assert "The deadline has passed." in ended.stdout


def test_programs_get_all_of_it(sent: list[Any]) -> None:
    ended = CliRunner().invoke(app, ["request", "endorse", ONE, TWO, "--output", "json"])

    assert json.loads(ended.stdout) == RESULTS
    assert sent[0][2]["action"] == "endorse"


def test_a_version_is_of_one_request(sent: list[Any]) -> None:
    ended = CliRunner().invoke(app, ["request", "deny", ONE, TWO, "--version", "2"])

    assert (ended.exit_code, sent) == (2, [])
