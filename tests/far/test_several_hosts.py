"""URLs that name two Postgres servers: the primary dies, the standby is promoted, and everything continues there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy.engine import make_url

from config.server_urls import postgres_url
from devstack.embedded.folder import find_home
from devstack.embedded.processes import wait_until
from devstack.stack import StackPlan
from harness.people import World, add_endpoint, client_of
from harness.ports import own_port
from harness.stage import all_rights, on_database, own_stack, running, servers_of, setting
from harness.wait import within
from harness.webhook_receiver import receiving
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import CLOCK, IndexEntry
from tests.far.standby import SECONDS, Standby, waits_for
from tests.whole.shell import lockbox
from tests.whole.warm import WarmProcesses

LOGINS = ("database_url", "worker_database_url", "notifications_database_url", "owner_database_url")
PROCESSES = ("api", "worker", "notifications")
PATIENCE = 90.0
CONNECTED = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'lockbox-%'"
LOOP = "lockbox-loop"
KEPT, REVOKED, BRIEF = (f"mailbox:{name}@contoso.example" for name in ("a", "b", "c"))
POLICY = Policy(vendor_review=False, approval_reminders=(), report_on_close=False)


@pytest.fixture
def plan() -> Iterator[StackPlan]:
    with own_stack("hosts") as plan:
        yield plan


@pytest.fixture
def standby(plan: StackPlan) -> Iterator[Standby]:
    """A standby for which every commit waits, so that a failover loses none."""
    servers = servers_of(plan)
    standby = Standby(find_home(servers.folder), servers, own_port())
    standby.start()
    waits_for(servers, "*")
    assert wait_until(lambda: standby.sync_state() == "sync", SECONDS)
    yield standby
    standby.stop()


def test_all_processes_continue_with_the_promoted_standby(plan: StackPlan, standby: Standby, tmp_path: Path) -> None:
    servers = servers_of(plan)
    written = logging_in(plan, lambda url: named_second(url, standby.port))
    read = logging_in(written, postgres_url)
    superuser = on_database(servers.superuser_url, "lockbox")
    at_standby = make_url(superuser).set(port=standby.port).render_as_string(hide_password=False)
    assert operated(written) == []

    processes = WarmProcesses(written, tmp_path, {"LOCKBOX_SHUTDOWN_SECONDS": "1"})
    with receiving() as receiver, all_rights(superuser), running(read, processes, PROCESSES) as stack:
        world = World.make(stack.db, POLICY)
        with setting(stack.db).transaction() as session:
            add_endpoint(session, receiver.url, world.tenant.id)
        kept, revoked = approved(written, world, KEPT), approved(written, world, REVOKED)
        done(written, world, "ann", f"/v1/requests/{revoked}/revoke")
        assert [asked(written, world, resource) for resource in (KEPT, REVOKED)] == [200, 403]
        connected = connections(superuser)
        # Those of the event loop among them, which the pools of threads would stand in for.
        assert LOOP in connected

        servers.kill("postgres")
        standby.promote()

        assert within(PATIENCE, lambda: readiness(written) == "ready")
        assert within(PATIENCE, lambda: states(at_standby, kept, revoked) == ["active", "revoked"])
        assert [asked(written, world, resource) for resource in (KEPT, REVOKED) * 5] == [200, 403] * 5
        brief = approved(written, world, BRIEF)
        with psycopg.connect(at_standby.replace("+psycopg", "")) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute("UPDATE requests SET deadline_at = now(), wake_at = now() WHERE id = %s", [brief])
        stack.db.schedule.arm(CLOCK, [IndexEntry(brief, "expire", timedelta(0))])
        assert within(PATIENCE, lambda: states(at_standby, brief) == ["expired"])
        assert within(PATIENCE, lambda: brief in ended(receiver.calls))
        assert within(PATIENCE, lambda: connections(at_standby) >= connected), connected - connections(at_standby)
        assert operated(written) == []
        assert processes.ended() == {}


def logging_in(plan: StackPlan, change: Callable[[str], str]) -> StackPlan:
    changed: dict[str, Any] = {name: change(getattr(plan, name)) for name in LOGINS}
    return replace(plan, **changed)


def named_second(url: str, standby: int) -> str:
    """Return the URL as an operator writes it, with the standby before the primary."""
    _, _, rest = url.partition("://")
    user, _, place = rest.rpartition("@")
    return f"postgresql://{user}@127.0.0.1:{standby},{place}"


def operated(plan: StackPlan) -> list[str]:
    """Return the faults that the operators' commands report."""
    urls = {f"LOCKBOX_{name.upper()}": getattr(plan, name) for name in LOGINS}
    servers = {"LOCKBOX_REDIS_URL": plan.redis_url, "LOCKBOX_ENVIRONMENT": "test"}
    migrated = lockbox({"LOCKBOX_OWNER_DATABASE_URL": plan.owner_database_url} | servers, "migrate")
    looked = lockbox(urls | servers, "doctor")
    swept = lockbox({"LOCKBOX_OWNER_DATABASE_URL": plan.owner_database_url} | servers, "operate", "status")
    reached = [line for line in looked.stdout.splitlines() if "Postgres, " in line]
    found = [line for line in reached if not line.startswith("ok")]
    found += [] if len(reached) >= len(LOGINS) else [looked.stdout + looked.stderr]
    found += [migrated.stdout + migrated.stderr] if migrated.returncode else []
    return found + [line for line in swept.stdout.splitlines() if line.startswith("! Postgres")]


def approved(plan: StackPlan, world: World, resource: str, **changes: Any) -> str:
    with client_of(plan, world.tokens["erin"]) as erin:
        answer = erin.post("/v1/requests", json=world.body(resources=[resource], **changes))
    assert answer.status_code == 201, answer.text
    found = str(answer.json()["id"])
    done(plan, world, "ann", f"/v1/requests/{found}/approve")
    return found


def done(plan: StackPlan, world: World, who: str, path: str) -> None:
    with client_of(plan, world.tokens[who]) as client:
        answer = client.post(path, json={"comment": "Done"})
    assert answer.is_success, answer.text


def asked(plan: StackPlan, world: World, resource: str) -> int:
    with client_of(plan, world.tokens["gate"]) as gate:
        return gate.get("/v1/access", params=world.question(resource=resource)).status_code


def readiness(plan: StackPlan) -> str:
    try:
        return str(httpx.get(f"{plan.public_url}/readyz", timeout=SECONDS, trust_env=False).json()["status"])
    except httpx.HTTPError:
        return "away"


def states(url: str, *ids: str) -> list[str]:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        found = connection.execute("SELECT id::text, state FROM requests").fetchall()
    return [str(state) for one in ids for id_, state in found if id_ == one]


def connections(url: str) -> set[str]:
    """Return the names of the pools that are connected to a server."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return {str(row[0]) for row in connection.execute(CONNECTED)}


def ended(calls: Sequence[Any]) -> set[str]:
    """Return the requests whose end of access was reported to a webhook."""
    return {call.event["data"]["request_id"] for call in calls if call.event.get("type") == "request.expired"}
