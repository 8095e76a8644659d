"""`lockbox request watch`: it prints each event once, as it comes, until the awaited event."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli import request_watch
from cli.app import app
from cli.client import NoAnswer

REQUEST = "01a2223a-d0f0-74e5-9a98-488fa0f86c5e"
ERIN, ANN = ({"id": REQUEST, "name": name} for name in ("Erin", "Ann"))


def event(seq: int | None, action: str, to_state: str | None, **facts: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "at": f"2026-11-28T20:00:0{seq or 9}Z",
        "action": action,
        "actor": ERIN,
        "role": "engineer",
        "on_behalf_of": None,
        "principals": [],
        "means": None,
        "to_state": to_state,
        "deadline_at": None,
        "comment": None,
        "notified": None,
        "nobody_notified": False,
        "asked": None,
        "reached": None,
        "unreached": None,
        "step": None,
    } | facts


SUBMITTED = event(1, "submit", "pending", deadline_at="2026-11-29T08:00:00Z")
QUESTION = event(None, "question", None, actor=ANN, role="approver", comment="Which [b]mails[/b]?")
APPROVED = event(2, "approve", "active", actor=ANN, role="approver", means="passkey")
DENIED = event(2, "deny", "denied", actor=ANN, role="approver", comment="No case")
REVOKED = event(3, "revoke", "revoked", actor=ANN, role="approver")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that watches a request; each poll gets the next timeline or raises the error in its place."""

    def watch(timelines: list[Any], *words: str) -> Result:
        told = iter(timelines)

        def answer_of(method: str, path: str) -> Any:
            assert (method, path) == ("GET", f"/v1/requests/{REQUEST}/events")
            found = next(told)
            if isinstance(found, Exception):
                raise found
            return {"items": found}

        monkeypatch.setattr(request_watch, "answer_of", answer_of)
        monkeypatch.setattr("cli.request_watch.time.sleep", lambda _: None)
        return CliRunner().invoke(app, ["request", "watch", REQUEST, *words], env={"TZ": "UTC"})

    return watch


LIFE = [
    [SUBMITTED],
    [SUBMITTED, QUESTION],
    [SUBMITTED, QUESTION],
    [SUBMITTED, QUESTION, APPROVED],
    [SUBMITTED, QUESTION, APPROVED, REVOKED],
]


def test_the_watch_command_prints_one_line_per_event_and_ends_with_the_request(
    watched: Callable[..., Result],
) -> None:
    ended = watched(LIFE)

    lines = ended.stdout.splitlines()
    assert ended.exit_code == 0
    assert lines[0].startswith("Times are in ")
    assert [line[21:] for line in lines[1:]] == [
        f"Erin (engineer): submit → pending until {lines[1][-19:]}",
        "Ann (approver): question  Which [b]mails[/b]?",
        "Ann (approver): approve by passkey → active",
        "Ann (approver): revoke → revoked",
    ]


def test_the_watch_command_says_in_a_sentence_why_a_window_is_held_back(watched: Callable[..., Result]) -> None:
    held = event(None, "hold_back", None, actor=None, role="clock", held_back="tenant_suspended")

    ended = watched([[SUBMITTED, APPROVED, held, REVOKED]])

    assert "nobody is let in, because the customer is suspended by the vendor" in ended.stdout


def test_watching_until_active_exits_0_once_access_is_open(watched: Callable[..., Result]) -> None:
    ended = watched(LIFE, "--until", "active")

    assert ended.exit_code == 0
    assert "approve" in ended.stdout
    assert "revoke" not in ended.stdout


def test_watching_until_active_exits_1_if_the_request_ends_without_being_opened(
    watched: Callable[..., Result],
) -> None:
    ended = watched([[SUBMITTED], [SUBMITTED, DENIED]], "--until", "active")

    assert ended.exit_code == 1
    assert "deny → denied  No case" in ended.stdout


def test_the_watch_command_reports_an_unreachable_api_once_and_waits_for_the_api(
    watched: Callable[..., Result],
) -> None:
    away = NoAnswer("http://x does not answer")

    ended = watched([[SUBMITTED], away, away, away, [SUBMITTED, DENIED]])

    assert ended.exit_code == 0
    assert ended.stderr == "http://x does not answer Trying again.\n"
    assert ended.stdout.count("submit") == 1


def test_json_output_of_watch_is_one_object_per_line_and_csv_has_one_header(watched: Callable[..., Result]) -> None:
    objects = [json.loads(line) for line in watched(LIFE, "-o", "json").stdout.splitlines()]
    rows = list(csv.reader(io.StringIO(watched(LIFE, "-o", "csv").stdout)))

    assert objects == LIFE[-1]
    assert [row[3] for row in rows] == ["Action", "submit", "question", "approve by passkey", "revoke"]
