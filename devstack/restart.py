"""Keeps one process of `make run` up: `python -m devstack.restart COMMAND...` starts it again whenever it ends."""

import signal
import subprocess
import sys
import threading
from types import FrameType

AGAIN_SECONDS = 1.0
ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Keeper:
    """Restarts the command until a signal comes. The command gets the signal too, through its process group."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._ending = threading.Event()

    def run(self) -> int:
        for one in ENDINGS:
            signal.signal(one, self._hear)
        while True:
            # File descriptors stay open, because the command may serve on a socket that it inherits.
            child = subprocess.Popen(self._command, close_fds=False)  # noqa: S603 - a command line of ours
            code = child.wait()
            if self._ending.is_set():
                return code
            sys.stderr.write(f"lockbox: {self._command[2]} ended with {code}; it is started again\n")
            if self._ending.wait(AGAIN_SECONDS):
                return code

    def _hear(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - Python's signature
        self._ending.set()


if __name__ == "__main__":
    sys.exit(Keeper(sys.argv[1:]).run())
