"""The floor of calls over HTTP, as running processes; see `bench.bare_api`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from sqlalchemy import text

from bench import costs
from bench.http_load import MAILS, Subject, counter
from bench.lockbox_stack import Site
from bench.rows import Footprint
from bench.sinks import start_sinks
from devstack import stack
from devstack.stack import Processes
from harness.ports import own_port, wait_until_listening
from harness.stage import superuser_at

DATABASE = "lockbox_floor"
TABLE = "bare_requests"
BARE = text(f"""
CREATE TABLE {TABLE} (LIKE requests INCLUDING DEFAULTS, PRIMARY KEY (id));
GRANT SELECT, INSERT, UPDATE ON {TABLE} TO lockbox_api;
""")


@contextmanager
def serving(site: Site) -> Iterator[Subject]:
    """Serve on the copy of the database, also under `/rows` and `/mail`, with a relay that takes every mail."""
    url = site.copied(site.plan.database_url, DATABASE).render_as_string(hide_password=False)
    rows_url = site.superuser.set(database=DATABASE).render_as_string(hide_password=False)
    told = {
        "url": url,
        "rows_url": rows_url,
        "rows": rows_of_submit(site.submitted),
        "submitted_mails": MAILS.submitted,
        "other_mails": sum(MAILS) - MAILS.submitted,
    }
    port, processes = own_port(), Processes(site.plan, site.folder / "log")
    with superuser_at(rows_url) as engine:
        with engine.connect() as connection:
            connection.execute(BARE)
        try:
            sinks = start_sinks(processes)
            with _bare(port, sinks.mail, told) as child:
                wait_until_listening(port)
                parts = {"api": psutil.Process(child.pid), **costs.servers(site.plan)}
                yield Subject(port, lambda: parts, sinks, counter(engine, TABLE, "requests"))
        finally:
            processes.stop()


def rows_of_submit(submitted: Footprint) -> str:
    """Return the SQL statement that writes the same rows as a submission, for an `id` and a `justification`."""
    changes = {"requests": {"justification": "%(justification)s"}}
    inserts = ", ".join(f"{table}_rows AS ({insert})" for table, insert in submitted.inserts(changes))
    return f"WITH n AS MATERIALIZED (SELECT %(id)s::uuid AS request_id, {submitted.fresh()}), {inserts} SELECT"


@contextmanager
def _bare(port: int, mail: int, told: dict[str, object]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bench.bare_api", str(port), str(mail)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=stack.CHECKOUT) as child:
        assert child.stdin is not None  # noqa: S101 - the stream is a pipe
        json.dump(told, child.stdin)
        child.stdin.close()
        try:
            yield child
        finally:
            child.terminate()
            child.wait(30)
