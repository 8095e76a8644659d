"""Start the API server: `python -m api`.

It refuses to start if its database login has too many rights, or if the schema is unknown.
"""

import argparse
import gc
import socket
import sys
from contextlib import suppress
from functools import partial

import uvicorn
from fastapi import FastAPI

from api.app import CONNECTIONS, make_app, make_database, make_reading, make_vital
from api.client_counts import ClientCounts
from api.gateway import GateRuntime
from api.http_protocol import ClientBounds, bounded
from api.supervisor import NOT_STARTED, ApiServer, Supervisor
from catalogue.unsafe_settings import UnsafeSettings
from config import logging as lockbox_logging
from config import traces
from config.server_urls import MOST_PORT
from config.settings import LOOPBACK, Settings, load
from lockbox import failpoints, startup_checks
from lockbox.failpoints import UnknownFailpoint

MOST_KEPT_OPEN_SECONDS = 5
SHUTDOWN_SECONDS = 10


def main() -> None:
    # Imported objects live until exit. Frozen, they are not scanned by the garbage collector again, not even at exit.
    gc.freeze()
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=8000)
    parser.add_argument("--fd", type=int, help="serve on this socket, which whoever starts it has bound")
    where = parser.parse_args()
    given = None if where.fd is None else _given(where.fd)
    try:
        settings = _for(load(), given.getsockname()[0] if given else where.host)
        failpoints.arm(settings.failpoint)
        traces.check(settings)
    except (UnsafeSettings, UnknownFailpoint) as refused:
        raise SystemExit(f"lockbox: {refused}") from None
    counts = ClientCounts(settings.api_processes)
    app = _checked_app(settings, counts)
    listener = given or _listener(where.host, where.port)
    config = _config(settings, counts)
    if settings.api_processes == 1:
        _serve(settings, config, app, listener)
        return
    # Each API process makes its own app. This one was only made to check that it can be made.
    app.state.database.dispose()
    app.state.vital.engine.dispose()
    supervisor = Supervisor(counts, listener, partial(_serve_beside_others, settings, config, counts, listener))
    sys.exit(supervisor.run(settings.api_processes))


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= MOST_PORT):
        raise argparse.ArgumentTypeError(f"name a port from 1 to {MOST_PORT}")
    return int(text)


def _given(number: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=number)
        is_internet = listener.family in {socket.AF_INET, socket.AF_INET6} and listener.type == socket.SOCK_STREAM
    except OSError:
        is_internet = False
    if not is_internet:
        raise SystemExit(f"lockbox: --fd {number} is no socket that a TCP server can listen on")
    return listener


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Otherwise IPv4 clients would get IPv6 addresses, which no network of LOCKBOX_TRUSTED_PROXIES contains.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError as error:
        raise SystemExit(
            f"lockbox: cannot listen on {host}, port {port}: {error.strerror}. Free the port, "
            "or choose another --host or --port"
        ) from None
    return listener


def _checked_app(settings: Settings, counts: ClientCounts) -> FastAPI:
    try:
        database = make_database(settings)
        lockbox_logging.configure(settings)
        vital, reading = make_vital(settings, database), make_reading(settings, database)
        app = make_app(settings, database, vital, counts, reading)
        most = CONNECTIONS * settings.api_processes
        startup_checks.wait_until_fit(database.engine, startup_checks.ServerKind.API, connections=most)
    except (UnsafeSettings, startup_checks.StartupCheckFailed) as refused:
        raise SystemExit(f"lockbox: {refused}") from None
    return app


def _config(settings: Settings, counts: ClientCounts) -> uvicorn.Config:
    bounds = ClientBounds(
        per_address=settings.connections_per_address, trusted=settings.trusted_proxies, counts=counts
    )
    return uvicorn.Config(
        "",
        http=bounded(bounds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=MOST_KEPT_OPEN_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def _serve_beside_others(
    settings: Settings, config: uvicorn.Config, counts: ClientCounts, listener: socket.socket, lifeline: int
) -> None:
    _serve(settings, config, _checked_app(settings, counts), listener, lifeline)


def _serve(
    settings: Settings, config: uvicorn.Config, app: FastAPI, listener: socket.socket, lifeline: int | None = None
) -> None:
    gateway: GateRuntime = app.state.gateway
    config.app = gateway.before(app)
    server = ApiServer(config, [app.state.live_updates.shut, gateway.streams.shut], lifeline)
    traces.start(settings, "lockbox-api")
    # Collect now: scanning all objects created so far takes a tenth of a second, during which no request is answered.
    gc.collect()
    gc.freeze()
    with suppress(KeyboardInterrupt):
        server.run([listener])
    if not server.started:
        raise SystemExit(NOT_STARTED)


def _for(settings: Settings, host: str) -> Settings:
    if settings.playground and host not in LOOPBACK:
        raise UnsafeSettings("LOCKBOX_PLAYGROUND works only on loopback. Leave out --host")
    return settings


if __name__ == "__main__":
    main()
