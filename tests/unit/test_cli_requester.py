"""Who asks and how severe it is, by the command line: what is sent, what is shown, and what is refused at once."""

from typing import Any

import pytest
from typer.testing import CliRunner

from cli import route_command, submission
from cli.app import app
from tests.unit.test_cli_extensions import ASKED, ONE, VIEW

WORKS = {"employing_entity": "Example Support GmbH", "office_country": "DE", "physical_country": "PL"}
RECORD = WORKS | {"person": {"id": ONE, "name": "Erin"}, "source": f"account:{ONE}", "as_of": "2026-11-29T08:00:00Z"}
FROM: dict[str, Any] = WORKS | {
    "directory_as_of": "2026-11-29T08:00:00Z",
    "severity": "S1",
    "created_at": "2026-11-29T08:05:00Z",
}
ON_RECORD = (
    FROM
    | {"level": None, "context": None}
    | {"sign_in": "session", "sign_in_means": "passkey", "signed_in_at": "2026-11-29T08:00:00Z"}
)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was sent to an API that takes it."""
    calls: list[Any] = []

    def call(method: str, path: str, *, body: object = None, **_: object) -> Any:
        calls.append((method, path, body))
        return RECORD if path.endswith("/directory") else VIEW | ON_RECORD

    monkeypatch.setattr(submission, "call", call)
    monkeypatch.setattr(route_command, "call", call)
    return calls


def run(*words: str) -> Any:
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


def test_a_request_names_its_severity_and_shows_who_asks_from_where(sent: list[Any]) -> None:
    ended = run("request", "submit", *ASKED, "--window", "1h", "--severity", "S1")

    ((method, path, body),) = sent
    assert (method, path, body["severity"]) == ("POST", "/v1/requests", "S1")
    assert ended.exit_code == 0
    assert "Severity" in ended.stdout
    assert "Example Support GmbH, office in DE, located in PL" in ended.stdout
    assert "with a passkey in a browser, 5 min before submitting" in ended.stdout


def test_what_the_directory_says_is_shown(sent: list[Any]) -> None:
    ended = run("vendor", "directory", ONE)

    assert sent == [("GET", f"/v1/vendor/members/{ONE}/directory", None)]
    assert ended.exit_code == 0
    for said in ("Erin", *WORKS.values(), f"account:{ONE}"):
        assert said in ended.stdout


def test_what_is_left_out_is_not_sent(sent: list[Any]) -> None:
    ended = run("vendor", "set-directory", ONE, "--entity", "Example Support GmbH", "--located", "PL")

    body = {"employing_entity": "Example Support GmbH", "physical_country": "PL"}
    assert sent == [("PUT", f"/v1/vendor/members/{ONE}/directory", body)]
    assert ended.exit_code == 0
