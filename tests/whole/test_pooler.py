"""The whole stack behind PgBouncer in transaction mode: it works, and a killed sealer delays the next by seconds."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from devstack.embedded import ServerAddresses
from harness.mail_relay import CaughtMails
from harness.pooler import PROGRAM, pooler
from harness.stage import fresh_database, plan_for, running
from lockbox.audit.log import sealer
from tests.programs import absent
from tests.whole.conftest import RunningStack, wait_until
from tests.whole.warm import WarmProcesses, warm

pytestmark = [pytest.mark.far, pytest.mark.skipif(PROGRAM is None, reason=absent("pgbouncer"))]

NEXT_SEAL_SECONDS = 20.0
DIRECT = "LOCKBOX_DATABASE_DIRECT_URL"
HOLDER = f"""
import time
from lockbox.audit.log import sealer
from worker.runtime import runtime
while True:
    with runtime().database.turn({sealer.TURN!r}) as is_held:
        print("holds" if is_held else "waits", flush=True)
        time.sleep(300 if is_held else 0.05)
"""
UNSEALED = "SELECT 1 FROM unsealed"


@pytest.fixture(scope="module")
def stage(template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The API and the workers, each with its role behind PgBouncer; the core worker also has a direct URL."""
    with _behind_a_pooler(template, tmp_path_factory.mktemp("logs")) as found:
        yield found


@contextmanager
def _behind_a_pooler(servers: ServerAddresses, logs: Path) -> Iterator[RunningStack]:
    with fresh_database(servers) as urls, pooler(urls.api, urls.worker, urls.notifications) as between:
        plan = replace(
            plan_for(urls, servers, logs / "keys"),
            database_url=between.through(urls.api),
            worker_database_url=between.through(urls.worker),
            notifications_database_url=between.through(urls.notifications),
        )
        processes = WarmProcesses(plan, logs, {"LOCKBOX_SHUTDOWN_SECONDS": "1", DIRECT: urls.worker})
        with running(plan, processes, ("api", "worker", "notifications")) as found:
            yield RunningStack(**vars(found), urls=urls, servers=servers, caught=CaughtMails(urls.maildir))


def test_a_request_runs_its_whole_life_behind_the_pooler(stage: RunningStack) -> None:
    unheeded, world = stage.world(), stage.world(approval_window=60)
    with stage.as_(unheeded, "erin") as erin:
        left = erin.post("/v1/requests", json=unheeded.body()).json()
    with stage.as_(world, "erin") as erin, stage.as_(world, "ann") as ann:
        opened, brief = (
            erin.post("/v1/requests", json=world.body(access_window=window)).json() for window in (60, 2)
        )
        for asked in (opened, brief):
            assert ann.post(f"/v1/requests/{asked['id']}/approve", json={}).status_code == 200
        with stage.as_(world, "gate") as gate:
            assert gate.get("/v1/access", params=world.question()).status_code == 200

    stage.ends(left["id"], "timed_out")
    stage.ends(brief["id"], "expired")
    wait_until(lambda: not any(map(stage.open_notifications, (unheeded, world))), "every notification is closed")
    wait_until(lambda: not stage.rows(UNSEALED), "every event is sealed")
    assert stage.processes.ended() == {}
    stage.events_are_whole()


def test_another_worker_seals_within_seconds_of_the_sealers_death(stage: RunningStack, tmp_path: Path) -> None:
    said = tmp_path / "holder"
    settings = stage.plan.variables("worker") | {DIRECT: stage.urls.worker}
    holder = warm().start(settings, out=said, err=said, script=HOLDER)
    wait_until(lambda: said.exists() and "holds" in said.read_text(), "another process has the sealer's lock")
    world = stage.world()
    world.submit()
    time.sleep(2)
    assert stage.rows(UNSEALED), "nobody seals beside the sealer"

    holder.kill()

    wait_until(lambda: not stage.rows(UNSEALED), "every event is sealed", NEXT_SEAL_SECONDS)
    holder.wait()


def test_a_core_worker_behind_a_pooler_without_a_direct_url_says_what_to_set(stage: RunningStack) -> None:
    variables = stage.plan.variables("worker")

    ended = warm().run(variables, module="worker", options=["core"])

    assert ended.returncode == 1
    assert f"set {DIRECT}" in ended.stderr
