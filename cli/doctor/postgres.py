"""Checks of Postgres with each process's database login."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from cli.doctor import clock
from cli.doctor.findings import DoctorFinding, failure, warning, well
from cli.doctor.written_keys import check_written_keys
from config.settings import LOOPBACK, Settings
from lockbox import migrations, postgres_version, startup_checks
from lockbox.database import make_engine
from lockbox.sql import is_pooled
from lockbox.startup_checks import UNAWAITED_STANDBY, ServerKind, StartupCheckFailed

CLOCK = text("SELECT clock_timestamp()")
KEEPS = text("SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'")
OWNER, DIRECT = "LOCKBOX_OWNER_DATABASE_URL", startup_checks.DIRECT
CHECKED_NAMES = frozenset({"verify-full"})
LOGINS = {
    ServerKind.API: "lockbox_api",
    ServerKind.WORKER: "lockbox_worker",
    ServerKind.NOTIFICATIONS: "lockbox_notifications",
    ServerKind.CONNECTORS: "lockbox_connectors",
}
COMMENT = re.compile(r"--.*$", re.MULTILINE)
GRANT = re.compile(
    r"GRANT\s+(?P<rights>.+?)\s+ON\s+(?P<functions>FUNCTION\s+)?(?P<things>.+?)\s+TO\s+(?P<to>.+)", re.DOTALL
)
COMMA = re.compile(r",\s*(?![^()]*\))")
RIGHT = re.compile(r"(\w+)\s*(?:\((.+)\))?", re.DOTALL)
# Each right is on a table, on columns of a table, or to call a function by its name.
LACKING = text("""
SELECT g."right", g.thing, g.columns FROM jsonb_to_recordset(CAST(:granted AS jsonb))
    AS g ("right" text, thing text, columns text[])
WHERE CASE
    WHEN g."right" = 'EXECUTE' THEN EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
        AND p.proname = split_part(g.thing, '(', 1) AND NOT has_function_privilege(p.oid, 'EXECUTE'))
    WHEN to_regclass('public.' || g.thing) IS NULL THEN true
    WHEN g.columns IS NULL THEN NOT has_table_privilege('public.' || g.thing, g."right")
    ELSE EXISTS (SELECT FROM unnest(g.columns) AS c (name)
        WHERE NOT has_column_privilege('public.' || g.thing, c.name, g."right"))
END ORDER BY 1, 2
""")


def check_postgres(settings: Settings) -> Iterator[DoctorFinding]:
    is_known = False
    for variable, url in _logins(settings):
        check = f"Postgres, {variable.removeprefix('LOCKBOX_').removesuffix('_URL').lower()}"
        engine = make_engine(url, role="doctor")
        try:
            with engine.connect() as connection:
                yield from _encryption(
                    check, variable, url, connection, is_strict=settings.environment == "production"
                )
                if old := postgres_version.too_old(postgres_version.read_number(connection)):
                    yield failure(check, old, postgres_version.GET_IT)
                    continue
                yield from _rights(check, variable, settings, engine, connection)
                if not is_known:
                    is_known = True
                    yield from _server(connection)
        except OperationalError as error:
            refused = startup_checks.refusal(variable, error) or startup_checks.unreachable(variable, error)
            yield failure(check, refused.found, refused.fix)
        except SQLAlchemyError as error:
            yield failure(check, f"{variable}: {type(error).__name__}", "see the log of Postgres")
        finally:
            engine.dispose()


def _logins(settings: Settings) -> Iterator[tuple[str, str]]:
    for variable in (*ServerKind, OWNER):
        value = getattr(settings, variable.removeprefix("LOCKBOX_").lower())
        if value is not None:
            yield str(variable), value.get_secret_value()


def _encryption(
    check: str, variable: str, url: str, connection: Connection, *, is_strict: bool
) -> Iterator[DoctorFinding]:
    driver = connection.connection.driver_connection
    # If the URL has several hosts, use the host that was connected to.
    host = make_url(url).host or (driver.info.host if driver else None)
    if not host or host in LOOPBACK or host.startswith("/"):
        return
    found = driver.info.get_parameters().get("sslmode") if driver else None
    is_encrypted = bool(driver and driver.pgconn.ssl_in_use)
    fix = f"add ?sslmode=verify-full&sslrootcert=FILE to {variable}, with the authority of Postgres' certificate"
    if not is_encrypted:
        level = failure if is_strict else warning
        yield level(check, f"the connection to {host} is not encrypted", fix)
    elif found not in CHECKED_NAMES:
        yield warning(check, f"nobody checks that {host} is who it says (sslmode={found})", fix)


def _rights(
    check: str, variable: str, settings: Settings, engine: Engine, connection: Connection
) -> Iterator[DoctorFinding]:
    try:
        if variable == OWNER:
            migrations.check_owner(connection)
            startup_checks.fits(connection)
        else:
            _check_process(settings, ServerKind(variable), engine)
    except StartupCheckFailed as unfit:
        yield failure(check, unfit.found, unfit.fix)
    except migrations.OwnerRefused as refused:
        found, _, fix = str(refused).rpartition(": ")
        yield failure(check, found, fix)
    else:
        yield from _process_findings(check, variable, settings, connection) or [
            well(check, "reached, with the rights that it needs and no others, and the schema of this version")
        ]
        if variable != OWNER:
            yield from check_written_keys(settings, ServerKind(variable), engine)


def _process_findings(check: str, variable: str, settings: Settings, connection: Connection) -> list[DoctorFinding]:
    if variable == OWNER:
        return []
    kind = ServerKind(variable)
    return [*_missing_rights(check, kind, connection), *_room(check, kind, settings, connection)]


def _missing_rights(check: str, kind: ServerKind, connection: Connection) -> Iterator[DoctorFinding]:
    """Compare with this version's schema only: a later schema may grant other rights."""
    if migrations.current(connection) != migrations.head():
        return
    missing = lacking(connection, kind)
    if missing:
        more = f" and {len(missing) - 1} more rights" if len(missing) > 1 else ""
        login = connection.engine.url.username
        yield failure(
            check,
            f"{kind}: this login lacks {missing[0].right} on {missing[0].thing}{more}",
            f"as lockbox_owner: {'; '.join(f'{one.statement} TO {login}' for one in missing)}",
        )


