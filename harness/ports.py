"""Ports for what tests start: each process that runs tests has a range of its own, also beside other suites."""

from collections.abc import Iterator
from itertools import chain, repeat

from config import ports

PLACES: Iterator[int] = chain.from_iterable(ports.own() for _ in repeat(None))
"""Our own ports, over and over; the range is taken at the first look."""


def own_port(room: int = 1) -> int:
    """Return a port that nobody listens on and nobody else is given; so many ports from it on are for the asker.

    It comes again when all others were given.
    """
    found: list[int] = []
    for _ in range(2 * len(ports.own())):
        port = next(PLACES)
        follows = bool(found) and port == found[-1] + 1
        found = [*(found if follows else ()), port] if ports.is_free(port) else []
        if len(found) == room:
            return found[0]
    raise OSError(f"something listens on the ports from {ports.own().start} on: end it")
