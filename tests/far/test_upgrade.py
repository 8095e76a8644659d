"""Restarted processes of the last release work on the current schema and on a later one.

Current processes continue during a migration.
"""

import fcntl
import hashlib
import io
import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from config.children import environment
from devstack.embedded import ServerAddresses
from devstack.stack import CHECKOUT, Processes, StackPlan, is_ready
from harness.mail_relay import CaughtMails
from harness.people import MAILBOX, SERVICE
from harness.ports import own_port
from harness.stage import Urls, copied, plan_for, superuser_url, urls_at
from lockbox import migrations
from lockbox.migrations import OwnerRefused
from tests.whole.conftest import wait_until
from tests.whole.post import CODE
from tests.whole.warm import WarmProcesses, warm

GIT = shutil.which("git") or "/usr/bin/git"
CHANGELOG = CHECKOUT / "CHANGELOG.md"
NAMED = re.compile(r"^## (\d+\.\d+\.\d+) - \d{4}-\d{2}-\d{2}\n\nIts commit is `([0-9a-f]{40})`", re.MULTILINE)
PACKAGES = ("api", "cli", "config", "connectors", "gate", "lockbox", "worker")
LOCKBOX = "from cli.app import main; main()"
TENANT = "contoso"
LOCK = "requirements.lock"
REMARK = re.compile(r"^ *#.*\n", re.MULTILINE)
SECONDS, START_SECONDS = 60, 120
CLIENTS, LIVES = 6, 3
PLENTY = {
    "LOCKBOX_SHUTDOWN_SECONDS": "1",
    "LOCKBOX_SUBMISSIONS_PER_PERSON": "1000",
    "LOCKBOX_SUBMISSIONS_PER_TENANT": "1000",
}
APPROVER = f"ann@{TENANT}.example"
REVISION = '''"""Made up."""

from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade() -> None:
    for statement in {statements!r}:
        op.execute(statement)
'''
EXPANDS = (
    "ALTER TABLE requests ADD COLUMN made_up text",
    "ALTER TABLE events ADD COLUMN made_up integer NOT NULL DEFAULT 0",
    "ALTER TABLE notifications ADD COLUMN made_up boolean NOT NULL DEFAULT false",
    "ALTER TABLE people ADD COLUMN made_up timestamptz NOT NULL DEFAULT now()",
    "CREATE TABLE made_up (id uuid PRIMARY KEY, request_id uuid REFERENCES requests (id))",
    "CREATE INDEX ix_requests_made_up ON requests (made_up) WHERE wake_at IS NOT NULL",
    "CREATE FUNCTION made_up() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM requests'",
)
BREAKS = ("ALTER TABLE requests RENAME COLUMN case_ref TO made_up_ref",)
ENDS = "CREATE OR REPLACE FUNCTION oldest_revision() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 9999'"
MAILED = "SELECT id FROM notifications WHERE request_id = CAST(:id AS uuid) AND outcome = 'sent'"
CONNECTED = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename IN
    ('lockbox_api', 'lockbox_worker', 'lockbox_notifications', 'lockbox_connectors')
