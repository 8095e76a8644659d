"""The crew: Lockbox's processes, killed and frozen by pid, and restarted by a supervisor as systemd would."""

import contextlib
import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

import psutil

from chaos import planted
from chaos.people import CATALOGUE
from chaos.plan import CORE, PROCESSES
from chaos.plan import FaultPlan as Faults
from devstack import stack
from devstack.stack import Processes, commands
from harness.wait import within

SHIFTED = Path(__file__).parent / "shifted"
AGAIN_SECONDS = 0.5
LOOK_SECONDS = 0.1
READY_SECONDS = 120.0
SETTINGS = {
    "LOCKBOX_SUBMISSIONS_PER_PERSON": "1000000",
    "LOCKBOX_SUBMISSIONS_PER_TENANT": "1000000",
    "LOCKBOX_TRUSTED_PROXIES": '["127.0.0.1/32"]',
    "LOCKBOX_SHUTDOWN_SECONDS": "2",
    "LOCKBOX_CATALOGUE": str(CATALOGUE),
}


GUARD = "python -m chaos.guarded --lockbox $lockbox --token-file $token_file --port $port"


@dataclass(frozen=True)
class GuardProcess:
    """The service behind the guard: where its guard finds Lockbox, the guard's token file, and the service's port."""

    lockbox: str
    token_file: Path
    port: int

    @property
    def url(self) -> str:
        """The service's address."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class ProcessExit:
    """A process that ended without being killed: its exit code, and when by the wall clock."""

    name: str
    code: int
    at: float


class Crew:
    """All processes of one run; the `bug` is in one of them. `ended` are ends of processes that nobody had killed."""

    def __init__(self, processes: Processes, faults: Faults, guarded: GuardProcess, bug: str = "") -> None:
        self.ended: list[ProcessExit] = []
        self.restarts = 0
        self._processes = processes
        self._faults = faults
        self._guarded = guarded
        self._bug = bug
        self._killed: set[int] = set()
        self._sessions: set[int] = set()
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="chaos-supervisor", daemon=True)

    @property
    def logs(self) -> Sequence[Path]:
        """The files to which the processes log."""
        return sorted(self._processes.logs.glob("*.log"))

    def start(self) -> None:
        """Start everything and the supervisor, and wait until the API serves.

        Raises:
            RuntimeError: the API does not serve within two minutes; the message names its log.
        """
        for name in PROCESSES:
            self._start(name)
        self._supervisor.start()
        if not within(READY_SECONDS, lambda: stack.is_ready(self._processes.plan), LOOK_SECONDS):
            raise RuntimeError(f"the API did not come up; see {self._processes.logs / 'api.log'}")

    def stop(self) -> None:
        """End all processes, whatever state they are in, and those that killed ones left behind."""
        self._stopping.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        for name in PROCESSES:
            self.thaw(name)
        self._processes.stop()
        for orphan in self.orphans():
            with contextlib.suppress(psutil.Error):
                orphan.kill()

    def kill(self, name: str) -> None:
        """SIGKILL one process, not its children."""
        child = self._processes.running[name]
        self._killed.add(child.pid)
        child.kill()

    def kill_child(self, name: str, dice: int) -> bool:
        """SIGKILL one pool child of a worker; return whether it had any."""
        children = self._family(name)[1:]
        if children:
            with contextlib.suppress(psutil.Error):
                children[dice % len(children)].kill()
        return bool(children)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """SIGSTOP one process and its children, and let them continue at the end."""
        family = self._family(name)
        _signal(family, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(family, signal.SIGCONT)

    def thaw(self, name: str) -> None:
        """Let a process continue if it is stopped."""
        _signal(self._family(name), signal.SIGCONT)

    def memory(self) -> dict[str, int]:
        """Return the resident bytes of each process with its children."""
        found = {}
        for name in PROCESSES:
            sizes = []
            for one in self._family(name):
                with contextlib.suppress(psutil.Error):
                    sizes.append(one.memory_info().rss)
            found[name] = sum(sizes)
        return found

    def are_up(self) -> bool:
        """Whether all processes run."""
        return all(child.poll() is None for child in list(self._processes.running.values()))

    def orphans(self) -> list[psutil.Process]:
        """Return the processes that killed ones left running: each killed process had a session of its own."""
        living = {child.pid for child in self._processes.running.values() if child.poll() is None}
        gone = self._sessions - living
        found = []
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(one.pid) in gone and one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
        return found

    def lasting_orphans(self, seconds: float) -> list[psutil.Process]:
        """Wait until killed processes have left none running; return those that still run."""
        within(seconds, lambda: not self.orphans(), LOOK_SECONDS)
        return self.orphans()

    def _start(self, name: str) -> None:
        kind = "worker" if name in CORE else name
        if name == "guard":
            variables, line = {}, Template(GUARD).substitute(vars(self._guarded))
        else:
            variables = self._processes.plan.variables(kind) | SETTINGS
            line = Template(commands()[kind]).substitute(variables)
        words = shlex.split(line) + (["--name", f"chaos-{name}"] if kind in {"worker", "notifications"} else [])
        if self._bug and name == planted.BUGS[self._bug].process:
            python, switch, *rest = words
            words = [python, switch, "chaos.planted", self._bug, *rest]
        if name == self._faults.shifted:
            variables |= {"PYTHONPATH": str(SHIFTED), "CHAOS_SHIFT": str(self._faults.shift)}
        self._sessions.add(self._processes.launch(name, words, variables).pid)

    def _supervise(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            for name, code in self._processes.ended().items():
                if self._processes.running[name].pid not in self._killed:
                    self.ended.append(ProcessExit(name, code, time.time()))
                if self._stopping.wait(AGAIN_SECONDS):
                    return
                self.restarts += 1
                self._start(name)

    def _family(self, name: str) -> list[psutil.Process]:
        child = self._processes.running.get(name)
        if child is None or child.poll() is not None:
            return []
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(child.pid)
            return [parent, *parent.children(recursive=True)]
        return []


def _signal(family: Sequence[psutil.Process], number: int) -> None:
    for one in family:
        with contextlib.suppress(psutil.Error):
            one.send_signal(number)
