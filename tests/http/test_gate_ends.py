"""What ends access at the gate, and how soon, also with Redis or Postgres away; what ends a gateway's own token."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from devstack.embedded import ServerAddresses
from gate import credentials
from harness.gateway_world import ANNA, PATIENCE, SERVICE
from harness.people import HERE, SETTINGS, World
from harness.ports import own_port
from harness.stage import Urls, fresh_database, on_database
from harness.wait import wait_for
from lockbox.admin import tenants, vendor_staff
from lockbox.database import Database, make_engine
from lockbox.errors import Invalid
from lockbox.identity import authentication, token_creation
from lockbox.identity.roles import Scope
from lockbox.identity.sessions import ClientInfo
from lockbox.identity.token_creation import TokenInput, TokenRules
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from tests.http.door import Door
from tests.http.gate_door import GateAnswer, GateDoor, gate_before

QUICK = SETTINGS.model_copy(update={"gate_compare_every": 1_000_000})
"""Nothing is compared with Postgres: these answers come from memory alone."""
BOUND = 1.0
"""A call that begins so many seconds after the answer to a revoke is refused, whatever is in memory."""
RULES = TokenRules("test", timedelta(days=1), timedelta(days=1), timedelta(hours=1), frozenset({SERVICE}))
TERMINATE = text("""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND usename = 'lockbox_api'
""")


@pytest.fixture
def gate(fresh_door: Door) -> Iterator[GateDoor]:
    with gate_before(fresh_door.world, fresh_door.db, QUICK) as opened:
        yield opened


@pytest.fixture
def own_urls(template: ServerAddresses) -> Iterator[Urls]:
    with fresh_database(template, flushes=False) as urls:
        yield urls


def opened(gate: GateDoor, **changes: Any) -> UUID:
    """Open a window for Anna's mailbox, and wait until the gate has it in memory."""
    request = gate.world.submit(**({"resources": [f"mailbox:{ANNA}"]} | changes))
    request_id = gate.world.act("ann", Action.APPROVE, request.id).id
    until = time.monotonic() + PATIENCE
    while request_id not in gate.gateway.memory.requests():
        assert time.monotonic() < until
        time.sleep(0.01)
    gate.until(200)
    return request_id


def ended(gate: GateDoor, end: Callable[[], object]) -> GateAnswer:
    """End access, and return the first refusal that says why.

    A call that begins over a second after the end must not be let in.
    """
    end()
    answered = time.monotonic()
    while True:
        began = time.monotonic()
        answer = gate.ask()
        if answer.reason not in {None, "behind", "busy"}:
            return answer
        assert answer.status != 200 or began < answered + BOUND, "let in by a call that began a second after the end"
        assert began < answered + PATIENCE, answer


def suspend(world: World) -> None:
    with world.db.transaction() as session:
        tenants.suspend(session, world.people["olga"], HERE, world.tenant.slug)


def disable(world: World) -> None:
    with world.db.transaction() as session:
        vendor_staff.disable(session, world.people["olga"], HERE, world.people["erin"].person_id)


@pytest.mark.far
def test_the_gate_refuses_a_revoked_window_within_a_second(gate: GateDoor) -> None:
    request_id = opened(gate)

    answer = ended(gate, lambda: gate.world.act("tara", Action.REVOKE, request_id))

    assert (answer.status, answer.reason) == (403, "no_window")


@pytest.mark.far
def test_the_gate_refuses_a_suspended_tenant_within_a_second(gate: GateDoor) -> None:
    opened(gate)

    assert ended(gate, lambda: suspend(gate.world)).reason == "suspended"


@pytest.mark.far
def test_the_gate_refuses_a_disabled_engineer_within_a_second(gate: GateDoor) -> None:
    opened(gate)

    assert ended(gate, lambda: disable(gate.world)).reason in {"no_window", "unknown_engineer"}


@pytest.mark.far
def test_the_gate_refuses_a_window_at_its_deadline_without_a_worker(gate: GateDoor) -> None:
    opened(gate, access_window=10)
    answers = []
    while (answer := gate.ask()).status == 200:
        answers.append(answer)

    wait_for("the gate says why", lambda: gate.ask().reason == "no_window", PATIENCE)
    with gate.db.transaction() as session:
        (late,) = session.execute(
            text("SELECT clock_timestamp() - CAST(:until AS timestamptz)"),
            {"until": answers[-1].headers["lockbox-until"]},
        ).one()
    assert timedelta(0) < late < timedelta(seconds=PATIENCE)


