"""What a server process checks before it serves: that its login may no more than it needs, and the schema fits."""

from enum import StrEnum

from sqlalchemy import Connection, Engine, text

from lockbox import migrations

OWNER = "lockbox_owner"


class NotFit(Exception):  # noqa: N818 - it names what was found
    """The process must not serve; the message says what to change."""


class Server(StrEnum):
    """The two kinds of server process and the environment variable that names their login."""

    API = "LOCKBOX_DATABASE_URL"
    WORKER = "LOCKBOX_WORKER_DATABASE_URL"


FORBIDDEN = {
    Server.API: (("events", "UPDATE"), ("events", "DELETE"), ("decisions", "UPDATE"), ("decisions", "DELETE")),
    Server.WORKER: (
        ("decisions", "INSERT"),
        ("tokens", "SELECT"),
        ("events", "UPDATE"),
        ("events", "DELETE"),
        ("requests", "INSERT"),
    ),
}
NEEDED = {
    Server.API: (("decisions", "INSERT"), ("requests", "INSERT")),
    Server.WORKER: (("notices", "UPDATE"), ("events", "INSERT")),
}

WHO = text("""
SELECT current_user AS name, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolcreatedb,
    pg_has_role(current_user, (SELECT nspowner FROM pg_namespace WHERE nspname = 'public'), 'MEMBER') AS owns
FROM pg_roles r WHERE r.rolname = current_user
""")
MAY = text("SELECT has_table_privilege(:table, :right)")


def check(engine: Engine, server: Server) -> None:
    """Refuse to serve with more rights than needed, or on a schema that this code was not built for.

    Raises:
        NotFit: with a line that says what to change.
        sqlalchemy.exc.OperationalError: Postgres can't be reached.
    """
    with engine.connect() as connection:
        _refuse_owner(connection, server)
        fits(connection)
        for table, right in FORBIDDEN[server]:
            if _may(connection, table, right):
                raise NotFit(
                    f"{server}: this login may {right} {table}, which this process must not; use its own login"
                )
        for table, right in NEEDED[server]:
            if not _may(connection, table, right):
                raise NotFit(f"{server}: this login may not {right} {table}; is it the login of another process?")


def fits(connection: Connection) -> None:
    """Check that the schema is the one this code was built for.

    Raises:
        NotFit: the database has no migrations, older ones or newer ones.
    """
    known = connection.execute(text("SELECT to_regclass('public.alembic_version') IS NOT NULL")).scalar_one()
    found = migrations.current(connection) if known else None
    wanted = migrations.head()
    if found is None:
        raise NotFit("the database has no migrations yet; run `lockbox migrate` with LOCKBOX_OWNER_DATABASE_URL set")
    if found != wanted:
        raise NotFit(
            f"the database is at migration {found}, this version needs {wanted}; run `lockbox migrate`, or upgrade"
        )


def _refuse_owner(connection: Connection, server: Server) -> None:
    row = connection.execute(WHO).one()
    excess = [
        word
        for word, has in (
            ("a superuser", row.rolsuper),
            ("exempt from row security", row.rolbypassrls),
            ("allowed to make roles", row.rolcreaterole),
            ("allowed to make databases", row.rolcreatedb),
            ("the owner of the tables", row.owns),
        )
        if has
    ]
    if excess:
        raise NotFit(f"{server}: {row.name} is {' and '.join(excess)}; use a login without such rights")


def _may(connection: Connection, table: str, right: str) -> bool:
    return bool(connection.execute(MAY, {"table": table, "right": right}).scalar_one())
