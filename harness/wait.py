"""Wait for an event. The time limit only decides whether the event happens at all, never how fast it must be."""

import time
from collections.abc import Callable


def within(seconds: float, happened: Callable[[], object], pause: float = 0.02) -> bool:
    """Check repeatedly, at least once; return False if it did not happen in time."""
    until = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > until:
            return False
        time.sleep(pause)
    return True


def wait_for(what: str, happened: Callable[[], object], seconds: float, pause: float = 0.05) -> None:
    """Raises RuntimeError, with `what`, if it did not happen in time."""
    if not within(seconds, happened, pause):
        raise RuntimeError(f"did not happen within {seconds:g} s: {what}")
