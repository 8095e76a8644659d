"""The stage: servers, test databases on them, and each database as each login sees it."""

import fcntl
import itertools
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import psycopg
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import URL, Connection, Engine, TextClause, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from config.settings import Settings
from devstack import embedded, stack
from devstack.embedded import ServerAddresses
from devstack.embedded.servers import NAMES
from devstack.stack import Processes, StackPlan
from harness.network import HOST
from harness.ports import own_port
from lockbox import migrations
from lockbox.audit.log import signing_keys
from lockbox.database import Database, ProcessKeys, make_engine
from lockbox.identity.keyring import ApprovalKeys
from lockbox.pubsub import database_number
from lockbox.schedule import Schedule


def on_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


@dataclass(frozen=True)
class Urls:
    """The servers of one test, by login."""

    superuser: str
    owner: str
    api: str
    worker: str
    redis: str
    smtp: str
    maildir: Path
    notifications: str = ""
    connectors: str = ""

    def on(self, name: str) -> Self:
        return replace(
            self,
            superuser=on_database(self.superuser, name),
            owner=on_database(self.owner, name),
            api=on_database(self.api, name),
            worker=on_database(self.worker, name),
            notifications=on_database(self.notifications, name),
            connectors=on_database(self.connectors, name),
        )


# For the whole connection: each change discards all plans, and the statement that empties all tables takes longest to
# plan.
NO_TRIGGERS = "-c session_replication_role=replica"
RETRIED = 4.0
"""For how many seconds redis-py tries again by default if Redis is away."""
ALL_RIGHTS: dict[str, Engine] = {}
SCENE_SETTERS: dict[str, Engine] = {}
SENDERS: dict[str, Engine] = {}


@contextmanager
def all_rights(superuser_url: str, notifications_url: str = "") -> Iterator[None]:
    """Let tests read and write a database past all rules but triggers; they send with the worker's login."""
    name = str(make_url(superuser_url).database)
    if notifications_url:
        SENDERS[name] = make_engine(notifications_url, role="test-notifications", pool_size=4, overflow=20)
    ALL_RIGHTS[name] = create_engine(superuser_url, pool_size=1, max_overflow=20, pool_pre_ping=True)
    SCENE_SETTERS[name] = create_engine(
        superuser_url, pool_size=1, pool_pre_ping=True, connect_args={"options": NO_TRIGGERS}
    )
    yield
    ALL_RIGHTS.pop(name).dispose()
    SCENE_SETTERS.pop(name).dispose()
    if notifications_url:
        SENDERS.pop(name).dispose()


def as_sender(db: Database) -> Database:
    """Return the database as the notifications worker sees it; one on another Postgres port is returned as it is."""
    engine, url = SENDERS.get(str(db.engine.url.database)), db.engine.url
    if engine is None or url.username == "lockbox_notifications" or url.port != engine.url.port:
        return db
    return Database(engine, db.schedule, db.clock)


def unbound(db: Database) -> Engine:
    return ALL_RIGHTS[str(db.engine.url.database)]


def setting(db: Database) -> Database:
    """Return the database without row-level security, for a test's set-up."""
    return Database(unbound(db), db.schedule, db.clock)


def without_triggers(db: Database) -> Database:
    """Return the database for new rows that are known to be valid: neither triggers nor foreign keys check them."""
    return Database(SCENE_SETTERS[str(db.engine.url.database)], db.schedule, db.clock)


NUMBERS = itertools.count(1)
# Arming has more time than usual: machines may be busy, and work that is not armed in time is found only later.
ARM_SECONDS = 2.0
MEMORY = Path("/dev/shm")  # noqa: S108 - the folder made in it is this process' own
MEMORY_BYTES = 6 << 30
REDIS_DATABASES = 16
"""The default number of databases of Redis and Valkey."""
SERVERS = "servers"
# Rows that a migration has written stay.
TABLES = text("""
SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('alembic_version', 'turns')
ORDER BY 1
""")


@contextmanager
def superuser_at(url: str | URL) -> Iterator[Engine]:
    """Connect with every right; each SQL statement commits by itself."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


def run_as_superuser(url: str | URL, *statements: str) -> None:
    """Run each SQL statement by itself."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def delete_all_rows(connection: Connection) -> None:
    """Delete the rows of all our tables. Most tables are empty, and TRUNCATE takes longer than finding that out.

    The connection has to be made with NO_TRIGGERS.
    """
    connection.execute(_deleting(tuple(connection.execute(TABLES).scalars())))


