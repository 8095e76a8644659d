"""A Postgres where a connector opens windows: another database, its administrator's role, and protected tables."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy import Engine, make_url

from catalogue.connector_document import ServiceConnector
from catalogue.service_catalogue import Catalogue, Service
from connectors.connection_steps import ConnectionDriver
from connectors.credential_requests import ConnectionStatus, request_credential
from connectors.models import ConnectorKind
from connectors.postgres_roles import PostgresRoles, role_name
from connectors.scram import new_password, verifier_of
from connectors.target_slots import TargetSlots
from connectors.targets import TargetFolder
from harness.people import HERE, SETTINGS, World
from harness.stage import run_as_superuser
from lockbox.database import Database
from lockbox.requests.lifecycle import Action
from tests.database.scenes import read, write

NUMBERS = count(1)
DATABASE = "database:orders"
TARGET = "orders"
BOTH = ("connector.after_claim", "connector.before_record", "connector.after_record")
OF_OPEN = ("connector.before_open", "connector.after_open", *BOTH)
OF_CLOSE = ("connector.after_lockout", "connector.before_drop", "connector.after_close", *BOTH)
"""At which failpoints the tests of connectors have a process die while it opens, and while it closes."""


@dataclass(frozen=True)
class PostgresTarget:
    """The target's address, and the folder where the connector worker finds the credentials of its administrator."""

    superuser: str
    folder: Path
    database: str
    admin: str
    reader: str
    writer: str
    name: str = TARGET

    def catalogue(self, tenant: str) -> Catalogue:
        """Return the usual catalogue, with one service that has a connector for this target."""
        actions = {"read": (self.reader,), "change": (self.reader, self.writer)}
        connector = ServiceConnector(
            kind="postgres", target=self.name, tenant=tenant, resource=DATABASE, actions=actions, connections=2
        )
        services = dict(SETTINGS.catalogue.services)
        services["exchange-online"] = Service(title="Orders", connector=connector)
        return SETTINGS.catalogue.model_copy(update={"services": services})

    def driver(self, db: Database, tenant: str, slots: TargetSlots | None = None) -> ConnectionDriver:
        roles = PostgresRoles(TargetFolder(self.folder))
        return ConnectionDriver(db, self.catalogue(tenant), {ConnectorKind.POSTGRES: roles}, slots)

    def sign_in(self, connection_id: UUID, password: str) -> "psycopg.Connection[tuple[Any, ...]]":
        url = make_url(self.superuser)
        return psycopg.connect(
            host=url.host,
            port=url.port,
            user=role_name(connection_id),
            password=password,
            dbname=self.database,
            autocommit=True,
        )

    def roles(self) -> list[str]:
        """Return the roles that this target's administrator made for windows on the whole server."""
        with psycopg.connect(self.superuser.replace("+psycopg", ""), autocommit=True) as root:
            rows = root.execute(
                "SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid "
                "JOIN pg_roles a ON a.oid = m.member WHERE a.rolname = %s AND r.rolname LIKE 'lbx%%'",
                [self.admin],
            )
            return sorted({name for (name,) in rows})

    def wait_for_sessions(self) -> None:
        """Wait until no session is connected to the target."""
        with psycopg.connect(self.superuser.replace("+psycopg", ""), autocommit=True) as root:
            for _ in range(500):
                query = "SELECT FROM pg_stat_activity WHERE datname = %s"
                if root.execute(query, [self.database]).fetchone() is None:
                    return
                time.sleep(0.01)
        raise AssertionError("something is still connected")

    def end_sessions(self) -> None:
        """End every session at the target that uses a window's role."""
        ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename::text ^@ 'lbx_' AND datname = "
        run_as_superuser(self.superuser, f"{ending}'{self.database}'")

    def reset(self) -> None:
        """Remove what a test has left at the target, and restore the administrator's rights."""
        run_as_superuser(
            _inside(self.superuser, self.database),
            f"ALTER ROLE {self.admin} LOGIN",
            f"GRANT {self.reader}, {self.writer} TO {self.admin} WITH ADMIN OPTION, INHERIT FALSE, SET FALSE",
            "DELETE FROM orders; INSERT INTO orders VALUES (1), (2)",
            *(statement for name in self.roles() for statement in (f"DROP OWNED BY {name}", f"DROP ROLE {name}")),
        )
        (self.folder / self.name).chmod(0o600)

    def break_login(self) -> None:
        run_as_superuser(self.superuser, f"ALTER ROLE {self.admin} NOLOGIN")

    def mend_login(self) -> None:
        run_as_superuser(self.superuser, f"ALTER ROLE {self.admin} LOGIN")


