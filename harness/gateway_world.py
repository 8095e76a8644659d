"""A world behind a gate: a catalogue, gateways with tokens, engineers that they name, and a server."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from api.app import make_app
from api.gateway import GateRuntime
from api.http_protocol import ClientBounds, bounded
from catalogue.gate_document import GateCallers, PathRule, ServiceGate, TenantSource
from catalogue.service_catalogue import Catalogue, Plan, Service
from config.settings import Settings
from gate import identity_map
from gate.identity_map import HEADER, MappingInput
from harness.people import HERE, World
from harness.wait import wait_for
from lockbox.database import Database, UnitOfWork
from lockbox.identity import roles
from lockbox.identity.roles import Role
from lockbox.schedule import Schedule

PUBLIC = "https://lockbox.example"
PATIENCE = 20.0
MANY_CONNECTIONS = 1000
Gated = TypeVar("Gated", bound="ServedGate")
SERVICE = "exchange-online"
ENGINEER = "lockbox-caller"
GUARD = "guard"
ANNA = "anna@contoso.example"
RULES = (
    PathRule(methods=("GET",), path="/{org}/mailboxes/{address}", resource="mailbox:{address}", action="read"),
    PathRule(methods=("DELETE",), path="/{org}/mailboxes/{address}", resource="mailbox:{address}", action="change"),
)
CATALOGUE = Catalogue(
    services={
        SERVICE: Service(
            title="Exchange Online",
            actions=("read", "change", "export"),
            gate=ServiceGate(
                tenant=TenantSource(path="org"),
                callers=GateCallers(entrance="support", engineer_header=ENGINEER),
                paths=RULES,
            ),
        ),
        "onedrive": Service(title="OneDrive"),
    },
    plans={"standard": Plan()},
)
Headers = list[tuple[str, str]]


class ServedDatabase(Database):
    """A database for a server in a thread of its own, with the clock of another database and its own schedule.

    Connections of a schedule belong to one event loop. News is published even if the machine is busy.
    """

    def __init__(self, of: Database) -> None:
        self._of = of
        place = of.schedule._polling.connection_pool.connection_kwargs  # noqa: SLF001
        login, number = quote(place.get("password", ""), safe=""), place.get("db", 0)
        url = f"redis://:{login}@{place['host']}:{place['port']}/{number}"
        super().__init__(of.engine, Schedule(url, patience=PATIENCE), self._now, keys=of.keys, direct=of.direct)

    def _now(self, session: UnitOfWork) -> datetime:
        return self._of.clock(session)


class GateMount:
    """The gate in front of the API: it starts and ends with the server, and leaves the database's engine open."""

    def __init__(self, gateway: GateRuntime, app: ASGIApp, db: ServedDatabase) -> None:
        self._gateway = gateway
        self._schedule = db.schedule
        self._app = gateway.before(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await receive()
        self._gateway.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._gateway.streams.shut()
        self._gateway.stop()
        await self._schedule.followed()
        self._schedule.close()
        await send({"type": "lifespan.shutdown.complete"})


class GatewayWorld:
    """A world with one gateway of each kind; each gateway has a token and a mapping of erin."""

    def __init__(self, world: World, db: Database, port: int) -> None:
        self.world, self.db, self.port = world, db, port
        for kind in dialect_scopes():
            world.add(kind, Role.SYSTEM, scopes={roles.Scope(f"gate:{kind}")}, services={SERVICE})
            self.map("erin", kind)
        world.add(GUARD, Role.SYSTEM, scopes={roles.Scope.GATE_GUARD}, services={SERVICE})
        self.map("erin", GUARD)

    def map(self, who: str, kind: str) -> None:
        issuer = f"{HEADER}{self.world.people[kind].person_id}"
        wanted = MappingInput(issuer, who, self.world.people[who].person_id)
        with self.world.db.transaction() as session:
            identity_map.add(session, self.world.people["olga"], HERE, wanted, frozenset())

    def question(self, kind: str, path: str, method: str = "GET", who: str | None = "erin") -> Headers:
        """Return the headers of a valid question about a call; Envoy puts the path elsewhere."""
        headers = [("Host", "lockbox.example"), ("Lockbox-Gateway", self.world.tokens[kind])]
        headers += [(ENGINEER, who)] if who else []
        if kind in {"nginx", "haproxy"}:
            headers += [("X-Original-Method", method), ("X-Original-URI", path)]
        elif kind != "envoy":
            headers += [("X-Forwarded-Method", method), ("X-Forwarded-Uri", path)]
        return headers

    def path(self, address: str = ANNA) -> str:
        return f"/{self.world.tenant.slug}/mailboxes/{address}"


class ServedGate(GatewayWorld):
    """A gateway world whose gate runs in this process, where tests can reach it."""

    def __init__(self, world: World, db: Database, port: int, gateway: GateRuntime) -> None:
        super().__init__(world, db, port)
        self.gateway = gateway


def dialect_scopes() -> list[str]:
    others = {roles.Scope.GATE_AUTHZEN, roles.Scope.GATE_GUARD}
    return [one.dialect for one in roles.Scope if one.dialect and one not in others]


@contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    """Serve an app as the API is served, in a thread of its own; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    bounds = ClientBounds(per_address=MANY_CONNECTIONS)
    config = uvicorn.Config(app, http=bounded(bounds), ws="none", log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        wait_for("the server has started", lambda: server.started, PATIENCE)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


@contextmanager
def gate_before(
    world: World, db: Database, settings: Settings, kind: type[Gated], catalogue: Catalogue = CATALOGUE
) -> Iterator[Gated]:
    chosen = settings.model_copy(update={"catalogue": catalogue, "public_url": PUBLIC})
    served = ServedDatabase(db)
    app = make_app(chosen, served)
    gateway: GateRuntime = app.state.gateway
    with serving(GateMount(gateway, app, served)) as port:
        wait_for("the gate has read", lambda: gateway.memory.is_whole, PATIENCE)
        yield kind(world, db, port, gateway)
