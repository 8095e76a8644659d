"""The schema's history, and what a server asks of it: bring it up, and is it the one I was built for?"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

FOLDER = Path(__file__).parent


def _config(url: str = "") -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def upgrade(owner_url: str, revision: str = "head") -> None:
    """Bring the database to the revision, as its owner; one transaction, nothing half-done.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away, or the login may not.
    """
    engine = create_engine(owner_url, poolclass=NullPool)
    with engine.begin() as connection:
        config = _config(owner_url)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def head() -> str:
    """Return the revision that this code was built for."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def current(connection: Connection) -> str | None:
    """Return the revision of the database, None where it has none."""
    return MigrationContext.configure(connection).get_current_revision()
