"""The other ways as processes on the same servers: how each is run, and a database of its own for all of them."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from redis import Redis
from sqlalchemy import Engine, text

from bench.db import Site
from cli import stack
from cli.stack import Processes
from config.children import environment
from harness.ports import own_port
from harness.stage import on_database, run_as_superuser, start_sinks, superuser_at

VENV = stack.CHECKOUT / ".venv-bench"
PYTHON = str(VENV / "bin" / "python")
DATABASE = "lockbox_peers"
REDIS_DATABASE = "2"
LIVING = 8

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
    actions text[] NOT NULL, justification text NOT NULL, state text NOT NULL, version integer NOT NULL,
    deadline_at timestamptz NOT NULL, created_at timestamptz NOT NULL, closed_at timestamptz);
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
    """A peer's processes, what they are told, and where to look."""

    name: str
    site: Site
    engine: Engine
    processes: Processes
    variables: Mapping[str, str]

    @property
    def family(self) -> list[psutil.Process]:
        """Its workers."""
        return [psutil.Process(child.pid) for name, child in self.processes.running.items() if name != "sinks"]

    def drive(self, job: str, ids: list[str], clients: int = LIVING, **more: float) -> dict[str, float]:
        """Have something done for each id; return the seconds that it took, and the CPU's.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            [PYTHON, "-m", "bench.peers.drive", self.name],
            input=json.dumps({"do": job, "ids": ids, "clients": clients, **more}),
            env=environment(self.variables),
            capture_output=True,
            text=True,
            check=False,
            cwd=stack.CHECKOUT,
        )
        if done.returncode:
            raise RuntimeError(f"{self.name}: {done.stderr[-2000:]}")
        said: dict[str, float] = json.loads(done.stdout)
        return said


@contextmanager
def running(site: Site, name: str) -> Iterator[PeerProcesses]:
    """Run a peer on an empty database of its own and an empty part of Redis; end it and remove them at the end."""
    redis_url = on_database(site.plan.redis_url, REDIS_DATABASE)
    url = site.copied(site.plan.worker_database_url, DATABASE).set(drivername="postgresql")
    mail = own_port()
    variables = {
        "BENCH_DATABASE_URL": url.render_as_string(hide_password=False),
        "BENCH_REDIS_URL": redis_url,
        "BENCH_SMTP_URL": f"smtp://127.0.0.1:{mail}",
    }
    processes = Processes(site.plan, site.folder / "log")
    run_as_superuser(site.superuser, f"CREATE DATABASE {DATABASE} OWNER lockbox_worker")
    try:
        start_sinks(processes, mail)
        with Redis.from_url(redis_url) as redis, superuser_at(site.superuser.set(database=DATABASE)) as engine:
            redis.flushdb()
            with engine.connect() as connection:
                connection.execute(SCHEMA)
            for number, command in enumerate(COMMANDS[name]):
                processes.launch(f"{name}-{number}", [PYTHON, "-m", *command], variables)
            yield PeerProcesses(name, site, engine, processes, variables)
            redis.flushdb()
    finally:
        processes.stop()
        run_as_superuser(site.superuser, f"DROP DATABASE {DATABASE} WITH (FORCE)")
