"""The embedded servers, really started: in separate folders, killed, restarted, refused."""

import json
import os
import pwd
import shutil
import signal
import smtplib
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from subprocess import PIPE

import psutil
import psycopg
import pytest
import redis

from devstack.embedded import EmbeddedRefused, ServerAddresses, default_folder, find, start
from devstack.embedded import servers as embedded
from devstack.embedded.folder import ACCOUNT, find_home, locked, read_state
from devstack.embedded.processes import ProcessMark, search, wait_gone

CHECKOUT = Path(__file__).parents[2]
AS_ROOT = os.geteuid() == 0
SERVERS_UID = pwd.getpwnam(ACCOUNT).pw_uid if AS_ROOT else None
PACKAGES = Path(psycopg.__file__).parents[1]
NAMES = {"postgres", "redis", "mail"}
UNPRIVILEGED = """
import os, pwd, sys
from pathlib import Path
from devstack.embedded import EmbeddedRefused, start
if os.geteuid() == 0:
    account = pwd.getpwnam(sys.argv[2])
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
reachable = os.access(sys.executable, os.X_OK)
try:
    servers = start(Path(sys.argv[1]), only=("postgres", "redis", "mail") if reachable else ("postgres", "redis"))
except EmbeddedRefused as refused:
    print("refused:", refused)
else:
    print("running:", *sorted(servers.pids), "copied" if list(servers.folder.glob("programs*")) else "in place")
    servers.stop()
    print("left:", *servers.pids)
"""

# Its first thread ends at once, as that of a killed server may; the last one keeps the port until it is let go.
LAST_THREAD = """
import ctypes, os, socket, sys, threading
def hold():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        sys.stdin.read()
        os._exit(0)
threading.Thread(target=hold).start()
ctypes.CDLL(None).pthread_exit(None)
"""

