"""Ports of loopback that a process takes for itself: one that was free a moment ago may be bound by another first."""

import fcntl
import os
import socket
import stat
import tempfile
from functools import cache
from pathlib import Path

# Below what the embedded servers choose from, and above the ports that browsers refuse to open.
STARTS = range(11_000, 20_000, 300)


class NoPortsError(OSError):
    """There is no port left to take."""


def take(first: int, count: int = 1) -> bool:
    """Take ports from this one on until this process ends; say whether no other process of this user has taken any.

    It binds nothing, and is about processes that ask here alone: whether anybody listens is another question.
    """
    try:
        fcntl.lockf(_book(), fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
    except (BlockingIOError, PermissionError):
        return False
    return True


@cache
def own() -> range:
    """Return ports that are this process's own until it ends: nobody else who asks here is given any of them.

    Raises:
        NoPortsError: as many processes have taken theirs as there are.
    """
    for start in STARTS:
        if take(start, STARTS.step):
            return range(start, start + STARTS.step)
    raise NoPortsError(f"other processes have taken all ports from {STARTS.start} to {STARTS.stop}; end some of them")


def is_free(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# A process has one descriptor of the file, for its locks are gone once it closes any. A byte stands for each port.
@cache
def _book() -> int:
    path = Path(tempfile.gettempdir()) / f"lockbox-ports-{os.getuid()}"
    book = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    found = os.fstat(book)
    if found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode):
        os.close(book)
        raise NoPortsError(f"{path} is not a file of yours: remove it")
    return book