@contextmanager
def postgres_target(superuser: str, folder: Path, options: str = "") -> Iterator[PostgresTarget]:
    """Make a target on a server, its database with these options; at the end remove it and all roles made there."""
    tag = f"{os.getpid()}_{next(NUMBERS)}"
    target = PostgresTarget(superuser, folder, f"target_{tag}", f"admin_{tag}", f"reader_{tag}", f"writer_{tag}")
    url = make_url(superuser)
    run_as_superuser(
        superuser,
        f"CREATE DATABASE {target.database} {options}",
        f"CREATE ROLE {target.admin} LOGIN CREATEROLE PASSWORD 'secret-of-the-target'",
        f"CREATE ROLE {target.reader}",
        f"CREATE ROLE {target.writer}",
        f"GRANT {target.reader}, {target.writer} TO {target.admin} WITH ADMIN OPTION, INHERIT FALSE, SET FALSE",
    )
    with psycopg.connect(_inside(superuser, target.database), autocommit=True) as root:
        root.execute("CREATE TABLE orders (id integer); INSERT INTO orders VALUES (1), (2)")
        root.execute(f"GRANT SELECT ON orders TO {target.reader}")
        root.execute(f"GRANT INSERT, DELETE ON orders TO {target.writer}")
        root.execute(f"GRANT CREATE ON SCHEMA public TO {target.writer}")
    folder.mkdir(exist_ok=True)
    file = folder / TARGET
    file.write_text(
        f"postgresql://{target.admin}:secret-of-the-target@{url.host}:{url.port}/{target.database}\n",
        encoding="utf-8",
    )
    file.chmod(0o600)
    try:
        yield target
    finally:
        left = [f"DROP ROLE {name}" for name in target.roles()]
        roles = f"{target.admin}, {target.reader}, {target.writer}"
        run_as_superuser(superuser, f"DROP DATABASE {target.database} WITH (FORCE)", *left, f"DROP ROLE {roles}")


def _inside(superuser: str, database: str) -> str:
    return make_url(superuser).set(drivername="postgresql", database=database).render_as_string(hide_password=False)


@dataclass(frozen=True)
class OrdersWindow:
    """An open window for the target's database, and the credentials that the engineer gets for it."""

    world: World
    target: PostgresTarget
    request_id: UUID

    @classmethod
    def open(cls, world: World, target: PostgresTarget, *actions: str) -> "OrdersWindow":
        request = world.submit(resources=[DATABASE], actions=list(actions or ("read",)))
        world.act("ann", Action.APPROVE, request.id)
        return cls(world, target, request.id)

    def credential(self, who: str = "erin", tenant: str = "") -> tuple[ConnectionStatus, str]:
        """Request a credential for the target of `tenant`, by default the world's; return it with its password."""
        password = new_password()
        return self.ask(verifier_of(password), who, tenant), password

    def ask(self, verifier: str, who: str = "erin", tenant: str = "") -> ConnectionStatus:
        with self.world.db.transaction() as session:
            return request_credential(
                session,
                self.world.people[who],
                HERE,
                self.request_id,
                verifier=verifier,
                catalogue=self.target.catalogue(tenant or self.world.tenant.slug),
            )


class Plant(NamedTuple):
    """An open window, the driver of its connections, their target, and two logins to Lockbox's database."""

    window: OrdersWindow
    driver: ConnectionDriver
    target: PostgresTarget
    connectors: Database
    superuser: Engine


def again(superuser: Engine, one: UUID) -> None:
    """End the lease of a step whose process died."""
    write(
        superuser, "UPDATE connections SET run_at = clock_timestamp() WHERE id = :id AND run_at IS NOT NULL", id=one
    )


def told(db: Database, request_id: UUID) -> list[str]:
    """Return the events of a request about its connections, in order."""
    query = "SELECT action FROM events WHERE request_id = :id AND action LIKE 'connection%' ORDER BY at, id"
    return [row.action for row in read(db, query, id=request_id)]


def state_of(db: Database, one: UUID) -> str:
    return str(read(db, "SELECT state FROM connections WHERE id = :id", id=one)[0].state)
