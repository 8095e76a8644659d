"""A newcomer's commands, run as real processes in a clean environment on a separate data folder."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil

from devstack import embedded

CHECKOUT = Path(__file__).parents[2]


class ModuleRunner:
    """Starts Lockbox modules; all their child processes have the same mark in their environment."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folder = place / "servers"
        self.mark = uuid4().hex

    def start(self, module: str, *options: str, **variables: str) -> "subprocess.Popen[str]":
        home = self.place / "home"
        home.mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", module, *options],
            cwd=CHECKOUT,
            env={"PATH": os.defpath, "HOME": str(home), "TERMINAL_MARK": self.mark, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def left(self) -> list[str]:
        """Return the command lines of all processes that still run, and the embedded servers that still run."""
        marked = [" ".join(process.cmdline()) for process in psutil.process_iter() if self._bears_mark(process)]
        return marked + (sorted(embedded.find(self.folder).pids) if self.folder.exists() else [])

    def _bears_mark(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("TERMINAL_MARK") == self.mark
        except psutil.Error:
            return False


@contextmanager
def opened() -> Iterator[ModuleRunner]:
    """A terminal whose data folder every user can reach, because under root the servers run as user `nobody`."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="lockbox-terminal-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        terminal = ModuleRunner(place)
        yield terminal
        if terminal.folder.exists():
            embedded.find(terminal.folder).stop()
