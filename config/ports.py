"""Reserve loopback ports among the processes that use this module."""

import fcntl
import os
import socket
import stat
import tempfile
from functools import cache
from pathlib import Path

# Above the ports that browsers refuse to open, and below the range from which the embedded servers choose.
STARTS = range(11_000, 20_000, 300)


class NoPortsError(OSError):
    pass


def take(first: int, count: int = 1) -> bool:
    """Reserve ports until this process ends; return whether all were free to reserve. No port is bound."""
    try:
        fcntl.lockf(_book(), fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
    except (BlockingIOError, PermissionError):
        return False
    return True


@cache
def own() -> range:
    for start in STARTS:
        if take(start, STARTS.step):
            return range(start, start + STARTS.step)
    raise NoPortsError(f"other processes have taken all ports from {STARTS.start} to {STARTS.stop}; end some of them")


def hold(first: int, room: int = 200) -> socket.socket:
    """Return a socket that already listens on the first free port, so that no other process takes the port."""
    for port in range(first, first + room):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError:
            listener.close()
        else:
            return listener
    raise NoPortsError(f"no free port between {first} and {first + room - 1}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# The process keeps one descriptor of the file, because closing any descriptor would drop the locks. Each byte of the
# file stands for a port.
@cache
def _book() -> int:
    path = Path(tempfile.gettempdir()) / f"lockbox-ports-{os.getuid()}"
    book = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    found = os.fstat(book)
    if found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode):
        os.close(book)
        raise NoPortsError(f"{path} is not a file of yours: remove it")
    return book
