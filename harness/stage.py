"""The stage: servers, a database of one's own on them, and the house as each login sees it."""

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from redis import Redis
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from cli.stack import Processes
from config.embedded import ServerAddresses
from harness.network import HOST
from harness.ports import own_port, wait_for
from lockbox.database import Database, make_engine, postgres_clock


@dataclass(frozen=True)
class Urls:
    """Where one test's servers are, as each role."""

    superuser: str
    owner: str
    api: str
    worker: str
    redis: str
    smtp: str
    maildir: Path
    notifications: str = ""


class ShiftedClock:
    """The database's clock, moved by as much as a test likes."""

    def __init__(self) -> None:
        self.shift = timedelta(0)

    def __call__(self, session: Session) -> datetime:
        """Read the shifted clock."""
        return postgres_clock(session) + self.shift


class StoppedClock:
    """The database's clock, standing at a moment until the test moves it."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self, _: Session) -> datetime:
        """Read the clock."""
        return self.at


RETRIED = 4.0
"""Seconds that redis-py tries again by itself where a Redis is away, unless it is told not to."""
ALL_RIGHTS: dict[str, Engine] = {}
SENDERS: dict[str, Engine] = {}


@contextmanager
def all_rights(superuser_url: str, notifications_url: str = "") -> Iterator[None]:
    """Let tests set scenes in a database, and look at them, past every rule that is not a trigger.

    They send by the login of the notifications worker.
    """
    name = str(make_url(superuser_url).database)
    if notifications_url:
        SENDERS[name] = make_engine(notifications_url, role="test-notifications", pool_size=4, overflow=20)
    ALL_RIGHTS[name] = create_engine(superuser_url, pool_size=1, max_overflow=20, pool_pre_ping=True)
    yield
    ALL_RIGHTS.pop(name).dispose()
    if notifications_url:
        SENDERS.pop(name).dispose()


def as_sender(db: Database) -> Database:
    """Return the house as the notifications worker sees it; one that reaches Postgres its own way stays as it is."""
    engine, url = SENDERS.get(str(db.engine.url.database)), db.engine.url
    if engine is None or url.username == "lockbox_notifications" or url.port != engine.url.port:
        return db
    return Database(engine, db.schedule, db.clock)


def unbound(db: Database) -> Engine:
    """Return an engine that sees every row of the house's database."""
    return ALL_RIGHTS[str(db.engine.url.database)]


def setting(db: Database) -> Database:
    """Return the house for whoever sets a scene: row-level security does not bind it."""
    return Database(unbound(db), db.schedule, db.clock)


NUMBERS = itertools.count(1)
TABLES = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'")
# For the whole connection: each change throws away all plans, and to plan what empties every table takes longest.
NO_TRIGGERS = "-c session_replication_role=replica"


@contextmanager
def fresh_database(template: ServerAddresses) -> Iterator[Urls]:
    """A database that nobody else uses, cloned from the template, and an emptied Redis."""
    name = f"lockbox_{os.getpid()}_{next(NUMBERS)}"
    superuser = create_engine(template.superuser_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with superuser.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE lockbox STRATEGY FILE_COPY OWNER lockbox_owner"))
    with Redis.from_url(template.redis_url) as redis:
        redis.flushall()

    def here(url: str) -> str:
        return make_url(url).set(database=name).render_as_string(hide_password=False)

    with all_rights(here(template.superuser_url), here(template.notifications_database_url)):
        yield Urls(
            superuser=here(template.superuser_url),
            owner=here(template.owner_database_url),
            api=here(template.database_url),
            worker=here(template.worker_database_url),
            redis=template.redis_url,
            smtp=template.smtp_url,
            maildir=template.maildir,
            notifications=here(template.notifications_database_url),
        )
    with superuser.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    superuser.dispose()


@dataclass(frozen=True)
class SinkPorts:
    """Where the sinks of a process listen: for mail, a port at which nobody answers, and for webhook calls."""

    mail: int
    hole: int
    calls: list[int]

    def url(self, port: int) -> str:
        """Return the address of a webhook."""
        return f"http://{HOST}:{port}/"


def start_sinks(processes: Processes, mail: int | None = None, *, calls: int = 0) -> SinkPorts:
    """Start sinks as a process beside others, with a port for mail that may be known already."""
    found = SinkPorts(mail or own_port(), own_port(), [own_port() for _ in range(calls)])
    ports = [found.hole, *found.calls, found.mail]
    processes.launch("sinks", [sys.executable, "-m", "harness.sinks", *map(str, ports)])
    wait_for(found.mail)
    return found
