"""Starts the API: `python -m api`; refuses to serve with too many rights or on a schema it does not know."""

import argparse
import time

import uvicorn
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from api.app import make_app, make_database
from config import logging as lockbox_logging
from config.settings import UnsafeSettings, load
from lockbox.standing import NotFit, Server, check

WAIT_FOR_POSTGRES = 30
MOST_KEPT_OPEN_SECONDS = 5
SHUTDOWN_SECONDS = 10


def main() -> None:
    """Check the settings and the login, then serve."""
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    where = parser.parse_args()
    try:
        settings = load()
        database = make_database(settings)
    except UnsafeSettings as unsafe:
        raise SystemExit(f"lockbox: {unsafe}") from None
    lockbox_logging.configure(settings)
    _wait_until_fit(database.engine)
    uvicorn.run(
        make_app(settings, database),
        host=where.host,
        port=where.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=MOST_KEPT_OPEN_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def _wait_until_fit(engine: Engine) -> None:
    for second in range(WAIT_FOR_POSTGRES, -1, -1):
        try:
            check(engine, Server.API)
        except NotFit as unfit:
            raise SystemExit(f"lockbox: {unfit}") from None
        except OperationalError as away:
            if second == 0:
                raise SystemExit("lockbox: Postgres cannot be reached at LOCKBOX_DATABASE_URL") from away
            time.sleep(1)
        else:
            return


main()
