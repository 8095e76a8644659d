"""Open a window at a Postgres target as a database role of its own."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import structlog
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier, Literal

from connectors import role_sessions
from connectors.protocol import ConnectedWindow, ConnectorFailed, NotWanted
from connectors.role_sessions import Target
from connectors.scram import is_verifier
from connectors.targets import TargetFolder
from lockbox.failpoints import failpoint

log = structlog.get_logger(__name__)

PREFIX = "lbx_"
BOUNDS = (
    "-c statement_timeout=5s -c lock_timeout=3s -c idle_in_transaction_session_timeout=5s -c search_path=pg_catalog"
)
CONNECT_SECONDS = 3
CALL_SECONDS = 15.0
"""How long a connection is used at most. A close uses two connections in turn; both together take less than a
lease."""
TERMINATE_MS = 1000
TERMINATE_TRIES = 3
AGAIN_SECONDS = 0.1
LOCK_OUT_SECONDS = 2.0
NEAR = frozenset({"127.0.0.1", "::1", "localhost"})
REASONS: tuple[tuple[type[Exception], str], ...] = (
    (errors.InsufficientPrivilege, "not_permitted"),
    (errors.UndefinedObject, "no_such_role"),
    (errors.DependentObjectsStillExist, "owns_objects"),
    (errors.LockNotAvailable, "too_slow"),
    (errors.QueryCanceled, "too_slow"),
    (psycopg.OperationalError, "unreachable"),
)

LOCK: LiteralString = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
FIND: LiteralString = "SELECT oid FROM pg_roles WHERE rolname = %s"
LOCK_OUT: LiteralString = "ALTER ROLE {} NOLOGIN PASSWORD NULL CONNECTION LIMIT 0"
MEMBERSHIPS: LiteralString = """
SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles g ON g.oid = m.grantor
WHERE m.member = %s AND g.rolname = current_user
"""
TERMINATE: LiteralString = """
SELECT count(*) FROM (SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE usesysid = %s) AS ended
"""
SESSIONS: LiteralString = "SELECT count(*) FROM pg_stat_activity WHERE usesysid = %s"
# A session whose role was dropped by hand continues without a name. It may belong to this role, so it counts as one.
IS_GONE: LiteralString = """
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %(name)s)
    AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = %(name)s
        OR (usename IS NULL AND usesysid <> 0 AND datname = current_database()))
