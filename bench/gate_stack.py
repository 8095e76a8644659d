"""A running API with the gate before it, open windows, and tokens of an issuer, for the benchmark."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from uuid import UUID

import psutil
from joserfc import jwt
from joserfc.jwk import OKPKey, generate_key

from bench import costs
from catalogue.gate_document import TokenIssuer
from devstack.embedded import ServerAddresses
from devstack.stack import Processes
from gate import identity_map
from gate.identity_map import MappingInput
from harness import stage
from harness.gateway_world import CATALOGUE, GUARD, SERVICE, GatewayWorld
from harness.people import HERE, World
from harness.ports import wait_until_listening
from harness.stage import Urls, own_folder, plan_for
from harness.wait import wait_for
from lockbox.requests.lifecycle import Action

PATIENCE = 60.0
AUDIENCE = "lockbox-gate"
SUBJECT = "erin-at-work"
TOKEN_SECONDS = 3000
GROUPS = [f"a-group-of-the-directory-{number}" for number in range(24)]
"""With these groups a token has about a kilobyte, as tokens of companies have."""


class BenchIssuer:
    """An issuer on this machine, which publishes one Ed25519 key and signs tokens with it."""

    def __init__(self, url: str, key: OKPKey) -> None:
        self.url = url
        self._key = key
        self._made = 0

    def token(self) -> str:
        """Return a token that was never seen before."""
        self._made += 1
        now = int(time.time())
        claims = {"iss": self.url, "sub": SUBJECT, "aud": AUDIENCE, "iat": now, "exp": now + TOKEN_SECONDS}
        header = {"alg": "Ed25519", "kid": self._key.kid, "typ": "JWT"}
        return jwt.encode(header, claims | {"jti": str(self._made), "groups": GROUPS}, self._key, ["Ed25519"])


@contextmanager
def issuing() -> Iterator[BenchIssuer]:
    """Run an issuer."""
    key = generate_key("OKP", "Ed25519", {"kid": "bench", "use": "sig"})
    body = json.dumps({"keys": [key.as_dict(private=False)]}).encode()

    class Published(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Published) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield BenchIssuer(f"http://127.0.0.1:{server.server_port}", key)
        finally:
            server.shutdown()


@dataclass
class GateStack:
    """The API process, its people and gateways, and its open windows by address."""

    world: GatewayWorld
    servers: ServerAddresses
    issuer: BenchIssuer
    process: psutil.Process
    windows: dict[str, UUID]
    told: "StreamTimes" = field(init=False)

    @property
    def port(self) -> int:
        """The port on which the API listens."""
        return self.world.port

    def cpu(self) -> float:
        """Return the CPU seconds that the API process has taken."""
        return costs.cpu_seconds([self.process])

    def headers(self, address: str, token: str | None = None) -> dict[str, str]:
        """Return the headers with which nginx asks about a mailbox; a header or this token names the engineer."""
        who = None if token else "erin"
        asked = dict(self.world.question("nginx", self.world.path(address), who=who))
        del asked["Host"]
        return asked | ({"Authorization": f"Bearer {token}"} if token else {})

    def call(self, address: str, token: str | None = None) -> dict[str, Any]:
        """Return the same question as a call of a story."""
        return {
            "method": "GET",
            "path": f"/gate/v1/{SERVICE}",
            "headers": self.headers(address, token),
            "status": 200,
        }


class GateClient:
    """One connection to the gate, which asks about one mailbox."""

    def __init__(self, stack: GateStack, address: str) -> None:
        self._headers = stack.headers(address)
        self._connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=PATIENCE)

    def is_let_in(self) -> bool:
        """Ask once."""
        self._connection.request("GET", f"/gate/v1/{SERVICE}", headers=self._headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status == HTTPStatus.OK

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._connection.close()


class StreamTimes:
    """When a guard's stream opened and closed each window, by this machine's clock, which is also Postgres'."""

    def __init__(self, world: GatewayWorld) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", world.port, timeout=PATIENCE)
        self._headers = {"lockbox-gateway": world.world.tokens[GUARD]}
        wait_for("the gate has loaded all windows", self._is_given, PATIENCE)
        self.opened: dict[str, float] = {}
        self.closed: dict[str, float] = {}
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _is_given(self) -> bool:
        self._connection.request("GET", "/gate/v1/stream", headers=self._headers)
        self._answer = self._connection.getresponse()
        is_given = self._answer.status == HTTPStatus.OK
        if not is_given:
            self._answer.read()
        return is_given

    def close(self) -> None:
        """Hang up."""
        if self._connection.sock:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._reading.join(PATIENCE)
        self._answer.close()
        self._connection.close()

    def wait_until_closed(self, request: UUID) -> float:
        """Wait until the stream says that a window is closed, and return when that was."""
        wait_for("the guard was told", lambda: str(request) in self.closed, PATIENCE)
        return self.closed[str(request)]

    def _read(self) -> None:
        kind = b""
        with suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for line in iter(self._answer.readline, b""):
                if line.startswith(b"event: "):
                    kind = line[7:].strip()
                elif line.startswith(b"data: "):
                    self._note(kind, json.loads(line[6:]))

    def _note(self, kind: bytes, data: dict[str, Any]) -> None:
        if kind == b"close":
            self.closed[data["request"]] = time.time()
        windows = data.get("windows", [data]) if kind in {b"snapshot", b"open"} else []
        self.opened.update((window["request"], time.time()) for window in windows if "request" in window)


