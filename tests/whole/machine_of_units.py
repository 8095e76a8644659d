"""A machine with a database, where the files of deploy/systemd are installed as docs/operating/install.md says."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from cli.app import app
from devstack.stack import CHECKOUT
from harness.network import serving
from harness.ports import own_port
from harness.stage import Urls, own_folder, run_as_superuser
from lockbox.audit.log import sealer, signing_keys
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.log.checkpoint_folder import WitnessFolder
from lockbox.audit.log.sealer import Signer
from lockbox.audit.verifier.approval_checks import NAME as APPROVALS
from lockbox.database import Database, make_engine
from lockbox.notifications import endpoints
from lockbox.notifications.endpoints import SecretVault
from lockbox.owner_transaction import as_owner
from lockbox.schedule import Schedule
from tests.programs import need, need_root
from tests.whole.test_doctor import DAY, SilentServer, certified

FOLDER = CHECKOUT / "deploy" / "systemd"
GUIDE = CHECKOUT / "docs" / "operating" / "install.md"
UNITS = ("lockbox-api", "lockbox-worker@1", "lockbox-notifications@1", "lockbox-connectors@1", "lockbox-flower")
LISTS_KEY = "INSERT INTO audit_keys (key, purpose, first_used_at) VALUES ('{}', 'approval', now())"


def fernet() -> str:
    return urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _python(place: Path) -> dict[str, str]:
    """Return a Python that the units' users can read (this one, or a copy of it) and the variables that it needs."""
    real = Path(sys.executable).resolve()
    found = {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), *(one for one in sys.path if "site-packages" in one)])}
    if all(folder.stat().st_mode & 0o001 for folder in real.parents):
        return {**found, "PYTHON": sys.executable}
    library = Path(os.__file__).parent
    copied = place / "python" / "lib" / library.name
    left_out = shutil.ignore_patterns("test", "tests", "site-packages", "idlelib", "tkinter", "ensurepip", "lib2to3")
    shutil.copytree(library, copied, ignore=left_out)
    (place / "python" / "bin").mkdir()
    shutil.copy(real, place / "python" / "bin")
    return {**found, "PYTHON": str(place / "python" / "bin" / real.name), "PYTHONHOME": str(place / "python")}


