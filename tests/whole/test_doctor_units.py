"""`lockbox doctor --unit` on the files of deploy/systemd: no false alarm, and each planted fault with its fix."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from devstack.embedded import ServerAddresses
from harness.mail_relay import MailRelay
from harness.network import serving
from harness.pooler import PROGRAM, pooler
from harness.stage import fresh_database, migrated_servers, run_as_superuser
from tests.database.test_startup_checks import older
from tests.oidc_issuer import local_issuer
from tests.programs import absent
from tests.whole.machine_of_units import UNITS, MachineOfUnits, machine_of_units

API, WORKER, NOTIFICATIONS, CONNECTORS, FLOWER = UNITS

pytestmark = [pytest.mark.far, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def machine(template: ServerAddresses) -> Iterator[MachineOfUnits]:
    """One machine for all tests: each test repairs its fault."""
    with fresh_database(template) as urls, machine_of_units(urls) as made, local_issuer() as issuer:
        made.issuer = issuer.url
        yield made


@pytest.mark.parametrize("unit", UNITS)
def test_doctor_reports_no_fault_in_any_unit_installed_by_the_installation_guide(
    machine: MachineOfUnits, unit: str
) -> None:
    found = machine.examines(unit)

    assert [one for one in found if one["level"] != "ok"] == []
    checked = {one["check"] for one in found}
    assert {"Settings", "Redis", "Disk"} <= checked
    assert ("Key files" in checked) is (unit != FLOWER)
    assert ("Keys" in checked) is (unit != FLOWER)


# Each fault: in which unit it shows, what plants it, and the words of the finding. What mends it is the finding's own
# command.
FILES: dict[str, tuple[str, Callable[[MachineOfUnits], None], str]] = {
    "a key that the process can't read": (
        API, lambda m: _owned(m.etc / "approval.pem", 0, 0, 0o600), "this user can't read",
    ),
    "a key that everybody reads": (
        WORKER, lambda m: (m.etc / "audit.pem").chmod(0o644), "everybody may read",
    ),
    "a key that everybody reads, and the process by that alone": (
        API, lambda m: _owned(m.etc / "approval.pem", 0, 0, 0o644), "everybody may read",
    ),
    "a key of another group": (
        API,
        lambda m: _owned(m.etc / "credential.key", 0, m.users["lockbox-flower"][1], 0o640),
        "this user can't read",
    ),
    "a key that another process owns": (
        NOTIFICATIONS,
        lambda m: _owned(m.etc / "code.key", m.users["lockbox-api"][0], m.users["lockbox-notifications"][1], 0o640),
        "may read",
    ),
    "a target's secret that everybody reads": (
        CONNECTORS, lambda m: (m.etc / "targets" / "orders").chmod(0o644), "everybody may read",
    ),
    "targets that the process can't read": (
        CONNECTORS, lambda m: _owned(m.etc / "targets", 0, 0, 0o700), "this user can't read",
    ),
    "a folder that nobody enters": (
        WORKER, lambda m: m.etc.chmod(0o700), "this user can't enter",
    ),
    "checkpoints that the core worker can't write": (
        WORKER, lambda m: _owned(m.checkpoints, 0, m.groups["lockbox-checkpoints"], 0o2750), "this user can't write",
    ),
    "checkpoints that the API can't read": (
        API, lambda m: m.checkpoints.chmod(0o700), "this user can't read",
    ),
    "settings that everybody reads": (
        API, lambda m: (m.etc / "api.env").chmod(0o644), "others than root may read",
    ),
}  # fmt: skip


def _owned(path: Path, uid: int, gid: int, mode: int) -> None:
    os.chown(path, uid, gid)
    path.chmod(mode)


@contextmanager
def kept(machine: MachineOfUnits) -> Iterator[None]:
    paths = [machine.etc, machine.checkpoints, *machine.etc.rglob("*"), *machine.checkpoints.rglob("*")]
    before = {path: path.stat() for path in paths}
    try:
        yield
    finally:
        for path, found in before.items():
            _owned(path, found.st_uid, found.st_gid, found.st_mode & 0o7777)


@pytest.mark.parametrize("fault", FILES)
def test_doctor_reports_a_wrong_file_of_a_unit_and_the_suggested_fix_works(
    machine: MachineOfUnits, fault: str
) -> None:
    unit, plant, says = FILES[fault]
    with kept(machine):
        plant(machine)
        found = machine.finds(unit)
        others = [name for name in (API, CONNECTORS) if name != unit and machine.finds(name) == []]
        assert any(says in one["says"] for one in found), found
        for one in found:
            done = subprocess.run(["/bin/sh", "-c", one["fix"]], capture_output=True, text=True, check=False)
            assert done.returncode == 0, (one, done.stderr)
        assert machine.finds(unit) == []
        assert {name: machine.finds(name) for name in others} == {name: [] for name in others}


Finding = dict[str, str]
Settings = dict[str, str | None]
Planted = Callable[[MachineOfUnits], Settings]
Mend = Callable[[MachineOfUnits, Finding], Settings]
ANOTHER_SECRET = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def _listed(*files: Path) -> str:
    return f"'{json.dumps([str(file) for file in files])}'"


def _printed(machine: MachineOfUnits, found: Finding, *arguments: str, **variables: str) -> str:
    """Run the `lockbox` command that a finding's fix names in backquotes, and return what it prints."""
    named = re.search(r"`lockbox (.+?)`", found["fix"])
    assert named, found
    return machine.runs(*named[1].split(), *arguments, **variables)


