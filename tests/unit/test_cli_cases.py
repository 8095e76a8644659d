"""Cases by the command line: what is sent of them, what is shown, and how a ticket system closes one."""

from typing import Any

import pytest
from typer.testing import CliRunner

from cli import requests, submission, tokens
from cli.app import app
from tests.unit.test_cli_extensions import ASKED, ONE, VIEW

PORTIONS = 3
PAGE = "https://helpdesk.vendor.example/7"
CASE = {"case_ref": "CASE-7", "case_system": "helpdesk", "case_url": PAGE}
SHOWN = VIEW | CASE | {"case_check": "unconfirmed", "duplicate_of": ONE, "duplicate_reason": "It is read-only"}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was sent to an API that takes it."""
    calls: list[Any] = []

    def call(method: str, path: str, *, body: object = None, **_: object) -> Any:
        calls.append((method, path, body))
        if path.startswith("/v1/cases/"):
            ended = [{"request_id": ONE, "tenant": "contoso", "state": "revoked"}] if len(calls) <= PORTIONS else []
            left = max(PORTIONS - len(calls), 0)
            return {"case_system": "helpdesk", "case_ref": "CASE/7", "ended": ended, "left": left}
        return SHOWN

    monkeypatch.setattr(requests, "call", call)
    monkeypatch.setattr(submission, "call", call)
    monkeypatch.setattr(tokens, "call", call)
    return calls


def test_a_request_names_its_case_and_why_it_is_another_one(sent: list[Any]) -> None:
    case = ["--case", "CASE-7", "--case-system", "helpdesk", "--case-url", PAGE]
    words = ["request", "submit", *ASKED, "--window", "1h", *case, "--duplicate-reason", "It is read-only"]

    ended = CliRunner().invoke(app, words, env={"COLUMNS": "200"})

    ((method, path, body),) = sent
    assert (method, path) == ("POST", "/v1/requests")
    assert {name: body[name] for name in CASE} == CASE
    assert body["duplicate_reason"] == "It is read-only"
    assert ended.exit_code == 0
    assert "CASE-7 in helpdesk (NOT confirmed: the ticket system could not be asked)" in ended.stdout
    assert PAGE in ended.stdout
    assert f"{ONE}: It is read-only" in ended.stdout


def test_a_ticket_system_closes_a_case(sent: list[Any]) -> None:
    first, again = (CliRunner().invoke(app, ["request", "close-case", "helpdesk", "CASE/7"]) for _ in range(2))

    assert sent[0][:2] == ("POST", "/v1/cases/helpdesk/CASE%2F7/closed")
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert first.stdout.count("revoked") == PORTIONS
    assert [path for _, path, _ in sent] == [sent[0][1]] * (PORTIONS + 1)
    assert again.stdout == "Nothing was open for this case.\n"


def test_a_token_of_a_ticket_system_names_its_tenants(sent: list[Any]) -> None:
    CliRunner().invoke(app, ["token", "make", "desk", "--scope", "case:close", "--tenant", "contoso"])

    ((*_, body),) = sent
    assert body["scopes"] == ["case:close"]
    assert body["tenants"] == ["contoso"]
