"""docker-compose.yml, run without a container engine: each service gets only what the file gives it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from tests.whole.conftest import wait_until
from tests.whole.containers import Containers, containers_of

pytestmark = pytest.mark.far

SERVICES = ("api", "worker", "notifications", "flower")


@pytest.fixture(scope="module")
def containers() -> Iterator[Containers]:
    """The stack after the service `migrate` has run."""
    with containers_of() as made:
        assert made.start("migrate").wait(60) == 0, made.log("migrate").read_text()
        yield made


def test_every_compose_service_is_healthy_once_started_and_unhealthy_once_killed(containers: Containers) -> None:
    assert not containers.healthy("api")
    assert not containers.healthy("flower")

    for name in SERVICES:
        containers.start(name)

    for name in SERVICES:
        wait_until(lambda: containers.healthy(name), f"{name} is healthy")  # noqa: B023 - it is waited for here
    with Redis.from_url(containers.secret("lockbox_redis_url")) as redis:
        assert redis.keys("*reply.celery.pidbox*") == []
    containers.running["worker"].kill()
    assert not containers.healthy("worker")
    assert containers.healthy("notifications")


def test_redis_in_compose_persists_and_reads_its_password_from_a_file(containers: Containers) -> None:
    with Redis.from_url(containers.secret("lockbox_redis_url"), decode_responses=True) as redis:
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert redis.config_get("appendonly") == {"appendonly": "yes"}
        assert redis.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert redis.config_get("dir") == {"dir": str(containers.folder / "data")}

    with socket.create_connection(("127.0.0.1", containers.ports["redis:6379"]), timeout=5) as stranger:
        stranger.sendall(b"PING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")
    shown = Path(f"/proc/{containers.running['redis'].pid}/cmdline")
    assert not shown.exists() or (containers.secrets / "redis_password").read_text() not in shown.read_text()


def test_database_roles_of_compose_can_be_created_again_with_a_new_password(containers: Containers) -> None:
    url = containers.secret("lockbox_database_url")
    password = containers.secrets / "lockbox_api_password"
    old = password.read_text()
    password.chmod(0o644)

    password.write_text("another")
    containers.make_roles()

    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url)
    psycopg.connect(url.replace(old, "another")).close()
    password.write_text(old)
    containers.make_roles()
    psycopg.connect(url).close()