@lru_cache
def _deleting(names: tuple[str, ...]) -> TextClause:
    parts = (f"_{name} AS (DELETE FROM {name})" for name in names)  # noqa: S608 - our own tables
    return text(f"WITH {', '.join(parts)} SELECT 1")


@contextmanager
def copied(superuser: str | URL, name: str, template: str = "lockbox") -> Iterator[None]:
    """Copy the migrated database, or another unused database, and drop the copy at the end."""
    run_as_superuser(superuser, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY OWNER lockbox_owner")
    try:
        yield
    finally:
        run_as_superuser(superuser, f"DROP DATABASE {name} WITH (FORCE)")


def hang_up_on_listeners(redis_url: str) -> None:
    """End each connection that listens to the channels of a Redis database."""
    with Redis.from_url(redis_url, protocol=2) as redis:
        for client in redis.client_list(_type="pubsub"):
            if int(client["db"]) == database_number(redis):
                redis.client_kill_filter(_id=client["id"])


def urls_at(servers: ServerAddresses, name: str) -> Urls:
    return Urls(
        superuser=servers.superuser_url,
        owner=servers.owner_database_url,
        api=servers.database_url,
        worker=servers.worker_database_url,
        redis=servers.redis_url,
        smtp=servers.smtp_url,
        maildir=servers.maildir,
        notifications=servers.notifications_database_url,
        connectors=servers.connectors_database_url,
    ).on(name)


@contextmanager
def fresh_database(template: ServerAddresses, *, flushes: bool = True) -> Iterator[Urls]:
    """Yield a database copied from the template, by default with an emptied Redis."""
    name = f"lockbox_{os.getpid()}_{next(NUMBERS)}"
    urls = urls_at(template, name)
    with copied(template.superuser_url, name), all_rights(urls.superuser, urls.notifications):
        if flushes:
            with Redis.from_url(template.redis_url) as redis:
                redis.flushdb()
        yield urls


@contextmanager
def empty_database(urls: Urls) -> Iterator[Urls]:
    name = f"{make_url(urls.owner).database}_empty"
    with copied(urls.superuser, name, "template0"):
        yield urls.on(name)


@contextmanager
def own_folder(name: str, place: Path | None = None) -> Iterator[Path]:
    """Make a folder that every user can reach (servers of root run as `nobody`), and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"lockbox-{name}-", dir=place))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _roomy_memory() -> Path | None:
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES
    return MEMORY if roomy else None


@contextmanager
def own_servers(name: str, only: Collection[str] = NAMES) -> Iterator[ServerAddresses]:
    """Start empty servers in the folder `servers` of a folder of their own.

    Their files are in memory if there is room: copying a database then takes a fifth of the time.
    """
    with own_folder(name, _roomy_memory()) as folder:
        servers = embedded.start(folder / SERVERS, environment="test", only=only)
        try:
            yield servers
        finally:
            servers.stop()


@contextmanager
def migrated_servers(name: str) -> Iterator[ServerAddresses]:
    """Start servers with a migrated database as the template."""
    with own_servers(name) as servers:
        _migrate(servers)
        yield servers


def _migrate(servers: ServerAddresses) -> None:
    # No commit waits for the disk: a killed server loses nothing by that, and the machine does not lose power.
    off = [f"ALTER SYSTEM SET {setting} = off" for setting in ("fsync", "full_page_writes")]
    # No one guesses a random password, and stretching it would take half of the time of a connection.
    logins = (
        servers.superuser_url,
        servers.owner_database_url,
        servers.database_url,
        servers.worker_database_url,
        servers.notifications_database_url,
        servers.connectors_database_url,
    )
    same = [f"ALTER ROLE {login.username} PASSWORD '{login.password}'" for login in map(make_url, logins)]
    run_as_superuser(servers.superuser_url, *off, "SELECT pg_reload_conf()", "SET scram_iterations = 1", *same)
    migrations.upgrade(servers.owner_database_url)


@contextmanager
def shared_folder(name: str) -> Iterator[Path]:
    """Make a folder for servers that several processes share, and stop all of them at the end."""
    with own_folder(name, _roomy_memory()) as folder:
        try:
            yield folder
        finally:
            for started in filter(Path.is_dir, folder.iterdir()):
                embedded.find(started).stop()


def shared_servers(folder: Path, number: int) -> ServerAddresses:
    """Start the Postgres and Redis of a shared folder, unless another process did, with a migrated database.

    Each process has a Redis database and a mail catcher of its own, by its number, from 0 on. If no Redis database is
    free, it shares nothing.
    """
    place = folder / SERVERS if number < REDIS_DATABASES else folder / f"{SERVERS}-{number}"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        servers = embedded.start(place, environment="test", only=("postgres", "redis"))
        # The marker is a file: a look into the database for its revision would keep others from copying it.
        migrated = folder / f"{place.name}.migrated"
        if not migrated.exists():
            _migrate(servers)
            migrated.touch()
    mail = embedded.start(folder / f"mail-{number}", environment="test", only=("mail",))
    redis_url = on_database(servers.redis_url, str(number % REDIS_DATABASES))
    return replace(servers, redis_url=redis_url, smtp_url=mail.smtp_url, maildir=mail.maildir)


@contextmanager
def own_stack(name: str) -> Iterator[StackPlan]:
    """Prepare a stack on servers of its own, whatever the environment says; mails go to a free port.

    The stack writes into the folder above its keys, which is removed at the end.
    """
    settings = Settings(
        environment="test",
        database_url=None,
        worker_database_url=None,
        notifications_database_url=None,
        owner_database_url=None,
        redis_url=None,
        smtp_url=SecretStr(f"smtp://{HOST}:{own_port()}"),
    )
    with own_folder(name) as folder:
        plan = stack.prepare(settings, folder / "servers", api_port=own_port(), flower_port=own_port())
        try:
            yield plan
        finally:
            servers_of(plan).stop()


def plan_for(urls: Urls, servers: ServerAddresses, keys: Path) -> StackPlan:
    """Return the plan of a stack on a database of its own; missing keys are made."""
    return StackPlan(
        database_url=urls.api,
        worker_database_url=urls.worker,
        notifications_database_url=urls.notifications,
        owner_database_url=urls.owner,
        redis_url=urls.redis,
        smtp_url=urls.smtp,
        servers=servers,
        keys=stack.make_keys(keys),
        api_port=own_port(),
        flower_port=own_port(),
        environment="test",
    )


def servers_of(plan: StackPlan) -> ServerAddresses:
    """Raises RuntimeError if the plan has no servers of its own."""
    if plan.servers is None:
        raise RuntimeError("this needs servers of its own: unset the LOCKBOX_ URLs of databases and Redis")
    return plan.servers


def superuser_url(plan: StackPlan) -> str:
    return on_database(servers_of(plan).superuser_url, str(make_url(plan.owner_database_url).database))


def approval_keys(plan: StackPlan) -> ApprovalKeys:
    return ApprovalKeys(signing_keys.read([plan.keys / stack.APPROVAL_KEY]))


@dataclass
class Stack:
    """`db` is as the API sees it; `superuser` has every right."""

    plan: StackPlan
    processes: Processes
    db: Database
    superuser: Engine

    def rows(self, query: str, **values: object) -> list[Any]:
        """Query with every right."""
        with self.superuser.connect() as connection:
            return list(connection.execute(text(query), values).all())

    def redis(self) -> "Redis":
        return Redis.from_url(self.plan.redis_url)


@contextmanager
def running(plan: StackPlan, processes: Processes, names: Iterable[str]) -> Iterator[Stack]:
    """Start some of the processes, wait for the API if it is one of them, and stop all of them at the end."""
    schedule = Schedule(plan.redis_url, patience=ARM_SECONDS)
    db = Database(make_engine(plan.database_url, role="stage"), schedule, keys=ProcessKeys(approval_keys(plan)))
    superuser = create_engine(superuser_url(plan), isolation_level="AUTOCOMMIT", pool_pre_ping=True)
    try:
        for name in names:
            processes.start(name)
        if "api" in processes.running:
            processes.wait_until_ready()
        yield Stack(plan, processes, db, superuser)
    finally:
        processes.stop()
        db.dispose()
        superuser.dispose()