def _public_keys(machine: MachineOfUnits, found: Finding, *keys: str) -> Settings:
    variables = {"LOCKBOX_ENVIRONMENT": "test", "LOCKBOX_PUBLIC_URL": "https://localhost"}
    listed = json.dumps([str(machine.etc / key) for key in keys])
    return {"LOCKBOX_AUDIT_PUBLIC_KEYS": f"'{_printed(machine, found, **variables, LOCKBOX_AUDIT_KEY_FILES=listed)}'"}


def _derived(machine: MachineOfUnits, found: Finding) -> Settings:
    new_key = machine.etc / "new.key"
    _printed(machine, found, str(machine.etc / "credential.key"), str(new_key))
    _owned(new_key, 0, machine.users["lockbox-notifications"][1], 0o640)
    return {"LOCKBOX_CODE_KEY_FILES": _listed(new_key, machine.etc / "code-of-another.key")}


def _meant(found: Finding, value: str) -> Settings:
    (unknown,), (meant,) = re.findall(r"^\w+", found["says"]), re.findall(r"did you mean (\w+)\?", found["fix"])
    return {unknown: None, meant: value}


# What is planted in which file, the words of the finding and of its fix, and the settings that the fix says to write.
SETTINGS: dict[str, tuple[str, str, Planted, tuple[str, str], Mend]] = {
    "another credential key": (
        API, "api.env", lambda m: {"LOCKBOX_CREDENTIAL_KEY_FILES": _listed(m.etc / "another.key")},
        ("bear no mark of these keys", "name the file of that key as well"),
        lambda m, _: {"LOCKBOX_CREDENTIAL_KEY_FILES": _listed(m.etc / "another.key", m.etc / "credential.key")},
    ),
    "another approval key": (
        API, "api.env", lambda m: {"LOCKBOX_APPROVAL_KEY_FILES": _listed(m.etc / "other.pem")},
        ("none of these keys has signed an approval", "name the file of the key that did as well"),
        lambda m, _: {"LOCKBOX_APPROVAL_KEY_FILES": _listed(m.etc / "other.pem", m.etc / "approval.pem")},
    ),
    "other public keys": (
        API, "api.env", lambda m: {"LOCKBOX_AUDIT_PUBLIC_KEYS": f"'{m.other_audit}'"},
        ("no key of this list has signed the logs", "write what `lockbox operate public-keys` prints"),
        lambda m, found: _public_keys(m, found, "audit.pem"),
    ),
    "an audit key that nobody trusts": (
        WORKER, "worker.env", lambda m: {"LOCKBOX_AUDIT_KEY_FILES": _listed(m.etc / "other.pem")},
        ("no public half of these keys is in LOCKBOX_AUDIT_PUBLIC_KEYS", "name the files of the keys"),
        lambda m, _: {"LOCKBOX_AUDIT_KEY_FILES": _listed(m.etc / "audit.pem")},
    ),
    "a new audit key that is not listed": (
        WORKER, "worker.env", lambda m: {"LOCKBOX_AUDIT_KEY_FILES": _listed(m.etc / "other.pem")},
        ("no public half of these keys is in LOCKBOX_AUDIT_PUBLIC_KEYS", "add to that list what"),
        lambda m, found: _public_keys(m, found, "audit.pem", "other.pem"),
    ),
    "another code key": (
        NOTIFICATIONS, "notifications.env",
        lambda m: {"LOCKBOX_CODE_KEY_FILES": _listed(m.etc / "code-of-another.key")},
        ("codes that wait to be entered are of another key", "derive it anew by `lockbox operate code-key`"),
        _derived,
    ),
    "another secret key": (
        NOTIFICATIONS, "notifications.env", lambda _: {"LOCKBOX_SECRET_KEYS": f"'[\"{ANOTHER_SECRET}\"]'"},
        ("a webhook's secret was encrypted with a key that is not in the list", "add the older key at the end"),
        lambda m, _: {"LOCKBOX_SECRET_KEYS": f"'[\"{ANOTHER_SECRET}\", \"{m.secret}\"]'"},
    ),
    "an issuer that there is not": (
        API, "api.env",
        lambda _: {"LOCKBOX_ENVIRONMENT": "test", **_issuer("https://login.nowhere.invalid")},
        ("nobody can sign in by https://login.nowhere.invalid", "check its name in LOCKBOX_ISSUERS"),
        lambda m, _: _issuer(m.issuer),
    ),
    "a setting that there is not": (
        API, "api.env", lambda m: {"LOCKBOX_CATALOGUE": None, "LOCKBOX_CATALOG": f"{m.etc}/catalogue.yaml"},
        ("LOCKBOX_CATALOG is no setting", "did you mean LOCKBOX_CATALOGUE?"),
        lambda m, found: _meant(found, f"{m.etc}/catalogue.yaml"),
    ),
    "the login of another process": (
        WORKER, "worker.env", lambda m: {"LOCKBOX_WORKER_DATABASE_URL": m.urls.api},
        ("this login may", "use its own login"),
        lambda m, _: {"LOCKBOX_WORKER_DATABASE_URL": m.urls.worker},
    ),
}  # fmt: skip


