"""docker-compose.yml, run without an engine: each service with what the file gives it and nothing else."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError
from sqlalchemy.engine import make_url

from cli.stack import CHECKOUT, free_port
from config import embedded
from config.embedded.folder import find_home
from config.embedded.programs import programs_for
from config.settings import Settings
from tests.whole.compose import SCRIPTS, compose, services

PATIENCE = 30.0


@dataclass
class Containers:
    """The services as processes of this machine: names of hosts and ports are changed, all else is the file's."""

    folder: Path
    ports: dict[str, int]
    path: str
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def secrets(self) -> Path:
        """The folder of the secrets."""
        return self.folder / "secrets"

    def secret(self, name: str) -> str:
        """Return a secret as this machine reaches what it names."""
        text = (self.secrets / name).read_text()
        for host, port in (("@postgres:5432", self.ports["postgres"]), ("@redis:6379", self.ports["redis"])):
            text = text.replace(host, f"@127.0.0.1:{port}")
        return text

    def command(self, words: list[str]) -> list[str]:
        """Return a command with this Python and these ports."""
        programs = {"python": [sys.executable], "lockbox": [sys.executable, "-m", "cli"]}
        line = [word.replace("0.0.0.0", "127.0.0.1") for word in words[1:]]  # noqa: S104 - it is replaced
        for port in ("8000", "5555"):
            line = [word.replace(port, str(self.ports[port])) for word in line]
        return [*programs[words[0]], *line]

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables of a service, its secrets among them: there is no /run/secrets here."""
        service = services()[name]
        given = {
            **service["environment"],
            **{secret.upper(): self.secret(secret) for secret in service["secrets"]},
        }
        if name == "flower":
            given |= {"LOCKBOX_FLOWER_ADDRESS": "127.0.0.1", "LOCKBOX_FLOWER_PORT": str(self.ports["5555"])}
        return {"PATH": self.path, **given}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start the process of a service."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                self.command(services()[name]["command"]),
                env=self.environment(name),
                cwd=CHECKOUT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.running[name]

    def healthy(self, name: str, test: list[str] | None = None) -> bool:
        """Run the health check of a service."""
        words = test or services()[name]["healthcheck"]["test"]
        assert words[0] == "CMD"
        checked = subprocess.run(
            self.command(words[1:]), env=self.environment(name), cwd=CHECKOUT, capture_output=True, check=False
        )
        return checked.returncode == 0

    def script(self, name: str) -> str:
        """Return a script of deploy/compose with this machine's places in it."""
        text = (SCRIPTS / name).read_text()
        places = {
            "/run/secrets": str(self.secrets),
            "/etc/lockbox": str(CHECKOUT / "config"),
            "/data": str(self.folder / "data"),
            "port 6379": f"port {self.ports['redis']}",
        }
        for there, here in places.items():
            text = text.replace(there, here)
        return text

    def stop(self) -> None:
        """End what runs."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """The secrets, the roles and Redis, made by the scripts that the file names, and a migrated database."""
    folder = tmp_path_factory.mktemp("compose")
    folder.parent.chmod(0o755)
    folder.parent.parent.chmod(0o755)
    folder.chmod(0o755)
    (folder / "data").mkdir()
    postgres = embedded.start(folder / "servers", environment="test", only=("postgres",))
    superuser = make_url(postgres.superuser_url)
    programs = programs_for(find_home(postgres.folder))
    (folder / "bin").mkdir()
    (folder / "bin" / "redis-server").symlink_to(programs.valkey)
    ports = {"postgres": int(superuser.port or 0), "redis": free_port(17000), "8000": free_port(17200)}
    ports |= {"5555": free_port(17400)}
    path = os.pathsep.join([str(folder / "bin"), str(programs.postgres), os.defpath])
    made = Containers(folder, ports, path)
    try:
        made.secrets.mkdir(mode=0o700)
        (made.secrets / "postgres_password").write_text(str(superuser.password))
        subprocess.run([SCRIPTS / "secrets", made.secrets], check=True, capture_output=True)
        make_roles(made)
        start_redis(made)
        yield made
    finally:
        made.stop()
        postgres.stop()


def make_roles(made: Containers) -> None:
    """Run the script of Postgres's image."""
    where = {"PATH": made.path, "PGHOST": "127.0.0.1", "PGPORT": str(made.ports["postgres"])}
    subprocess.run(["sh", "-c", made.script("roles.sh")], env=where, check=True, capture_output=True)