def test_the_gate_refuses_an_ended_window_as_quickly_without_redis_as_with_redis(own_urls: Urls) -> None:
    db = Database(make_engine(own_urls.api, role="test-gate"), Schedule(f"redis://127.0.0.1:{own_port()}/0"))
    with gate_before(World.make(db), db, QUICK) as gate:
        request_id = opened(gate)

        answer = ended(gate, lambda: gate.world.act("tara", Action.REVOKE, request_id))

        assert answer.reason == "no_window"
    db.dispose()


@pytest.mark.far
def test_without_postgres_the_gate_refuses_all_calls_and_later_recovers(own_urls: Urls) -> None:
    db = Database(make_engine(own_urls.api, role="test-gate"), Schedule(own_urls.redis))
    name = make_url(own_urls.api).database
    elsewhere = create_engine(on_database(own_urls.superuser, "postgres"), isolation_level="AUTOCOMMIT")
    with elsewhere.connect() as root, gate_before(World.make(db), db, QUICK) as gate:
        opened(gate)
        root.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        root.execute(TERMINATE, {"name": name})
        gone = time.monotonic()

        while (began := time.monotonic()) and gate.ask().status == 200:
            assert began < gone + 2
        assert gate.ask().reason == "behind"
        assert gate.ask(path=gate.path("bob@contoso.example")).reason == "behind"
        root.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))

        gate.until(200)
    db.dispose()
    elsewhere.dispose()


def test_news_of_a_revoked_gateway_token_makes_the_gate_forget_the_token(
    gate: GateDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that only news can have ended it.
    monkeypatch.setattr(credentials, "KEPT_SECONDS", 600.0)
    opened(gate)
    nginx = gate.world.people["nginx"]
    assert nginx.key_id is not None

    with gate.db.transaction() as session:
        authentication.enter(session, nginx)
        token_creation.revoke(session, nginx, ClientInfo("127.0.0.1", "pytest"), nginx.key_id)

    assert gate.until(401).reason == "no_credential"
    gate.until(200, kind="caddy")


@pytest.mark.far
def test_a_rotated_gateway_token_stays_limited_to_the_gateway_type_of_the_old_token(gate: GateDoor) -> None:
    opened(gate)
    place, caddy = ClientInfo("127.0.0.1", "pytest"), gate.world.people["caddy"]
    with gate.db.transaction() as session:
        authentication.enter(session, caddy)
        wanted = TokenInput("gateway", scopes=frozenset({Scope.GATE_CADDY}), services=frozenset({SERVICE}))
        made = token_creation.make(session, caddy, place, wanted, RULES)
    gate.world.tokens["caddy"] = made.text
    assert gate.ask("caddy").status == 200
    with gate.db.transaction() as session:
        authentication.enter(session, caddy)
        rotated = token_creation.rotate(session, caddy, place, made.token.id, RULES)

    gate.world.tokens["caddy"] = rotated.text
    assert gate.ask("caddy").status == 200
    gate.world.tokens["nginx"] = rotated.text
    assert gate.ask("nginx").reason == "malformed"


@pytest.mark.parametrize(
    ("scopes", "services"),
    [
        ({Scope.GATE_NGINX, Scope.GATE_CADDY}, {SERVICE}),
        ({Scope.GATE_NGINX, Scope.ACCESS_CHECK}, {SERVICE}),
        ({Scope.GATE_NGINX}, set[str]()),
    ],
)
def test_a_gateway_token_has_exactly_one_scope_and_names_at_least_one_service(
    fresh_door: Door, scopes: set[Scope], services: set[str]
) -> None:
    wanted = TokenInput("gateway", scopes=frozenset(scopes), services=frozenset(services))
    with fresh_door.db.transaction() as session, pytest.raises(Invalid, match="has one scope, such as gate:nginx"):
        token_creation.make(session, fresh_door.world.people["gate"], ClientInfo("127.0.0.1", "x"), wanted, RULES)