def addresses(count: int) -> list[str]:
    """Return the mailboxes about which the gate is asked."""
    return [f"person-{number}@contoso.example" for number in range(count)]


@contextmanager
def gate_stack(servers: ServerAddresses, urls: Urls, windows: int) -> Iterator[GateStack]:
    """Serve a gate with open windows in its memory."""
    with ExitStack() as ends:
        folder = ends.enter_context(own_folder("bench-gate"))
        issuer = ends.enter_context(issuing())
        catalogue = folder / "catalogue.yaml"
        catalogue.write_text(_catalogue(issuer))
        plan = plan_for(urls, servers, folder / "keys")
        processes = Processes(plan, folder / "log", {"LOCKBOX_CATALOGUE": str(catalogue)})
        running = ends.enter_context(stage.running(plan, processes, ()))
        world = GatewayWorld(World.make(running.db), running.db, plan.api_port)
        _map(world, issuer)
        requests = {
            address: world.world.submit(resources=[f"mailbox:{address}"]).id for address in addresses(windows)
        }
        for one in requests.values():
            world.world.act("ann", Action.APPROVE, one)
        child = processes.start("api")
        wait_until_listening(plan.api_port)
        found = GateStack(world, servers, issuer, psutil.Process(child.pid), requests)
        found.told = _all_told(found)
        ends.callback(found.told.close)
        yield found


def _catalogue(issuer: BenchIssuer) -> str:
    """Return the catalogue of the gate's tests, with this issuer, as a file (JSON is YAML)."""
    trusted = TokenIssuer(issuer=issuer.url, audience=AUDIENCE, jwks_url=f"{issuer.url}/jwks")
    catalogue = CATALOGUE.model_copy(update={"issuers": (trusted,)})
    return catalogue.model_dump_json(exclude_defaults=True)


def _map(world: GatewayWorld, issuer: BenchIssuer) -> None:
    wanted = MappingInput(issuer.url, SUBJECT, world.world.people["erin"].person_id)
    with world.db.transaction() as session:
        identity_map.add(session, world.world.people["olga"], HERE, wanted, frozenset({issuer.url}))


def _all_told(found: GateStack) -> StreamTimes:
    """Wait until all windows are in the gate's memory."""
    with GateClient(found, next(iter(found.windows))) as client:
        wait_for("the gate lets in", client.is_let_in, PATIENCE)
    told = StreamTimes(found.world)
    wanted = {str(window) for window in found.windows.values()}
    wait_for("all windows are in memory", lambda: wanted <= told.opened.keys(), PATIENCE)
    return told
