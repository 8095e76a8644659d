"""`lockbox operate status` and `/metrics` with running processes, and with one of the servers unavailable."""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest

from cli import status as shown
from devstack.embedded import ServerAddresses
from harness.mail_relay import relaying
from lockbox.database import Database
from lockbox.monitoring import status
from lockbox.monitoring.heartbeats import ProcessPart
from lockbox.monitoring.metrics import MOST_SILENT
from lockbox.monitoring.status import Status
from tests.whole.conftest import PATIENCE, RunningStack, stage_of, wait_until
from tests.whole.shell import at_once, lockbox

PARTS = set(ProcessPart) - {ProcessPart.CONNECTORS}
"""Those of an installation whose catalogue has no connectors."""
AGED = "UPDATE heartbeats SET beat_at = beat_at - interval '2 minutes' WHERE role = :role RETURNING 1"
JUST_NOW = "UPDATE heartbeats SET beat_at = clock_timestamp() WHERE role = :role RETURNING 1"
TOLD_SECONDS = 5
"""Within this time status reports a relay that takes no mail."""
GONE_SECONDS = MOST_SILENT / 2
"""Within this time status reports a dead core worker; by its heartbeat alone it would take twice as long."""
GONE = "core: no such worker is connected to Postgres: has it ended?"
REFUSAL = {"localhost": "550 5.7.1 relaying denied"}
get = partial(httpx.get, timeout=30, trust_env=False)
AWAY_POSTGRES = {"LOCKBOX_DATABASE_URL": "postgresql://lockbox_api:s3cret@127.0.0.1:1/lockbox"}


