"""Start detached processes, recognise them by command line, and signal verified pids only."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from devstack.embedded.folder import DataFolder, EmbeddedRefused

# A server gets nothing of our own environment.
ENVIRONMENT = {"PATH": os.defpath, "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}
RUN_SECONDS = 120
TAIL_BYTES = 2000


@dataclass(frozen=True)
class ProcessMark:
    """How a server of one folder is recognised: by user, program and first arguments."""

    uid: int
    program: str
    arguments: tuple[str, ...]

    def fits(self, process: psutil.Process) -> bool:
        try:
            if process.uids().real != self.uid:
                return False
            program, *arguments = process.cmdline() or [""]
        except psutil.Error:
            return False
        named = not self.program or Path(program).name == self.program
        return named and tuple(arguments[: len(self.arguments)]) == self.arguments


def recorded(mark: ProcessMark, pid: int | None) -> psutil.Process | None:
    """Return the process with this pid if it is that server and not another process that reuses the pid."""
    if pid is None:
        return None
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if mark.fits(process):
            return process
    return None


def search(mark: ProcessMark, pid: int | None) -> psutil.Process | None:
    """Return the recorded process, or search for the server: its starter may have died before it recorded the pid."""
    if found := recorded(mark, pid):
        return found
    fitting = {process.pid: process for process in psutil.process_iter() if mark.fits(process)}
    for process in fitting.values():
        with contextlib.suppress(psutil.Error):
            if process.ppid() not in fitting:
                return process
    return None


def alive(pid: int) -> bool:
    try:
        return runs(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def runs(process: psutil.Process) -> bool:
    """Return whether any thread of the process still runs, because its ports are taken until the last thread ends."""
    try:
        return process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.Error:
        return False


def run(
    home: DataFolder,
    command: list[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    as_root: bool = False,
) -> str:
    """With `as_root`, the command starts with our own rights and drops them itself."""
    account = None if as_root else home.account
    try:
        done = subprocess.run(  # noqa: S603 - programs of the wheels, arguments of our own, no shell
            command,
            input=stdin,
            capture_output=True,
            check=False,
            cwd=home.folder,
            env={**ENVIRONMENT, **(env or {})},
            timeout=RUN_SECONDS,
            start_new_session=True,
            umask=0o077,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedRefused(f"{Path(command[0]).name} could not be run: {error}") from None
    if done.returncode != 0:
        said = (done.stderr + done.stdout).decode(errors="replace").strip()
        raise EmbeddedRefused(f"{Path(command[0]).name} failed ({done.returncode}): {said[-TAIL_BYTES:]}")
    return done.stdout.decode(errors="replace")


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    last = time.monotonic() + seconds
    while not true():
        if time.monotonic() > last:
            return False
        time.sleep(0.02)
    return True


def wait_gone(process: psutil.Process, seconds: float) -> bool:
    """Return whether the server ended and freed its port in time."""

    def gone() -> bool:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
        return not runs(process)

    return wait_until(gone, seconds)


def living_in(folder: Path, *, uid: int, program: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == uid and process.name() == program and process.cwd() == str(folder):
                yield process


def tail(log: Path) -> str:
    try:
        return log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip()
    except OSError:
        return ""
