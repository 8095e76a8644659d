"""A decision point as programs reach it: the certification scenario's people and records, over real connections."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from api.app import make_app
from api.gateway import GateRuntime
from catalogue.gate_document import PathRule, ServiceGate, TenantSource, TokenIssuer
from catalogue.service_catalogue import Catalogue, Plan, Service
from gate import identity_map
from gate.identity_map import HEADER, MappingInput
from harness.gateway_world import PATIENCE, PUBLIC, GateMount, ServedDatabase, serving
from harness.people import HERE, SETTINGS, World
from harness.wait import wait_for
from lockbox.database import Database
from lockbox.identity.roles import Role, Scope
from lockbox.requests import submit
from lockbox.requests.lifecycle import Action

RECORDS, FILES = "records", "files"
PROGRAM, FILER, NGINX = "pep", "filer", "nginx"
ISSUER = "https://sso.vendor.example"
JSON = {"content-type": "application/json"}
CLOSE = {"connection": "close"}
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"


def asked(who: str = "alice", action: str = "read", record: str = "record-1", **more: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "user", "id": who},
        "action": {"name": action},
        "resource": {"type": "record", "id": record},
        **more,
    }


@dataclass
class AuthzenDoor:
    """A world with a program that asks by AuthZEN: alice may read and write record-1, bob may read it."""

    world: World
    port: int
    gateway: GateRuntime

    def __post_init__(self) -> None:
        self.world.add(PROGRAM, Role.SYSTEM, scopes={Scope.GATE_AUTHZEN}, services={RECORDS})
        self.world.add(FILER, Role.SYSTEM, scopes={Scope.GATE_AUTHZEN}, services={FILES})
        self.world.add(NGINX, Role.SYSTEM, scopes={Scope.GATE_NGINX}, services={RECORDS})
        for who in ("alice", "bob"):
            self.world.add(who, Role.ENGINEER)
            self.map(who, f"{HEADER}{self.world.people[PROGRAM].person_id}")
        self.windows = {
            "alice": self.open("alice", actions=["read", "write"]),
            "bob": self.open("bob", actions=["read"]),
        }

    def map(self, who: str, issuer: str, subject: str | None = None) -> None:
        wanted = MappingInput(issuer, subject or who, self.world.people[who].person_id)
        with self.world.db.transaction() as session:
            identity_map.add(session, self.world.people["olga"], HERE, wanted, {ISSUER})

    def open(self, who: str, **changes: Any) -> UUID:
        wanted = {"service": RECORDS, "resources": ["record:record-1"], "actions": ["read"]} | changes
        world = self.world
        with world.db.transaction() as session:
            services = catalogue(world.tenant.slug).services
            made = submit.submit(session, world.people[who], HERE, world.submission(**wanted), services)
        return world.act("ann", Action.APPROVE, made.request.id).id

    def send(self, path: str, method: str = "POST", who: str | None = PROGRAM, **how: Any) -> httpx.Response:
        headers = CLOSE | ({} if who is None else {"authorization": f"Bearer {self.world.tokens[who]}"})
        headers |= how.pop("headers", {})
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE) as client:
            answer = client.request(method, path, headers=headers, **how)
        assert answer.headers["cache-control"] == "no-store"
        return answer

    def decision(self, body: dict[str, Any], who: str = PROGRAM) -> dict[str, Any]:
        answer = self.send(EVALUATION, who=who, json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
        found: dict[str, Any] = answer.json()
        assert isinstance(found["decision"], bool)
        return found

    def decisions(self, body: dict[str, Any]) -> list[bool]:
        answer = self.send(EVALUATIONS, json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
        assert "decision" not in answer.json()
        return [one["decision"] for one in answer.json()["evaluations"]]


def catalogue(tenant: str) -> Catalogue:
    """Return a catalogue with a service of one tenant, and a service of many."""
    rules = (PathRule(methods=("GET",), path="/records/{id}", resource="record:{id}", action="read"),)
    actions = ("read", "write", "delete")
    return Catalogue(
        services={
            RECORDS: Service(
                title="Records", actions=actions, gate=ServiceGate(tenant=TenantSource(fixed=tenant), paths=rules)
            ),
            FILES: Service(
                title="Files",
                actions=actions,
                gate=ServiceGate(tenant=TenantSource(header="Lockbox-Tenant"), paths=rules),
            ),
        },
        plans={"standard": Plan()},
        issuers=(TokenIssuer(issuer=ISSUER, audience="lockbox", jwks_url=f"{ISSUER}/keys"),),
    )


@contextmanager
def decision_point_of(world: World, db: Database) -> Iterator[AuthzenDoor]:
    """Serve a world's API; answers from memory are compared with Postgres."""
    chosen = SETTINGS.model_copy(update={"catalogue": catalogue(world.tenant.slug), "public_url": PUBLIC})
    served = ServedDatabase(db)
    app = make_app(chosen, served)
    gateway: GateRuntime = app.state.gateway
    with serving(GateMount(gateway, app, served)) as port:
        wait_for("the gate has read", lambda: gateway.memory.was_read, PATIENCE)
        yield AuthzenDoor(world, port, gateway)
