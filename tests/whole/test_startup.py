"""Startup: which processes refuse to start, with which line, and the settings that each process really has."""

import socket
import subprocess
from pathlib import Path

import pytest

from harness.network import HOST
from harness.ports import own_port
from harness.stage import Urls
from tests.whole.warm import warm

GOOD_PRODUCTION = {
    "LOCKBOX_ENVIRONMENT": "production",
    "LOCKBOX_SECRET_KEYS": '["3XGl6M0aTmxLW0-E5Zm0J9yvB7i2SxGBPzgV2eYqk3o="]',
    "LOCKBOX_PUBLIC_URL": "https://lockbox.vendor.example",
}


def api(urls: Urls, **changes: str) -> subprocess.CompletedProcess[str]:
    good = {"LOCKBOX_DATABASE_URL": urls.api, "LOCKBOX_REDIS_URL": urls.redis}
    return warm().run(good | changes, module="api", options=["--port", str(own_port())])


def workers(urls: Urls, **changes: str) -> subprocess.CompletedProcess[str]:
    good = {"LOCKBOX_WORKER_DATABASE_URL": urls.worker, "LOCKBOX_REDIS_URL": urls.redis}
    return warm().run(good | changes, module="worker", options=["core"])


def refused(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that the process ended with one clear line and no traceback."""
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    assert "lockbox: " in ended.stderr
    for word in words:
        assert word in ended.stderr


@pytest.mark.far
def test_a_playground_that_other_machines_could_reach_refuses_to_start(urls: Urls) -> None:
    playing = {"LOCKBOX_PLAYGROUND": "x", "LOCKBOX_EMBEDDED": "true", "LOCKBOX_PUBLIC_URL": "http://localhost:8000"}
    good = {"LOCKBOX_DATABASE_URL": urls.api, "LOCKBOX_REDIS_URL": urls.redis}

    refused(
        warm().run(good | playing, module="api", options=["--host", "192.0.2.1"]),
        "LOCKBOX_PLAYGROUND works only on loopback",
    )
    refused(api(urls, **playing), "LOCKBOX_PLAYGROUND: it is the file that `make run` writes")
    refused(api(urls, **GOOD_PRODUCTION | playing), "LOCKBOX_PLAYGROUND: unset it")


POOL_NEVER_STARTS = """
import runpy, sys
from celery.concurrency.prefork import TaskPool
TaskPool.did_start_ok = lambda self: False
sys.argv = ["worker", "core"]
runpy.run_module("worker", run_name="__main__")
"""


@pytest.mark.far
def test_a_worker_that_cannot_start_its_pool_exits_with_an_error_code(urls: Urls) -> None:
    good = {"LOCKBOX_WORKER_DATABASE_URL": urls.worker, "LOCKBOX_REDIS_URL": urls.redis}

    ended = warm().run(good, script=POOL_NEVER_STARTS)

    assert "Could not start worker processes" in ended.stdout + ended.stderr
    assert ended.returncode == 1


@pytest.mark.far
@pytest.mark.parametrize("login", ["owner", "superuser", "worker"])
def test_the_api_refuses_to_start_with_a_database_role_with_wrong_rights(urls: Urls, login: str) -> None:
    refused(api(urls, LOCKBOX_DATABASE_URL=getattr(urls, login)), "LOCKBOX_DATABASE_URL")


@pytest.mark.far
@pytest.mark.parametrize("login", ["owner", "superuser", "api"])
def test_a_worker_refuses_to_start_with_a_database_role_with_wrong_rights(urls: Urls, login: str) -> None:
    refused(workers(urls, LOCKBOX_WORKER_DATABASE_URL=getattr(urls, login)), "LOCKBOX_WORKER_DATABASE_URL")


@pytest.mark.far
def test_an_api_without_its_checkpoint_folder_does_not_start(urls: Urls, tmp_path: Path) -> None:
    refused(api(urls, LOCKBOX_CHECKPOINT_FOLDER=str(tmp_path)), "LOCKBOX_AUDIT_PUBLIC_KEYS")


@pytest.mark.far
def test_flower_refuses_to_start_without_credentials(urls: Urls) -> None:
    refused(warm().run({"LOCKBOX_REDIS_URL": urls.redis}, module="worker.flower"), "LOCKBOX_FLOWER_USER")


@pytest.mark.far
def test_flower_refuses_to_start_with_an_open_api(urls: Urls) -> None:
    known = {"LOCKBOX_FLOWER_USER": "operator", "LOCKBOX_FLOWER_PASSWORD": "long-enough-secret"}
    opened = {"LOCKBOX_REDIS_URL": urls.redis, "FLOWER_UNAUTHENTICATED_API": "true"}

    refused(warm().run(opened | known, module="worker.flower"), "FLOWER_UNAUTHENTICATED_API")


EFFECTIVE = """
from worker.app import app
import json
with app.connection_for_write() as connection:
    options = connection.transport_options
    channel = connection.default_channel
    print(json.dumps({
        "visibility_timeout": channel.visibility_timeout,
        "restore": [channel.unacked_restore_interval, channel.unacked_restore_throttle],
        "socket_timeout": channel.socket_timeout,
        "acks_late": app.conf.task_acks_late,
        "reject": app.conf.task_reject_on_worker_lost,
        "prefetch": app.conf.worker_prefetch_multiplier,
        "accept": list(app.conf.accept_content),
        "backend": app.conf.result_backend,
        "beat": app.conf.beat_schedule,
        "late_tasks": all(task.acks_late and task.ignore_result for name, task in app.tasks.items()
                          if name.startswith("lockbox.")),
    }))
"""


@pytest.mark.far
@pytest.mark.parametrize("process", ["worker", "flower"])
def test_workers_and_flower_have_the_same_effective_celery_settings(urls: Urls, process: str) -> None:
    imported = {"worker": "import worker.runtime", "flower": "import worker.flower"}[process]

    shown = warm().run({"LOCKBOX_REDIS_URL": urls.redis}, script=f"{imported}\n{EFFECTIVE}").stdout

    assert '"visibility_timeout": 120' in shown
    assert '"restore": [5, 1]' in shown
    assert '"socket_timeout": 10' in shown
    assert '"acks_late": true, "reject": true, "prefetch": 1, "accept": ["json"], "backend": null' in shown
    assert '"beat": {}, "late_tasks": true' in shown


@pytest.mark.far
@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_api_port_already_in_use_is_reported(urls: Urls, processes: str) -> None:
    with socket.create_server((HOST, own_port())) as taken:
        port = taken.getsockname()[1]
        good = {"LOCKBOX_DATABASE_URL": urls.api, "LOCKBOX_REDIS_URL": urls.redis, "LOCKBOX_API_PROCESSES": processes}
        ended = warm().run(good, module="api", options=["--port", str(port)])

    refused(ended, f"cannot listen on {HOST}, port {port}: Address already in use", "choose another")
    assert ended.stderr.count("\n") == 1


@pytest.mark.far
def test_a_file_descriptor_that_is_not_a_socket_is_refused_by_the_api(urls: Urls) -> None:
    good = {"LOCKBOX_DATABASE_URL": urls.api, "LOCKBOX_REDIS_URL": urls.redis}

    ended = warm().run(good, module="api", options=["--fd", "2"])

    refused(ended, "--fd 2 is no socket that a TCP server can listen on")


@pytest.mark.far
@pytest.mark.parametrize("port", ["0", "65536", "80000", "-1", "http"])
def test_an_invalid_port_of_the_api_is_refused(urls: Urls, port: str) -> None:
    good = {"LOCKBOX_DATABASE_URL": urls.api, "LOCKBOX_REDIS_URL": urls.redis}

    ended = warm().run(good, module="api", options=[f"--port={port}"])

    assert ended.returncode == 2
    assert "name a port from 1 to 65535" in ended.stderr


@pytest.mark.far
def test_a_port_of_flower_already_in_use_is_reported(urls: Urls) -> None:
    known = {"LOCKBOX_REDIS_URL": urls.redis, "LOCKBOX_FLOWER_USER": "olga", "LOCKBOX_FLOWER_PASSWORD": "a" * 16}
    with socket.create_server((HOST, own_port())) as taken:
        port = str(taken.getsockname()[1])
        ended = warm().run(known | {"LOCKBOX_FLOWER_PORT": port}, module="worker.flower")

    refused(ended, f"Flower cannot listen on {HOST}, port {port}: Address already in use", "LOCKBOX_FLOWER_PORT")