def start_redis(made: Containers) -> None:
    """Run the script of Redis's image and wait until it answers."""
    (made.folder / "redis.sh").write_text(made.script("redis.sh"))
    made.running["redis"] = subprocess.Popen(
        ["sh", made.folder / "redis.sh"], env={"PATH": made.path}, stdout=subprocess.DEVNULL
    )
    eventually(lambda: redis_answers(made), "Redis answers")


def redis_answers(made: Containers) -> bool:
    """Whether Redis knows its password."""
    try:
        with Redis.from_url(made.secret("lockbox_redis_url")) as redis:
            return bool(redis.ping())
    except RedisError:
        return False


def eventually(happened: Any, what: str) -> None:
    """Wait for something to happen."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if happened():
            return
        time.sleep(0.1)
    pytest.fail(f"did not happen within {PATIENCE} s: {what}")


@pytest.fixture(scope="module")
def migrated(containers: Containers) -> Containers:
    """The stack after its service `migrate` has run."""
    assert containers.start("migrate").wait(60) == 0, (containers.folder / "migrate.log").read_text()
    return containers


def make_secrets(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script that makes the secrets."""
    return subprocess.run([SCRIPTS / "secrets", folder], capture_output=True, text=True, timeout=30, check=False)


def test_the_secrets_are_those_of_the_file_in_a_closed_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "secrets"

    made = make_secrets(folder)

    assert made.returncode == 0
    assert {path.name for path in folder.iterdir()} == set(compose()["secrets"])
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o444
        assert path.read_text() not in made.stdout + made.stderr


def test_secrets_that_exist_are_kept_and_their_urls_follow_them(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    (folder / "lockbox_redis_url").unlink()

    make_secrets(folder)

    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    assert len(set(before.values())) == len(before)


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)

    refused = make_secrets(tmp_path / "open")

    assert refused.returncode == 1
    assert "0700" in refused.stderr
    assert not list((tmp_path / "open").iterdir())


def test_settings_load_from_the_secret_files(tmp_path: Path) -> None:
    make_secrets(tmp_path / "secrets")

    settings = Settings(_secrets_dir=tmp_path / "secrets")

    for name in ("database_url", "worker_database_url", "owner_database_url", "redis_url", "flower_password"):
        value = getattr(settings, name)
        assert isinstance(value, SecretStr)
        assert "postgresql" not in name or value.get_secret_value().endswith("@postgres:5432/lockbox")
    assert len(settings.secret_keys) == 1
    assert settings.secret_keys != Settings.model_fields["secret_keys"].default


def test_redis_keeps_everything_and_knows_its_password_from_a_file(containers: Containers) -> None:
    with Redis.from_url(containers.secret("lockbox_redis_url"), decode_responses=True) as redis:
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert redis.config_get("appendonly") == {"appendonly": "yes"}
        assert redis.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert redis.config_get("dir") == {"dir": str(containers.folder / "data")}

    with Redis(port=containers.ports["redis"]) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()
    shown = Path(f"/proc/{containers.running['redis'].pid}/cmdline")
    assert not shown.exists() or (containers.secrets / "redis_password").read_text() not in shown.read_text()


def test_the_api_is_healthy_with_what_it_is_given(migrated: Containers) -> None:
    assert not migrated.healthy("api")

    migrated.start("api")

    eventually(lambda: migrated.healthy("api"), "the API is healthy")


def test_flower_is_healthy_with_what_it_is_given(migrated: Containers) -> None:
    assert not migrated.healthy("flower")

    migrated.start("flower")

    eventually(lambda: migrated.healthy("flower"), "Flower is healthy")


@pytest.mark.parametrize("name", ["worker", "notices"])
def test_a_worker_is_healthy_with_what_it_is_given_and_only_itself(migrated: Containers, name: str) -> None:
    process = migrated.start(name)

    eventually(lambda: migrated.healthy(name), f"{name} is healthy")

    with Redis.from_url(migrated.secret("lockbox_redis_url")) as redis:
        assert redis.keys("*reply.celery.pidbox*") == []
    process.terminate()
    process.wait(20)
    assert not migrated.healthy(name)


def test_the_command_lines_of_the_scripts_are_plain_shell() -> None:
    for script in ("secrets", "roles.sh", "redis.sh"):
        assert (SCRIPTS / script).read_text().startswith("#!/bin/sh\n")
        assert "set -eu" in (SCRIPTS / script).read_text()
        subprocess.run(shlex.split(f"sh -n {SCRIPTS / script}"), check=True)