"""
FAILED = re.compile(r'"level": ?"(error|critical)"|\[(error|critical) *\]|Traceback')
UNSEALED = "SELECT event_id FROM unsealed"
SIGNED_IN = "SELECT id FROM sign_ins WHERE used_at IS NOT NULL AND mac IS NULL"
KEPT = "SELECT id FROM legal_holds UNION ALL SELECT tenant_id FROM retentions"
UNSENT = "SELECT id FROM notifications WHERE outcome IS NULL UNION ALL SELECT event_id FROM outbox"
WHOLE = """
SELECT r.id FROM requests r LEFT JOIN events e ON e.request_id = r.id AND e.seq IS NOT NULL
GROUP BY r.id, r.version HAVING count(e.id) <> r.version OR max(e.seq) <> r.version
"""

pytestmark = pytest.mark.timeout(600)


def git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    trusted = f"safe.directory={CHECKOUT}"
    return subprocess.run([GIT, "-c", trusted, "-C", str(CHECKOUT), *arguments], capture_output=True, check=False)


def said_by(*arguments: str) -> str:
    return git(*arguments).stdout.decode().strip()


def last_release() -> tuple[str, str]:
    """Return the version of the last release and its commit, as the changelog names them."""
    found = NAMED.search(CHANGELOG.read_text())
    assert found, "CHANGELOG.md names no commit of a release"
    return found[1], found[2]


def is_shallow() -> bool:
    """Return whether the clone lacks its history."""
    return said_by("rev-parse", "--is-shallow-repository") == "true"


def lacking(version: str, commit: str) -> str:
    """Return why the files of a release are unavailable, or an empty text if they are available."""
    if not git("rev-parse", "--git-dir").stdout:
        return f"this is no clone: the files of {version} are in the history, at {commit}"
    if git("merge-base", "--is-ancestor", commit, "HEAD").returncode == 0:
        return ""
    if is_shallow():
        return f"this clone is shallow and lacks {commit}, which is {version}: run git fetch --unshallow"
    now = said_by("log", "--format=%H", "--max-count=1", f"--grep=^Release {re.escape(version)}$") or "none"
    return (
        f"{commit}, which CHANGELOG.md names as {version}, is not in the history of HEAD: was it rewritten? "
        f"The commit there with the subject 'Release {version}': {now}"
    )


@dataclass(frozen=True)
class VersionFolder:
    """The files of a version in a separate folder, and the Python that runs them."""

    folder: Path
    python: str = sys.executable

    def runs(self, variables: dict[str, str], *arguments: str) -> str:
        ran = subprocess.run(
            [self.python, *arguments], cwd=self.folder, env=environment(variables), capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def path(self) -> dict[str, str]:
        """Return the PATH on which processes of this version find a Python with this version's packages."""
        return {"PATH": os.pathsep.join([str(Path(self.python).parent), os.environ.get("PATH", os.defpath)])}

    def migrates(self, urls: Urls) -> str:
        """Migrate a database to the last migration of this version."""
        return self.runs({"LOCKBOX_OWNER_DATABASE_URL": urls.owner}, "-c", LOCKBOX, "migrate")

    def adds(self, *statements: str) -> str:
        """Add an invented migration, and return its revision."""
        script = "from lockbox import migrations; print(migrations.head())"
        before = self.runs({}, "-c", script).strip()
        revision = f"{migrations.number_of(before) + 1:04}_made_up"
        file = self.folder / "lockbox" / "migrations" / "versions" / f"{revision}.py"
        file.write_text(REVISION.format(revision=revision, before=before, statements=statements))
        return revision