@dataclass
class MachineOfUnits:
    """A machine with installed units; `place` is its root."""

    place: Path
    urls: Urls
    users: dict[str, tuple[int, int]]
    groups: dict[str, int]
    secret: str
    python: dict[str, str]
    other_audit: str = ""
    issuer: str = ""

    @property
    def etc(self) -> Path:
        return self.place / "etc" / "lockbox"

    @property
    def checkpoints(self) -> Path:
        return self.place / "var" / "lib" / "lockbox" / "checkpoints"

    def moved(self, text: str) -> str:
        """Return a text of the guide or of a unit with the folders of this machine."""
        here = text.replace("/etc/lockbox", str(self.etc)).replace("/srv/lockbox", str(CHECKOUT))
        return here.replace("/var/lib/lockbox/checkpoints", str(self.checkpoints))

    def runs(self, *arguments: str, **variables: str) -> str:
        """Run a `lockbox` command, and return what it prints."""
        done = CliRunner(env=variables).invoke(app, list(arguments))
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    def examines(self, unit: str) -> list[dict[str, str]]:
        """Return doctor's findings for a unit, without those about deliberate settings of the tests' Postgres."""
        ran = subprocess.run(
            [self.python["PYTHON"], "-m", "cli", "doctor", "--unit", unit, "--output", "json"],
            env={"PATH": os.defpath, "SYSTEMD_UNIT_PATH": str(self.place / "units"), **self.python},
            cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert ran.stdout, ran.stderr
        found: list[dict[str, str]] = json.loads(ran.stdout)["findings"]
        return [
            one
            for one in found
            if not (one["level"] != "ok" and one["says"].startswith(("fsync", "full_page_writes")))
        ]

    def finds(self, unit: str) -> list[dict[str, str]]:
        return [examine for examine in self.examines(unit) if examine["level"] != "ok"]

    @contextmanager
    def changed(self, file: str, **settings: str | None) -> Iterator[None]:
        """Change settings in a file; None removes a setting."""
        path = self.etc / file
        before = path.read_text()
        lines = [line for line in before.splitlines() if line.partition("=")[0] not in settings]
        lines += [f"{name}={value}" for name, value in settings.items() if value is not None]
        path.write_text("\n".join(lines) + "\n")
        try:
            yield
        finally:
            path.write_text(before)


@contextmanager
def machine_of_units(urls: Urls) -> Iterator[MachineOfUnits]:
    """Install Lockbox with this database as docs/operating says."""
    need_root()
    programs = [need("systemd-sysusers"), need("systemd-tmpfiles")]
    with own_folder("units") as place:
        (place / "etc" / "lockbox" / "targets").mkdir(parents=True)
        for name in ("passwd", "group"):
            (place / "etc" / name).touch()
        machine = MachineOfUnits(place, urls, {}, {}, fernet(), _python(place))
        tls = certified(place, "localhost", 100 * DAY)
        with serving(SilentServer(tls)) as pages:
            _keys(machine)
            _written(machine)
            _settings(machine, f"https://localhost:{pages.port}")
            _own(machine, programs)
            _units(machine)
            (place / "certificate.pem").chmod(0o644)
            yield machine


def _keys(machine: MachineOfUnits) -> None:
    etc = machine.etc
    shutil.copy(CHECKOUT / "deploy" / "catalogue.yaml", etc)
    for command in re.findall(r"(?m)^lockbox (operate (?:new|code|mark)-.+)$", GUIDE.read_text()):
        machine.runs(*machine.moved(command).split())
    machine.runs("operate", "new-key", str(etc / "other.pem"))
    machine.runs("operate", "new-credential-key", str(etc / "another.key"))
    machine.runs("operate", "code-key", str(etc / "another.key"), str(etc / "code-of-another.key"))
    (etc / "targets" / "orders").write_text("secret")


def _written(machine: MachineOfUnits) -> None:
    """Write what the database of an installation contains after some time."""
    urls, etc = machine.urls, machine.etc
    machine.runs(
        *("bootstrap", "--name", "Olga", "--email", "olga@vendor.example"),
        LOCKBOX_ENVIRONMENT="test",
        LOCKBOX_OWNER_DATABASE_URL=urls.owner,
        LOCKBOX_CREDENTIAL_KEY_FILES=json.dumps([str(etc / "credential.key")]),
    )
    (approval,) = signing_keys.read([etc / "approval.pem"])
    run_as_superuser(
        urls.superuser, LISTS_KEY.format(VerifierKey(APPROVALS, approval.public_key().public_bytes_raw()).text)
    )
    with as_owner(urls.owner) as session:
        endpoints.add(session, SecretVault([machine.secret]), "https://hooks.vendor.example/x", tenant_id=None)
    machine.checkpoints.mkdir(parents=True)
    worker = Database(make_engine(urls.worker, role="machine"), Schedule(urls.redis))
    signer = Signer("localhost", signing_keys.read([etc / "audit.pem"]))
    for _ in sealer.seal(worker, signer, WitnessFolder(machine.checkpoints)):
        pass
    worker.dispose()


def _settings(machine: MachineOfUnits, public_url: str) -> None:
    urls, etc = machine.urls, machine.etc
    public = {"LOCKBOX_ENVIRONMENT": "test", "LOCKBOX_PUBLIC_URL": public_url}
    audit = machine.runs("operate", "public-keys", LOCKBOX_AUDIT_KEY_FILES=f'["{etc}/audit.pem"]', **public)
    other = machine.runs("operate", "public-keys", LOCKBOX_AUDIT_KEY_FILES=f'["{etc}/other.pem"]', **public)
    approval = machine.runs(
        "operate", "public-keys", "--of-approvals", LOCKBOX_APPROVAL_KEY_FILES=f'["{etc}/approval.pem"]', **public
    )
    machine.other_audit = other
    values = {
        "LOCKBOX_PUBLIC_URL": public_url,
        "LOCKBOX_REDIS_URL": urls.redis,
        "LOCKBOX_AUDIT_PUBLIC_KEYS": f"'{audit}'",
        "LOCKBOX_APPROVAL_PUBLIC_KEYS": f"'{approval}'",
        "LOCKBOX_API_PORT": str(own_port()),
        "LOCKBOX_DATABASE_URL": urls.api,
        "LOCKBOX_WORKER_DATABASE_URL": urls.worker,
        "LOCKBOX_NOTIFICATIONS_DATABASE_URL": urls.notifications,
        "LOCKBOX_SECRET_KEYS": f"'[\"{machine.secret}\"]'",
        "LOCKBOX_METRICS_TOKEN": secrets.token_hex(32),
        "LOCKBOX_SMTP_URL": urls.smtp,
    }
    text = machine.moved(GUIDE.read_text())
    written: dict[str, str] = dict(re.findall(r"(?ms)^cat > \S+/(\w+\.env) <<END\n(.+?)^END$", text))
    assert set(written) == {"all.env", "api.env", "worker.env", "notifications.env"}
    for name, lines in written.items():
        pairs = [line.partition("=") for line in lines.splitlines()]
        written[name] = "".join(f"{one}={values.get(one, value)}\n" for one, _, value in pairs)
        assert "$" not in written[name]
    written["all.env"] += f"SSL_CERT_FILE={machine.place}/certificate.pem\n"
    written["connectors.env"] = f"""
        LOCKBOX_CONNECTORS_DATABASE_URL={urls.connectors}
        LOCKBOX_CONNECTOR_TARGETS={etc}/targets
        LOCKBOX_APPROVAL_PUBLIC_KEYS='{approval}'
        LOCKBOX_MARK_KEY_FILES='["{etc}/mark.key"]'
        LOCKBOX_CHECKPOINT_FOLDER={machine.checkpoints}
        LOCKBOX_CATALOGUE={etc}/catalogue.yaml
    """
    written["flower.env"] = f"""
        LOCKBOX_FLOWER_USER=operator
        LOCKBOX_FLOWER_PASSWORD={secrets.token_hex(16)}
        LOCKBOX_FLOWER_PORT={own_port()}
    """
    for name, lines in written.items():
        (etc / name).write_text("".join(f"{line.strip()}\n" for line in lines.strip().splitlines()))


def _own(machine: MachineOfUnits, programs: list[str]) -> None:
    sysusers, tmpfiles = programs
    root = f"--root={machine.place}"
    for words in (
        [sysusers, root, str(FOLDER / "lockbox.sysusers.conf")],
        [tmpfiles, root, "--create", str(FOLDER / "lockbox.tmpfiles.conf")],
    ):
        ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
    for line in (machine.place / "etc" / "passwd").read_text().splitlines():
        name, _, uid, gid, *_ = line.split(":")
        machine.users[name] = (int(uid), int(gid))
    for line in (machine.place / "etc" / "group").read_text().splitlines():
        name, _, gid, _ = line.split(":")
        machine.groups[name] = int(gid)
    for key in ("other.pem", "another.key", "code-of-another.key"):
        (machine.etc / key).chmod(0o640)


def _units(machine: MachineOfUnits) -> None:
    """Write the units into a folder, with numeric ids for users that this machine does not know."""
    folder = machine.place / "units"
    folder.mkdir()
    for unit in FOLDER.glob("*.service"):
        lines = []
        for line in unit.read_text().splitlines():
            name, _, value = line.partition("=")
            if name == "User":
                uid, gid = machine.users[value]
                lines += [f"User={uid}", f"Group={gid}"]
            elif name == "SupplementaryGroups":
                lines.append(f"{name}={' '.join(str(machine.groups[one]) for one in value.split())}")
            else:
                lines.append(machine.moved(line))
        (folder / unit.name).write_text("\n".join(lines))
