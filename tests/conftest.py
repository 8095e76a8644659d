"""Real servers for the tests that need them: started once per run; each test gets a fresh database."""

import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jinja2 import FileSystemBytecodeCache
from lockbox_guard import guard, remote, running_guard
from sqlalchemy import Engine
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling, LoadScopeScheduling
from xdist.workermanage import WorkerController

from devstack.embedded import ServerAddresses
from gate import call, decision_point, engineers, window_checks
from gate.identity_map import IdentityMap
from harness.people import World
from harness.stage import Urls, fresh_database, migrated_servers, shared_folder, shared_servers, superuser_at
from lockbox.audit import report
from lockbox.database import Database, make_engine
from lockbox.notifications import request_mail
from lockbox.schedule import Schedule
from tests.programs import pytest_report_header, pytest_unconfigure
from tests.whole.warm import SHARED, shared_mother

__all__ = ["pytest_report_header", "pytest_unconfigure"]

# gRPC's handlers of a fork end the child where a call is under way; what we fork for runs another program at once.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

FOLDER = pytest.StashKey[str]()
MOTHER = "mother"
LATE = 0.85
KILLS_SERVERS = frozenset({"test_embedded.py"})
SHARES_NOTHING = frozenset({"test_chaos_hunt.py"})
FOLDERS = ("tests/whole/", "tests/http/", "tests/database/", "tests/whole/", "tests/http/")
COLLECTED = [f"tests/{folder}" for folder in ("unit", "database", "http", "whole", "model")]
# How long the longest files take, of those that `make test` runs: seconds, on two cores beside three others.
SECONDS = {
    "whole/messages": 9,
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
    "far/contract": 250,
    "far/upgrade": 250,
    "whole/chaos": 180,
    "whole/operating_guide": 167,
    "whole/every_form": 150,
    "whole/chaos_hunt": 150,
    "whole/demo": 150,
    "whole/run": 130,
    "far/list_plans": 120,
    "http/portal_forms": 90,
    "whole/reminders": 90,
    "database/stateful": 80,
}
# Nothing that is imported or collected is ever garbage: to look through all of it, again and again, takes as long as
# to collect, and each later look would begin with it.
gc.disable()

for name in [name for name in os.environ if name.startswith(("LOCKBOX_", "FLOWER_"))]:
    del os.environ[name]


def pytest_collection_finish() -> None:
    """Collect garbage from now on, only among what the tests make, and less often than by default."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Let each process of a run start reading at another folder, so that each finds what the others have compiled."""
    given = getattr(config, "workerinput", {})
    if turn := given.get("turn"):
        config.args = [*COLLECTED[turn:], *COLLECTED[:turn]]
    if given:
        SHARED.append(Path(given["servers"]) / MOTHER)
        for templates in (report.PAGES, request_mail.TEMPLATES):
            templates.bytecode_cache = FileSystemBytecodeCache(given["servers"])


@pytest.hookimpl(tryfirst=True, specname="pytest_collection_modifyitems")
def pytest_order_and_mark_what_is_far(items: list[pytest.Item]) -> None:
    """Sort all tests alike in each process, and mark the tests of the folder `far` as far."""
    items.sort(key=lambda item: item.path)
    for item in items:
        if "far" in item.path.parts:
            item.add_marker(pytest.mark.far)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that no process is left alone with one at the end.

    Tests that kill servers, which then need their ports back, come late, when no process starts servers.
    """
    seconds = FAR_SECONDS if any(item.get_closest_marker("far") for item in items) else SECONDS
    files = sorted(dict.fromkeys(item.path for item in items), key=lambda path: -seconds.get(_name(path), 0))
    order: dict[Path, float] = {path: place / len(files) for place, path in enumerate(files)}
    order |= {path: LATE for path in files if path.name in KILLS_SERVERS}
    items.sort(key=lambda item: order[item.path])


class FolderScheduling(LoadFileScheduling):  # type: ignore[misc]
    """Gives each process of a run the files of one folder first, and other files when none of that folder are left.

    Two of the processes wait for servers most of the time while the others compute. What a folder needs besides the
    servers, such as the process that others are forked from, or a warm app, is made in few processes.
    """

    def _assign_work_unit(self, node: WorkerController) -> None:
        folder = FOLDERS[int(node.gateway.id.removeprefix("gw")) % len(FOLDERS)]
        own = (name for name in self.workqueue if folder in name and Path(name).name not in KILLS_SERVERS)
        if (first := next(own, None)) is not None:
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)


class FarScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process one file after the other: the tests of a file share what its first test made.

    If they share nothing, each test is scheduled by itself.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if Path(file).name in SHARES_NOTHING else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Schedule near tests by files and their folders, far ones by files."""
    kinds = {"loadfile": FolderScheduling, "loadscope": FarScheduling}
    kind = kinds.get(config.getoption("dist"))
    return kind(config, log) if kind else None


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem.removeprefix('test_')}"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each process of a run where the shared servers are; the first process that needs them starts them."""
    config = node.config
    if FOLDER not in config.stash:
        ends = ExitStack()
        config.add_cleanup(ends.close)
        folder = ends.enter_context(shared_folder("tests"))
        ends.enter_context(shared_mother(folder / MOTHER))
        config.stash[FOLDER] = str(folder)
    node.workerinput["servers"] = config.stash[FOLDER]
    if config.args == ["tests"] and config.getoption("dist") == "loadfile":
        node.workerinput["turn"] = int(node.gateway.id.removeprefix("gw")) % len(COLLECTED)


@pytest.fixture(scope="session")
def template(request: pytest.FixtureRequest) -> Iterator[ServerAddresses]:
    """Servers with a migrated database to clone, for this process or for the whole run."""
    given = getattr(request.config, "workerinput", None)
    if given:
        yield shared_servers(Path(given["servers"]), int(given["workerid"].removeprefix("gw")))
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
    """This test's database with every right, for scenes that Lockbox itself refuses."""
    with superuser_at(urls.superuser) as engine:
        yield engine


@pytest.fixture
def api(urls: Urls) -> Iterator[Database]:
    db = Database(make_engine(urls.api, role="test-api", pool_size=4, overflow=16), Schedule(urls.redis))
    yield db
    db.dispose()


@pytest.fixture
def worker(urls: Urls) -> Iterator[Database]:
    db = Database(make_engine(urls.worker, role="test-worker", pool_size=4, overflow=16), Schedule(urls.redis))
    yield db
    db.dispose()


@pytest.fixture
def world(api: Database) -> World:
    """A vendor with engineers, managers and a gateway, and a tenant with its people."""
    return World.make(api)


@pytest.fixture(scope="module")
def patient_gate() -> Iterator[None]:
    """Let the checks of gates and guards take their time on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_checks, "ASK_SECONDS", 20.0)
        patch.setattr(call, "CALL_SECONDS", 20.0)
        patch.setattr(decision_point, "BATCH_SECONDS", 20.0)
        patch.setattr(engineers, "IdentityMap", partial(IdentityMap, read_seconds=20.0))
        patch.setattr(remote, "ASK_SECONDS", 20.0)
        patch.setattr(running_guard, "START_SECONDS", 20.0)
        patch.setattr(guard, "ANSWER_SECONDS", 60.0)
        yield