@dataclass(frozen=True)
class PlayedStack:
    """Processes on one database, and the tokens of the sample people."""

    plan: StackPlan
    processes: Processes
    tokens: dict[str, str]

    def ask(
        self, name: str, path: str, body: Any = None, query: Any = None, method: str | None = None
    ) -> httpx.Response:
        """Call the API as a person, by default with POST if there is a body, else GET."""
        return httpx.request(
            method or ("GET" if body is None else "POST"),
            f"{self.plan.public_url}{path}",
            json=body,
            params=query,
            headers={"authorization": f"Bearer {self.tokens[name]}"},
            timeout=SECONDS,
            trust_env=False,
        )

    def does(self, name: str, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        answer = self.ask(name, path, body or {}, method=method)
        assert answer.is_success, answer.text
        return answer.json()

    def submits(self) -> str:
        """Submit a request, let it be endorsed, and return its id."""
        asked = {
            "tenant": TENANT,
            "service": SERVICE,
            "resources": [MAILBOX],
            "actions": ["read"],
            "reason_code": "support_case",
            "justification": "The mailbox does not open",
            "case_ref": f"CASE-{secrets.token_hex(4)}",
            "access_window": 600,
        }
        request_id = str(self.does("ERIN", "/v1/requests", asked)["id"])
        self.does("MAX", f"/v1/requests/{request_id}/endorse")
        return request_id

    def approves(self, request_id: str, seconds: int) -> None:
        """Approve a request for so many seconds."""
        assert self.does("ANN", f"/v1/requests/{request_id}/approve", {"access_window": seconds})["state"] == "active"

    def is_let_in(self) -> bool:
        asked = {
            "tenant": TENANT,
            "service": SERVICE,
            "resource": MAILBOX,
            "action": "read",
            "engineer": self.tokens["ERIN_ID"],
        }
        answer = self.ask("GATE", "/v1/access", query=asked)
        assert answer.status_code in {200, 403}, answer.text
        return answer.is_success

    def state(self, request_id: str) -> str:
        answer = self.ask("ERIN", f"/v1/requests/{request_id}")
        assert answer.is_success, answer.text
        return str(answer.json()["state"])

    def lives(self, count: int = CLIENTS * LIVES) -> None:
        """Play `count` requests from submission to revoke, with parallel clients."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(lambda _: self.lives_once(), range(count)))

    def lives_once(self) -> None:
        """Play one request over the hot paths; others may be open at the same time."""
        request_id = self.submits()
        self.approves(request_id, 300)
        assert self.is_let_in()
        assert self.state(request_id) == "active"
        self.does("ANN", f"/v1/requests/{request_id}/revoke")
        self.is_let_in()
        assert self.state(request_id) == "revoked"

    def signs_in(self, mails: CaughtMails) -> None:
        """Sign in as an approver on the pages, by a mailed code."""
        with httpx.Client(
            base_url=self.plan.public_url,
            headers={"origin": self.plan.public_url},
            follow_redirects=True,
            trust_env=False,
        ) as browser:
            before = len(codes(mails))
            assert browser.post("/sign-in", data={"address": APPROVER}).is_success
            wait_until(lambda: len(codes(mails)) > before, "a mail with a code")
            page = browser.post("/sign-in/code", data={"code": codes(mails)[-1]})
            assert (page.status_code, page.url.path) == (200, "/waiting"), page.text

    def finds(self, query: str, **values: str) -> list[Any]:
        engine = create_engine(superuser_url(self.plan), poolclass=NullPool)
        with engine.connect() as connection:
            return list(connection.execute(text(query), values))

    def failures(self) -> list[str]:
        """Return the failures that the processes logged.

        Warnings about too few connections are left out: those of processes stopped in the last minute still count.
        """
        logs = sorted(self.processes.logs.glob("*.log"))
        lines = [line for log in logs for line in log.read_text().splitlines() if FAILED.search(line)]
        return [line for line in lines if "startup.too_few_connections" not in line]

    def plays(self) -> None:
        """Play requests to each kind of end: completed, revoked, denied, and ended by the timer."""
        for end, who in (("complete", "ERIN"), ("revoke", "ANN")):
            self.approves(opened := self.submits(), 300)
            assert self.is_let_in()
            self.does(who, f"/v1/requests/{opened}/{end}")
            assert not self.is_let_in()
        self.does("ANN", f"/v1/requests/{self.submits()}/deny", {"comment": "Not today"})
        self.ends_by_the_clock(self.submits())

    def ends_by_the_clock(self, request_id: str) -> None:
        """Open a window of a second, and wait for the worker's move and for the mails about it."""
        self.approves(request_id, 1)
        wait_until(lambda: self.state(request_id) == "expired", f"{request_id} is expired")
        wait_until(lambda: self.finds(MAILED, id=request_id), f"mails about {request_id}")
        assert not self.is_let_in()


def codes(mails: CaughtMails) -> list[str]:
    bodies = [caught.get_body(("plain",)) for caught in mails.all() if APPROVER in str(caught["to"])]
    return [code for body in bodies if body for code in CODE.findall(str(body.get_content()))]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> VersionFolder:
    version, commit = last_release()
    if why := lacking(version, commit):
        (pytest.fail if os.environ.get("CI") and not is_shallow() else pytest.skip)(why)
    folder = tmp_path_factory.mktemp("released")
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit).stdout)) as packed:
        packed.extractall(folder, filter="data")
    if packages_of(folder / LOCK) == packages_of(CHECKOUT / LOCK):
        return VersionFolder(folder)
    return VersionFolder(folder, str(made_once(folder)))


