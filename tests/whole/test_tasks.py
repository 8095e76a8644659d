"""The tasks according to Celery's events: sent, succeeded with what they did, or failed."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import psutil
import pytest
from celery import Celery
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url

from devstack.embedded import ServerAddresses
from harness.network import EventLoopThread, Proxy, ProxyMode
from harness.stage import superuser_at
from lockbox.requests.lifecycle import Action
from tests.whole.conftest import RunningStack, log_lines, stage_of, wait_until
from worker.message_filter import TASKS
from worker.runtime import CORE_CHILDREN

# The proxies are cut off in the midst of what they carry: what asyncio says of their sockets is no fault.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
WORKERS = {"worker": "LOCKBOX_WORKER_DATABASE_URL", "notifications": "LOCKBOX_NOTIFICATIONS_DATABASE_URL"}
SENT = TASKS.keys() - {"lockbox.connect", "lockbox.case_check"}
BROKER_AWAY_SECONDS = 12
MAINTENANCE = ("lockbox.seal", "lockbox.reconcile")
HELD = 4711
ATTEMPTS = 5
HELD_UP = text("""
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted
""")
DONE = "SELECT 1 FROM events WHERE request_id = :id AND action = :action"
FREE_TO_SEAL = text("SELECT 1 FROM turns WHERE name = 'seal' FOR UPDATE SKIP LOCKED")
# Each of the two jobs waits in the midst of its work, until the lock is free or its time limit ends it.
HOLD_MAINTENANCE = (
    f"""CREATE OR REPLACE FUNCTION held() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS
    $$BEGIN PERFORM pg_advisory_xact_lock_shared({HELD}); RETURN NULL; END$$""",
    "CREATE TRIGGER held AFTER DELETE ON unsealed EXECUTE FUNCTION held()",
    "CREATE TRIGGER held AFTER DELETE ON idempotency_keys EXECUTE FUNCTION held()",
)


class TaskEvents:
    """Celery's events about tasks, as Flower receives them: which were sent, and their results or errors by name."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._names: dict[str, str] = {}
        self._results: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        self._receiver: Any = None
        self._greeted = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    @property
    def sent(self) -> set[str]:
        return set(self._names.values())

    @property
    def succeeded(self) -> dict[str, list[str]]:
        return self._by_name(self._results)

    @property
    def failed(self) -> dict[str, list[str]]:
        return self._by_name(self._errors)

    def start(self) -> None:
        """Return once events are heard: what was sent before is lost."""
        self._thread.start()
        with self._app.events.default_dispatcher() as dispatcher:

            def heard() -> bool:
                dispatcher.send("greeting")
                return self._greeted.wait(0.1)

            wait_until(heard, "somebody listens to events")

    def stop(self) -> None:
        self._receiver.should_stop = True
        self._thread.join()

    def _listen(self) -> None:
        with self._app.connection_for_read() as connection:
            handlers = {
                "task-sent": lambda event: self._names.update({event["uuid"]: event["name"]}),
                "task-succeeded": lambda event: self._results.update({event["uuid"]: event["result"]}),
                "task-failed": lambda event: self._errors.update({event["uuid"]: event["exception"]}),
                "greeting": lambda _: self._greeted.set(),
            }
            self._receiver = self._app.events.Receiver(connection, handlers=handlers)
            self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def _by_name(self, ended: dict[str, str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for uuid, said in list(ended.items()):
            # Celery may tell how a task ended before it tells that it was sent.
            if uuid in self._names:
                found[self._names[uuid]].append(said)
        return found


@contextmanager
def listening(stage: RunningStack) -> Iterator[TaskEvents]:
    """Listen to Celery's events about the tasks of a stage."""
    with Celery("stranger", broker=stage.urls.redis, set_as_current=False) as app:
        events = TaskEvents(app)
        events.start()
        try:
            yield events
        finally:
            events.stop()


@dataclass
class ProxiedServers:
    """The proxies through which the workers reach Redis and Postgres."""

    loop: EventLoopThread
    redis: Proxy
    postgres: list[Proxy]

    def turn(self, mode: ProxyMode, *proxies: Proxy) -> None:
        for proxy in proxies:
            self.loop.do(proxy.turn(mode))


def proxied(loop: EventLoopThread, url: str) -> tuple[Proxy, str]:
    """Return a proxy for a server, and the URL that leads through the proxy."""
    found = make_url(url)
    proxy = Proxy(int(found.port or 0))
    loop.do(proxy.open())
    return proxy, found.set(port=proxy.port).render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def proxies() -> Iterator[ProxiedServers]:
    """The proxies, without a target yet; they end after the stage whose workers use them."""
    with closing(EventLoopThread()) as loop:
        found = ProxiedServers(loop, Proxy(0), [])
        yield found
        for proxy in (found.redis, *found.postgres):
            loop.do(proxy.leave())


@pytest.fixture(scope="module")
def stage(
    template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory, proxies: ProxiedServers
) -> Iterator[RunningStack]:
    """A stage whose workers reach Redis and Postgres through the proxies."""
    with stage_of(template, tmp_path_factory.mktemp("logs"), names=("api",)) as found:
        own = found.processes.extra
        proxies.redis, own["LOCKBOX_REDIS_URL"] = proxied(proxies.loop, found.plan.redis_url)
        for process, name in WORKERS.items():
            proxy, own[name] = proxied(proxies.loop, found.plan.variables(process)[name])
            proxies.postgres.append(proxy)
            found.processes.start(process)
            del own[name]
        found.workers_run()
        yield found


def children(stage: RunningStack) -> list[psutil.Process]:
    """Return the processes in which the core worker runs its tasks."""
    return psutil.Process(stage.processes.running["worker"].pid).children()


def suspend_outside_of_sealing(held: list[psutil.Process], superuser: Engine) -> None:
    """Suspend the children at a moment when none holds the lock for sealing, which no one else could take then."""
    while True:
        for child in held:
            child.suspend()
        with superuser.connect() as connection:
            if connection.execute(FREE_TO_SEAL).one_or_none():
                return
        for child in held:
            child.resume()
        time.sleep(0.05)


def one_of_each(stage: RunningStack) -> dict[UUID, str]:
    """Let every timer task come due within seconds; return the requests and what the timers do to them."""
    reminding = stage.world(approval_window=60, approval_reminders=(4,)).submit()
    hurried = stage.world(approval_window=2).submit()
    world = stage.world(approval_window=60)
    opened = world.act("ann", Action.APPROVE, world.submit(access_window=1).id)
    return {reminding.id: "remind", hurried.id: "time_out", opened.id: "expire"}


def is_done(stage: RunningStack, requests: dict[UUID, str]) -> bool:
    """Return whether these timers have run, and everything is sent and sealed."""
    return (
        all(stage.rows(DONE, id=str(request), action=action) for request, action in requests.items())
        and not stage.rows("SELECT 1 FROM notifications WHERE closed_at IS NULL")
        and not stage.rows("SELECT 1 FROM unsealed")
    )


@pytest.mark.far
def test_each_worker_task_is_sent_and_its_result_says_what_it_did(stage: RunningStack) -> None:
    with listening(stage) as events:
        requests = one_of_each(stage)
        wait_until(lambda: is_done(stage, requests), "all is done")
        did = {
            "lockbox.notify": "'sent': 3",
            "lockbox.remind": "'reminded': 1",
            "lockbox.time_out": "'timed_out': 1",
            "lockbox.expire": "'expired': 1",
            "lockbox.seal": "'events': ",
            "lockbox.reconcile": "'overdue': 0",
        }
        for task, result in did.items():
            wait_until(lambda: any(result in one for one in events.succeeded[task]), f"{task} said {result}")  # noqa: B023

        assert events.sent == SENT
        assert not events.failed
        assert not [one for results in events.succeeded.values() for one in results if "-" in one]


@pytest.mark.far
def test_each_worker_task_fails_visibly_without_postgres_and_is_done_later(
    stage: RunningStack, proxies: ProxiedServers
) -> None:
    with listening(stage) as events:
        proxies.turn(ProxyMode.REFUSE, *proxies.postgres)
        try:
            requests = one_of_each(stage)
            wait_until(lambda: events.failed.keys() == SENT, "each task has failed")
            assert all("TaskFailed" in failure for failures in events.failed.values() for failure in failures)
        finally:
            proxies.turn(ProxyMode.PASS, *proxies.postgres)

        wait_until(lambda: is_done(stage, requests), "all is done")
        stage.events_are_whole()


@pytest.mark.far
def test_the_core_worker_itself_seals_events_if_no_task_does(stage: RunningStack) -> None:
    held = children(stage)
    log = stage.processes.logs / "worker.log"

    def sealed_by_itself() -> int:
        return sum(line.get("event") == "maintenance.done_here" and line["job"] == "seal" for line in log_lines(log))

    before = sealed_by_itself()
    try:
        with superuser_at(stage.urls.superuser) as engine:
            suspend_outside_of_sealing(held, engine)
        stage.world(approval_window=60).submit()
        wait_until(lambda: sealed_by_itself() > before, "the worker has sealed")
        wait_until(lambda: not stage.rows("SELECT 1 FROM unsealed"), "nothing is left to seal")
    finally:
        for child in held:
            if child.is_running():
                child.resume()


def times_out_beside_held_jobs(stage: RunningStack, holder: Connection) -> bool:
    """Hold up sealing and reconciling until a request has timed out; return whether both jobs lasted so long."""
    wait_until(lambda: len(children(stage)) == CORE_CHILDREN, "every child runs")
    before = children(stage)
    holder.execute(text("SELECT pg_advisory_lock(:number)"), {"number": HELD})
    try:
        # What is sealed is what waits: the job that forgets it is held up.
        stage.world().submit()
        with Celery("impatient", broker=stage.urls.redis, set_as_current=False) as app:
            for task in MAINTENANCE:
                app.send_task(task, queue="maintenance")
        wait_until(lambda: holder.execute(HELD_UP).scalar_one() == len(MAINTENANCE), "both jobs are at work")
        request = stage.world(approval_window=1).submit()
        stage.ends(request.id, "timed_out")
        # The time limit ends a job that is held up for too long, and its child with it.
        return children(stage) == before
    finally:
        holder.execute(text("SELECT pg_advisory_unlock_all()"))


@pytest.mark.far
def test_long_sealing_and_reconciling_delay_no_time_out_of_a_request(stage: RunningStack) -> None:
    with superuser_at(stage.urls.superuser) as engine, engine.connect() as holder:
        for statement in HOLD_MAINTENANCE:
            holder.execute(text(statement))
        try:
            # On a busy machine, the time limit may end a job too early for the comparison.
            assert any(times_out_beside_held_jobs(stage, holder) for _ in range(ATTEMPTS))
        finally:
            for table in ("unsealed", "idempotency_keys"):
                holder.execute(text(f"DROP TRIGGER held ON {table}"))


@pytest.mark.far
def test_workers_survive_failing_tasks_without_a_broker(stage: RunningStack, proxies: ProxiedServers) -> None:
    """Tasks report to a parent that waits for the broker, and reads nothing for longer than a task may take."""
    before = {name: stage.processes.running[name].pid for name in WORKERS}
    requests: dict[UUID, str] = {}
    for _ in range(3):
        proxies.turn(ProxyMode.BLACK_HOLE, *proxies.postgres)
        requests |= one_of_each(stage)
        time.sleep(2.5)
        proxies.turn(ProxyMode.REFUSE, proxies.redis)
        time.sleep(BROKER_AWAY_SECONDS)
        proxies.turn(ProxyMode.PASS, proxies.redis, *proxies.postgres)
        wait_until(partial(is_done, stage, requests), "all is done")

    assert {name: stage.processes.running[name].pid for name in WORKERS} == before
    assert stage.processes.ended() == {}
    stage.events_are_whole()
