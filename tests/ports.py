"""Ports for what tests start: each process that runs tests looks in a range of its own."""

import os

from cli.stack import free_port

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
RANGE = 3000


def own_port(first: int) -> int:
    """Return a free port at or after this one, moved down by a range for each further process."""
    return free_port(first - RANGE * WORKER)
