"""Envoy's gRPC questions, asked by a gRPC client as Envoy asks them, of a real gate."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2, external_auth_pb2_grpc
from google.rpc import code_pb2
from lockbox_guard import envoy as envoy_guard
from lockbox_guard.connection import GuardToken, LockboxAddress
from lockbox_guard.envoy import EnvoyAuthorization, serve

from harness.gateway_world import ENGINEER, SERVICE
from harness.ports import own_port, wait_until_listening
from harness.wait import wait_for
from lockbox.requests.lifecycle import Action
from tests.http.door import Door
from tests.http.gate_door import GateDoor, gate_before

PATIENCE = 20.0


class EnvoyClient:
    """Asks as Envoy asks."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._stub = external_auth_pb2_grpc.AuthorizationStub(self.channel)

    def ask(self, path: str, method: str = "GET", **headers: str) -> Any:
        """Ask about a call; header names with _ in the place of -."""
        sent = {ENGINEER: "erin"} | {name.replace("_", "-"): value for name, value in headers.items()}
        http = attribute_context_pb2.AttributeContext.HttpRequest(
            method=method,
            path=path,
            host="mail.example",
            headers={":path": path, ":method": method, "x-request-id": "1"} | {k: v for k, v in sent.items() if v},
        )
        attributes = attribute_context_pb2.AttributeContext(
            request=attribute_context_pb2.AttributeContext.Request(http=http),
            context_extensions={"service": "onedrive"},
        )
        return self._stub.Check(external_auth_pb2.CheckRequest(attributes=attributes), timeout=PATIENCE)

    def reason(self, path: str, method: str = "GET", **headers: str) -> str | None:
        """Return why a call is not let in; None if it is."""
        answer = self.ask(path, method, **headers)
        if answer.status.code == code_pb2.OK:
            return None
        assert answer.HasField("denied_response")
        assert not answer.HasField("ok_response")
        assert answer.denied_response.status.code in {401, 403}
        told = {header.header.key: header.header.value for header in answer.denied_response.headers}
        assert told["cache-control"] == "no-store"
        return str(told["lockbox-reason"])


@contextmanager
def sidecar(lockbox: str, token: Path) -> Iterator[EnvoyClient]:
    loop = asyncio.new_event_loop()
    ports: list[int] = []

    async def run() -> None:
        started: asyncio.Future[int] = loop.create_future()
        started.add_done_callback(lambda found: ports.append(found.result()))
        await serve(EnvoyAuthorization(LockboxAddress(lockbox), GuardToken(token), SERVICE), "127.0.0.1:0", started)

    task = loop.create_task(run())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait({task})), daemon=True)
    thread.start()
    wait_for("the side-car listens", lambda: bool(ports), PATIENCE)
    client = EnvoyClient(ports[0])
    yield client
    client.channel.close()
    loop.call_soon_threadsafe(task.cancel)
    thread.join(PATIENCE)
    loop.close()


@pytest.fixture(scope="module")
def gate(door: Door) -> Iterator[GateDoor]:
    with gate_before(door.world, door.db) as found:
        request = found.world.submit(resources=["mailbox:anna@contoso.example"])
        found.world.act("ann", Action.APPROVE, request.id)
        yield found