"""


def role_name(connection_id: UUID) -> str:
    """The name of a role contains no text that people wrote."""
    return f"{PREFIX}{connection_id.hex}"


@contextmanager
def _cut_off(reached: Target, limit: threading.Event) -> Iterator[None]:
    """Shut the connection down after `CALL_SECONDS` and set `limit`: a server that hangs enforces no timeout."""
    line = socket.socket(fileno=os.dup(reached.fileno()))

    def cut() -> None:
        limit.set()
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(CALL_SECONDS, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        line.close()


class PostgresRoles:
    """Makes a role for each window. A window is closed when neither its role nor any session of the role exists.

    The connector's database login has CREATEROLE, and ADMIN on the roles that it grants.
    """

    def __init__(self, targets: TargetFolder, *, needs_tls: bool = True) -> None:
        self._targets = targets
        self._needs_tls = needs_tls

    def open(self, window: ConnectedWindow, is_wanted: Callable[[], bool]) -> None:
        """Make the role, valid until the window's end, and grant it the roles of the window's actions.

        The lock at the target is taken before the last check of the window and kept until the commit. A close first
        sets the connection's state to closing and then takes the same lock. So either the close finds the role, or
        this method reads the new state.
        """
        if window.verifier is None or not is_verifier(window.verifier) or not window.roles:
            raise ConnectorFailed("nothing_to_open")
        name = role_name(window.id)
        with self._connected(window.target) as target, target.transaction():
            target.execute(LOCK, [name])
            self._write_role(target, name, window)
            for role in window.roles:
                granted = SQL("GRANT {} TO {} WITH INHERIT TRUE, SET FALSE").format(
                    Identifier(role), Identifier(name)
                )
                target.execute(granted)
            if not is_wanted():
                raise NotWanted
            failpoint("connector.before_open")
        failpoint("connector.after_open")

    @staticmethod
    def _write_role(target: Target, name: str, window: ConnectedWindow) -> None:
        is_there = target.execute(FIND, [name]).fetchone() is not None
        # The connector's login becomes a member of the role that it makes. Without this, it could neither end the
        # role's sessions nor drop what the role owns.
        target.execute("SET LOCAL createrole_self_grant = 'inherit'")
        written = SQL("{} ROLE {} LOGIN INHERIT PASSWORD {} VALID UNTIL {} CONNECTION LIMIT {}").format(
            SQL("ALTER" if is_there else "CREATE"),
            Identifier(name),
            Literal(window.verifier),
            Literal(window.until.isoformat()),
            Literal(window.connections),
        )
        target.execute(written)

    def close(self, connection_id: UUID, target: str) -> None:
        """End the sessions, refuse sign-ins, revoke memberships, and drop the role.

        Sessions are ended before and during each wait for a lock, because a session could hold that lock.
        """
        name = role_name(connection_id)
        with self._connected(target) as reached:
            waiting = reached.info.backend_pid
            role_sessions.end(reached, name, waiting)
            with self._connected(target) as ender, role_sessions.ending(ender, name, waiting) as blocking:
                try:
                    self._end_role(reached, name)
                except errors.LockNotAvailable:
                    if blocking.by_prepared:
                        raise ConnectorFailed("prepared_transaction") from None
                    raise
        failpoint("connector.after_close")

    def _end_role(self, reached: Target, name: str) -> None:
        role_sessions.roll_back_prepared(reached, name)
        self._refuse_sign_ins(reached, name)
        oid = self._lock_out(reached, name)
        if oid is None:
            return
        failpoint("connector.after_lockout")
        self._end_sessions(reached, oid)
        role_sessions.roll_back_prepared(reached, name)
        failpoint("connector.before_drop")
        self._drop(reached, name)

    @staticmethod
    def _refuse_sign_ins(reached: Target, name: str) -> None:
        """Refuse sign-ins before waiting for the lock, which any database login can hold."""
        if reached.execute(FIND, [name]).fetchone() is not None:
            with suppress(errors.InternalError_, errors.UndefinedObject):
                reached.execute(SQL(LOCK_OUT).format(Identifier(name)))

    def _lock_out(self, reached: Target, name: str) -> int | None:
        until = time.monotonic() + LOCK_OUT_SECONDS
        while True:
            try:
                return self._try_lock_out(reached, name)
            except errors.InternalError_:  # the engineer changed the role at the same moment
                if time.monotonic() > until:
                    raise

    @staticmethod
    def _try_lock_out(reached: Target, name: str) -> int | None:
        with reached.transaction():
            reached.execute(LOCK, [name])
            found = reached.execute(FIND, [name]).fetchone()
            if found is None:
                return None
            reached.execute(SQL(LOCK_OUT).format(Identifier(name)))
            for (role,) in reached.execute(MEMBERSHIPS, [found[0]]).fetchall():
                reached.execute(SQL("REVOKE {} FROM {}").format(Identifier(role), Identifier(name)))
            return int(found[0])

    @staticmethod
    def _drop(reached: Target, name: str) -> None:
        with reached.transaction():
            reached.execute(LOCK, [name])
            if reached.execute(FIND, [name]).fetchone() is not None:
                reached.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))
                reached.execute(SQL("DROP ROLE {}").format(Identifier(name)))

    @staticmethod
    def _end_sessions(reached: Target, oid: int) -> None:
        for _ in range(TERMINATE_TRIES):
            reached.execute(TERMINATE, [TERMINATE_MS, oid])
            if reached.execute(SESSIONS, [oid]).fetchone() == (0,):
                return
            time.sleep(AGAIN_SECONDS)
        raise ConnectorFailed("sessions_open")

    def is_closed(self, connection_id: UUID, target: str) -> bool:
        with self._connected(target) as reached:
            return reached.execute(IS_GONE, {"name": role_name(connection_id)}).fetchone() == (True,)

    @contextmanager
    def _connected(self, target: str) -> Iterator[Target]:
        lines = self._targets.lines(target)
        try:
            facts = conninfo_to_dict(lines[0]) if len(lines) == 1 else {}
        except psycopg.ProgrammingError:
            facts = {}
        self._check(facts)
        own: dict[str, Any] = {
            "application_name": "lockbox-connector",
            "client_encoding": "utf8",
            "connect_timeout": CONNECT_SECONDS,
            "options": BOUNDS,
        }
        limit = threading.Event()
        try:
            with psycopg.connect(**(facts | own), autocommit=True) as reached, _cut_off(reached, limit):
                yield reached
        except psycopg.Error as error:
            reason = next((reason for kind, reason in REASONS if isinstance(error, kind)), "refused")
            reason = "too_slow" if limit.is_set() else reason
            log.warning("connector.target_refused", target=target, reason=reason, sqlstate=error.sqlstate)
            raise ConnectorFailed(reason) from None

    def _check(self, facts: dict[str, Any]) -> None:
        host = str(facts.get("host", ""))
        if not host or not facts.get("user") or not facts.get("dbname"):
            raise ConnectorFailed("no_target_file")
        is_near = host in NEAR or host.startswith("/")
        if self._needs_tls and not is_near and facts.get("sslmode") != "verify-full":
            raise ConnectorFailed("needs_tls")
