"""The CLI makes the password of a target and sends only a verifier, from which no one can get the password."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import requests
from cli.app import app
from connectors.scram import is_verifier, new_password, verifier_of

REQUEST = "01a2223a-d0f0-74e5-9a98-488fa0f86c5e"
OPENING = {
    "id": REQUEST,
    "kind": "postgres",
    "target": "orders",
    "state": "opening",
    "failing": None,
    "created_at": "2026-01-01T00:00:00Z",
    "opened_at": None,
    "closed_at": None,
    "until": "2026-01-01T01:00:00Z",
    "role": "lbx_1",
    "address": "db.example:5432/orders",
}


class FakeApi:
    """Accepts a verifier, then shows the access in each of these states."""

    def __init__(self, *states: str) -> None:
        self.sent: list[Any] = []
        self._states = list(states)

    def call(self, method: str, path: str, *, body: object = None, **_: object) -> Any:
        self.sent.append((method, path, body))
        if method == "POST":
            return OPENING
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return {"items": [OPENING | {"state": state, "failing": "unreachable" if state == "open_failed" else None}]}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "AGAIN_SECONDS", 0.0)


def lets_in(verifier: str, password: str) -> bool:
    """Return whether a server with this verifier accepts this password (RFC 5802)."""
    _, parameters, keys = verifier.split("$")
    iterations, salt = parameters.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return base64.b64decode(keys.split(":")[0]) == stored


def test_a_target_password_is_printed_once_by_the_cli_and_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi("opening", "open")
    monkeypatch.setattr(requests, "call", api.call)

    done = CliRunner().invoke(app, ["request", "credential", REQUEST, "--output", "json"])

    assert done.exit_code == 0
    shown = json.loads(done.stdout)
    (_, path, body), *_ = api.sent
    assert path == f"/v1/requests/{REQUEST}/credential"
    assert is_verifier(body["verifier"])
    assert lets_in(body["verifier"], shown["password"])
    assert shown["password"] not in json.dumps(api.sent)
    assert (shown["state"], shown["role"]) == ("open", "lbx_1")


def test_a_target_role_that_is_not_ready_in_time_is_reported_by_the_cli(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "call", FakeApi("open_failed").call)

    done = CliRunner().invoke(app, ["request", "credential", REQUEST, "--wait", "0s"])
    waited = CliRunner().invoke(app, ["request", "credential", REQUEST, "--wait", "1s"])

    assert (done.exit_code, waited.exit_code) == (1, 1)
    assert "It is not good yet" in done.stdout
    assert "unreachable" in waited.stdout


def test_the_cli_lists_target_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "call", FakeApi("closed").call)

    done = CliRunner().invoke(app, ["request", "connections", REQUEST], env={"COLUMNS": "200"})

    assert done.exit_code == 0
    assert "orders" in done.stdout
    assert "closed" in done.stdout


def test_two_target_passwords_or_verifiers_are_never_equal() -> None:
    password = new_password()

    assert new_password() != password
    assert verifier_of(password) != verifier_of(password)
    assert not is_verifier(password)
    assert not is_verifier(verifier_of(password) + "\n")
