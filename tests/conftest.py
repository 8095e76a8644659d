"""Real servers for the tests that want them: started once a run, from nothing, and for each test a fresh database."""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from jinja2 import BytecodeCache, FileSystemBytecodeCache
from sqlalchemy import Engine

from devstack.embedded import ServerAddresses
from gate import call, window_checks
from harness.people import World
from harness.stage import Urls, fresh_database, migrated_servers, shared_folder, shared_servers, superuser_at
from lockbox.audit import report
from lockbox.database import Database, make_engine
from lockbox.notifications import request_mail
from lockbox.schedule import Schedule
from tests.forked_run import NUMBER, ForkedRun, batches, pytest_addoption
from tests.programs import pytest_report_header, pytest_unconfigure

__all__ = ["pytest_addoption", "pytest_report_header", "pytest_unconfigure"]

# gRPC's handlers of a fork end the child where a call is under way; what we fork for runs another program at once.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

FOLDER = pytest.StashKey[Path]()
COMPILED = pytest.StashKey[BytecodeCache]()
"""Where the processes of a run find each template compiled that one of them has compiled: all take seconds."""
LATE = 0.85
KILLS_SERVERS = frozenset({"test_embedded.py"})
SHARES_NOTHING = frozenset({"test_chaos_hunt.py"})
FOLDERS = ("tests/whole/", "tests/http/", "tests/database/", "tests/whole/", "tests/http/")
# How long the longest files take, of those that `make test` runs: seconds, on two cores beside three others.
SECONDS = {
    "whole/never": 9,
    "whole/doctor": 15,
    "http/live": 31,
    "http/sign_in_passkeys": 20,
    "http/guard_stream": 26,
    "http/sign_in_issuers": 25,
    "http/live_lists": 19,
    "http/portal_routes": 16,
    "http/portal_tenant_admin": 15,
    "http/routes": 13,
    "http/powers_on_record": 13,
    "http/gate_ends": 12,
    "http/sockets": 11,
    "http/own_side": 11,
    "http/call_groups": 11,
    "database/connectors": 25,
    "database/tenants_apart": 22,
    "database/erasure": 18,
    "database/restore": 16,
    "database/tenancy_endpoints": 14,
    "database/migrations": 13,
    "database/dead_notifications": 11,
    "database/startup_checks": 11,
    "unit/guard": 14,
    "unit/guard_middleware": 14,
}
# The same of `make test-far`, each alone on a core.
FAR_SECONDS = {
    "far/upgrade": 360,
    "far/contract": 250,
    "whole/chaos_hunt": 217,
    "whole/every_form": 210,
    "whole/chaos": 180,
    "whole/operating_guide": 167,
    "whole/demo": 150,
    "far/list_plans": 120,
    "whole/reminders": 90,
    "database/stateful": 80,
}
# Nothing that is imported or collected is ever garbage: to look through all of it, again and again, takes as long as
# to collect, and each later look would begin with it.
gc.disable()

for name in [name for name in os.environ if name.startswith(("LOCKBOX_", "FLOWER_"))]:
    del os.environ[name]


def pytest_collection_finish() -> None:
    """Look for garbage from here on, in what the tests make, and less often than where memory is short."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Start the servers that the processes of a run share, while the tests are collected."""
    config = session.config
    if config.getoption("processes") and not config.getoption("collectonly"):
        ends = ExitStack()
        config.add_cleanup(ends.close)
        folder = config.stash[FOLDER] = ends.enter_context(shared_folder("tests"))
        config.stash[COMPILED] = FileSystemBytecodeCache(str(folder))
        for templates in (report.PAGES, request_mail.TEMPLATES):
            templates.bytecode_cache = config.stash[COMPILED]
        ends.callback(os.waitpid, _start_early(folder), 0)


def _start_early(folder: Path) -> int:
    if pid := os.fork():
        return pid
    try:
        shared_servers(folder, 0)
    finally:
        # Had it failed, the first that needs them would try again, and tell.
        os._exit(0)