@pytest.fixture(scope="module")
def stage(template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The whole stack, after every process has sent a heartbeat."""
    with stage_of(template, tmp_path_factory.mktemp("logs"), names=("api", "worker", "notifications")) as found:
        wait_until(
            lambda: found.rows("SELECT count(DISTINCT role) AS n FROM heartbeats")[0].n == len(PARTS),
            "all parts have a beat",
        )
        yield found


def known(stage: RunningStack) -> dict[str, str]:
    return {"LOCKBOX_DATABASE_URL": stage.urls.api, "LOCKBOX_REDIS_URL": stage.urls.redis}


def when_well(ask: Callable[[], "CompletedProcess[str]"]) -> "CompletedProcess[str]":
    """Ask for the status until all is well, because Redis may answer a ping too late; return the last answer."""
    until = time.monotonic() + PATIENCE
    while (ended := ask()).returncode and time.monotonic() < until:
        pass
    return ended


@pytest.mark.far
@pytest.mark.parametrize("login", ["LOCKBOX_DATABASE_URL", "LOCKBOX_OWNER_DATABASE_URL"])
def test_the_status_command_says_that_a_healthy_installation_is_healthy(stage: RunningStack, login: str) -> None:
    url = {"LOCKBOX_DATABASE_URL": stage.urls.api, "LOCKBOX_OWNER_DATABASE_URL": stage.urls.owner}[login]

    ended = when_well(lambda: lockbox({login: url, "LOCKBOX_REDIS_URL": stage.urls.redis}, "operate", "status"))

    assert (ended.returncode, ended.stderr) == (0, ""), ended
    assert ended.stdout.endswith("All is well.\n")
    for word in ("api@", "core@", "notifications@", "Last reconcile", "Overdue steps", "Migrations"):
        assert word in ended.stdout


@pytest.mark.far
def test_the_status_command_also_prints_json(stage: RunningStack) -> None:
    ended = when_well(lambda: at_once(known(stage), "operate", "status", "--output", "json"))

    found = json.loads(ended.stdout)
    assert (ended.returncode, found["ok"], found["troubles"]) == (0, True, [])
    assert found["migration"]["database"] == found["migration"]["code"]
    assert {one["part"] for one in found["processes"]} == PARTS
    assert found["last_reconcile_seconds"] < 60


@pytest.mark.far
def test_without_postgres_the_status_command_shows_the_rest_and_no_secret(stage: RunningStack) -> None:
    ended = at_once(known(stage) | AWAY_POSTGRES, "operate", "status")

    assert (ended.returncode, ended.stderr) == (1, ""), ended
    assert "! Postgres: unavailable" in ended.stdout
    assert "Redis" in ended.stdout
    assert "s3cret" not in ended.stdout


@pytest.mark.far
def test_without_settings_the_status_command_says_what_to_set() -> None:
    ended = lockbox({}, "operate", "status")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "LOCKBOX_DATABASE_URL" in ended.stderr


@pytest.mark.far
def test_the_status_command_reports_a_database_at_an_older_migration(stage: RunningStack) -> None:
    stage.rows("UPDATE alembic_version SET version_num = '0001' RETURNING 1")
    try:
        ended = at_once(known(stage), "operate", "status")
    finally:
        stage.rows("UPDATE alembic_version SET version_num = :head RETURNING 1", head=head(stage))

    assert ended.returncode == 1
    assert "the database is at migration 0001" in ended.stdout


def head(stage: RunningStack) -> str:
    found = json.loads(at_once(known(stage), "operate", "status", "--output", "json").stdout)
    return str(found["migration"]["code"])


@pytest.mark.far
def test_the_metrics_of_the_running_api_can_be_read_locally(stage: RunningStack) -> None:
    url = f"http://127.0.0.1:{stage.plan.api_port}/metrics"

    wait_until(lambda: "lockbox_redis_up 1.0\n" in get(url).text, "Redis answers in time")
    found = get(url)

    assert found.status_code == 200
    for line in ('lockbox_processes{role="core"} 1.0', 'lockbox_processes{role="api"} 1.0'):
        assert f"{line}\n" in found.text
    assert get(url, headers={"x-forwarded-for": "127.0.0.1"}).status_code == 403


def age_if_gone(stage: RunningStack) -> float | None:
    """Return the age of the last heartbeat of a core worker, if the same status reports that none is connected."""
    found = json.loads(at_once(known(stage), "operate", "status", "--output", "json").stdout)
    ages = [one["age"] for one in found["processes"] if one["part"] == "core"]
    return min(ages) if GONE in found["troubles"] else None


@pytest.mark.far
def test_status_reports_a_killed_core_worker_at_once_despite_its_recent_heartbeat(stage: RunningStack) -> None:
    stage.processes.kill("worker")
    try:
        # From here the age of the heartbeat is the time since the worker's death.
        stage.rows(JUST_NOW, role="core")
        ages = (age_if_gone(stage) for _ in range(100))
        told = next((age for age in ages if age is not None), inf)
    finally:
        # Other tests count the workers that live.
        stage.rows(AGED, role="core")
        stage.processes.start("worker")
        wait_until(lambda: "All is well." in at_once(known(stage), "operate", "status").stdout, "another one lives")

    assert told < GONE_SECONDS


def relay_of(url: str) -> str:
    """Return what status says about a relay while Postgres is unavailable."""
    ended = at_once(AWAY_POSTGRES | {"LOCKBOX_SMTP_URL": url}, "operate", "status", "--output", "json")
    found = json.loads(ended.stdout)
    assert (ended.returncode, found["relay"] == "ok") == (1, f"Mail relay: {found['relay']}" not in found["troubles"])
    return str(found["relay"])


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({}, "ok"),
        ({"greeting": "554 5.3.2 no mail today"}, "the mail relay answered 554 5.3.2 no mail today"),
        ({"answers": REFUSAL}, "the mail relay answered 550 5.7.1 relaying denied"),
        ({"hangs_at": "GREETING"}, "the mail relay took too long"),
        ({"hangs_at": "RCPT"}, "the mail relay took too long"),
    ],
    ids=str,
)
def test_status_says_within_5_seconds_why_a_relay_takes_no_mail(
    behaviour: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown.RELAY_SECONDS < TOLD_SECONDS
    if "hangs_at" in behaviour:
        monkeypatch.setattr(shown, "RELAY_SECONDS", 0.3)

    with relaying(**behaviour) as relay:
        assert relay_of(f"smtp://127.0.0.1:{relay.port}") == said


def test_status_reports_a_relay_at_which_nothing_listens() -> None:
    assert relay_of("smtp://127.0.0.1:1").startswith("the mail relay failed: ")


def test_status_waits_for_the_relay_and_the_servers_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    read = status.read

    def slow(database: Database, *, with_redis: bool) -> Status:
        wait_until(lambda: relay.callers, "the relay is tried meanwhile")
        return read(database, with_redis=with_redis)

    monkeypatch.setattr(status, "read", slow)
    with relaying() as relay:
        assert relay_of(f"smtp://127.0.0.1:{relay.port}") == "ok"
