"""Start Flower: read-only, with credentials, and on loopback unless configured otherwise."""

import argparse
import gc
import socket

import structlog
from flower import app as flower_app
from flower import urls

from config import logging as lockbox_logging
from config.settings import Settings
from worker.app import app
from worker.flower_access import guarded
from worker.runtime import settings

log = structlog.get_logger(__name__)

MOST_TASKS = 10_000


def arguments(settings: Settings) -> list[str]:
    """Raises SystemExit if Flower would be open to everyone."""
    if not settings.flower_user or not settings.flower_password:
        raise SystemExit("lockbox: Flower needs LOCKBOX_FLOWER_USER and LOCKBOX_FLOWER_PASSWORD; it is never open")
    if settings.flower_unauthenticated_api:
        raise SystemExit("lockbox: unset FLOWER_UNAUTHENTICATED_API; it opens Flower's API to everybody")
    return [
        f"--address={settings.flower_address}",
        f"--port={settings.flower_port}",
        f"--basic-auth={settings.flower_user}:{settings.flower_password.get_secret_value()}",
        "--read-only",
        f"--max-tasks={MOST_TASKS}",
        "--persistent=false",
    ]


def main() -> None:
    """Run Flower in this process, so that the password is in no command line."""
    # As in the API, imported objects stay, so the collector need not visit them.
    gc.freeze()
    parser = argparse.ArgumentParser(prog="python -m worker.flower", description=__doc__)
    parser.add_argument("--fd", type=int, help="serve on this socket, which the parent process has bound")
    given = parser.parse_args().fd
    chosen = settings()
    options = arguments(chosen)
    lockbox_logging.configure(chosen)
    urls.handlers[:] = guarded(urls.handlers)
    if given is not None:
        listener = socket.socket(fileno=given)
        listener.setblocking(False)
        flower_app.bind_sockets = lambda *_, **__: [listener]
    try:
        app.start(["flower", *options])
    except OSError as error:
        raise SystemExit(
            f"lockbox: Flower cannot listen on {chosen.flower_address}, port {chosen.flower_port}: {error.strerror}. "
            "Free the port, or choose another LOCKBOX_FLOWER_PORT"
        ) from None


if __name__ == "__main__":
    main()
