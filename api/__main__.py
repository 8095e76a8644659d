"""Starts the API: `python -m api`; refuses to serve with too many rights or on a schema it does not know."""

import argparse

import uvicorn

from api.app import make_app, make_database
from config import logging as lockbox_logging
from config.settings import UnsafeSettings, load
from lockbox import failpoints
from lockbox.failpoints import UnknownFailpoint
from lockbox.standing import NotFit, Server, wait_until_fit

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
        failpoints.arm(settings.failpoint)
        database = make_database(settings)
        lockbox_logging.configure(settings)
        wait_until_fit(database.engine, Server.API)
    except (UnsafeSettings, UnknownFailpoint, NotFit) as refused:
        raise SystemExit(f"lockbox: {refused}") from None
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


main()