def _room(check: str, kind: ServerKind, settings: Settings, connection: Connection) -> Iterator[DoctorFinding]:
    """Report too few connections for this process, or for all processes together.

    The check counts one process of each kind in `ALWAYS`, or the living processes if they open more.
    """
    if is_pooled(connection):
        return
    opens = {one: rules.connections for one, rules in startup_checks.RULES.items()}
    opens[ServerKind.API] *= settings.api_processes
    found = startup_checks.connection_budget(connection, kind, startup_checks.node_here(kind))
    given = found.allowed if found.of_login is None else min(found.allowed, found.of_login)
    # The name of a worker's node is not known here: the promised connections may include this worker's.
    living = found.promised + (opens[kind] if kind is ServerKind.API else 0)
    together = max(living, sum(opens[one] for one in startup_checks.ALWAYS))
    fix = startup_checks.allow_more_connections(connection, opens[kind], together)
    if given < opens[kind]:
        yield failure(
            check,
            f"{kind}: this process opens up to {opens[kind]} connections, and Postgres gives this login {given}",
            fix,
        )
    elif found.allowed < together:
        yield failure(
            check,
            f"all processes together open up to {together} connections, and Postgres gives {found.allowed}",
            fix,
        )


def _check_process(settings: Settings, kind: ServerKind, engine: Engine) -> None:
    """Run the process's start-up checks."""
    url = settings.database_direct_url
    if kind != ServerKind.WORKER or url is None:
        startup_checks.check(engine, kind, direct=engine if kind == ServerKind.WORKER else None)
        return
    direct = make_engine(url.get_secret_value(), role="doctor")
    try:
        startup_checks.check(engine, kind, direct=direct)
    finally:
        direct.dispose()


def _server(connection: Connection) -> Iterator[DoctorFinding]:
    def now() -> float:
        read: datetime = connection.execute(CLOCK).scalar_one()
        return read.timestamp()

    now()  # the first statement takes longer
    yield clock.compare("Clock, Postgres", "Postgres", now)
    check = "Postgres, server"
    findings = [
        failure(
            check,
            f"{name} is off: a crash of its machine may lose or damage what was committed",
            f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()",
        )
        for name in connection.execute(KEEPS).scalars()
    ]
    if startup_checks.has_lagging_standby(connection):
        findings.append(warning(check, UNAWAITED_STANDBY, "name it in synchronous_standby_names"))
    version = postgres_version.named(postgres_version.read_number(connection))
    yield from findings or [well(check, f"version {version}, keeps what it commits")]


@dataclass(frozen=True)
class GrantedRight:
    right: str
    thing: str
    columns: tuple[str, ...] | None = None

    @property
    def statement(self) -> str:
        columns = f" ({', '.join(self.columns)})" if self.columns else ""
        return f"GRANT {self.right}{columns} ON {'FUNCTION ' if self.right == 'EXECUTE' else ''}{self.thing}"


def lacking(connection: Connection, kind: ServerKind) -> list[GrantedRight]:
    granted = [vars(right) for right in granted_rights(LOGINS[kind])]
    rows = connection.execute(LACKING, {"granted": json.dumps(granted)})
    return [GrantedRight(row.right, row.thing, tuple(row.columns) if row.columns else None) for row in rows]


@cache
def granted_rights(login: str) -> tuple[GrantedRight, ...]:
    script = COMMENT.sub("", (files("lockbox") / "schema" / "grants.sql").read_text(encoding="utf-8"))
    return tuple(right for statement in script.split(";") for right in _parsed(statement.strip(), login))


def _parsed(statement: str, login: str) -> Iterator[GrantedRight]:
    found = GRANT.fullmatch(statement)
    if found is None or login not in COMMA.split(found["to"].strip()):
        return
    for thing in COMMA.split(found["things"]):
        for right in COMMA.split(found["rights"]):
            named = RIGHT.fullmatch(right.strip())
            if named:
                columns = tuple(one.strip() for one in named[2].split(",")) if named[2] else None
                yield GrantedRight(named[1], " ".join(thing.split()), columns)
