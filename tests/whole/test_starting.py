"""Starting up: what refuses to start, with which line, and the settings that each process really has."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from cli.stack import CHECKOUT
from config.children import environment
from tests.builders import Urls
from tests.ports import own_port
from tests.whole.warm import Warm, warmed

SECONDS = 60
GOOD_PRODUCTION = {
    "LOCKBOX_ENVIRONMENT": "production",
    "LOCKBOX_SECRET_KEYS": '["3XGl6M0aTmxLW0-E5Zm0J9yvB7i2SxGBPzgV2eYqk3o="]',
    "LOCKBOX_PUBLIC_URL": "https://lockbox.vendor.example",
}


def run(module: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a process of the stack that is expected to end by itself."""
    return run_python(["-m", *module], variables)


def run_python(arguments: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Python with settings; it is expected to end by itself."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(variables),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """What starts a process without the seconds of its imports."""
    with warmed(tmp_path_factory.mktemp("warm")) as warm:
        yield warm


def api(warm: Warm, urls: Urls, **changes: str) -> subprocess.CompletedProcess[str]:
    """Start the API with good settings and some changes."""
    good = {"LOCKBOX_DATABASE_URL": urls.api, "LOCKBOX_REDIS_URL": urls.redis}
    return warm.run("api", ["--port", str(own_port(19100))], good | changes)


def workers(warm: Warm, urls: Urls, **changes: str) -> subprocess.CompletedProcess[str]:
    """Start a worker with good settings and some changes."""
    good = {"LOCKBOX_WORKER_DATABASE_URL": urls.worker, "LOCKBOX_REDIS_URL": urls.redis}
    return warm.run("worker", ["core"], good | changes)


def refused(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that it ended with one clear line and no traceback."""
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    assert "lockbox: " in ended.stderr
    for word in words:
        assert word in ended.stderr


def test_a_playground_is_not_opened_to_others(warm: Warm, urls: Urls) -> None:
    playing = {"LOCKBOX_PLAYGROUND": "x", "LOCKBOX_EMBEDDED": "true", "LOCKBOX_PUBLIC_URL": "http://localhost:8000"}
    good = {"LOCKBOX_DATABASE_URL": urls.api, "LOCKBOX_REDIS_URL": urls.redis}

    refused(
        warm.run("api", ["--host", "192.0.2.1"], good | playing),
        "LOCKBOX_PLAYGROUND: only where nobody else can call",
    )
    refused(api(warm, urls, **playing), "LOCKBOX_PLAYGROUND: it is the file that `make run` writes")
    refused(api(warm, urls, **GOOD_PRODUCTION | playing), "LOCKBOX_PLAYGROUND: unset it")


POOL_NEVER_STARTS = """
import runpy, sys
from celery.concurrency.prefork import TaskPool
TaskPool.did_start_ok = lambda self: False
sys.argv = ["worker", "core"]
runpy.run_module("worker", run_name="__main__")
"""


def test_a_worker_that_gives_up_says_so_by_its_exit_code(urls: Urls) -> None:
    good = {"LOCKBOX_WORKER_DATABASE_URL": urls.worker, "LOCKBOX_REDIS_URL": urls.redis}

    ended = run_python(["-c", POOL_NEVER_STARTS], good)

    assert "Could not start worker processes" in ended.stdout + ended.stderr
    assert ended.returncode == 1


@pytest.mark.parametrize("login", ["owner", "superuser", "worker"])
def test_the_api_refuses_a_login_that_may_too_much_or_the_wrong_things(warm: Warm, urls: Urls, login: str) -> None:
    refused(api(warm, urls, LOCKBOX_DATABASE_URL=getattr(urls, login)), "LOCKBOX_DATABASE_URL")


@pytest.mark.parametrize("login", ["owner", "superuser", "api"])
def test_a_worker_refuses_a_login_that_may_too_much_or_the_wrong_things(warm: Warm, urls: Urls, login: str) -> None:
    refused(workers(warm, urls, LOCKBOX_WORKER_DATABASE_URL=getattr(urls, login)), "LOCKBOX_WORKER_DATABASE_URL")


def test_a_database_with_newer_migrations_is_refused(warm: Warm, urls: Urls, superuser: Engine) -> None:
    with superuser.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    refused(api(warm, urls), "9999", "migrat")
    refused(workers(warm, urls), "9999", "migrat")


def test_a_database_without_migrations_is_refused(warm: Warm, urls: Urls, superuser: Engine) -> None:
    with superuser.connect() as connection:
        connection.execute(text("DROP TABLE alembic_version"))

    refused(api(warm, urls), "no migrations", "lockbox migrate")


def test_a_missing_setting_is_named(urls: Urls) -> None:
    refused(run(["api"], {"LOCKBOX_REDIS_URL": urls.redis}), "LOCKBOX_DATABASE_URL is not set")
    refused(run(["worker", "core"], {"LOCKBOX_REDIS_URL": urls.redis}), "LOCKBOX_WORKER_DATABASE_URL is not set")
    refused(run(["worker", "core"], {"LOCKBOX_WORKER_DATABASE_URL": urls.worker}), "LOCKBOX_REDIS_URL is not set")


@pytest.mark.parametrize(
    "unsafe",
    [
        {"LOCKBOX_SECRET_KEYS": '["aW5zZWN1cmUtZGV2ZWxvcG1lbnQta2V5LTMyLWJ5dGU="]'},
        {"LOCKBOX_PUBLIC_URL": "http://lockbox.vendor.example"},
        {"LOCKBOX_EMBEDDED": "true"},
        {"LOCKBOX_WEBHOOKS_ALLOW_HTTP": "true"},
    ],
    ids=lambda unsafe: next(iter(unsafe)),
)
def test_unsafe_settings_are_refused_in_production(warm: Warm, urls: Urls, unsafe: dict[str, str]) -> None:
    refused(api(warm, urls, **(GOOD_PRODUCTION | unsafe)), next(iter(unsafe)), "production")


def test_an_api_that_cannot_check_what_was_shipped_does_not_start(warm: Warm, urls: Urls, tmp_path: Path) -> None:
    refused(api(warm, urls, LOCKBOX_CHECKPOINT_FOLDER=str(tmp_path)), "LOCKBOX_AUDIT_PUBLIC_KEYS")


def test_flower_refuses_to_start_without_credentials(urls: Urls) -> None:
    refused(run(["worker.flower"], {"LOCKBOX_REDIS_URL": urls.redis}), "LOCKBOX_FLOWER_USER")


def test_flower_refuses_to_open_its_api_to_everybody(urls: Urls) -> None:
    known = {"LOCKBOX_FLOWER_USER": "operator", "LOCKBOX_FLOWER_PASSWORD": "long-enough-secret"}
    opened = {"LOCKBOX_REDIS_URL": urls.redis, "FLOWER_UNAUTHENTICATED_API": "true"}

    refused(run(["worker.flower"], opened | known), "FLOWER_UNAUTHENTICATED_API")


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


@pytest.mark.parametrize("process", ["worker", "flower"])
def test_every_process_has_the_same_effective_celery_settings(urls: Urls, process: str, tmp_path: Path) -> None:
    imported = {"worker": "import worker.runtime", "flower": "import worker.flower"}[process]
    script = tmp_path / "effective.py"
    script.write_text(f"{imported}\n{EFFECTIVE}")

    shown = subprocess.run(
        [sys.executable, str(script)],
        env=environment({"LOCKBOX_REDIS_URL": urls.redis, "PYTHONPATH": str(CHECKOUT)}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    ).stdout

    assert '"visibility_timeout": 120' in shown
    assert '"restore": [5, 1]' in shown
    assert '"socket_timeout": 10' in shown
    assert '"acks_late": true, "reject": true, "prefetch": 1, "accept": ["json"], "backend": null' in shown
    assert '"beat": {}, "late_tasks": true' in shown
