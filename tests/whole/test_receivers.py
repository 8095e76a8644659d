"""The receivers of deploy/receivers, called as Lockbox calls: they accept each signed call once, and nothing else."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from harness.network import HOST
from harness.ports import own_port, wait_until_listening
from lockbox.notifications.endpoints import new_key, new_secret
from lockbox.notifications.senders.protocol import WebhookCall
from lockbox.notifications.webhook import signed
from tests.programs import absent
from tests.whole.gateways import is_demanded
from tests.whole.terminal import CHECKOUT

SAMPLES = CHECKOUT / "deploy" / "receivers"
BODY = json.dumps({"sequence": 7, "type": "request.approved", "data": {"state": "active"}}).encode()
TAKEN = "7 request.approved active\n"


def _node(_: Path) -> list[str] | None:
    found = shutil.which("node")
    return [found, str(SAMPLES / "receiver.mjs")] if found else None


def _go(folder: Path) -> list[str] | None:
    found, program = shutil.which("go"), folder / "receiver"
    if found is None:
        return None
    settings = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "GOTOOLCHAIN": "local"}
    subprocess.run([found, "build", "-o", program, SAMPLES / "receiver.go"], env=settings, cwd=folder, check=True)
    return [str(program)]


LANGUAGES: Mapping[str, Callable[[Path], list[str] | None]] = {
    "python3": lambda _: [sys.executable, "-I", str(SAMPLES / "receiver.py")],
    "node": _node,
    "go": _go,
}
DEMANDED = frozenset({"python3", "node"})


@dataclass
class RunningReceiver:
    """A running receiver, and the secrets in its file."""

    process: "subprocess.Popen[str]"
    url: str
    secrets: tuple[str, str]
    calls: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=20))

    def call(
        self,
        *secrets: str,
        hook_id: str | None = None,
        body: bytes = BODY,
        sent: bytes | None = None,
        later: timedelta = timedelta(0),
        **headers: str,
    ) -> int:
        """Call the receiver as Lockbox does, signed by the secrets; return the status. `sent` replaces the body."""
        at = datetime.now(UTC) + later
        call = WebhookCall(hook_id or str(uuid4()), self.url, body, secrets)
        given = signed(call, at) | {f"webhook-{name}": value for name, value in headers.items()}
        return self.calls.post(self.url, content=body if sent is None else sent, headers=given).status_code

    def end(self) -> str:
        self.calls.close()
        self.process.terminate()
        return self.process.communicate(timeout=20)[0]


@pytest.fixture(params=["python3", "node", pytest.param("go", marks=pytest.mark.far)], scope="module")
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    found = LANGUAGES[request.param](tmp_path_factory.mktemp("program"))
    if found is None:
        (pytest.fail if request.param in DEMANDED and is_demanded() else pytest.skip)(absent(request.param))
    return found


@pytest.fixture
def receiver(command: list[str], tmp_path: Path) -> Iterator[RunningReceiver]:
    secrets, port = (new_secret(), new_secret()), own_port()
    held = tmp_path / "webhook.secret"
    held.write_text("\n".join(secrets) + "\n")
    process = subprocess.Popen([*command, f"{HOST}:{port}", str(held)], stdout=subprocess.PIPE, text=True)
    try:
        wait_until_listening(port)
        yield RunningReceiver(process, f"http://{HOST}:{port}/", secrets)
    finally:
        process.kill()
        process.communicate()


def test_the_sample_webhook_receiver_processes_a_signed_call_once(receiver: RunningReceiver) -> None:
    newest, old = receiver.secrets
    answers = [receiver.call(newest, hook_id="call-1") for _ in range(2)]
    answers.append(receiver.call(new_key()[0], new_secret(), old))

    assert answers == [204, 204, 204]
    assert receiver.end() == TAKEN * 2


def test_the_sample_webhook_receiver_refuses_an_unsigned_call(receiver: RunningReceiver) -> None:
    ours = receiver.secrets[0]
    other = json.dumps({"sequence": 8, "type": "request.approved", "data": {}}).encode()

    answers = [
        receiver.call(new_secret()),
        receiver.call(new_key()[0]),
        receiver.call(ours, sent=other),
        receiver.call(ours, later=-timedelta(minutes=6)),
        receiver.call(ours, later=timedelta(minutes=6)),
        receiver.call(ours, id="another"),
        receiver.call(ours, timestamp=str(int(datetime.now(UTC).timestamp()) + 9)),
        receiver.call(ours, timestamp="soon"),
        receiver.call(ours, signature=""),
        receiver.call(ours, signature="v1,"),
        httpx.post(receiver.url, content=BODY, trust_env=False).status_code,
    ]

    assert answers == [401] * len(answers)
    assert receiver.end() == ""


def test_the_sample_webhook_receiver_refuses_a_body_that_is_too_large(receiver: RunningReceiver) -> None:
    large = b"{" + b" " * 300_000 + b"}"

    assert receiver.call(receiver.secrets[0], body=large) == 413
    assert receiver.call(receiver.secrets[0]) == 204
    assert receiver.end() == TAKEN


def test_the_sample_webhook_receiver_accepts_an_event_without_a_state(receiver: RunningReceiver) -> None:
    news = json.dumps({"sequence": 9, "type": "tenant.policy_changed", "data": {"changes": {}}}).encode()

    assert receiver.call(receiver.secrets[0], body=news) == 204
    assert receiver.end() == "9 tenant.policy_changed -\n"


@pytest.mark.parametrize("held", ["", "whsec_\n", "whsec_c2hvcnQ=\n"])
def test_the_sample_webhook_receiver_does_not_start_without_a_secret(
    command: list[str], tmp_path: Path, held: str
) -> None:
    file = tmp_path / "webhook.secret"
    file.write_text(held)

    ended = subprocess.run(
        [*command, f"{HOST}:{own_port()}", str(file)], capture_output=True, text=True, check=False, timeout=20
    )

    assert ended.returncode != 0
    assert "the file does not hold what Lockbox showed" in ended.stderr