def _issuer(url: str) -> Settings:
    return {"LOCKBOX_ISSUERS": f"'{json.dumps([{'issuer': url, 'audience': 'x'}])}'"}


@pytest.mark.parametrize("fault", SETTINGS)
def test_doctor_reports_a_wrong_setting_of_a_unit_and_the_suggested_fix_works(
    machine: MachineOfUnits, fault: str
) -> None:
    unit, file, plant, (says, fix), mend = SETTINGS[fault]
    planted = plant(machine)
    with kept(machine), machine.changed(file, **planted):
        for key in ("other.pem", "another.key", "code-of-another.key"):
            readers = {API: "lockbox-api", WORKER: "lockbox-worker", NOTIFICATIONS: "lockbox-notifications"}
            if key in str(planted):
                _owned(machine.etc / key, 0, machine.users[readers[unit]][1], 0o640)
        found = machine.finds(unit)
        told = [one for one in found if says in one["says"] and fix in one["fix"]]
        assert told, found
        mended = mend(machine, told[0])
        assert [name for name in mended if name not in f"{told[0]}"] == [], "the finding names each setting"
        with machine.changed(file, **mended):
            assert machine.finds(unit) == []

    assert machine.finds(unit) == []


def test_doctor_reports_missing_database_grants_and_prints_the_sql_that_restores_them(
    machine: MachineOfUnits,
) -> None:
    run_as_superuser(
        machine.urls.superuser,
        "REVOKE SELECT ON people FROM lockbox_api",
        "REVOKE SELECT (id) ON invitations FROM lockbox_api",
        "REVOKE EXECUTE ON FUNCTION use_window FROM lockbox_api",
    )

    found = [find for find in machine.finds(API) if "this login lacks" in find["says"]]

    (one,) = found
    who, _, statements = one["fix"].partition(": ")
    assert who == "as lockbox_owner"
    run_as_superuser(make_url(machine.urls.owner), *statements.split("; "))
    assert machine.finds(API) == []


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[ServerAddresses]:
    """A Postgres whose limits only these tests reach."""
    with migrated_servers("limits") as servers:
        yield servers


