"""Without Redis, submissions and decisions continue, and Postgres drives prompts and time-outs; nothing is lost."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from devstack.embedded import ServerAddresses
from harness.ports import own_port
from tests.whole.conftest import RunningStack, stage_of, wait_until

pytestmark = pytest.mark.far


@contextmanager
def refused() -> Iterator[str]:
    """A URL at which nothing listens."""
    yield f"redis://:secret@127.0.0.1:{own_port()}/0"


@contextmanager
def black_hole() -> Iterator[str]:
    """A URL that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=500) as silent:
        yield f"redis://:secret@127.0.0.1:{silent.getsockname()[1]}/0"


@pytest.mark.parametrize("away", [refused, black_hole])
def test_without_redis_from_the_start_people_are_prompted_and_requests_time_out(
    away: object, template: ServerAddresses, tmp_path: Path
) -> None:
    assert callable(away)
    with (
        away() as url,
        stage_of(template, tmp_path, redis_url=url, names=("api", "worker", "notifications")) as stage,
    ):
        stage.workers_run()
        unheeded, world = stage.world(), stage.world(approval_window=60)
        with stage.as_(unheeded, "erin") as erin:
            left = erin.post("/v1/requests", json=unheeded.body()).json()["id"]
        with stage.as_(world, "erin") as erin, stage.as_(world, "ann") as ann:
            submitted = erin.post("/v1/requests", json=world.body())

            assert submitted.status_code == 201
            request = submitted.json()["id"]
            wait_until(lambda: any(request in mail for mail in stage.caught.texts()), "the approvers are prompted")
            stage.ends(left, "timed_out")

            second = erin.post("/v1/requests", json=world.body(access_window=1)).json()["id"]
            assert ann.post(f"/v1/requests/{second}/approve", json={}).json()["open"] is True
            stage.ends(second, "expired")
            assert erin.get("/readyz").json()["status"] == "degraded"
        stage.events_are_whole()


def test_a_request_times_out_though_its_api_process_was_killed_right_after_the_commit(
    template: ServerAddresses, tmp_path: Path
) -> None:
    with black_hole() as url, stage_of(template, tmp_path, redis_url=url, names=("api",)) as stage:
        world = stage.world(approval_window=3)
        api = psutil.Process(stage.processes.running["api"].pid)
        with socket.create_connection(("127.0.0.1", stage.plan.api_port)) as raw:
            raw.sendall(_post(stage, world.tokens["erin"], world.body()))
            wait_until(lambda: stage.rows("SELECT 1 FROM requests"), "the request is committed")
            api.kill()
        request = stage.rows("SELECT id FROM requests")[0].id

        with stage_of_workers(stage, template):
            stage.ends(request, "timed_out")

            wait_until(lambda: any(str(request) in mail for mail in stage.caught.texts()), "somebody is told")

        stage.events_are_whole()


@contextmanager
def stage_of_workers(stage: RunningStack, servers: ServerAddresses) -> Iterator[None]:
    """Start the workers of a stage on the Redis that works."""
    stage.processes.extra["LOCKBOX_REDIS_URL"] = servers.redis_url
    stage.processes.start("worker")
    stage.processes.start("notifications")
    yield


def _post(stage: RunningStack, token: str, body: dict[str, object]) -> bytes:
    built = httpx.Request(
        "POST", f"{stage.plan.public_url}/v1/requests", json=body, headers={"authorization": f"Bearer {token}"}
    )
    lines = [b"POST /v1/requests HTTP/1.1", *(name + b": " + value for name, value in built.headers.raw)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + built.read()
