"""The case adapter of deploy/receivers as a process, called as the notifications worker calls it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from standardwebhooks import Webhook

from harness.network import HOST
from harness.ports import own_port, wait_until_listening
from lockbox.notifications.endpoints import new_secret
from tests.whole.terminal import CHECKOUT

SAMPLE = CHECKOUT / "deploy" / "receivers" / "case_adapter.py"
YES = {"open": True, "assigned": True}
NO = {"open": False, "assigned": False}
CASES = {
    "INC1": {"open": True, "assigned": "erin@vendor.example"},
    "INC2": {"open": False, "assigned": "eve@x.test"},
    "INC5": {"open": True},
}


@dataclass
class RunningAdapter:
    """The running sample adapter, with the secret in its file."""

    url: str
    secret: str
    cases: Path

    def ask(
        self,
        case: str,
        email: str = "erin@vendor.example",
        *,
        secret: str = "",
        later: timedelta = timedelta(0),
        **parts: Any,
    ) -> httpx.Response:
        """Call the adapter as Lockbox does, apart from the given changes."""
        number, at = str(uuid4()), datetime.now(UTC) + later
        data = {
            "tenant": "contoso",
            "case_system": "helpdesk",
            "case_ref": case,
            "engineer": {"id": "7", "email": email},
        }
        body = json.dumps({"id": number, "type": "case.check", "data": data} | parts)
        headers = {
            "webhook-id": number,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret or self.secret).sign(number, at, body),
        }
        return httpx.post(self.url, content=body, headers=headers, trust_env=False, timeout=20)

    def says(self, case: str, email: str = "erin@vendor.example") -> dict[str, Any]:
        answer = self.ask(case, email)
        assert answer.status_code == 200
        assert answer.headers["webhook-id"] == json.loads(answer.request.content)["id"]
        said: dict[str, Any] = Webhook(self.secret).verify(answer.content, dict(answer.headers))
        return said


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAdapter]:
    folder, secret, port = tmp_path_factory.mktemp("adapter"), new_secret(), own_port()
    (folder / "adapter.secret").write_text(f"{secret}\n")
    (folder / "cases.json").write_text(json.dumps(CASES))
    command = [sys.executable, "-I", str(SAMPLE), f"{HOST}:{port}", "adapter.secret", "cases.json"]
    process = subprocess.Popen(command, cwd=folder)
    try:
        wait_until_listening(port)
        yield RunningAdapter(f"http://{HOST}:{port}/lockbox", secret, folder / "cases.json")
    finally:
        process.kill()
        process.wait()


def test_the_sample_case_adapter_answers_from_its_file_and_denies_unknown_cases(adapter: RunningAdapter) -> None:
    assert adapter.says("INC1") == YES
    assert adapter.says("INC1", "ERIN@vendor.example") == YES
    assert adapter.says("INC1", "eve@x.test") == {"open": True, "assigned": False}
    assert adapter.says("INC2", "eve@x.test") == {"open": False, "assigned": True}
    assert adapter.says("INC3") == NO
    assert adapter.says("INC5", "") == {"open": True, "assigned": False}


def test_the_sample_case_adapter_answers_only_fresh_signed_questions(adapter: RunningAdapter) -> None:
    refused = [
        adapter.ask("INC1", secret=new_secret()),
        adapter.ask("INC1", later=-timedelta(minutes=6)),
        adapter.ask("INC1", later=timedelta(minutes=6)),
        httpx.post(adapter.url, content=b"{}", trust_env=False),
    ]
    assert [answer.status_code for answer in refused] == [401] * 4
    assert adapter.ask("INC1", type="request.approved").status_code == 422
    assert adapter.ask("INC1", id=str(uuid4())).status_code == 422
    assert adapter.ask("X" * 20_000).status_code == 413


def test_the_sample_case_adapter_reports_a_case_as_closed_once_its_file_says_so(adapter: RunningAdapter) -> None:
    adapter.cases.write_text(json.dumps(CASES | {"INC4": {"open": True, "assigned": "erin@vendor.example"}}))
    before = adapter.says("INC4")
    adapter.cases.write_text(json.dumps(CASES))

    assert (before, adapter.says("INC4")) == (YES, NO)


def test_the_sample_case_adapter_is_as_short_as_documented_and_needs_only_python() -> None:
    text = SAMPLE.read_text()

    assert len(text.splitlines()) <= 120
    roots = {line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert roots <= sys.stdlib_module_names
