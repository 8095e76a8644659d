"""`lockbox gate`: what it prints of a catalogue and of a request, offline, and its exit codes."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from catalogue.load import SAMPLE
from cli import gate
from cli.app import app
from tests.each import each

MAIL = ("exchange-online", "GET /mailboxes/anna@contoso.example")
AT = ("--host", "contoso.mail.example")


def lockbox(*words: str, catalogue: Path | None = SAMPLE) -> Result:
    set_to = {"LOCKBOX_CATALOGUE": str(catalogue) if catalogue else None, "COLUMNS": "120"}
    return CliRunner().invoke(app, ["gate", *words], env=set_to)


def test_the_cli_prints_which_resource_and_action_a_gated_http_request_uses() -> None:
    shown = lockbox("test", *MAIL, *AT)

    assert shown.exit_code == 0
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["Customer", "contoso"],
        ["Service", "exchange-online"],
        ["Resource", "mailbox:anna@contoso.example"],
        ["Action", "read"],
    ]


def test_the_cli_prints_as_json_which_resource_and_action_a_gated_http_request_uses() -> None:
    assert json.loads(lockbox("test", *MAIL, *AT, "--output", "json").stdout) == {
        "tenant": "contoso",
        "service": "exchange-online",
        "resource": "mailbox:anna@contoso.example",
        "action": "read",
    }


def test_the_catalogue_file_may_be_an_argument_of_the_gate_command(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(SAMPLE.read_text().replace('host: "{tenant}.mail.example"', "header: Lockbox-Tenant"))

    named = ("--catalogue", str(file), "--header", "Lockbox-Tenant: fabrikam")

    assert "fabrikam" in lockbox("test", *MAIL, *named).stdout
    assert lockbox("test", *MAIL, *named, catalogue=None).exit_code == 0


@each(
    ("words", "said"),
    [
        (("exchange-online", "GET /mailboxes/../a", *AT), "malformed: leave out segments that are . or .."),
        (("exchange-online", "GET /nowhere", *AT), "unmapped: no path of the catalogue"),
        (("exchange-online", "GET /mailboxes/a"), "of the form {tenant}.mail.example; add --host"),
        (("exchange-online", "/mailboxes/a", *AT), "write the method, a blank and the target"),
        (("exchange-online", "GET /mailboxes/a", "--header", "x"), "write a header as 'Name: value'"),
        (("onedrive", "GET /"), "add `gate` to the service onedrive"),
        (("none", "GET /"), "the catalogue has no service none"),
    ],
)
def test_the_gate_command_says_why_a_request_is_refused_and_exits_1(words: tuple[str, ...], said: str) -> None:
    refused = lockbox("test", *words)

    assert refused.exit_code == 1
    assert said in refused.stderr
    assert refused.stdout == ""


def test_the_gate_command_lists_a_valid_catalogue() -> None:
    listed = lockbox("check")

    assert listed.exit_code == 0
    rows = [line.split("  ") for line in listed.stdout.splitlines()]
    assert [row[0] for row in rows] == ["Service", "exchange-online", "sharepoint-online", "onedrive"]
    assert "host {tenant}.mail.example" in listed.stdout
    assert listed.stdout == lockbox("check", str(SAMPLE), catalogue=None).stdout


@pytest.mark.parametrize("words", [("check",), ("test", *MAIL)])
def test_the_gate_command_prints_each_mistake_of_a_catalogue_on_one_line(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(SAMPLE.read_text().replace("title: OneDrive", "titel: OneDrive"))

    refused = lockbox(*words, catalogue=file)

    assert refused.exit_code == 1
    assert all(line.startswith(f"{file}:") for line in refused.stderr.splitlines())
    assert len(refused.stderr.splitlines()) == 2


def test_the_gate_command_without_a_catalogue_file_says_how_to_name_the_file() -> None:
    refused = lockbox("check", catalogue=None)

    assert refused.exit_code == 1
    assert "name the catalogue's file, or set LOCKBOX_CATALOGUE" in refused.stderr


KIND: dict[str, object] = {
    "path": "GET /mailboxes/{}/rules",
    "tenant": None,
    "engineer": None,
    "identity": None,
    "calls": 1200,
    "first_at": "2026-11-24T09:00:00Z",
    "last_at": "2026-11-25T09:00:00Z",
}
FOUND = {
    "gate": {"reporting": 1, "tenants": 2},
    "items": [
        {
            "reason": "unmapped",
            "remedy": "Map it.",
            "calls": 1207,
            "kinds": [KIND, KIND | {"path": None, "calls": 7}],
        },
        {
            "reason": "no_window",
            "remedy": "Request access.",
            "calls": 2,
            "kinds": [KIND | {"tenant": "contoso", "engineer": {"id": "7", "name": "Erin"}, "calls": 2}],
        },
        {"reason": "unknown_engineer", "remedy": "Map.", "calls": 1, "kinds": [KIND | {"identity": "https://a b"}]},
    ],
}


def reported(monkeypatch: pytest.MonkeyPatch, found: Mapping[str, object], *words: str) -> tuple[Result, object]:
    """Run the report with this answer of the API; return what the command printed, and its call."""
    calls: list[object] = []

    def answer(method: str, path: str, **parts: object) -> Mapping[str, object]:
        calls.append((method, path, parts))
        return found

    monkeypatch.setattr(gate, "call", answer)
    return lockbox("report", "exchange-online", *words), calls[0]


def test_the_gate_report_of_the_cli_lists_calls_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, called = reported(monkeypatch, FOUND, "--last", "7d")

    assert called == ("GET", "/v1/gate/enforcement/exchange-online/report", {"params": {"days": 7}})
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert lines[0] == "The gate of exchange-online only reports for 1 of 2 tenants."
    text = " ".join(lines)
    for said in (
        "unmapped 1200 GET /mailboxes/{}/rules - -",
        "unmapped 7 all others",
        "contoso Erin",
        "https://a b",
        "unmapped: 1,207 calls. Map it.",
    ):
        assert said in text


def test_the_cli_says_that_a_gate_report_is_empty_and_can_print_a_report_as_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, _ = reported(monkeypatch, FOUND | {"items": []})
    plain, _ = reported(monkeypatch, FOUND, "--output", "json")

    assert "In the last 30 days it let in no call that it would have refused." in shown.stdout
    assert json.loads(plain.stdout) == FOUND
