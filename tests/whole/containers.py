"""The services of docker-compose.yml as processes of this machine, without a container engine."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.engine import make_url

from devstack.embedded.folder import find_home
from devstack.embedded.programs import programs_for
from devstack.stack import CHECKOUT
from harness.ports import own_port
from harness.stage import own_servers
from tests.whole.compose import SCRIPTS, services
from tests.whole.conftest import wait_until

SHELL = "/bin/sh"
CHECKPOINTS = "/var/lib/lockbox/checkpoints"


@dataclass
class Containers:
    """The running services. Hosts, ports and folders are those of this machine; all else is as in the file."""

    folder: Path
    ports: dict[str, int]
    path: str
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def checkpoints(self) -> Path:
        place = self.folder / "checkpoints"
        place.mkdir(exist_ok=True)
        return place

    def secret(self, name: str) -> str:
        """Return a secret, with the hosts in it replaced by this machine's addresses."""
        text = (self.secrets / name).read_text()
        for host in ("postgres:5432", "redis:6379"):
            text = text.replace(f"@{host}", f"@127.0.0.1:{self.ports[host]}")
        return text

    def command(self, words: list[str]) -> list[str]:
        programs = {"python": [sys.executable], "lockbox": [sys.executable, "-m", "cli"]}
        line = " \0".join(words[1:]).replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - it is replaced
        for port in ("8000", "5555"):
            line = line.replace(port, str(self.ports[port]))
        return programs[words[0]] + line.split(" \0")

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables of a service and, as there is no /run/secrets, its secrets."""
        service = services()[name]
        secrets = {secret.upper(): self.secret(secret) for secret in service["secrets"]}
        places = {"/run/secrets": str(self.secrets), CHECKPOINTS: str(self.checkpoints), **_mounted(service)}
        named = {key: str(value) for key, value in service["environment"].items()}
        for there, here in places.items():
            named = {key: value.replace(there, here) for key, value in named.items()}
        given = {"PATH": self.path, **named, **secrets}
        if name == "flower":
            given |= {"LOCKBOX_FLOWER_ADDRESS": "127.0.0.1", "LOCKBOX_FLOWER_PORT": str(self.ports["5555"])}
        return given

    def start(self, name: str) -> subprocess.Popen[bytes]:
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                self.command(services()[name]["command"]),
                env=self.environment(name),
                cwd=CHECKOUT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.running[name]

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def healthy(self, name: str) -> bool:
        kind, *command = services()[name]["healthcheck"]["test"]
        assert kind == "CMD"
        environment = self.environment(name)
        checked = subprocess.run(self.command(command), env=environment, cwd=CHECKOUT, stderr=-1, check=False)
        return checked.returncode == 0

    def script(self, name: str) -> list[str]:
        """Return the command of a script in deploy/compose, with this machine's paths."""
        places = {
            "/run/secrets": str(self.secrets),
            "/etc/lockbox": str(CHECKOUT / "config"),
            "/data": str(self.folder / "data"),
            "port 6379": f"port {self.ports['redis:6379']}",
        }
        text = (SCRIPTS / name).read_text()
        for there, here in places.items():
            text = text.replace(there, here)
        return [SHELL, "-c", text]

    def make_roles(self) -> None:
        where = {"PATH": self.path, "PGHOST": "127.0.0.1", "PGPORT": str(self.ports["postgres:5432"])}
        subprocess.run(self.script("roles.sh"), env=where, check=True, capture_output=True)

    def start_redis(self) -> None:
        """Run the script of Valkey's image and wait until it answers."""
        (self.folder / "data").mkdir()
        with self.log("redis").open("ab") as log:
            command = self.script("valkey.sh")
            self.running["redis"] = subprocess.Popen(command, env={"PATH": self.path}, stdout=log, stderr=log)
        wait_until(self._redis_answers, "Redis answers")

    def _redis_answers(self) -> bool:
        try:
            with Redis.from_url(self.secret("lockbox_redis_url")) as redis:
                return bool(redis.ping())
        except RedisError:
            return False

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


def _mounted(service: Mapping[str, Any]) -> dict[str, str]:
    """Return the paths of the repository files that a service mounts, by their paths in the container."""
    volumes = [one.split(":") for one in service.get("volumes", ())]
    return {there: str(CHECKOUT / here) for here, there, *_ in volumes if here.startswith("./")}


@contextmanager
def containers_of() -> Iterator[Containers]:
    """Make secrets, roles and Redis by the scripts that the file names; no Lockbox process runs yet."""
    with own_servers("compose", ("postgres",)) as postgres:
        parent = postgres.folder.parent
        superuser = make_url(postgres.superuser_url)
        programs = programs_for(find_home(postgres.folder))
        (parent / "bin").mkdir()
        (parent / "bin" / "valkey-server").symlink_to(programs.valkey)
        ports = {"postgres:5432": superuser.port or 0, "redis:6379": own_port()}
        ports |= {"8000": own_port(), "5555": own_port()}
        made = Containers(parent, ports, os.pathsep.join([str(parent / "bin"), str(programs.postgres), os.defpath]))
        try:
            made.secrets.mkdir(mode=0o700)
            (made.secrets / "postgres_password").write_text(str(superuser.password))
            subprocess.run([SCRIPTS / "secrets", made.secrets], check=True, capture_output=True)
            made.make_roles()
            made.start_redis()
            yield made
        finally:
            made.stop()