def packages_of(lock: Path) -> str:
    """Return the packages of a lock file, without its remarks."""
    return REMARK.sub("", lock.read_text())


def made_once(folder: Path) -> Path:
    """Return a Python with the packages of a version, which is made once for all runs of this checkout."""
    named = hashlib.sha256(packages_of(folder / LOCK).encode()).hexdigest()[:16]
    venv = CHECKOUT / "var" / f"venv-{named}"
    venv.parent.mkdir(exist_ok=True)
    with venv.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (venv / "ready").exists():
            # What it adds of the project itself comes after the folder in which it is run.
            subprocess.run(["/bin/sh", "deploy/venv", str(venv), LOCK], cwd=folder, capture_output=True, check=True)
            (venv / "ready").touch()
    return venv / "bin" / "python"


@pytest.fixture
def coming(tmp_path: Path) -> VersionFolder:
    folder = tmp_path / "coming"
    for name in PACKAGES:
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    return VersionFolder(folder)


@dataclass(frozen=True)
class SampledDatabase:
    """The name of a database made by the last release, and the tokens of its sample people."""

    name: str
    tokens: dict[str, str]


@pytest.fixture(scope="module")
def sampled(released: VersionFolder, template: ServerAddresses) -> Iterator[SampledDatabase]:
    """A database with the schema and the sample people of the last release."""
    name = f"lockbox_released_{os.getpid()}"
    with copied(template.superuser_url, name, "template0"):
        urls = urls_at(template, name)
        released.migrates(urls)
        owner = {"LOCKBOX_ENVIRONMENT": "test", "LOCKBOX_OWNER_DATABASE_URL": urls.owner}
        said = released.runs(owner, "-c", LOCKBOX, "sample")
        yield SampledDatabase(name, dict(line.split("=", 1) for line in said.splitlines()))


@pytest.fixture
def urls(sampled: SampledDatabase, template: ServerAddresses) -> Iterator[Urls]:
    """A copy of the last release's database, and an emptied Redis."""
    name = f"{sampled.name}_copy"
    with copied(template.superuser_url, name, sampled.name), Redis.from_url(template.redis_url) as redis:
        redis.flushdb()
        yield urls_at(template, name)


@pytest.fixture
def old(
    released: VersionFolder, sampled: SampledDatabase, urls: Urls, template: ServerAddresses, tmp_path: Path
) -> Iterator[PlayedStack]:
    """The last release on its own schema; none of its processes runs yet."""
    plan = plan_for(urls, template, tmp_path / "keys")
    processes = WarmProcesses(plan, tmp_path / "old", PLENTY | released.path(), released.folder)
    processes.python = released.python
    yield PlayedStack(plan, processes, sampled.tokens)
    processes.stop()


@pytest.fixture
def new(old: PlayedStack, tmp_path: Path) -> Iterator[PlayedStack]:
    """The version of this checkout on the same database; none of its processes runs yet."""
    plan = replace(old.plan, api_port=own_port())
    processes = WarmProcesses(plan, tmp_path / "new", PLENTY)
    yield PlayedStack(plan, processes, old.tokens)
    processes.stop()


def start(stack: PlayedStack, *names: str) -> None:
    """Start processes and wait for the API."""
    for name in names:
        stack.processes.start(name)
    wait_until(lambda: is_ready(stack.plan) or stack.processes.ended(), "the API is ready", START_SECONDS)
    assert stack.processes.ended() == {}


def test_the_upgrade_test_uses_the_files_of_the_last_release(released: VersionFolder) -> None:
    script = "import api, lockbox, worker; print(api.__file__, lockbox.__file__, worker.__file__)"

    places = released.runs({}, "-c", script).split()
    forked = warm(released.folder, released.python).run({}, script=script)

    assert [Path(place).parents[1] for place in places] == [released.folder] * 3
    assert forked.stdout.split() == places, forked.stderr


