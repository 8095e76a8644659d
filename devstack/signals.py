"""Ctrl-C, SIGTERM and a closed terminal all lead to the same cleanup."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_on_signals() -> None:
    """Turn the signals into SystemExit with the shell's exit codes, so that the cleanup runs."""
    for number in ENDINGS:
        signal.signal(number, _end)


def ignore_signals() -> None:
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def unbroken() -> Iterator[None]:
    """Delay signals until the block is done, so that every started process is recorded."""
    came: list[int] = []
    for number in ENDINGS:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        end_on_signals()
    if came:
        _end(came[0], None)


def _end(number: int, _: object) -> None:
    ignore_signals()
    raise SystemExit(128 + number)