def limit(servers: ServerAddresses, *statements: str) -> None:
    run_as_superuser(servers.superuser_url, *statements)
    if any("max_connections" in statement for statement in statements):
        servers.kill("postgres")
        servers.start_again("postgres")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("ALTER DATABASE lockbox CONNECTION LIMIT 97", "all processes together open up to 98"),
        ("ALTER DATABASE lockbox CONNECTION LIMIT 57", "opens up to 58"),
        ("ALTER ROLE lockbox_api CONNECTION LIMIT 57", "58 connections, and Postgres gives this login 57"),
        ("ALTER SYSTEM SET max_connections = 100", "all processes together open up to 98"),
    ],
)
def test_doctor_reports_too_few_connections_and_the_suggested_fix_works(
    machine: MachineOfUnits, own_postgres: ServerAddresses, statement: str, says: str
) -> None:
    limit(own_postgres, statement)

    with other_postgres(machine, own_postgres.database_url):
        (found,) = machine.finds(API)
        who, _, statements = found["fix"].partition(": ")
        raised = re.match(r"raise max_connections \((\d+) .+\) and restart Postgres", found["fix"])
        assert raised or who == "as a superuser"
        fixes = [f"ALTER SYSTEM SET max_connections = {raised[1]}"] if raised else statements.split("; ")
        limit(own_postgres, *fixes)
        assert machine.finds(API) == []

    assert says in found["says"]


class LoginRelay(MailRelay):
    """Accepts mail only after an SMTP login."""

    async def _to_recipient(self, recipient: str) -> str:
        if not any(line.startswith("AUTH") for line in self.said):
            return "530 5.7.0 Authentication required"
        return await super()._to_recipient(recipient)


def test_doctor_reports_a_relay_demanding_a_login_and_sends_no_mail_through_it(machine: MachineOfUnits) -> None:
    with serving(LoginRelay(offers=("AUTH PLAIN",))) as relay:
        with machine.changed("notifications.env", LOCKBOX_SMTP_URL=f"smtp://127.0.0.1:{relay.port}"):
            (found,) = machine.finds(NOTIFICATIONS)
        relay.said.clear()
        with machine.changed("notifications.env", LOCKBOX_SMTP_URL=f"smtp://me:word@127.0.0.1:{relay.port}"):
            assert machine.finds(NOTIFICATIONS) == []

    assert "530" in found["says"]
    assert found["fix"].startswith("the relay wants a login: write its user and password into LOCKBOX_SMTP_URL")
    assert relay.count == 0


def other_postgres(machine: MachineOfUnits, url: str) -> AbstractContextManager[None]:
    return machine.changed("api.env", LOCKBOX_DATABASE_URL=url)


@pytest.mark.skipif(not PROGRAM, reason=absent("pgbouncer"))
def test_doctor_reports_pgbouncer_in_statement_mode_and_the_suggested_fix_works(machine: MachineOfUnits) -> None:
    with ExitStack() as stack:
        pooled = stack.enter_context(pooler(machine.urls.api, pool_mode="statement"))
        stack.enter_context(other_postgres(machine, pooled.through(machine.urls.api)))
        (found,) = machine.finds(API)
        told = re.match(r"set (\w+) = (\w+) in PgBouncer's file, and reload it$", found["fix"])
        assert told, found
        pooled.reload(**{told[1]: told[2]})
        assert machine.finds(API) == []

    assert "the pooler is in statement mode" in found["says"]


def test_doctor_reports_postgres_17(machine: MachineOfUnits) -> None:
    with older(machine.urls.api) as url, other_postgres(machine, url):
        (found,) = machine.finds(API)

    assert re.fullmatch(r"this is Postgres 17\.\d+, and Lockbox needs 18 or later", found["says"])
    assert "postgresql-18" in found["fix"]
    assert machine.finds(API) == []