FORKED = """
import os, sys
child = os.fork()
if child:
    print(child, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder for data folders that every user can enter; pytest's own folders are closed to other users."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="lockbox-embedded-"))
    folder.chmod(0o755)
    yield folder
    for data in folder.glob("*/state.json"):
        find(data.parent).stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def servers(place: Path) -> ServerAddresses:
    return start(place / "data")


def query(url: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def answering(servers: ServerAddresses) -> bool:
    host, _, port = servers.smtp_url.removeprefix("smtp://").partition(":")
    with redis.Redis.from_url(servers.redis_url) as client, smtplib.SMTP(host, int(port)) as smtp:
        known = query(servers.worker_database_url, "SELECT current_user, current_database()")
        return known == [("lockbox_worker", "lockbox")] and bool(client.ping()) and smtp.noop()[0] == 250


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def passwords(servers: ServerAddresses) -> set[str]:
    return set(read_state(find_home(servers.folder)).passwords.values())


@pytest.mark.far
def test_three_embedded_servers_answer_after_a_first_start(servers: ServerAddresses) -> None:
    assert answering(servers)
    assert query(servers.superuser_url, "SHOW server_version_num")[0] >= ("180000",)
    assert query(servers.superuser_url, "SELECT string_agg(setting, ' ') FROM pg_settings WHERE name IN "
                 "('data_checksums', 'fsync', 'listen_addresses', 'max_connections', 'TimeZone')") == [
        ("on on 127.0.0.1 200 UTC",)
    ]  # fmt: skip
    with redis.Redis.from_url(servers.redis_url) as client:
        assert client.config_get("appendonly")["appendonly"] == "yes"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


@pytest.mark.far
def test_the_embedded_mail_server_catches_mail_to_any_address(servers: ServerAddresses) -> None:
    host, _, port = servers.smtp_url.removeprefix("smtp://").partition(":")
    with smtplib.SMTP(host, int(port)) as smtp:
        smtp.sendmail("from@vendor.example", ["a@b.example"], "Subject: an access request\r\n\r\nPlease decide.\r\n")
        with pytest.raises(smtplib.SMTPResponseException, match="exceeds"):
            smtp.sendmail("from@vendor.example", ["a@b.example"], "x" * (1024 * 1024 + 1))

    [caught] = (servers.maildir / "new").iterdir()
    assert caught.read_text() == (
        "X-MailFrom: from@vendor.example\nX-RcptTo: a@b.example\nSubject: an access request\n\nPlease decide.\n"
    )


@pytest.mark.far
def test_no_embedded_server_runs_as_root(servers: ServerAddresses) -> None:
    for pid in servers.pids.values():
        assert 0 not in psutil.Process(pid).uids()
        assert 0 not in psutil.Process(pid).gids()


@pytest.mark.far
def test_database_roles_of_embedded_servers_have_no_more_rights_than_needed(servers: ServerAddresses) -> None:
    sql = """SELECT rolname, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication, rolbypassrls, rolinherit
             FROM pg_roles WHERE rolname LIKE 'lockbox%' ORDER BY rolname"""

    roles = query(servers.superuser_url, sql)

    assert roles == [
        ("lockbox_api", False, False, False),
        ("lockbox_connectors", False, False, False),
        ("lockbox_notifications", False, False, False),
        ("lockbox_owner", False, True, True),
        ("lockbox_worker", False, False, False),
    ]
    assert query(servers.superuser_url, "SELECT count(*) FROM pg_authid WHERE rolcanlogin AND "
                 "rolpassword NOT LIKE 'SCRAM-SHA-256$%'") == [(0,)]  # fmt: skip
    query(servers.owner_database_url, "CREATE TABLE migrated (); DROP TABLE migrated")
    logins = servers.database_url, servers.worker_database_url, servers.notifications_database_url
    for url in (*logins, servers.connectors_database_url):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            query(url, "CREATE TABLE sneaked ()")


@pytest.mark.far
@pytest.mark.parametrize("password", ["", "wrong"])
def test_embedded_servers_refuse_a_wrong_or_missing_password(servers: ServerAddresses, password: str) -> None:
    for url in (
        servers.superuser_url,
        servers.owner_database_url,
        servers.database_url,
        servers.worker_database_url,
        servers.notifications_database_url,
        servers.connectors_database_url,
    ):
        head, at, tail = url.partition("@")
        with pytest.raises(psycopg.OperationalError, match="password"):
            query(f"{head.rpartition(':')[0]}:{password}{at}{tail}", "SELECT 1")
    with (
        redis.Redis.from_url(f"redis://:{password}@{servers.redis_url.partition('@')[2]}") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


@pytest.mark.far
def test_no_password_of_embedded_servers_is_in_a_command_line_or_log(servers: ServerAddresses) -> None:
    secrets = passwords(servers)
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    logs = [log.read_text() for log in servers.folder.glob("*.log")]

    assert len(secrets) == 7
    assert len(logs) == 3
    assert not [text for text in lines + logs if any(secret in text for secret in secrets)]


@pytest.mark.far
def test_the_folder_of_embedded_servers_and_its_secrets_are_private(servers: ServerAddresses) -> None:
    assert mode(servers.folder) == 0o700
    assert mode(servers.folder / "state.json") == 0o600
    assert {mode(path) & 0o077 for path in servers.folder.iterdir()} == {0}
    assert not (servers.folder / "initdb.password").exists()


@pytest.mark.far
def test_a_second_start_finds_the_running_embedded_servers(servers: ServerAddresses) -> None:
    before = servers.pids

    again = start(servers.folder)

    assert again == servers
    assert before.keys() == NAMES
    assert again.pids == before


@pytest.mark.far
def test_data_of_embedded_servers_survive_a_restart(servers: ServerAddresses) -> None:
    query(servers.owner_database_url, "CREATE TABLE kept AS SELECT 7 AS number")
    with redis.Redis.from_url(servers.redis_url) as client:
        client.set("kept", "seven")
    servers.stop()
    servers.stop()
    assert not servers.pids

    again = start(servers.folder)

    assert again == servers
    assert query(again.owner_database_url, "SELECT number FROM kept") == [(7,)]
    with redis.Redis.from_url(again.redis_url) as client:
        assert client.get("kept") == b"seven"


@pytest.mark.far
def test_embedded_servers_killed_with_a_busy_backend_start_again(servers: ServerAddresses) -> None:
    before = servers.pids
    with closing(psycopg.connect(servers.database_url.replace("+psycopg", ""))) as busy:
        busy.pgconn.send_query(b"DO 'BEGIN LOOP END LOOP; END'")
        for name in NAMES:
            servers.kill(name)
        assert not servers.pids

        again = start(servers.folder)

    assert answering(again)
    assert not set(again.pids.values()) & set(before.values())


@pytest.mark.far
def test_a_running_embedded_server_without_a_recorded_pid_is_recognised(servers: ServerAddresses) -> None:
    before, state = servers.pids, servers.folder / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "pids": {}}))

    again = start(servers.folder)

    assert again.pids == before


@pytest.mark.far
def test_a_reused_pid_of_an_embedded_server_is_neither_trusted_nor_killed(servers: ServerAddresses) -> None:
    with subprocess.Popen(["/bin/sleep", "300"], user=SERVERS_UID) as stranger:
        for name in NAMES:
            servers.kill(name)
        state, pid_file = servers.folder / "state.json", servers.folder / "postgres" / "postmaster.pid"
        state.write_text(json.dumps({**json.loads(state.read_text()), "pids": dict.fromkeys(NAMES, stranger.pid)}))
        pid_file.write_text("\n".join([str(stranger.pid), *pid_file.read_text().splitlines()[1:]]) + "\n")
        assert not servers.pids

        servers.stop()
        for name in NAMES:
            servers.kill(name)
        again = start(servers.folder)

        assert answering(again)
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.far
def test_killed_embedded_servers_restart_on_their_ports_and_redis_can_start_empty(servers: ServerAddresses) -> None:
    with redis.Redis.from_url(servers.redis_url) as client:
        client.set("lost", "soon")
    for name in NAMES:
        servers.kill(name)
        servers.start_again(name, empty=name == "redis")

    assert answering(servers)
    with redis.Redis.from_url(servers.redis_url) as client:
        assert client.dbsize() == 0


@pytest.mark.far
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process ends with its first thread")
def test_a_killed_embedded_server_counts_as_gone_only_when_its_port_is_free() -> None:
    with subprocess.Popen([sys.executable, "-c", LAST_THREAD], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdin
        assert process.stdout
        port, server = int(process.stdout.readline()), psutil.Process(process.pid)

        is_gone = wait_gone(server, seconds=0.5)

        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))
        assert not is_gone
        process.stdin.close()
        assert wait_gone(server, seconds=30)
    socket.create_server(("127.0.0.1", port)).close()


def test_a_forked_child_of_an_embedded_server_is_not_mistaken_for_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", FORKED], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdin
        assert process.stdout
        pids = [int(process.stdout.readline()), process.pid]
        # Pids begin again at the lowest: the child may well come first.
        monkeypatch.setattr(psutil, "process_iter", lambda: map(psutil.Process, pids))

        found = search(ProcessMark(os.getuid(), "", ("-c", FORKED)), None)

        assert found
        assert found.pid == process.pid
        process.stdin.close()


@pytest.mark.far
def test_a_frozen_embedded_server_can_be_stopped(servers: ServerAddresses) -> None:
    os.kill(servers.pids["mail"], signal.SIGSTOP)

    servers.stop()

    assert not servers.pids
    assert answering(start(servers.folder))


@pytest.mark.far
def test_embedded_servers_of_two_folders_run_next_to_each_other(servers: ServerAddresses, place: Path) -> None:
    other = start(place / "with a space", only=("postgres", "redis"))

    assert query(other.database_url, "SELECT current_user") == [("lockbox_api",)]
    assert other.smtp_url == ""
    assert answering(servers)
    assert not passwords(servers) & passwords(other)
    assert not set(servers.pids.values()) & set(other.pids.values())
    other.stop()
    assert answering(servers)


@pytest.mark.far
def test_concurrent_starts_start_one_embedded_server(place: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: start(place / "raced", only=("redis",)), range(4)))

    assert len({(one.redis_url, one.pids["redis"]) for one in found}) == 1
    with locked(find_home(place / "raced")), pytest.raises(EmbeddedRefused, match="another process has held"):
        locked(find_home(place / "raced"), seconds=0).__enter__()
    found[0].stop()


@pytest.mark.far
def test_embedded_servers_outlive_their_starter_and_another_process_can_stop_them(place: Path) -> None:
    def call(action: str) -> str:
        command = [sys.executable, "-m", "devstack.embedded", action, "--folder", str(place / "cli")]
        return subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout

    started = call("start")

    servers = find(place / "cli")
    assert answering(servers)
    assert all(str(pid) in started for pid in servers.pids.values())
    assert not any(secret in started for secret in passwords(servers))
    assert os.getsid(servers.pids["redis"]) != os.getsid(0)
    assert call("status") == started
    assert call("stop").count("stopped") == 3
    assert not servers.pids


@pytest.mark.far
def test_an_embedded_server_that_fails_to_start_is_reported_with_the_end_of_its_log(place: Path) -> None:
    broken = start(place / "broken", only=("redis", "mail"))
    broken.stop()
    [kept] = (broken.folder / "redis").rglob("*.base.*")
    kept.write_bytes(b"not a database")

    with pytest.raises(EmbeddedRefused, match=r"redis .* does not answer; its log ends:(.|\n)*format"):
        start(broken.folder, only=("redis", "mail"))

    assert not broken.pids


def test_embedded_servers_refuse_a_machine_without_free_ports(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        monkeypatch.setattr(embedded, "PORTS", range(port, port + 1))

        with pytest.raises(EmbeddedRefused, match=f"all ports from {port} to {port} are in use"):
            start(place / "crowded", only=["redis"])


def test_embedded_servers_refuse_to_run_in_production(place: Path) -> None:
    with pytest.raises(EmbeddedRefused, match="production"):
        start(place / "production", environment="production")

    assert not (place / "production").exists()


@pytest.mark.parametrize(("wanted", "content"), [(0o755, "somebody's"), (0o755, ""), (0o700, "somebody's")])
def test_embedded_servers_refuse_a_foreign_folder_and_leave_it_unchanged(
    place: Path, wanted: int, content: str
) -> None:
    foreign = Path(tempfile.mkdtemp(dir=place))
    if content:
        (foreign / "file").write_text(content)
    foreign.chmod(wanted)
    if AS_ROOT and wanted == 0o700:
        shutil.chown(foreign, ACCOUNT)
    before = foreign.stat()

    with pytest.raises(EmbeddedRefused, match=r"not made by Lockbox|does not belong|has mode 0755"):
        start(foreign)

    assert (foreign.stat().st_mode, foreign.stat().st_uid) == (before.st_mode, before.st_uid)
    assert [path.name for path in foreign.iterdir()] == (["file"] if content else [])


@pytest.mark.far
@pytest.mark.skipif(not AS_ROOT, reason="only root's servers run as somebody else")
def test_embedded_servers_run_by_root_refuse_a_data_folder_they_cannot_enter(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(EmbeddedRefused, match=f"can't enter {closed} "):
        start(closed / "data")

    assert mode(closed) == 0o700
    assert not list(closed.iterdir())


@pytest.mark.far
def test_embedded_servers_work_without_root(place: Path) -> None:
    mine = place / "unprivileged"
    mine.mkdir()
    if AS_ROOT:
        shutil.chown(mine, ACCOUNT)
    interpreter = reachable_interpreter()

    done = subprocess.run(
        [interpreter or sys.executable, "-c", UNPRIVILEGED, str(mine / "data"), ACCOUNT],
        env={"PYTHONPATH": f"{CHECKOUT}:{PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.stderr == ""
    if can(interpreter or "/bin/sh", "-x") and can(str(PACKAGES), "-r") and can(str(CHECKOUT), "-r"):
        names = "mail postgres redis" if interpreter else "postgres redis"
        assert done.stdout == f"running: {names} in place\nleft:\n"
    else:
        assert "can't be run by this user" in done.stdout


def can(path: str, what: str) -> bool:
    """Return whether the user that the servers run as may read (-r) or run (-x) a file."""
    command = ["/bin/sh", "-c", 'test "$0" "$1"', what, path]
    return subprocess.run(command, check=False, user=SERVERS_UID).returncode == 0


def reachable_interpreter() -> str | None:
    """Return a Python of this version that the servers' user can run; root's may be where only root can go."""
    same = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    return next((program for program in (sys.executable, same) if can(program, "-x")), None)


def test_the_default_folder_of_embedded_servers_is_outside_the_checkout_only_for_root() -> None:
    folder = default_folder(CHECKOUT)

    assert folder.is_relative_to("/var/lib/lockbox-embedded" if AS_ROOT else CHECKOUT)
    assert folder == default_folder(CHECKOUT)
