"""The peers as processes on the same servers: how each is run, and one database for all of them."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from redis import Redis
from sqlalchemy import Engine, text

from bench import costs
from bench.http_load import MAILS, Subject, counter
from bench.lockbox_stack import Site
from bench.sinks import SinkPorts, start_sinks
from config.children import environment
from devstack import stack
from devstack.stack import Processes
from harness.ports import own_port, wait_until_listening
from harness.stage import on_database, run_as_superuser, superuser_at

VENV = stack.CHECKOUT / ".venv-bench"
PYTHON = str(VENV / "bin" / "python")
DATABASE = "lockbox_peers"
REDIS_DATABASE = "2"

WORKER = ("worker", "--concurrency", "2", "--without-gossip", "--without-mingle", "--loglevel", "WARNING")
BEAT = ("beat", "--scheduler", "redbeat.RedBeatScheduler", "--loglevel", "WARNING", "--schedule", "unused")
COMMANDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "celery_eta": (("celery", "--app", "bench.peers.celery_eta", *WORKER),),
    "dramatiq_delay": (("dramatiq", "bench.peers.dramatiq_delay", "--processes", "2", "--threads", "8"),),
    "redbeat_entries": (
        ("celery", "--app", "bench.peers.redbeat_entries", *WORKER),
        ("celery", "--app", "bench.peers.redbeat_entries", *BEAT),
    ),
    "dbos_delay": (("bench.peers.dbos_delay",),),
}

SCHEMA = text("""
CREATE TABLE requests (id uuid PRIMARY KEY, requester text NOT NULL, service text NOT NULL, resources text[] NOT NULL,
    actions text[] NOT NULL, justification text NOT NULL, access_window integer NOT NULL, state text NOT NULL,
    version integer NOT NULL, deadline_at timestamptz NOT NULL, created_at timestamptz NOT NULL,
    closed_at timestamptz);
CREATE INDEX ON requests (deadline_at) WHERE closed_at IS NULL;
CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, request_id uuid NOT NULL REFERENCES requests,
    seq integer NOT NULL, at timestamptz NOT NULL, action text NOT NULL, to_state text NOT NULL,
    UNIQUE (request_id, seq));
CREATE TABLE notifications (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, request_id uuid NOT NULL,
    template text NOT NULL, sent_at timestamptz NOT NULL);
GRANT ALL ON ALL TABLES IN SCHEMA public TO lockbox_worker;
""")


@dataclass(frozen=True)
class PeerProcesses:
    """A peer's processes, their settings, and where to look."""

    name: str
    site: Site
    engine: Engine
    processes: Processes
    port: int
    sinks: SinkPorts
    variables: Mapping[str, str]

    @property
    def subject(self) -> Subject:
        """The peer as loads over HTTP see it: the process that takes calls, its workers and the servers."""
        return Subject(self.port, self._parts, self.sinks, counter(self.engine, "requests"))

    @property
    def workers(self) -> list[psutil.Process]:
        """The peer's workers."""
        return [one for name, one in self._parts().items() if name.startswith(self.name)]

    def _parts(self) -> dict[str, psutil.Process]:
        running = self.processes.running
        return {name: psutil.Process(running[name].pid) for name in running if name != "sinks"} | costs.servers(
            self.site.plan
        )

    def arm(self, ids: Sequence[str], due: float) -> float:
        """Arm the ends of requests at an instant, in seconds since 1970; return the seconds that arming took.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            [PYTHON, "-m", "bench.peers.arm", self.name],
            input=json.dumps({"ids": ids, "due": due}),
            env=environment(self.variables),
            capture_output=True,
            text=True,
            check=False,
            cwd=stack.CHECKOUT,
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {done.stderr[-2000:]}")
        seconds: float = json.loads(done.stdout)
        return seconds


@contextmanager
def running(site: Site, name: str) -> Iterator[PeerProcesses]:
    """Run a peer on an empty database of its own and an empty part of Redis; end it and remove them at the end."""
    redis_url = on_database(site.plan.redis_url, REDIS_DATABASE)
    url = site.copied(site.plan.worker_database_url, DATABASE).set(drivername="postgresql")
    port, mail = own_port(), own_port()
    variables = {
        "BENCH_DATABASE_URL": url.render_as_string(hide_password=False),
        "BENCH_REDIS_URL": redis_url,
        "BENCH_SMTP_URL": f"smtp://127.0.0.1:{mail}",
        "BENCH_MAILS": " ".join(map(str, MAILS)),
    }
    processes = Processes(site.plan, site.folder / "log")
    run_as_superuser(site.superuser, f"CREATE DATABASE {DATABASE} OWNER lockbox_worker")
    try:
        sinks = start_sinks(processes, mail)
        with Redis.from_url(redis_url) as redis, superuser_at(site.superuser.set(database=DATABASE)) as engine:
            redis.flushdb()
            with engine.connect() as connection:
                connection.execute(SCHEMA)
            for number, command in enumerate(COMMANDS[name]):
                processes.launch(f"{name}-{number}", [PYTHON, "-m", *command], variables)
            processes.launch("api", [PYTHON, "-m", "bench.peers.serve", name, str(port)], variables)
            wait_until_listening(port)
            yield PeerProcesses(name, site, engine, processes, port, sinks, variables)
            redis.flushdb()
    finally:
        processes.stop()
        run_as_superuser(site.superuser, f"DROP DATABASE {DATABASE} WITH (FORCE)")
