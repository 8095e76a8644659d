"""Queue messages through the real broker: forged, repeated or delayed; and what Flower shows and refuses."""

import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest
from celery import Celery

from chaos import celery_messages
from lockbox.sql import new_id
from tests.whole.conftest import WORKERS, RunningStack, wait_until

PERSONAL = re.compile(r"@|mailbox|erin|contoso|does not open", re.IGNORECASE)
TASKS = ("lockbox.time_out", "lockbox.expire", "lockbox.remind", "lockbox.notify")
CONTROL_CALLS = (
    "/api/task/async-apply/lockbox.expire",
    "/api/task/apply/lockbox.expire",
    "/api/task/send-task/lockbox.expire",
    "/api/task/revoke/some-id",
    "/api/task/abort/some-id",
    "/api/task/timeout/lockbox.expire",
    "/api/task/rate-limit/lockbox.expire",
    "/api/worker/shutdown/core@vm",
    "/api/worker/pool/restart/core@vm",
    "/api/worker/pool/grow/core@vm",
    "/api/worker/pool/shrink/core@vm",
    "/api/worker/pool/autoscale/core@vm",
    "/api/worker/queue/add-consumer/core@vm",
    "/api/worker/queue/cancel-consumer/core@vm",
)

GUESSES = 8
SOFT_LIMITS = """
from worker.app import app
app.loader.import_default_modules()
print(app.conf.task_soft_time_limit)
print(*(task.soft_time_limit for name, task in app.tasks.items() if name.startswith("lockbox.")))
"""


PROCESSES = ("api", "worker", "notifications", "flower")


def broker(stage: RunningStack) -> Celery:
    return Celery("stranger", broker=stage.urls.redis)


@pytest.fixture(scope="module")
def flower_listens(stage: RunningStack) -> None:
    """Wait until Flower has heard both workers: it shows nothing of what was done before it listened."""
    signed_in = (stage.plan.flower_user, stage.plan.flower_password)

    def heard() -> bool:
        with suppress(httpx.TransportError):
            answer = httpx.get(f"{stage.plan.flower_url}/api/workers?status=1", auth=signed_in, trust_env=False)
            return {name.partition("@")[0] for name in answer.json()} >= WORKERS
        return False

    wait_until(heard, "Flower has heard both workers")


def test_a_request_runs_its_whole_life_without_intervention(stage: RunningStack) -> None:
    unheeded, world = stage.world(), stage.world(approval_window=60)
    with stage.as_(unheeded, "erin") as erin:
        left = erin.post("/v1/requests", json=unheeded.body()).json()
    with stage.as_(world, "erin") as erin, stage.as_(world, "ann") as ann:
        opened = erin.post("/v1/requests", json=world.body(access_window=2)).json()

        assert ann.post(f"/v1/requests/{opened['id']}/approve", json={}).status_code == 200

        stage.ends(left["id"], "timed_out")
        stage.ends(opened["id"], "expired")
    stage.events_are_whole()


@pytest.mark.far
def test_queue_messages_written_by_hand_decide_nothing(stage: RunningStack) -> None:
    world = stage.world(approval_window=600)
    request = world.submit()
    wait_until(lambda: not stage.open_notifications(world), "the prompts are sent")
    prompts = len(stage.rows("SELECT 1 FROM notifications WHERE request_id = :id", id=str(request.id)))

    with broker(stage) as stranger:
        for task in TASKS:
            queue = "notify" if task == "lockbox.notify" else "core"
            for ids in ([str(request.id)] * 3, [str(new_id())], ["not an id"], [], [str(request.id)] * 1000):
                stranger.send_task(task, [ids], queue=queue)
        stranger.send_task("lockbox.approve", [[str(request.id)]], queue="core")
        stranger.send_task("lockbox.reconcile", [], queue="maintenance")

    control = world.fresh(access_window=1, case_ref="CASE-2")
    stage.rows("UPDATE tenants SET suspended = suspended WHERE id = :id RETURNING id", id=str(world.tenant.id))
    wait_until(lambda: not any(stage.redis().llen(one) for one in celery_messages.QUEUES), "the queues are empty")
    assert stage.state(request.id) == "pending"
    assert stage.state(control.id) == "pending"
    assert len(stage.rows("SELECT 1 FROM events WHERE request_id = :id AND seq IS NOT NULL", id=str(request.id))) == 1
    assert len([mail for mail in stage.caught.texts() if str(request.id) in mail]) == prompts
    stage.events_are_whole()


