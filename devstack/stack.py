"""The whole stack on one machine: its servers, its processes and the settings of each."""

import json
import secrets
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import httpx
import psycopg

from config.children import environment
from config.settings import Settings
from devstack import embedded
from devstack.embedded import EmbeddedRefused, ServerAddresses
from lockbox import migrations
from lockbox.audit.log import signing_keys
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier.approval_checks import NAME as APPROVALS

CHECKOUT = Path(__file__).resolve().parent.parent
PROCFILE = "Procfile"
LOGS = CHECKOUT / "var" / "log"
AUDIT_KEY = "audit.pem"
APPROVAL_KEY = "approval.pem"
SERVERS = {
    "postgres": ("database_url", "worker_database_url", "notifications_database_url", "owner_database_url"),
    "redis": ("redis_url",),
    "mail": ("smtp_url",),
}
"""The settings with the URLs of each server."""
TITLES = {"postgres": "Postgres", "redis": "Redis", "mail": "a mail catcher"}
STOP_SECONDS = 15
READY_SECONDS = 120
LEAVE_SECONDS = 2
IN_USE = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lockbox-%'"


@dataclass(frozen=True)
class StackPlan:
    """`found` says that the embedded servers were running before.

    `playground` lets browsers on this machine act as any demo user. Without a `connectors_database_url`, no connector
    worker can be started.
    """

    database_url: str
    worker_database_url: str
    notifications_database_url: str
    owner_database_url: str
    redis_url: str
    smtp_url: str
    servers: ServerAddresses | None
    keys: Path
    api_port: int
    flower_port: int
    flower_user: str = "operator"
    flower_password: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    environment: str = "development"
    found: bool = False
    playground: Path | None = None
    connectors_database_url: str | None = None

    @property
    def is_its_own(self) -> bool:
        ours = self.servers
        return ours is not None and bool(ours.superuser_url and ours.redis_url and ours.smtp_url)

    @property
    def public_url(self) -> str:
        """The host is a name, because browsers create no passkey for an IP address."""
        return f"http://localhost:{self.api_port}"

    @property
    def audit_key(self) -> VerifierKey:
        (key,) = signing_keys.read([self.keys / AUDIT_KEY])
        return VerifierKey(str(urlsplit(self.public_url).hostname), key.public_key().public_bytes_raw())

    @property
    def approval_key(self) -> VerifierKey:
        (key,) = signing_keys.read([self.keys / APPROVAL_KEY])
        return VerifierKey(APPROVALS, key.public_key().public_bytes_raw())

    @property
    def flower_url(self) -> str:
        return f"http://127.0.0.1:{self.flower_port}"

    def variables(self, process: str) -> dict[str, str]:
        """Return the LOCKBOX_ variables of one process, with no database login but its own."""
        shared = {
            "LOCKBOX_ENVIRONMENT": self.environment,
            "LOCKBOX_EMBEDDED": "true" if self.servers else "false",
            "LOCKBOX_REDIS_URL": self.redis_url,
            "LOCKBOX_PUBLIC_URL": self.public_url,
        }
        if process == "api":
            own = {
                "LOCKBOX_DATABASE_URL": self.database_url,
                "LOCKBOX_API_PORT": str(self.api_port),
                "LOCKBOX_APPROVAL_KEY_FILES": json.dumps([str(self.keys / APPROVAL_KEY)]),
                "LOCKBOX_AUDIT_PUBLIC_KEYS": json.dumps([self.audit_key.text]),
                "LOCKBOX_FLOWER_URL": self.flower_url,
                "LOCKBOX_WEBHOOKS_ALLOW_HTTP": "true",
                **({"LOCKBOX_PLAYGROUND": str(self.playground)} if self.playground else {}),
            }
        elif process == "flower":
            own = {
                "LOCKBOX_FLOWER_USER": self.flower_user,
                "LOCKBOX_FLOWER_PASSWORD": self.flower_password,
                "LOCKBOX_FLOWER_PORT": str(self.flower_port),
            }
        elif process == "worker":
            own = self._of_workers() | {
                "LOCKBOX_WORKER_DATABASE_URL": self.worker_database_url,
                "LOCKBOX_AUDIT_KEY_FILES": json.dumps([str(self.keys / AUDIT_KEY)]),
            }
        elif process == "connectors":
            own = {
                "LOCKBOX_CONNECTORS_DATABASE_URL": self.connectors_database_url or "",
                "LOCKBOX_WEBHOOKS_ALLOW_HTTP": "true",
                "LOCKBOX_AUDIT_PUBLIC_KEYS": json.dumps([self.audit_key.text]),
                "LOCKBOX_APPROVAL_PUBLIC_KEYS": json.dumps([self.approval_key.text]),
            }
        else:
            own = self._of_workers() | {
                "LOCKBOX_NOTIFICATIONS_DATABASE_URL": self.notifications_database_url,
                "LOCKBOX_APPROVAL_PUBLIC_KEYS": json.dumps([self.approval_key.text]),
            }
        return shared | own

    def _of_workers(self) -> dict[str, str]:
        return {
            "LOCKBOX_SMTP_URL": self.smtp_url,
            "LOCKBOX_WEBHOOKS_ALLOW_HTTP": "true",
            "LOCKBOX_AUDIT_PUBLIC_KEYS": json.dumps([self.audit_key.text]),
        }


