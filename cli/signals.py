"""Being ended: Ctrl-C, SIGTERM and a closed terminal all lead through the same tidying up."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_on_signals() -> None:
    """Turn the signals into SystemExit with the shell's code for them, so that what is open is closed."""
    for number in ENDINGS:
        signal.signal(number, _end)


def ignore_signals() -> None:
    """Let the tidying up be finished, however impatient somebody is."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def unbroken() -> Iterator[None]:
    """Let a signal wait until the block is done: nothing is started without being noted as started."""
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
