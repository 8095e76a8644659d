"""A Lockbox with a gate, a service, and a running gateway between the clients and both."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from api.app import make_app
from api.gateway import GateRuntime
from catalogue.gate_document import TokenIssuer
from catalogue.load import read_catalogue
from catalogue.service_catalogue import Catalogue
from devstack.embedded import ServerAddresses
from devstack.stack import CHECKOUT
from gate import call, dialects, identity_map, window_checks
from gate.dialects import Dialect
from gate.identity_map import MappingInput
from harness.gateway_world import PUBLIC, SERVICE, GateMount, ServedDatabase, serving
from harness.network import HOST
from harness.people import HERE, SETTINGS, World
from harness.ports import own_port
from harness.stage import Urls, fresh_database
from harness.wait import wait_for
from lockbox.database import Database, make_engine
from lockbox.identity.roles import Role, Scope
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from tests.oidc_issuer import AUDIENCE, LocalIssuer, local_issuer
from tests.whole.gateways import GatewayPlaces, GatewayProgram
from tests.whole.lockbox_line import LockboxLine
from tests.whole.recording_service import HELLO, RecordingService

PATIENCE = 40.0
NUMBERS = count(1)


@dataclass(frozen=True)
class EntranceAnswer:
    """What a client of the gateway sees."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(port: int, line: str, headers: list[tuple[str, str]], body: bytes = b"") -> EntranceAnswer:
    """Send a request exactly as it is, and return the answer."""
    lines = [line, *(f"{name}: {value}" for name, value in headers), "Connection: close"]
    with socket.create_connection((HOST, port), timeout=PATIENCE) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)
        with HTTPResponse(connection, method=line.partition(" ")[0]) as response:
            response.begin()
            found = {name.lower(): value for name, value in response.getheaders()}
            return EntranceAnswer(response.status, found, response.read())


@dataclass
class Installation:
    """A Lockbox with a gate, an issuer whose tokens name engineers, and a service behind a gateway."""

    world: World
    db: Database
    urls: Urls
    issuer: LocalIssuer
    api: int
    service: RecordingService

    def token(self, subject: str = "erin-at-work", **changes: Any) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {"sub": subject, "azp": "support-console", "iat": now, "exp": now + 300}
        return self.issuer.token(**claims | changes)


@dataclass
class Entrance:
    """One running gateway, and how clients reach it."""

    kind: str
    port: int
    line: LockboxLine
    home: Installation

    @property
    def names(self) -> tuple[str, str, str]:
        """The headers that tell the gate the method, the target and the host."""
        headers = dialects.HEADERS[Dialect(self.kind)]
        return headers.method.decode(), headers.target.decode(), headers.host.decode()

    def ask(
        self,
        target: str,
        *more: tuple[str, str],
        method: str = "GET",
        token: str | None = "",
        host: str | None = None,
        body: bytes = b"",
    ) -> EntranceAnswer:
        """Call through the gateway, with erin's token, another one, or none."""
        headers = [("Host", host or f"{self.home.world.tenant.slug}.mail.example"), *more]
        if token is not None:
            headers.append(("Authorization", f"Bearer {token or self.home.token()}"))
        return ask(self.port, f"{method} {target} HTTP/1.1", headers, body)

    def refused(self, target: str, *more: tuple[str, str], **how: Any) -> EntranceAnswer:
        """Call, and check that the call is refused and nothing reaches the service."""
        before = len(self.home.service.seen)
        answer = self.ask(target, *more, **how)
        assert answer.status >= 400, answer
        assert HELLO not in answer.body
        assert self.home.service.seen[before:] == []
        return answer

    def served(self, target: str, *more: tuple[str, str], **how: Any) -> EntranceAnswer:
        """Call, and check that the service got the method, target and host that were sent and the gate checked."""
        before = len(self.home.service.seen)
        answer = self.ask(target, *more, **how)
        assert answer.status == 200, answer
        (seen,) = self.home.service.seen[before:]
        judged = self.line.asked[-1]
        asked = (how.get("method") or "GET", target, f"{self.home.world.tenant.slug}.mail.example")
        assert (seen.method, seen.target, seen.headers["host"]) == asked
        assert tuple(judged[name] for name in self.names) == asked
        return answer

    def opened(self, address: str, **changes: Any) -> UUID:
        """Open a window for a mailbox, and wait until the gateway serves it."""
        request = self.home.world.submit(**{"resources": [f"mailbox:{address}"]} | changes)
        request_id = self.home.world.act("ann", Action.APPROVE, request.id).id
        wait_for("the gate answers so", lambda: self.ask(f"/mailboxes/{address}").status == 200, PATIENCE)
        return request_id


def address() -> str:
    return f"m{next(NUMBERS)}@contoso.example"


def catalogue(issuer: LocalIssuer) -> Catalogue:
    sample = read_catalogue(CHECKOUT / "deploy" / "catalogue.yaml")
    trusted = TokenIssuer(
        issuer=issuer.url,
        audience=AUDIENCE,
        azp=("support-console",),
        algorithms=("ES256",),
        jwks_url=f"{issuer.url}/jwks",
    )
    return Catalogue(services={SERVICE: sample.services[SERVICE]}, plans=sample.plans, issuers=(trusted,))


@contextmanager
def api_of(issuer: LocalIssuer, db: Database) -> Iterator[int]:
    served = ServedDatabase(db)
    app = make_app(SETTINGS.model_copy(update={"catalogue": catalogue(issuer), "public_url": PUBLIC}), served)
    gateway: GateRuntime = app.state.gateway
    with pytest.MonkeyPatch.context() as patched, serving(GateMount(gateway, app, served)) as port:
        # Let the gate's checks take their time on a busy machine.
        patched.setattr(window_checks, "ASK_SECONDS", 20.0)
        patched.setattr(call, "CALL_SECONDS", 20.0)
        patched.setattr(gateway.engineers.map, "_read_seconds", 20.0)
        wait_for("the gate answers so", lambda: gateway.memory.was_read, PATIENCE)
        yield port


@contextmanager
def installed(template: ServerAddresses) -> Iterator[Installation]:
    with ExitStack() as ends:
        urls = ends.enter_context(fresh_database(template, flushes=False))
        db = Database(make_engine(urls.api, role="test-gateways"), Schedule(urls.redis))
        ends.callback(db.dispose)
        world, issuer = World.make(db), ends.enter_context(local_issuer())
        with db.transaction() as session:
            wanted = MappingInput(issuer.url, "erin-at-work", world.people["erin"].person_id)
            identity_map.add(session, world.people["olga"], HERE, wanted, frozenset({issuer.url}))
        service = RecordingService()
        ends.callback(service.close)
        api = ends.enter_context(api_of(issuer, db))
        yield Installation(world, db, urls, issuer, api, service)


@contextmanager
def entered(
    home: Installation, kind: str, gateway: GatewayProgram, program: Path, folder: Path
) -> Iterator[Entrance]:
    """Run a gateway by its sample configuration, with its own token."""
    home.world.add(kind, Role.SYSTEM, scopes={Scope(f"gate:{kind}")}, services={SERVICE})
    line = LockboxLine(home.api)
    line.connect()
    places = GatewayPlaces(own_port(), line.port, home.service.port, home.world.tokens[kind])
    for each in (folder, *folder.parents[:2]):  # nginx' workers are nobody's
        each.chmod(0o755)
    with gateway.running(program, folder, places):
        entrance = Entrance(kind, places.entrance, line, home)
        # Traefik listens before it has read what it routes.
        wait_for("the gateway asks", lambda: entrance.ask("/", token=None).status == 401, PATIENCE)
        yield entrance
    line.cut()
