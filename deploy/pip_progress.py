"""Runs pip and says how far it is: `pip_progress.py LOCK COMMAND...`; needs nothing but Python."""

import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

PINNED = re.compile(r"^[a-z0-9][a-z0-9._-]*==", re.MULTILINE)
TAKEN_UP = re.compile(r"^(?:Collecting|Requirement already satisfied:) ([A-Za-z0-9._-]+)")
DOWNLOAD = re.compile(r"^ *Downloading \S+ \((.+)\)")
INSTALLS = "Installing collected packages"
TAIL_LINES = 30
TICK_SECONDS = 0.5
LINE_SECONDS = 5
"""Seconds between lines where no terminal is attached."""


class PipProgress:
    """What pip has done so far, by the lines that it writes."""

    def __init__(self, packages: int) -> None:
        self._packages = packages
        self._seen = 0
        self._doing = "asking for the packages"

    def read(self, line: str) -> None:
        """Take a line of pip's into account."""
        if taken_up := TAKEN_UP.match(line):
            self._seen += 1
            self._doing = taken_up[1]
        elif download := DOWNLOAD.match(line):
            self._doing = f"{self._doing.partition(' ')[0]} ({download[1]})"
        elif line.startswith(INSTALLS):
            self._doing = "installing them"

    def __str__(self) -> str:
        """Return how far it is."""
        return f"{self._seen} of {self._packages} packages: {self._doing}"


class ProgressLine:
    """One line that is written over on a terminal; elsewhere a line every few seconds."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._began = self._last = time.monotonic()

    def show(self, progress: object) -> None:
        """Show it with the seconds so far."""
        now = time.monotonic()
        text = f"lockbox: {now - self._began:3.0f} s  {progress}"
        if self._out.isatty():
            self._out.write(f"\r\x1b[K{text[:79]}")
        elif now - self._last >= LINE_SECONDS:
            self._last = now
            self._out.write(f"{text}\n")
        self._out.flush()

    def end(self, text: str) -> None:
        """Write the last line."""
        wiped = "\r\x1b[K" if self._out.isatty() else ""
        self._out.write(f"{wiped}lockbox: {time.monotonic() - self._began:3.0f} s  {text}\n")
        self._out.flush()


def lines_of(process: "subprocess.Popen[str]") -> Iterator[str | None]:
    """Return the lines of a process, and None twice a second while it writes none."""
    said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in process.stdout or ():
            said.put(line)
        said.put("")

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = said.get(timeout=TICK_SECONDS)
        except queue.Empty:
            yield None
            continue
        if not line:
            return
        yield line


def main(lock: str, *command: str) -> int:
    """Run the command; return its exit code, and write the end of what it said if it failed."""
    progress, shown = (
        PipProgress(len(PINNED.findall(Path(lock).read_text(encoding="utf-8")))),
        ProgressLine(sys.stdout),
    )
    said: list[str] = []
    with subprocess.Popen(  # noqa: S603 - the command line of the script beside this one
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:
        try:
            for line in lines_of(pip):
                if line:
                    said.append(line)
                    progress.read(line)
                shown.show(progress)
        except KeyboardInterrupt:
            shown.end("stopped")
            return 130
    shown.end(f"{progress}" if pip.returncode else f"all packages of {Path(lock).name} are installed")
    if pip.returncode:
        sys.stderr.write("".join(said[-TAIL_LINES:]))
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
