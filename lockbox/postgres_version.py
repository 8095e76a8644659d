"""The versions of Postgres that Lockbox runs on."""

from sqlalchemy import Connection, text

OLDEST = 18
BASE = 10_000
NUMBER = text("SELECT current_setting('server_version_num')::int")
GET_IT = (
    "install Postgres 18 (Debian and Ubuntu: the package postgresql-18 of PostgreSQL's own repository, PGDG, which "
    "their package postgresql-common adds; Red Hat: postgresql18-server), and bring a database along by pg_upgrade "
    "or a dump"
)


def read_number(connection: Connection) -> int:
    """For example 180001."""
    return int(connection.execute(NUMBER).scalar_one())


def named(number: int) -> str:
    """For example 18.1."""
    return f"{number // BASE}.{number % BASE}"


def too_old(number: int) -> str | None:
    if number // BASE >= OLDEST:
        return None
    return f"this is Postgres {named(number)}, and Lockbox needs {OLDEST} or later"
