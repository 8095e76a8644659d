"""Lockbox processes that start without seconds of imports: forked from a process that has imported everything."""

import atexit
import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from config.children import environment
from devstack.stack import CHECKOUT, Processes

SECONDS = 240
# So often a thread looks whether another one has heard what it waits for.
A_MOMENT = 0.1
# Nothing that reads a setting when it is imported: whoever is forked has settings of their own.
IMPORTS = """
import api.app, api.supervisor, uvicorn
import celery.app.control, celery.apps.worker, celery.concurrency.prefork, celery.concurrency.thread
import celery.worker.components, celery.worker.consumer, kombu.transport.redis
import celery.bin.celery, flower.command, lockbox.audit.log.sealer, lockbox.reconcile, worker.runtime, worker.bootstep
import cli.app, cli.access, cli.bootstrap, cli.commands, cli.operate, cli.owner, cli.requests, cli.sign_in
import cli.tenants, cli.vendor_staff
"""
IMPORTS_OF_RELEASE = "import api.app, uvicorn, worker.runtime"
"""What the last release names as today's version does: it knows nothing of modules that were renamed since."""
MOTHER = """
import gc, json, os, runpy, select, signal, socket, sys
gc.freeze()

if len(sys.argv) > 1:
    # It has a way to each process of a run of the tests: each caller gets a process forked for it.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(fileno=int(sys.argv[1]))
    while True:
        way, _ = listener.accept()
        if not os.fork():
            break
        way.close()
    listener.close()
    for number in (0, 1):
        os.dup2(way.fileno(), number)
    way.close()

def tell_of_the_ended():
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            os.write(1, f"ended {ended[0]} {os.waitstatus_to_exitcode(ended[1])}\\n".encode())
    except ChildProcessError:
        pass

wakes, wakened = os.pipe()
os.set_blocking(wakened, False)
signal.set_wakeup_fd(wakened)
signal.signal(signal.SIGCHLD, lambda *_: None)
while True:
    ready, _, _ = select.select([0, wakes], [], [])
    if wakes in ready:
        os.read(wakes, 100)
        tell_of_the_ended()
    if 0 in ready:
        asked = json.loads(sys.stdin.readline() or sys.exit())
        if not os.fork():
            break
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
signal.set_wakeup_fd(-1)
os.close(wakes)
os.close(wakened)
os.setsid()
os.write(1, f"began {os.getpid()}\\n".encode())
os.environ.clear()
os.environ.update(asked["variables"])
for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(opened, number)
    os.close(opened)
sys.argv = ["", *asked["options"]]
if asked["module"]:
    runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
else:
    exec(asked["script"], {"__name__": "__main__"})
"""


SHARED: list[Path] = []
"""Where a run of several processes has the one process that all of them fork from."""


def _start_mother(
    *options: str, checkout: Path = CHECKOUT, python: str = sys.executable, **ways: Any
) -> "subprocess.Popen[bytes]":
    imports = IMPORTS if checkout == CHECKOUT else IMPORTS_OF_RELEASE
    command = [python, "-c", f"{imports}\n{MOTHER}", *options]
    return subprocess.Popen(command, env=environment({}), cwd=checkout, start_new_session=True, **ways)


