"""`lockbox doctor` on real servers, each broken in one way: it names the fault and the fix, and prints no secret."""

import asyncio
import grp
import json
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from redis import Redis
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from cli.app import app
from cli.doctor import mail_relay
from cli.doctor.command import examine
from cli.doctor.files import check_folders, check_keys
from cli.doctor.findings import DoctorFinding, FindingLevel
from cli.doctor.machine import check_disk
from cli.doctor.mail_relay import check_mail_relay
from config.children import given
from config.settings import Settings
from harness.mail_relay import relaying
from harness.network import HOST, LocalServer, serving
from harness.pooler import PROGRAM, pooler
from harness.ports import own_port
from harness.stage import Urls, own_folder, own_servers, superuser_at
from harness.wait import within
from lockbox.startup_checks import ServerKind
from tests.programs import absent
from tests.whole.terminal import CHECKOUT

SECRET = "n0t-for-anybody"
LOGINS = {
    "LOCKBOX_DATABASE_URL": "api",
    "LOCKBOX_WORKER_DATABASE_URL": "worker",
    "LOCKBOX_NOTIFICATIONS_DATABASE_URL": "notifications",
    "LOCKBOX_CONNECTORS_DATABASE_URL": "connectors",
    "LOCKBOX_OWNER_DATABASE_URL": "owner",
}
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _own_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an API port on which no other test listens."""
    monkeypatch.setenv("LOCKBOX_API_PORT", str(own_port()))


@pytest.fixture
def variables(urls: Urls) -> dict[str, str]:
    return {name: getattr(urls, login) for name, login in LOGINS.items()} | {
        "LOCKBOX_REDIS_URL": urls.redis,
        "LOCKBOX_SMTP_URL": urls.smtp,
    }


def findings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[DoctorFinding]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return examine(given())


def bad(found: list[DoctorFinding]) -> list[DoctorFinding]:
    """Return the findings that are not ok, without those about deliberate settings of the tests' Postgres."""
    assert all(one.fix for one in found if one.level is not FindingLevel.OK)
    assert not [one for one in found if one.level is FindingLevel.OK and one.fix]
    return [
        one
        for one in found
        if one.level is not FindingLevel.OK and not one.says.startswith(("fsync", "full_page_writes"))
    ]


def only(found: list[DoctorFinding]) -> DoctorFinding:
    (one,) = bad(found)
    return one


