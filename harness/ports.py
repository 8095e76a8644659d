"""Ports for tests' servers: each process that starts servers has its own range, also beside other test suites."""

import socket
from collections.abc import Iterator
from itertools import chain, repeat

from config import ports
from harness.wait import within

PATIENCE = 60.0
PLACES: Iterator[int] = chain.from_iterable(ports.own() for _ in repeat(None))
"""Our own ports in an endless cycle. The range is reserved at the first use."""


def own_port(room: int = 1) -> int:
    """Return a free port for the caller alone; `room` is how many ports from it on are the caller's.

    A port is given again only after all others were given.
    """
    found: list[int] = []
    for _ in range(2 * len(ports.own())):
        port = next(PLACES)
        follows = bool(found) and port == found[-1] + 1
        found = [*(found if follows else ()), port] if ports.is_free(port) else []
        if len(found) == room:
            return found[0]
    raise OSError(f"something listens on the ports from {ports.own().start} on: end it")


def wait_until_listening(port: int) -> None:
    """Raises RuntimeError after a minute."""
    if not within(PATIENCE, lambda: _is_listened_on(port), pause=0.05):
        raise RuntimeError(f"nobody listens on port {port}")


def _is_listened_on(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))