@pytest.mark.usefixtures("flower_listens")
def test_flower_shows_tasks_by_name_and_refuses_every_control_call(stage: RunningStack) -> None:
    world = stage.world(approval_window=1)
    timed_out = world.submit()
    stage.ends(timed_out.id, "timed_out")
    signed_in = (stage.plan.flower_user, stage.plan.flower_password)

    with httpx.Client(base_url=stage.plan.flower_url, trust_env=False, timeout=10) as flower:

        def results(name: str) -> list[str]:
            tasks = flower.get("/api/tasks", auth=signed_in).json().values()
            return [task["result"] for task in tasks if (task["name"], task["state"]) == (name, "SUCCESS")]

        for name, result in (("time_out", "'timed_out': 1"), ("notify", "'sent': "), ("seal", "'events': ")):
            wait_until(
                lambda: any(result in one for one in results(f"lockbox.{name}")),  # noqa: B023 - called at once
                f"Flower shows the result of {name}",
            )
        tasks = flower.get("/api/tasks", auth=signed_in).json().values()
        assert not [task for task in tasks if PERSONAL.search(f"{task['args']}{task['kwargs']}")]
        assert flower.get("/api/tasks").status_code == 401
        assert flower.get("/").status_code == 401
        for call in CONTROL_CALLS:
            assert flower.post(call, auth=signed_in, json={"args": [[]]}).status_code == 403, call
            assert flower.post(call).status_code == 401, call


@pytest.mark.far
@pytest.mark.usefixtures("flower_listens")
def test_flower_shows_both_workers_although_they_answer_only_inspections(stage: RunningStack) -> None:
    signed_in = (stage.plan.flower_user, stage.plan.flower_password)

    with httpx.Client(base_url=stage.plan.flower_url, trust_env=False, timeout=30) as flower:

        def workers() -> dict[str, dict[str, Any]]:
            found: dict[str, dict[str, Any]] = flower.get("/api/workers?refresh=1", auth=signed_in).json()
            return {name.partition("@")[0]: {"name": name, **facts} for name, facts in found.items()}

        def told() -> bool:
            asked = {"stats", "active_queues", "registered", "conf"}
            return all(asked <= workers().get(kind, {}).keys() for kind in ("core", "notifications"))

        wait_until(told, "both workers answer what their pages ask")
        queues = {kind: {one["name"] for one in facts["active_queues"]} for kind, facts in workers().items()}
        # Sealing takes the audit key, which the core worker alone has.
        assert queues == {"core": {"core", "maintenance"}, "notifications": {"notify"}}
        for kind, facts in workers().items():
            page = flower.get(f"/worker/{facts['name']}", auth=signed_in)
            assert (page.status_code, kind in page.text) == (200, True)


@pytest.mark.far
@pytest.mark.usefixtures("flower_listens")
def test_the_metrics_of_flower_can_be_read_only_from_this_machine_or_with_the_password(stage: RunningStack) -> None:
    signed_in = (stage.plan.flower_user, stage.plan.flower_password)
    passed_on = {"X-Forwarded-For": "127.0.0.1"}

    with httpx.Client(base_url=stage.plan.flower_url, trust_env=False, timeout=10) as flower:
        for path in ("/metrics", "/healthcheck"):
            assert flower.get(path).status_code == 200
            assert flower.get(path, headers=passed_on).status_code == 401
            assert flower.get(path, headers=passed_on, auth=signed_in).status_code == 200


@pytest.mark.far
@pytest.mark.usefixtures("flower_listens")
def test_flower_checks_one_wrong_password_a_second(stage: RunningStack) -> None:
    signed_in = (stage.plan.flower_user, stage.plan.flower_password)

    def status(password: str) -> int:
        with httpx.Client(base_url=stage.plan.flower_url, trust_env=False, timeout=30) as flower:
            return flower.get("/workers", auth=(stage.plan.flower_user, password)).status_code

    began = time.monotonic()
    with ThreadPoolExecutor(GUESSES) as guessers:
        statuses = Counter(guessers.map(status, map(str, range(GUESSES))))

    assert set(statuses) <= {401, 429}
    assert time.monotonic() - began >= statuses[401] - 1
    assert httpx.get(f"{stage.plan.flower_url}/workers", auth=signed_in, trust_env=False).status_code == 200


@pytest.mark.far
@pytest.mark.parametrize("timer", [{"countdown": 31}, {"eta": "2030-01-01T00:00:00"}])
def test_no_celery_task_can_be_sent_with_a_countdown_or_an_eta(stage: RunningStack, timer: dict[str, object]) -> None:
    script = f"from worker.app import app; app.tasks['lockbox.expire'].apply_async(([],), **{timer!r})"

    ended = stage.python(script)

    assert ended.returncode != 0
    assert "ForbiddenTimer" in ended.stderr
    assert stage.redis().llen("core") == 0


@pytest.mark.far
def test_no_celery_task_has_a_soft_time_limit(stage: RunningStack) -> None:
    """A parent that waits for the broker signals late: the child's task is done, and the signal kills the child."""
    ended = stage.python(SOFT_LIMITS)

    assert ended.stdout.split() == ["None"] * 9, ended.stderr