def test_doctor_has_no_findings_for_a_healthy_installation(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = findings(monkeypatch, **variables)

    assert bad(found) == []
    checked = {one.check for one in found}
    assert {f"Postgres, {name.removeprefix('LOCKBOX_').removesuffix('_URL').lower()}" for name in LOGINS} <= checked
    assert {"Settings", "Ports", "Clock, Postgres", "Clock, Redis", "Redis", "Redis, policy", "TLS"} <= checked
    assert {"Redis, persistence", "Mail relay", "Disk"} <= checked


# Settings


@pytest.mark.parametrize(
    ("variable", "value", "says", "fix"),
    [
        ("LOCKBOX_CATALOG", "x", "LOCKBOX_CATALOG is no setting", "did you mean LOCKBOX_CATALOGUE?"),
        ("LOCKBOX_QQQQ", "x", "LOCKBOX_QQQQ is no setting", "unset it: nothing reads it"),
        ("LOCKBOX_REDIS_URL", f"http://{SECRET}", "LOCKBOX_REDIS_URL can't be used", "use a URL such as redis://"),
        ("LOCKBOX_ISSUERS", SECRET, "LOCKBOX_ISSUERS can't be used", "write it as JSON"),
    ],
)
def test_doctor_names_a_wrong_setting_with_its_accepted_values(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str, fix: str
) -> None:
    found = findings(monkeypatch, **{variable: value})

    assert [one for one in found if one.check == "Settings" and says == one.says and one.fix.startswith(fix)]
    assert SECRET not in str(found)


def test_doctor_reports_each_danger_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    unsafe = {
        "LOCKBOX_ENVIRONMENT": "production",
        "LOCKBOX_EMBEDDED": "true",
        "LOCKBOX_PUBLIC_URL": "http://x.example",
    }

    found = {finding.says: finding.fix for finding in findings(monkeypatch, **unsafe)}

    assert found == {
        "LOCKBOX_EMBEDDED can't be used": "embedded servers are for development",
        "LOCKBOX_PUBLIC_URL can't be used": "must be https",
    }


def test_doctor_says_so_if_there_are_no_servers(tmp_path: Path) -> None:
    found = examine(given(), tmp_path / "nothing")

    assert [one.check for one in bad(found)] == ["Servers"]


# Postgres


def test_doctor_names_an_unreachable_postgres_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"postgresql://lockbox_api:{SECRET}@127.0.0.1:{own_port()}/lockbox"

    one = only(findings(monkeypatch, LOCKBOX_WORKER_DATABASE_URL=url))

    assert one.level is FindingLevel.FAILURE
    assert one.says.startswith("Postgres cannot be reached at LOCKBOX_WORKER_DATABASE_URL: ")
    assert one.fix == "start it, or check the host and port in LOCKBOX_WORKER_DATABASE_URL"
    assert SECRET not in str(one)


def test_doctor_distinguishes_a_refused_database_role_from_an_unreachable_postgres(
    urls: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(urls.worker).set(password=SECRET).render_as_string(hide_password=False)

    one = only(findings(monkeypatch, LOCKBOX_WORKER_DATABASE_URL=url))

    assert "Postgres refuses this login or knows no such database" in one.says
    assert "pg_hba.conf" in one.fix
    assert SECRET not in str(one)


@pytest.mark.far
@pytest.mark.parametrize(
    ("variable", "login", "says", "fix"),
    [
        ("LOCKBOX_WORKER_DATABASE_URL", "api", "this login may ", "use its own login"),
        ("LOCKBOX_NOTIFICATIONS_DATABASE_URL", "superuser", "a superuser", "use a login without such rights"),
        ("LOCKBOX_CONNECTORS_DATABASE_URL", "owner", "the owner of the tables", "use a login without such rights"),
        ("LOCKBOX_OWNER_DATABASE_URL", "worker", "does not own the tables", "use lockbox_owner"),
    ],
)
def test_doctor_reports_a_process_with_the_database_role_of_another_process(
    urls: Urls, monkeypatch: pytest.MonkeyPatch, *, variable: str, login: str, says: str, fix: str
) -> None:
    one = only(findings(monkeypatch, **{variable: getattr(urls, login)}))

    assert one.level is FindingLevel.FAILURE
    assert says in one.says
    assert one.fix.startswith(fix)


@pytest.mark.far
def test_doctor_reports_a_database_without_migrations(
    urls: Urls, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with superuser.begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))

    one = only(findings(monkeypatch, LOCKBOX_WORKER_DATABASE_URL=urls.worker))

    assert (one.says, one.fix) == (
        "the database has no migrations yet", "run `lockbox migrate` with LOCKBOX_OWNER_DATABASE_URL set"
    )  # fmt: skip


def test_doctor_reports_a_removed_time_limit_of_a_database_role(
    urls: Urls, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    login, database = make_url(urls.worker).username, make_url(urls.worker).database
    with superuser.begin() as connection:
        connection.execute(text(f'ALTER ROLE {login} IN DATABASE "{database}" SET lock_timeout = 0'))

    one = only(findings(monkeypatch, LOCKBOX_WORKER_DATABASE_URL=urls.worker))

    assert "lock_timeout of this login is 0 and has to be 2s" in one.says
    assert one.fix.startswith("run config/roles.sql again")


def test_doctor_reports_a_direct_url_of_another_database(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = make_url(urls.worker).set(database="postgres").render_as_string(hide_password=False)
    both = {"LOCKBOX_WORKER_DATABASE_URL": urls.worker, "LOCKBOX_DATABASE_DIRECT_URL": elsewhere}

    one = only(findings(monkeypatch, **both))

    assert one.fix.startswith("set LOCKBOX_DATABASE_DIRECT_URL to the login and database of LOCKBOX_WORKER")


def test_doctor_reports_a_postgres_server_without_fsync(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, LOCKBOX_WORKER_DATABASE_URL=urls.worker)

    fixes = {one.fix for one in found if one.check == "Postgres, server"}
    assert fixes == {
        f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()" for name in ("fsync", "full_page_writes")
    }


@pytest.mark.parametrize(
    ("environment", "level"), [("test", FindingLevel.WARNING), ("production", FindingLevel.FAILURE)]
)
def test_doctor_reports_an_unencrypted_connection_to_another_machine(
    urls: Urls, monkeypatch: pytest.MonkeyPatch, environment: str, level: FindingLevel
) -> None:
    far = make_url(urls.worker).set(host="db.example", query={"hostaddr": HOST}).render_as_string(hide_password=False)
    safe = {"LOCKBOX_ENVIRONMENT": environment, "LOCKBOX_PUBLIC_URL": "https://lockbox.example"}

    one = only(findings(monkeypatch, LOCKBOX_WORKER_DATABASE_URL=far, **safe))

    assert (one.level, one.says) == (level, "the connection to db.example is not encrypted")
    assert one.fix.startswith("add ?sslmode=verify-full&sslrootcert=FILE to LOCKBOX_WORKER_DATABASE_URL")


@pytest.mark.far
def test_doctor_reports_an_asynchronous_standby(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with own_servers("doctor", only=("postgres",)) as servers, receiving(servers.superuser_url, tmp_path):
        found = findings(monkeypatch, LOCKBOX_OWNER_DATABASE_URL=servers.owner_database_url)

    assert "name it in synchronous_standby_names" in {one.fix for one in bad(found)}


@pytest.mark.far
@pytest.mark.skipif(not PROGRAM, reason=absent("pgbouncer"))
def test_doctor_reports_a_postgres_server_name_that_is_not_verified(
    urls: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_folder("doctor") as place:
        keyed(place, "db.example")
        (place / "certificate.pem").chmod(0o644)
        file = str(place / "certificate.pem")
        tls = {"client_tls_sslmode": "require", "client_tls_key_file": file, "client_tls_cert_file": file}
        with pooler(urls.worker, **tls) as pooled:
            url = make_url(pooled.through(urls.worker)).set(host="db.example")
            url = url.update_query_dict({"hostaddr": HOST, "sslmode": "require"})
            worker = url.render_as_string(hide_password=False)
            found = findings(monkeypatch, LOCKBOX_WORKER_DATABASE_URL=worker)

    (one,) = [one for one in bad(found) if "db.example" in one.says]
    assert (one.level, one.says) == (
        FindingLevel.WARNING, "nobody checks that db.example is who it says (sslmode=require)"
    )  # fmt: skip


@contextmanager
def receiving(superuser_url: str, folder: Path) -> Iterator[None]:
    program = next(Path(sys.prefix).rglob("pginstall/bin/pg_receivewal"))
    url = superuser_url.replace("+psycopg", "")
    with subprocess.Popen([program, "-D", folder, "-d", url], stderr=subprocess.DEVNULL) as process:
        try:
            with superuser_at(superuser_url) as engine, engine.connect() as connection:
                connection.execute(text(
                    "DO $$ BEGIN FOR i IN 1..200 LOOP PERFORM pg_stat_clear_snapshot();"
                    " EXIT WHEN EXISTS (SELECT FROM pg_stat_replication); PERFORM pg_sleep(0.05); END LOOP; END $$"
                ))  # fmt: skip
            yield
        finally:
            process.terminate()


@pytest.mark.far
def test_doctor_reports_a_clock_that_differs_from_the_clocks_of_postgres_and_redis(variables: dict[str, str]) -> None:
    clock = {"PYTHONPATH": str(CHECKOUT / "chaos" / "shifted"), "CHAOS_SHIFT": "-120"}
    ended = subprocess.run(
        [sys.executable, "-m", "cli", "doctor", "--output", "json"],
        env={"PATH": os.defpath, "LOCKBOX_API_PORT": str(own_port()), **variables, **clock},
        cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = {one["check"]: one for one in json.loads(ended.stdout)["findings"]}

    assert ended.returncode == 1
    for server in ("Postgres", "Redis"):
        assert found[f"Clock, {server}"]["level"] == "failure"
        says = rf"this machine's clock is (11\d\.\d|120\.0) s behind that of {server}"
        assert re.fullmatch(says, found[f"Clock, {server}"]["says"])
        assert "NTP" in found[f"Clock, {server}"]["fix"]


# Redis


def test_doctor_names_an_unreachable_or_refusing_redis(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    away = only(findings(monkeypatch, LOCKBOX_REDIS_URL=f"redis://:{SECRET}@127.0.0.1:{own_port()}/0"))
    refused = only(
        findings(monkeypatch, LOCKBOX_REDIS_URL=urls.redis.replace(str(urlsplit(urls.redis).password), SECRET))
    )

    assert (away.says, away.level) == ("it cannot be reached (ConnectionError)", FindingLevel.FAILURE)
    assert (refused.says, refused.level) == ("it refuses the login (AuthenticationError)", FindingLevel.FAILURE)
    assert SECRET not in f"{away}{refused}"


def test_doctor_reports_an_unencrypted_redis_on_another_machine(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    # The same address, written so that it is not one of those that are this machine.
    one = only(findings(monkeypatch, LOCKBOX_REDIS_URL=urls.redis.replace(f"@{HOST}:", "@127.1:")))

    assert (one.level, one.fix) == (FindingLevel.WARNING, "use rediss:// in LOCKBOX_REDIS_URL")


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with own_servers("doctor", only=("redis",)) as servers:
        yield servers.redis_url


@pytest.mark.parametrize(
    ("setting", "broken", "check", "level", "fix"),
    [
        ("maxmemory-policy", "allkeys-lru", "Redis, policy", FindingLevel.FAILURE, "set maxmemory-policy noeviction"),
        ("appendonly", "no", "Redis, persistence", FindingLevel.WARNING, "set appendonly yes"),
        ("maxmemory", "1", "Redis, policy", FindingLevel.WARNING, "raise maxmemory"),
    ],
)
def test_doctor_reports_a_redis_that_loses_data(
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    setting: str,
    broken: str,
    check: str,
    level: FindingLevel,
    fix: str,
) -> None:
    with Redis.from_url(redis_url) as redis:
        before: dict[str, str] = redis.config_get(setting)
        redis.config_set(setting, broken)
        try:
            one = only(findings(monkeypatch, LOCKBOX_REDIS_URL=redis_url))
        finally:
            redis.config_set(setting, before[setting])

    assert (one.check, one.level, one.fix) == (check, level, fix)


def test_doctor_reports_a_redis_replica(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.replicaof(HOST, str(own_port()))
        try:
            found = bad(findings(monkeypatch, LOCKBOX_REDIS_URL=redis_url))
        finally:
            redis.replicaof("NO", "ONE")

    assert "name the primary in LOCKBOX_REDIS_URL" in {one.fix for one in found}


@pytest.mark.far
def test_doctor_reports_a_redis_that_cannot_write_to_its_disk(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Redis.from_url(redis_url) as redis:
        folder = Path(redis.config_get("dir")["dir"])
        mode = folder.stat().st_mode
        folder.chmod(0o500)
        try:
            redis.bgsave()
            assert within(30, lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", pause=0.05)
            one = only(findings(monkeypatch, LOCKBOX_REDIS_URL=redis_url))
        finally:
            folder.chmod(mode)
            redis.save()

    assert (one.check, one.level) == ("Redis, persistence", FindingLevel.FAILURE)
    assert one.says == "its last write to disk failed"


# The mail relay


def relay_of(url: str, **changes: Any) -> DoctorFinding:
    return only(list(check_mail_relay(Settings(environment="test", smtp_url=url, **changes))))


def test_doctor_names_a_relay_that_refuses_mail_and_says_what_to_change(tmp_path: Path) -> None:
    with relaying() as plain, relaying(tls=certified(tmp_path, "localhost")) as untrusted:
        away = relay_of(f"smtp://127.0.0.1:{own_port()}")
        in_the_clear = relay_of(f"smtp+starttls://localhost:{plain.port}")
        no_login = relay_of(f"smtp://me:{SECRET}@localhost:{plain.port}")
        other = relay_of(f"smtp+starttls://localhost:{untrusted.port}")
        ca = {"smtp_ca_file": tmp_path / "missing.pem"}
        missing = relay_of(f"smtp+starttls://localhost:{untrusted.port}", **ca)

    assert away.fix.startswith("check the host and port in LOCKBOX_SMTP_URL")
    assert "STARTTLS" in in_the_clear.says
    assert in_the_clear.fix.startswith("check the scheme in LOCKBOX_SMTP_URL")
    assert "AUTH" in no_login.says
    assert other.says == "the mail relay's certificate was not accepted"
    assert "LOCKBOX_SMTP_CA_FILE" in other.fix
    assert missing.says.startswith("LOCKBOX_SMTP_CA_FILE can't be used")
    assert plain.taken == untrusted.taken == []


@pytest.mark.far
def test_doctor_does_not_wait_for_a_silent_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_relay, "SECONDS", 0.5)
    with relaying(hangs_at="GREETING") as relay:
        assert relay_of(f"smtp://127.0.0.1:{relay.port}").says == "the mail relay took too long"


def test_doctor_reports_a_sender_address_that_other_relays_refuse() -> None:
    with relaying() as relay:
        one = relay_of(f"smtp://127.1:{relay.port}")

    assert (one.level, one.fix) == (FindingLevel.WARNING, "name an address of yours")


# TLS


class SilentServer(LocalServer):
    """Accepts connections, and never answers."""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Wait until the caller hangs up."""
        del writer
        await reader.read()


def keyed(folder: Path, name: str, lasts: timedelta = 3650 * DAY) -> tuple[bytes, bytes]:
    """Return a key and a self-signed certificate, and write both into a file."""
    key, own, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.fromtimestamp(time.time(), UTC)
    certificate = (
        x509.CertificateBuilder(own, own, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - 3650 * DAY)
        .not_valid_after(now + lasts)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    parts = (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate.public_bytes(Encoding.PEM),
    )
    (folder / "certificate.pem").write_bytes(b"".join(parts))
    return parts


def certified(folder: Path, name: str, lasts: timedelta = 3650 * DAY) -> ssl.SSLContext:
    keyed(folder, name, lasts)
    serves = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serves.load_cert_chain(folder / "certificate.pem")
    return serves


@pytest.mark.parametrize(
    ("name", "lasts", "is_trusted", "level", "says"),
    [
        ("localhost", 100 * DAY, True, FindingLevel.OK, "browsers accept the certificate of localhost, for 100 days"),
        ("localhost", 5 * DAY, True, FindingLevel.WARNING, "the certificate of localhost ends in 5 days"),
        ("localhost", -1 * DAY, True, FindingLevel.FAILURE, "certificate has expired"),
        ("other.example", 100 * DAY, True, FindingLevel.FAILURE, "Hostname mismatch"),
        ("localhost", 100 * DAY, False, FindingLevel.FAILURE, "self-signed certificate"),
    ],
)
def test_doctor_reports_an_invalid_or_soon_expiring_certificate(
    urls: Urls,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    name: str,
    lasts: timedelta,
    is_trusted: bool,
    level: FindingLevel,
    says: str,
) -> None:
    with serving(SilentServer(certified(tmp_path, name, lasts))) as server:
        if is_trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        public = f"https://localhost:{server.port}"
        port = str(own_port())
        found = findings(monkeypatch, LOCKBOX_DATABASE_URL=urls.api, LOCKBOX_PUBLIC_URL=public, LOCKBOX_API_PORT=port)

    (one,) = [finding for finding in found if finding.check == "TLS"]
    assert one.level is level
    assert says in one.says


@pytest.mark.far
def test_doctor_reports_unreachable_or_unencrypted_pages(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKBOX_API_PORT", str(own_port()))
    away = only(
        findings(monkeypatch, LOCKBOX_DATABASE_URL=urls.api, LOCKBOX_PUBLIC_URL=f"https://localhost:{own_port()}")
    )
    in_the_clear = only(findings(monkeypatch, LOCKBOX_PUBLIC_URL="http://lockbox.example"))

    assert (away.check, away.level) == ("TLS", FindingLevel.WARNING)
    assert "does not answer (Connection refused)" in away.says
    assert in_the_clear.says == "http://lockbox.example is not encrypted"
    assert in_the_clear.level is FindingLevel.FAILURE


# The machine


@pytest.mark.far
def test_doctor_reports_a_port_used_by_something_else(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    password = {"LOCKBOX_FLOWER_USER": "operator", "LOCKBOX_FLOWER_PASSWORD": SECRET}
    with serving(ScriptedApi("404 Not Found", "nothing")) as api, serving(ScriptedApi("200 OK", "hello")) as flower:
        ports = {"LOCKBOX_API_PORT": str(api.port), "LOCKBOX_FLOWER_PORT": str(flower.port)}
        found = bad(findings(monkeypatch, LOCKBOX_DATABASE_URL=urls.api, **ports, **password))

    assert [(one.check, one.fix) for one in found] == [
        ("Ports", "free it, or choose another LOCKBOX_API_PORT"),
        ("Ports", "free it, or choose another LOCKBOX_FLOWER_PORT"),
    ]


def test_doctor_accepts_lockboxs_own_port_and_reports_an_invalid_port(
    urls: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(ScriptedApi("200 OK", '{"status":"alive"}')) as api:
        found = findings(monkeypatch, LOCKBOX_DATABASE_URL=urls.api, LOCKBOX_API_PORT=str(api.port))
    assert bad(found) == []
    assert f"the API answers at {api.port}" in {one.says for one in found}

    one = only(findings(monkeypatch, LOCKBOX_API_PORT="http"))
    assert (one.says, one.level) == ("LOCKBOX_API_PORT is no number", FindingLevel.FAILURE)


class ScriptedApi(LocalServer):
    """Gives every call the same answer."""

    def __init__(self, status: str, body: str) -> None:
        super().__init__()
        self._answer = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._answer.encode())
        await writer.drain()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Become another user for a while if the test runs as root, who may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_doctor_reports_a_key_file_that_is_missing_or_readable_by_other_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    for file, mode in ((private, 0o600), (public, 0o644)):
        file.write_text(SECRET)
        file.chmod(mode)
    files = json.dumps([str(private), str(public), str(tmp_path / "missing.pem")])

    found = [
        finding for finding in findings(monkeypatch, LOCKBOX_AUDIT_KEY_FILES=files) if finding.check == "Key files"
    ]

    group = "GROUP" if os.geteuid() == 0 else grp.getgrgid(os.getegid()).gr_name
    mend = f"chown root:{group} {public} && chmod 640 {public}"
    assert [one.fix for one in found] == [mend, "name the file, or restore it"]
    assert SECRET not in str(found)


def test_doctor_reports_key_files_and_checkpoint_folders_owned_by_another_user() -> None:
    with own_folder("doctor") as place:
        key, folder = place / "key.pem", place / "checkpoints"
        key.write_text(SECRET)
        key.chmod(0o600 if os.geteuid() == 0 else 0)
        folder.mkdir()
        folder.chmod(0o755 if os.geteuid() == 0 else 0o500)
        settings = Settings(environment="test", audit_key_files=(key,), checkpoint_folder=folder)
        with as_nobody():
            found = [*check_keys(settings), *check_folders(settings)]
        folder.chmod(0o700)

    says = [one.says for one in found if one.level is FindingLevel.FAILURE]
    assert says == [
        f"LOCKBOX_AUDIT_KEY_FILES: this user can't read {key}",
        f"LOCKBOX_CHECKPOINT_FOLDER: this user can't write {folder}",
    ]


def test_doctor_reports_an_inaccessible_parent_folder_of_keys_or_checkpoints_or_targets() -> None:
    with own_folder("doctor") as place:
        shut, link = place / "shut in", place / "link.pem"
        (shut / "checkpoints").mkdir(parents=True)
        (shut / "targets").mkdir()
        (shut / "key.pem").write_text(SECRET)
        link.symlink_to(shut / "key.pem")
        shut.chmod(0o700 if os.geteuid() == 0 else 0)
        settings = Settings(
            environment="test",
            audit_key_files=(link,),
            checkpoint_folder=shut / "checkpoints",
            connector_targets=shut / "targets",
        )
        with as_nobody():
            found = [*check_keys(settings), *check_folders(settings)]
            disks = list(check_disk(settings))
        for fix in {one.fix for one in found}:
            subprocess.run(["/bin/sh", "-c", fix], check=True)
        entered = stat.S_IMODE(shut.stat().st_mode)

    names = ("AUDIT_KEY_FILES", "CHECKPOINT_FOLDER", "CONNECTOR_TARGETS")
    assert [one.says for one in found] == [f"LOCKBOX_{name}: this user can't enter {shut}" for name in names]
    assert entered == 0o755
    assert disks


def test_doctor_reports_a_missing_checkpoint_folder_and_a_full_disk(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    missing = Settings(environment="test", checkpoint_folder=tmp_path / "not-mounted")
    there = Settings(environment="test", checkpoint_folder=tmp_path)

    gone = list(check_folders(missing))
    tight = [one for one in check_disk(there, warned_bytes=2 * free, least_bytes=0) if str(tmp_path) in one.says]
    full = [
        one for one in check_disk(there, warned_bytes=4 * free, least_bytes=2 * free) if str(tmp_path) in one.says
    ]

    assert [one.fix for one in gone] == ["mount or make it, on a disk that no restore of the database touches"]
    assert [one.level for one in (*tight, *full)] == [FindingLevel.WARNING, FindingLevel.FAILURE]


# The command


def test_each_finding_of_doctor_has_a_fix_and_no_secret(urls: Urls) -> None:
    redis = f"redis://:{SECRET}@127.0.0.1:{own_port()}/0"
    relay = f"smtp://me:{SECRET}@127.0.0.1:{own_port()}"
    variables = {"LOCKBOX_WORKER_DATABASE_URL": urls.worker, "LOCKBOX_REDIS_URL": redis, "LOCKBOX_SMTP_URL": relay}

    ended = CliRunner().invoke(app, ["doctor"], env=variables)

    lines = ended.stdout.splitlines()
    broken = [number for number, line in enumerate(lines) if line.startswith(("failure", "warning"))]
    assert ended.exit_code == 1
    assert len(broken) == 4  # two of them are of the Postgres of the tests
    assert all(lines[number + 1].startswith("        fix: ") for number in broken)
    assert lines[-1] == "4 failures, 0 warnings"
    assert SECRET not in ended.output
    assert str(make_url(urls.worker).password) not in ended.output


def test_doctor_masks_a_password_that_a_relay_repeats() -> None:
    answer = {"greeting": f"554 I know that your password is {SECRET}"}
    with relaying(**answer) as relay:
        variables = {"LOCKBOX_SMTP_URL": f"smtp://me:{SECRET}@127.0.0.1:{relay.port}"}
        ended = CliRunner().invoke(app, ["doctor", "--output", "json"], env=variables)

    assert ended.exit_code == 1
    assert SECRET not in ended.output
    assert "your password is ***" in ended.output


def test_the_json_output_of_doctor_contains_no_log_lines() -> None:
    issuers = '[{"issuer": "https://login.nowhere.invalid", "audience": "x"}]'
    redis = f"redis://127.0.0.1:{own_port()}/0"
    ended = CliRunner().invoke(
        app, ["doctor", "--output", "json"], env={"LOCKBOX_ISSUERS": issuers, "LOCKBOX_REDIS_URL": redis}
    )

    says = [one["says"] for one in json.loads(ended.stdout)["findings"]]
    assert [one for one in says if one.startswith("nobody can sign in by https://login.nowhere.invalid")]


@pytest.mark.far
def test_doctor_checks_the_servers_of_make_run_by_default() -> None:
    with own_servers("doctor", only=("redis",)) as servers:
        ended = CliRunner().invoke(app, ["doctor", "--output", "json", "--folder", str(servers.folder)])

    said = json.loads(ended.stdout)
    assert (ended.exit_code, said["ok"]) == (0, True)
    assert {"Redis", "Redis, policy", "Redis, persistence"} <= {one["check"] for one in said["findings"]}
    assert all(set(one) == {"check", "level", "says", "fix"} for one in said["findings"])


def test_doctor_checks_every_database_role_of_a_process() -> None:
    assert {*LOGINS} == {*map(str, ServerKind), "LOCKBOX_OWNER_DATABASE_URL"}