def prepare(
    settings: Settings,
    folder: Path | None = None,
    *,
    api_port: int,
    flower_port: int,
    say: Callable[[str], object] | None = None,
) -> StackPlan:
    """Start an embedded server for every URL that is not set, and bring the schema up to date.

    Raises EmbeddedRefused in production, if servers do not start, or if another version made the database.
    """
    given = {name: getattr(settings, name) for names in SERVERS.values() for name in names}
    urls = {name: value.get_secret_value() for name, value in given.items() if value is not None}
    missing = {server: names for server, names in SERVERS.items() if not urls.keys() >= set(names)}
    place = folder or embedded.default_folder(CHECKOUT)
    found = False
    if missing and say:
        say(f"Starting {_listed([TITLES[server] for server in missing])}")
    with suppress(EmbeddedRefused):
        found = bool(missing and embedded.find(place).pids)
    servers = embedded.start(place, environment=settings.environment, only=missing) if missing else None
    ours = {name: getattr(servers, name) for names in missing.values() for name in names}
    plan = StackPlan(
        **(urls | ours),
        servers=servers,
        keys=make_keys(place.with_name(f"{place.name}-keys")),
        api_port=api_port,
        flower_port=flower_port,
        environment=settings.environment,
        found=found,
        connectors_database_url=_connectors_url(settings, servers),
    )
    try:
        if say:
            say("Bringing the database up to date")
        migrations.upgrade(plan.owner_database_url)
    except migrations.UnknownRevision as unknown:
        release(plan)
        raise EmbeddedRefused(f"{unknown}{_how_to_empty(place, missing)}") from None
    except migrations.OwnerRefused as unfit:
        release(plan)
        raise EmbeddedRefused(str(unfit)) from None
    except BaseException:
        release(plan)
        raise
    return plan


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _connectors_url(settings: Settings, servers: ServerAddresses | None) -> str | None:
    if settings.connectors_database_url:
        return settings.connectors_database_url.get_secret_value()
    return servers.connectors_database_url or None if servers and servers.superuser_url else None


def _how_to_empty(folder: Path, embedded_servers: Collection[str]) -> str:
    return f" (remove the folder {folder})" if "postgres" in embedded_servers else ""


def make_keys(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (AUDIT_KEY, APPROVAL_KEY):
        if not (folder / name).exists():
            signing_keys.make(folder / name)
    return folder


def release(plan: StackPlan) -> bool:
    """Stop the embedded servers if `prepare` started them and no process uses them; return whether it did so."""
    if plan.servers is None or plan.found or (plan.servers.superuser_url and _in_use(plan.servers)):
        return False
    plan.servers.stop()
    return True


def _in_use(servers: ServerAddresses) -> bool:
    """Waits, because an ended process takes a moment to disconnect."""
    until = time.monotonic() + LEAVE_SECONDS
    with suppress(psycopg.Error), psycopg.connect(servers.superuser_url.replace("+psycopg", "")) as connection:
        connection.autocommit = True
        while connection.execute(IN_USE).fetchone() != (0,):
            if time.monotonic() > until:
                return True
            time.sleep(0.05)
    return False


def is_ready(plan: StackPlan) -> bool:
    try:
        return httpx.get(f"{plan.public_url}/readyz", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def commands(checkout: Path = CHECKOUT) -> dict[str, str]:
    lines = (line.split(":", 1) for line in (checkout / PROCFILE).read_text().splitlines() if ":" in line)
    return {name.strip(): command.strip() for name, command in lines}


class Processes:
    """`checkout` is the folder with the processes' code."""

    def __init__(
        self, plan: StackPlan, logs: Path = LOGS, extra: Mapping[str, str] | None = None, checkout: Path = CHECKOUT
    ) -> None:
        self.plan = plan
        self.logs = logs
        self.checkout = checkout
        self.extra = dict(extra or {})
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, process: str, *, name: str | None = None, options: str = "") -> subprocess.Popen[bytes]:
        """`name` and `options` allow a second process of the same kind."""
        own = {**self.plan.variables(process), **self.extra}
        line = Template(f"{commands(self.checkout)[process]} {options}").substitute(own)
        return self.launch(name or process, shlex.split(line), own)

    def launch(
        self, name: str, command: Sequence[str], variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        own = environment(variables or {})
        with (self.logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - command lines of ours
                command, cwd=self.checkout, env=own, stdout=log, stderr=log, start_new_session=True
            )
        self.running[name] = child
        return child

    def ended(self) -> dict[str, int]:
        return {name: code for name, child in self.running.items() if (code := child.poll()) is not None}

    def wait_until_ready(self) -> None:
        """Raise RuntimeError if the API ends, or is not ready within two minutes."""
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            if self.running["api"].poll() is not None:
                break
            if is_ready(self.plan):
                return
            time.sleep(0.05)
        raise RuntimeError(f"the API did not come up; see {self.logs / 'api.log'}")

    def kill(self, name: str) -> None:
        child = self.running.pop(name)
        child.kill()
        child.wait()

    def stop(self) -> None:
        for child in self.running.values():
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        for child in self.running.values():
            try:
                child.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.running.clear()