def test_restarted_processes_of_the_last_release_work_on_a_later_schema(
    old: PlayedStack, new: PlayedStack, coming: VersionFolder, urls: Urls
) -> None:
    start(old, "api", "worker", "notifications")
    old.plays()
    old.approves(before := old.submits(), 300)
    waiting = old.submits()

    later = coming.adds(*EXPANDS)
    with pytest.raises(AssertionError, match=r"processes of 0\.2\.0 hold"):
        coming.migrates(urls)
    assert old.is_let_in()
    old.processes.stop()
    wait_until(lambda: not old.finds(CONNECTED), "the connections are closed")
    assert later in coming.migrates(urls)

    start(old, "api", "worker", "notifications")
    assert old.is_let_in()
    old.does("ANN", f"/v1/requests/{before}/revoke")
    old.ends_by_the_clock(waiting)
    old.plays()

    start(new, "api", "worker")
    both = old.submits()
    new.approves(both, 300)
    assert (old.is_let_in(), new.is_let_in()) == (True, True)
    old.does("ANN", f"/v1/requests/{both}/revoke")
    assert (old.is_let_in(), new.is_let_in()) == (False, False)
    new.plays()
    assert old.finds(WHOLE) == []
    assert old.processes.ended() == new.processes.ended() == {}


def test_restarted_processes_of_the_last_release_work_on_the_current_schema(
    old: PlayedStack, new: PlayedStack, urls: Urls
) -> None:
    start(old, "api", "worker", "notifications")
    old.lives()
    with pytest.raises(OwnerRefused, match=r"processes of 0\.2\.0 hold"):
        migrations.upgrade(urls.owner)
    old.processes.stop()
    wait_until(lambda: not old.finds(CONNECTED), "the connections are closed")
    migrations.upgrade(urls.owner)

    start(new, "api", "worker", "notifications")
    for path, body in (("hold", {"reason": "A lawsuit"}), ("retention", {"days": 30})):
        new.does("TARA", f"/v1/tenants/{TENANT}/{path}", body, method="PUT")
    assert len(new.finds(KEPT)) == 2
    wait_until(lambda: not new.finds(UNSENT), "the mails about them are sent")
    new.processes.stop()

    start(old, "api", "worker", "notifications")
    old.lives()
    old.plays()
    old.signs_in(CaughtMails(urls.maildir))
    assert old.finds(SIGNED_IN)
    wait_until(lambda: not old.finds(UNSEALED), "all is sealed")
    assert old.finds(WHOLE) == []
    assert old.processes.ended() == {}
    assert old.failures() == new.failures() == []


def test_current_processes_continue_during_a_migration(new: PlayedStack, coming: VersionFolder, urls: Urls) -> None:
    migrations.upgrade(urls.owner)
    start(new, "api", "worker", "notifications")
    new.lives()

    later = coming.adds(*EXPANDS)
    with ThreadPoolExecutor(1) as working:
        lives = working.submit(new.lives)
        assert later in coming.migrates(urls)
        lives.result()
    new.lives()
    new.plays()
    assert new.finds(WHOLE) == []
    assert new.processes.ended() == {}
    assert new.failures() == []


def test_a_migration_that_breaks_the_last_release_would_be_detected(
    old: PlayedStack, coming: VersionFolder, urls: Urls
) -> None:
    coming.adds(*BREAKS)
    coming.migrates(urls)
    start(old, "api")

    with pytest.raises(AssertionError, match=r"\b500\b"):
        old.submits()


def test_processes_of_the_last_release_refuse_to_start_on_a_schema_too_new_for_them(
    old: PlayedStack, coming: VersionFolder, urls: Urls
) -> None:
    later = coming.adds(ENDS)
    coming.migrates(urls)

    started = [old.processes.start(name) for name in ("api", "worker")]

    assert all(process.wait(SECONDS) != 0 for process in started)
    for log in ("api.log", "worker.log"):
        assert f"the database is at migration {later}, this version needs" in (old.processes.logs / log).read_text()


@pytest.mark.parametrize("commit", ["0" * 40, "HEAD~0"])
def test_a_release_commit_missing_from_the_git_history_is_reported(commit: str) -> None:
    found = lacking("0.2.0", said_by("rev-parse", commit))

    assert ("was it rewritten?" in found or "this clone is shallow" in found) is (commit == "0" * 40)
