"""Start the API server: `python -m api`; it refuses excess database rights and an unknown schema."""

import argparse
import gc
from contextlib import suppress

import uvicorn

from api.app import make_app, make_database, make_vital
from api.http_protocol import ClientBounds, bounded
from api.server import ApiServer
from config import logging as lockbox_logging
from config.settings import LOOPBACK, Settings, UnsafeSettings, load
from lockbox import failpoints, startup_checks
from lockbox.failpoints import UnknownFailpoint

MOST_KEPT_OPEN_SECONDS = 5
SHUTDOWN_SECONDS = 10
NOT_STARTED = 3


def main() -> None:
    """Check the settings and the login, then serve."""
    # Imported objects stay for ever, so the garbage collector need not scan them again, also not at exit.
    gc.freeze()
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    where = parser.parse_args()
    try:
        settings = _for(load(), where.host)
        failpoints.arm(settings.failpoint)
        database = make_database(settings)
        lockbox_logging.configure(settings)
        app = make_app(settings, database, make_vital(settings, database))
        startup_checks.wait_until_fit(database.engine, startup_checks.ServerKind.API)
    except (UnsafeSettings, UnknownFailpoint, startup_checks.StartupCheckFailed) as refused:
        raise SystemExit(f"lockbox: {refused}") from None
    config = uvicorn.Config(
        app,
        host=where.host,
        port=where.port,
        http=bounded(ClientBounds(per_address=settings.connections_per_address, trusted=settings.trusted_proxies)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=MOST_KEPT_OPEN_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = ApiServer(config, app.state.live_updates)
    # Collecting everything created so far takes a tenth of a second, in which no request is answered.
    gc.collect()
    gc.freeze()
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        raise SystemExit(NOT_STARTED)


def _for(settings: Settings, host: str) -> Settings:
    if settings.playground and host not in LOOPBACK:
        raise UnsafeSettings("LOCKBOX_PLAYGROUND works only on loopback. Leave out --host")
    return settings


if __name__ == "__main__":
    main()
