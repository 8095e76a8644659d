"""Waiting for something to happen: the limit is about whether it does at all, never about how fast."""

import time
from collections.abc import Callable


def within(seconds: float, happened: Callable[[], object], pause: float = 0.02) -> bool:
    """Look every so often until something has happened, at least once; return False where it did not in time."""
    until = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > until:
            return False
        time.sleep(pause)
    return True


def wait_for(what: str, happened: Callable[[], object], seconds: float, pause: float = 0.05) -> None:
    """Look every so often until something has happened.

    Raises:
        RuntimeError: it did not happen in time; the message says what.
    """
    if not within(seconds, happened, pause):
        raise RuntimeError(f"did not happen within {seconds:g} s: {what}")
