"""End the work of a window's role at a Postgres target: its sessions, repeatedly, and its prepared transactions."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import structlog
from psycopg import errors
from psycopg.sql import SQL, Identifier, Literal

log = structlog.get_logger(__name__)

EVERY_SECONDS = 0.02
LOOK_SECONDS = 0.5
"""How often the connector looks for a prepared transaction that blocks it; such a transaction has no session. Only
one that keeps its lock for longer matters.
"""
# Also ends blocking sessions of other Lockbox roles: an engineer may use another role's session to hold a lock that
# the close waits for.
END: LiteralString = """
SELECT count(*) FROM (
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usesysid = (SELECT oid FROM pg_roles WHERE rolname = %(name)s)
        OR (pid = ANY (pg_blocking_pids(%(waiting)s)) AND starts_with(usename::text, 'lbx_')
            AND pg_has_role(usesysid, 'USAGE'))
) AS ended
"""

# A prepared transaction has no process: pg_blocking_pids() returns 0 for it.
BLOCKED: LiteralString = "SELECT 0 = ANY (pg_blocking_pids(%s))"
PREPARED: LiteralString = "SELECT gid FROM pg_prepared_xacts WHERE owner = %s AND database = current_database()"

Target = psycopg.Connection[tuple[Any, ...]]


def end(reached: Target, name: str, waiting: int) -> None:
    """Terminate the role's sessions, and sessions of other Lockbox roles that block the backend `waiting`."""
    with suppress(errors.InsufficientPrivilege):
        reached.execute(END, {"name": name, "waiting": waiting})


@dataclass
class BlockingLocks:
    by_prepared: bool = False


@contextmanager
def ending(ender: Target, name: str, waiting: int) -> Iterator[BlockingLocks]:
    """Repeat `end` during the block, on the connection `ender`, because sessions may reconnect."""
    is_over, blocking = threading.Event(), BlockingLocks()
    words = (ender, name, waiting, is_over, blocking)
    thread = threading.Thread(target=_go_on, args=words, name="role-sessions", daemon=True)
    thread.start()
    try:
        yield blocking
    finally:
        is_over.set()
        thread.join()


def _go_on(ender: Target, name: str, waiting: int, is_over: threading.Event, blocking: BlockingLocks) -> None:
    try:
        look_at = time.monotonic() + LOOK_SECONDS
        while not is_over.is_set():
            end(ender, name, waiting)
            if time.monotonic() > look_at:
                blocking.by_prepared |= ender.execute(BLOCKED, [waiting]).fetchone() == (True,)
                look_at = time.monotonic() + LOOK_SECONDS
            is_over.wait(EVERY_SECONDS)
    except psycopg.Error as error:
        log.warning("connector.sessions_not_ended", role=name, sqlstate=error.sqlstate)


def roll_back_prepared(reached: Target, name: str) -> None:
    """Roll back a role's prepared transactions in this database; they outlive the role's sessions.

    Only the owner of a transaction may roll it back, so the connector's database login becomes that role meanwhile.
    """
    prepared = reached.execute(PREPARED, [name]).fetchall()
    if not prepared:
        return
    role = Identifier(name)
    reached.execute(SQL("GRANT {} TO CURRENT_USER WITH SET TRUE").format(role))
    reached.execute(SQL("SET ROLE {}").format(role))
    try:
        for (gid,) in prepared:
            reached.execute(SQL("ROLLBACK PREPARED {}").format(Literal(gid)))
    finally:
        reached.execute("RESET ROLE")
    log.warning("connector.prepared_rolled_back", role=name, count=len(prepared))