@pytest.hookimpl(specname="pytest_collection_modifyitems")
def pytest_mark_what_is_far(items: list[pytest.Item]) -> None:
    """Mark each test of the folder of far ones as far."""
    for item in items:
        if "far" in item.path.parts:
            item.add_marker(pytest.mark.far)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the files that took longest when last measured come first: no process is alone with one at the end.

    Servers that are killed and want their ports back come late, when no process starts any.
    """
    seconds = FAR_SECONDS if _are_far(items) else SECONDS
    files = sorted({item.path for item in items}, key=lambda path: (-seconds.get(_name(path), 0), path))
    order: dict[Path, float] = {path: place / len(files) for place, path in enumerate(files)}
    order |= {path: LATE for path in files if path.name in KILLS_SERVERS}
    items.sort(key=lambda item: order[item.path])


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests in several processes if told to: one file after the other in each, whose tests share much."""
    count = session.config.getoption("processes")
    if FOLDER not in session.config.stash or session.testsfailed:
        return None
    folders = () if _are_far(session.items) else FOLDERS
    ForkedRun(session, batches(session.items, _batch), partial(_prefers, folders)).run(count)
    return True


def _are_far(items: list[pytest.Item]) -> bool:
    return any(item.get_closest_marker("far") for item in items)


def _batch(item: pytest.Item) -> str:
    """Name what goes to one process: a file, or a test by itself where those of its file share nothing."""
    return item.nodeid if item.path.name in SHARES_NOTHING else str(item.path)


def _prefers(folders: Sequence[str], number: int, nodeid: str) -> bool:
    """Give each process of a run the files of one folder first, and any others once there are none of it.

    Two of them wait for servers most of the time while the others compute. What a folder needs beyond the servers,
    such as the process that others are forked from, or an app that has answered before, is made in few of them.
    """
    file = nodeid.partition("::")[0]
    folder = folders[number % len(folders)] if folders else ""
    return file.startswith(folder) and Path(file).name not in KILLS_SERVERS


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem.removeprefix('test_')}"


@pytest.fixture(scope="session")
def template(request: pytest.FixtureRequest) -> Iterator[ServerAddresses]:
    """Servers with a migrated database that others are cloned from, for this process or for all of this run."""
    stash = request.config.stash
    if NUMBER in stash:
        yield shared_servers(stash[FOLDER], stash[NUMBER])
    else:
        with migrated_servers("tests") as servers:
            yield servers


@pytest.fixture
def urls(template: ServerAddresses) -> Iterator[Urls]:
    """A database of this test alone, and an emptied Redis database."""
    with fresh_database(template) as found:
        yield found


@pytest.fixture
def superuser(urls: Urls) -> Iterator[Engine]:
    """This test's database with every right, for setting scenes that the house itself refuses."""
    with superuser_at(urls.superuser) as engine:
        yield engine


@pytest.fixture
def api(urls: Urls) -> Iterator[Database]:
    """The database as the API sees it."""
    db = Database(make_engine(urls.api, role="test-api", pool_size=4, overflow=16), Schedule(urls.redis))
    yield db
    db.dispose()


@pytest.fixture
def worker(urls: Urls) -> Iterator[Database]:
    """The database as a worker sees it."""
    db = Database(make_engine(urls.worker, role="test-worker", pool_size=4, overflow=16), Schedule(urls.redis))
    yield db
    db.dispose()


@pytest.fixture
def world(api: Database) -> World:
    """A vendor with engineers, managers and a gateway, and a tenant with its people."""
    return World.make(api)


@pytest.fixture
def patient_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gate's checks take their time on a busy machine."""
    monkeypatch.setattr(window_checks, "ASK_SECONDS", 20.0)
    monkeypatch.setattr(call, "CALL_SECONDS", 20.0)