@pytest.fixture(scope="module")
def token(gate: GateDoor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("envoy") / "token"
    file.write_text(gate.world.tokens["envoy"])
    return file


@pytest.fixture(scope="module", autouse=True)
def _patient_sidecar() -> Iterator[None]:
    """Let the side-car take its time on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envoy_guard, "ASK_SECONDS", 20.0)
        yield


@pytest.fixture(scope="module")
def envoy(gate: GateDoor, token: Path) -> Iterator[EnvoyClient]:
    with sidecar(f"http://127.0.0.1:{gate.port}", token) as client:
        wait_for("the window is open", lambda: client.reason(gate.path()) is None, PATIENCE)
        yield client


@pytest.mark.far
def test_an_allow_answer_to_envoy_states_the_covered_access_and_removes_forged_headers(
    gate: GateDoor, envoy: EnvoyClient
) -> None:
    answer = envoy.ask(gate.path(), lockbox_request="forged", lockbox_extra="forged")

    told = {header.header.key: header.header.value for header in answer.ok_response.headers}
    assert answer.status.code == code_pb2.OK
    assert told["lockbox-decision"] == "allow"
    assert told["lockbox-resource"] == "mailbox:anna@contoso.example"
    assert told["lockbox-request"] != "forged"
    assert set(answer.ok_response.headers_to_remove) == {"lockbox-extra", ENGINEER}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"path": "/mailboxes/ceo"}, "unmapped"),
        ({"path": "{org}/mailboxes/x/../anna@contoso.example"}, "malformed"),
        ({"path": "{org}/mailboxes//anna@contoso.example"}, "malformed"),
        ({"path": "{org}/mailboxes/anna%40contoso.example"}, "malformed"),
        ({"path": "{org}/mailboxes/anna@contoso.example%2Fx"}, "malformed"),
        ({"path": "{org}/mailboxes/anna@contoso.example?x=1"}, "unmapped"),
        ({"path": "{org}/mailboxes/bob@contoso.example"}, "no_window"),
        ({"path": "*"}, "malformed"),
        ({"path": "http://evil.example/"}, "malformed"),
        ({"path": "{org}/mailboxes/anna@contoso.example HTTP/1.1\r\nx: y"}, "malformed"),
        ({"method": "DELETE"}, "no_window"),
        ({"method": "POST"}, "unmapped"),
        ({"x_http_method_override": "GET"}, "malformed"),
        ({"x_original_uri": "/evil"}, "malformed"),
        ({ENGINEER.replace("-", "_"): ""}, "no_token"),
        ({ENGINEER.replace("-", "_"): "mallory"}, "unknown_engineer"),
        ({ENGINEER.replace("-", "_"): "erin,erin"}, "unknown_engineer"),
    ],
)
def test_calls_through_envoy_without_a_window_are_refused_with_the_reasons_of_the_gate(
    gate: GateDoor, envoy: EnvoyClient, change: dict[str, str], why: str
) -> None:
    asked = {"path": gate.path()} | change
    asked["path"] = asked["path"].replace("{org}", f"/{gate.world.tenant.slug}")

    assert envoy.reason(**asked) == why


def test_a_client_of_envoy_cannot_send_a_gateways_token(gate: GateDoor, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("lbx_test_wrong")
    with sidecar(f"http://127.0.0.1:{gate.port}", wrong) as client:
        assert client.reason(gate.path(), lockbox_gateway=gate.world.tokens["envoy"]) == "no_credential"


def test_browsers_refused_through_envoy_get_the_refusal_page(gate: GateDoor, envoy: EnvoyClient) -> None:
    path = gate.path("bob@contoso.example")

    assert "Request access</a>" in envoy.ask(path, accept="text/html").denied_response.body
    assert '"request_form"' in envoy.ask(path).denied_response.body


def test_without_lockbox_the_envoy_guard_refuses_all_calls(gate: GateDoor, token: Path) -> None:
    with sidecar(f"http://127.0.0.1:{own_port()}", token) as client:
        assert client.reason(gate.path()) == "behind"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "10.0.0.1:9191", "[::]:0", "lockbox.example:1"])
def test_the_envoy_guard_listens_on_loopback_only(token: Path, listen: str) -> None:
    async def run() -> None:
        authorization = EnvoyAuthorization(LockboxAddress("http://127.0.0.1:1"), GuardToken(token), SERVICE)
        try:
            await serve(authorization, listen, asyncio.get_running_loop().create_future())
        finally:
            await authorization.close()

    with pytest.raises(ValueError, match=r"listen on an address|does not appear to be"):
        asyncio.run(run())


@pytest.mark.far
def test_the_envoy_guard_command_serves_until_it_is_terminated(gate: GateDoor, token: Path) -> None:
    port = own_port()
    words = ["serve", "--lockbox", f"http://127.0.0.1:{gate.port}", "--service", SERVICE, "--token-file", str(token)]
    program = [sys.executable, "-c", "from lockbox_guard.envoy import main; main()"]
    with subprocess.Popen([*program, *words, "--listen", f"127.0.0.1:{port}"]) as process:
        wait_until_listening(port)
        client = EnvoyClient(port)
        wait_for("the window is open", lambda: client.reason(gate.path()) is None, PATIENCE)
        bob = gate.path("bob@contoso.example")
        wait_for("there is no window", lambda: client.reason(bob) == "no_window", PATIENCE)
        client.channel.close()
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.far
def test_the_envoy_guard_command_says_in_one_line_why_it_does_not_start(tmp_path: Path) -> None:
    words = ["serve", "--lockbox", "http://127.0.0.1:1", "--service", SERVICE, "--token-file", str(tmp_path / "none")]
    program = [sys.executable, "-c", "from lockbox_guard.envoy import main; main()"]

    ended = subprocess.run([*program, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert ended.returncode == 1
    assert ended.stderr == f"lockbox-guard: the token's file {tmp_path}/none cannot be read: FileNotFoundError\n"