@contextmanager
def shared_mother(place: Path) -> Iterator[None]:
    """Start the process from which all processes of a run are forked; it listens at this path."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        mother = _start_mother(str(listener.fileno()), pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)
    SHARED.append(place)
    try:
        yield
    finally:
        SHARED.remove(place)
        mother.kill()
        mother.wait()


class ForkServer:
    """The process from which others are forked; each forked process leads its own session."""

    def __init__(self, checkout: Path, python: str) -> None:
        self._mother = None
        if SHARED and checkout == CHECKOUT:
            self._way = socket.socket(socket.AF_UNIX)
            self._way.connect(str(SHARED[0]))
        else:
            self._way, theirs = socket.socketpair()
            with theirs:
                self._mother = _start_mother(checkout=checkout, python=python, stdin=theirs, stdout=theirs)
        self._answers = self._way.makefile("rb", buffering=0)
        self._one_at_a_time = threading.RLock()
        self._begun: list[int] = []
        self._codes: dict[int, int] = {}

    def close(self) -> None:
        """Let the process end; forked processes continue."""
        self._answers.close()
        self._way.close()
        if self._mother:
            self._mother.wait(SECONDS)

    def start(
        self,
        variables: Mapping[str, str],
        *,
        out: Path,
        err: Path,
        module: str = "",
        options: Sequence[str] = (),
        script: str = "",
    ) -> "ForkedProcess":
        """Start a module as `python -m` does, or a script as `python -c` does; append its output to files."""
        asked = {"module": module, "options": [*options], "script": script, "out": str(out), "err": str(err)}
        with self._one_at_a_time:
            self._way.sendall(f"{json.dumps(asked | {'variables': {**variables}})}\n".encode())
            until = time.monotonic() + SECONDS
            while not self._begun:
                assert self.hear(until), "nothing was forked"
            return ForkedProcess(self, self._begun.pop())

    def run(self, variables: Mapping[str, str], **what: Any) -> "subprocess.CompletedProcess[str]":
        """Run a module or a script with settings; it must end by itself within SECONDS."""
        with TemporaryDirectory() as folder:
            out, err = (Path(folder) / name for name in ("out", "err"))
            child = self.start(environment(variables), out=out, err=err, **what)
            try:
                child.wait(SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                raise AssertionError(f"it did not end:\n{out.read_text()}\n{err.read_text()}") from None
            return subprocess.CompletedProcess([], child.wait(), out.read_text(), err.read_text())

    def hear(self, until: float) -> bool:
        """Read one message about forked processes; return whether one came in time."""
        with self._one_at_a_time:
            ready, _, _ = select.select([self._way], [], [], max(0, until - time.monotonic()))
            if not ready:
                return False
            line = self._answers.readline().split()
            assert line, "what others are forked from has ended"
            if line[0] == b"began":
                self._begun.append(int(line[1]))
                # The system gives each number again, sooner or later.
                self._codes.pop(int(line[1]), None)
            else:
                self._codes[int(line[1])] = int(line[2])
            return True

    def code_of(self, pid: int) -> int | None:
        """Return the exit code of a process, or None if none was reported yet."""
        return self._codes.get(pid)


class ForkedProcess(subprocess.Popen[bytes]):
    """A process that is a child of the fork server, which reports how it ended."""

    def __init__(self, warm: ForkServer, pid: int) -> None:
        self._warm = warm
        self.pid = pid
        self.args = []
        self.returncode: int | None = None
        self.stdin = self.stdout = self.stderr = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        while self._warm.hear(0):
            pass
        if self.returncode is None:
            self.returncode = self._warm.code_of(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended.

        Raises:
            TimeoutExpired: the process did not end within `timeout` seconds.
        """
        until = time.monotonic() + (SECONDS if timeout is None else timeout)
        while (code := self.poll()) is None:
            if (at := time.monotonic()) > until:
                raise subprocess.TimeoutExpired(self.args, timeout or SECONDS)
            self._warm.hear(min(until, at + A_MOMENT))
        return code


def warm(checkout: Path = CHECKOUT, python: str = sys.executable) -> ForkServer:
    """Return the only process of these tests from which those of a version are forked; it ends with the tests."""
    return _server(checkout, python)


@cache
def _server(checkout: Path, python: str) -> ForkServer:
    made = ForkServer(checkout, python)
    atexit.register(made.close)
    return made


class WarmProcesses(Processes):
    """The processes of a plan, forked instead of started, except one with a PYTHONPATH of its own."""

    python = sys.executable

    def launch(
        self, name: str, command: Sequence[str], variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process, which ends with the others."""
        if "PYTHONPATH" in (variables or {}):
            return super().launch(name, command, variables)
        python, dash, module, *options = command
        assert (python, dash) == ("python", "-m")
        log = self.logs / f"{name}.log"
        forks = warm(self.checkout, self.python)
        child = forks.start(environment(variables or {}), out=log, err=log, module=module, options=options)
        self.running[name] = child
        return child
