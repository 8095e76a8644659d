"""End the sessions of a window's role at a Postgres, by a statement that waits for no lock, again and again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg
import structlog
from psycopg import errors

log = structlog.get_logger(__name__)

EVERY_SECONDS = 0.02
# Of others' sessions, those of our other roles: an engineer may hold for another one what the close waits for.
END: LiteralString = """
SELECT count(*) FROM (
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usesysid = (SELECT oid FROM pg_roles WHERE rolname = %(name)s)
        OR (pid = ANY (pg_blocking_pids(%(waiting)s)) AND starts_with(usename::text, 'lbx_')
            AND pg_has_role(usesysid, 'USAGE'))
) AS ended
"""

Target = psycopg.Connection[tuple[Any, ...]]


def end(reached: Target, name: str, waiting: int) -> None:
    """Ask the sessions of a role to end, and those of our roles for whose locks the backend `waiting` waits.

    A session that this login may not end is left to who finds it open afterwards.
    """
    with suppress(errors.InsufficientPrivilege):
        reached.execute(END, {"name": name, "waiting": waiting})


@contextmanager
def ending(ender: Target, name: str, waiting: int) -> Iterator[None]:
    """Do the same by a connection of its own for as long as the block lasts, so that who comes back loses too."""
    is_over = threading.Event()
    thread = threading.Thread(target=_go_on, args=(ender, name, waiting, is_over), name="role-sessions", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _go_on(ender: Target, name: str, waiting: int, is_over: threading.Event) -> None:
    try:
        while not is_over.is_set():
            end(ender, name, waiting)
            is_over.wait(EVERY_SECONDS)
    except psycopg.Error as error:
        log.warning("connector.sessions_not_ended", role=name, sqlstate=error.sqlstate)
