"""Keeps the whole stack up: `python -m devstack.run [--folder F]`; Ctrl-C stops everything that it started."""

import argparse
import shlex
import signal
import socket
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from string import Template
from typing import Any, TextIO

import honcho.manager
import honcho.printer
import honcho.process
from rich.console import Console
from rich.status import Status

from catalogue.unsafe_settings import UnsafeSettings
from config import ports
from config.children import environment, given
from config.settings import Settings, load
from devstack import passed_settings, sample, scene, stack, welcome
from devstack.embedded import EmbeddedRefused
from devstack.flower import Flower
from devstack.passed_settings import PassedSettings
from devstack.sample import Sample
from devstack.signals import end_on_signals, ignore_signals, unbroken
from devstack.stack import StackPlan
from lockbox import migrations
from lockbox.owner_transaction import as_owner
from lockbox.requests.policy_rules import Policy

TENANT = "contoso"
# The times are short, so that a newcomer sees things happen. Vendor review stays on, so that the manager has a part.
POLICY = Policy(review_window=900, approval_window=900, access_ceiling=900)
READY_SECONDS = 180
STOPPED_ON_REQUEST = {128 + signal.SIGINT, 128 + signal.SIGTERM}
STARTED, STOPPED = " started (pid=", " stopped (rc="
CONNECTORS = "connectors"
NO_CONNECTOR = "No service of the catalogue has a connector: no connector worker is started."
NO_TARGETS = (
    "The catalogue has a connector, and no connector worker is started: set LOCKBOX_CONNECTOR_TARGETS to the folder "
    "of its targets (docs/connectors.md). Nothing is opened there."
)
NO_LOGIN = (
    "The catalogue has a connector, and no connector worker is started: set LOCKBOX_CONNECTORS_DATABASE_URL to its "
    "login at your Postgres. Nothing is opened at targets."
)
API_PORT = 8000
API = "api"
"""All processes end with this one; the others are restarted when they end by themselves."""
FLOWER = "flower"
VENDOR = {"LOCKBOX_VENDOR_NAME": "Fabrikam Support"}
"""The employer of the playground's engineers, unless the caller sets another one."""
CONSOLE = Console(soft_wrap=True, highlight=False)
LAST_LINES = 15
FOR_PEOPLE = "lockbox: "
"""The beginning of a line in which a process says why it does not start, or that it is started again."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m devstack.run", description=__doc__)
    parser.add_argument("--folder", type=Path, help="data folder of the embedded servers")
    parser.add_argument("--tokens", type=Path, default=welcome.TOKENS, help="where the tokens go (%(default)s)")
    parser.add_argument("--log", type=Path, default=stack.LOGS / "run.log", help="where the logs go (%(default)s)")
    parser.add_argument("--verbose", action="store_true", help="show the logs here instead")
    parser.add_argument(
        "--port", type=int, default=API_PORT, help="of the API, or the next one that is free (%(default)s)"
    )
    parser.add_argument("--flower-port", type=int, default=5555, help="of Flower, likewise (%(default)s)")
    asked = parser.parse_args(arguments)
    end_on_signals()
    steps = Steps(CONSOLE)
    try:
        settings = _for_this_machine(load())
        passed = _passed()
        with ExitStack() as ends:
            # The ports are bound now: minutes later, when they are needed, another process might have taken them.
            listeners = {
                name: ends.enter_context(ports.hold(first))
                for name, first in ((API, asked.port), (FLOWER, asked.flower_port))
            }
            api_port, flower_port = (listener.getsockname()[1] for listener in listeners.values())
            with unbroken():
                plan = stack.prepare(
                    settings, asked.folder, api_port=api_port, flower_port=flower_port, say=steps.say
                )
                ends.callback(_leave, plan)
            ends.callback(steps.end)
            steps.say("Adding demo users and requests")
            seeded = _seeded(plan, settings)
            plan = _furnished(plan, seeded, settings, asked.tokens)
            steps.end()
            log = None if asked.verbose else asked.log
            return _kept_up(RunPlan(plan, seeded, settings, passed, asked.tokens, log, listeners))
    except (EmbeddedRefused, UnsafeSettings, sample.NotInProduction, OSError) as refused:
        steps.end()
        sys.stderr.write(f"run: {refused}\n")
        return 1


@dataclass(frozen=True)
class RunPlan:
    """Without a `log`, processes write to the terminal. `listeners` are the sockets of the API and Flower."""

    stack: StackPlan
    seeded: Sample
    settings: Settings
    passed: PassedSettings
    tokens: Path
    log: Path | None
    listeners: Mapping[str, socket.socket]


class Steps:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._doing: tuple[str, float, Status | None] | None = None

    def say(self, what: str) -> None:
        self.end()
        shown = self._console.status(f"{what} …") if self._console.is_terminal else None
        self._doing = what, time.monotonic(), shown
        if shown:
            shown.start()
        else:
            self._console.print(f"{what} …", markup=False)

    def end(self) -> None:
        if self._doing is None:
            return
        what, began, shown = self._doing
        self._doing = None
        if shown:
            shown.stop()
            self._console.print(f"{what} [dim]({time.monotonic() - began:.1f} s)[/]")


@contextmanager
def new_log(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another `make run` may still write to an earlier file.
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    with path.open("w", encoding="utf-8") as file:
        yield file


class LogPrinter(honcho.printer.Printer):  # type: ignore[misc] # honcho has no types
    def __init__(self, output: TextIO, console: Console | None) -> None:
        super().__init__(output)
        self.tell: Callable[[str], object] = str
        self._console = console
        self._waiting: deque[Callable[[], object]] = deque()
        self._is_printing = False
        self._last: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=LAST_LINES))

    def write(self, message: Any) -> None:  # noqa: ANN401 - as honcho declares it
        self.in_turn(partial(self._write, message))

    def in_turn(self, prints: Callable[[], object]) -> None:
        """Print after the line being printed: Python's files refuse a signal handler's write during another write."""
        self._waiting.append(prints)
        if self._is_printing:
            return
        self._is_printing = True
        try:
            while self._waiting:
                self._waiting.popleft()()
        finally:
            self._is_printing = False

    def _write(self, message: Any) -> None:  # noqa: ANN401 - as honcho declares it
        super().write(message)
        if message.name == honcho.manager.SYSTEM_PRINTER_NAME:
            self.tell(message.data)
            return
        text = message.data if isinstance(message.data, str) else message.data.decode(errors="replace")
        for line in text.splitlines():
            self._last[message.name].append(line)
            if self._console and line.startswith(FOR_PEOPLE):
                self._console.print(f"{message.name}: {line.removeprefix(FOR_PEOPLE)}", markup=False)

    def last_of(self, name: str) -> list[str]:
        return list(self._last[name])


def _leave(plan: StackPlan) -> None:
    ignore_signals()
    if not stack.release(plan) and plan.servers:
        CONSOLE.print("The embedded servers were running before, or others use them: they are left running.")


def _for_this_machine(settings: Settings) -> Settings:
    if settings.environment == "production":
        raise sample.NotInProduction(
            "make run is for a machine of your own; in production, run the processes of the Procfile"
        )
    return settings


def _passed() -> PassedSettings:
    passed = passed_settings.sort_settings(given())
    for variable, why in passed.refused.items():
        CONSOLE.print(f"{variable} is not passed on: {why}", markup=False)
    return passed


def _seeded(plan: StackPlan, settings: Settings) -> Sample:
    with as_owner(plan.owner_database_url) as session:
        seeded = sample.seed(
            session, tenant=TENANT, policy=POLICY, environment=plan.environment, services=settings.catalogue.services
        )
    migrations.analyze(plan.owner_database_url)
    return seeded


def _furnished(plan: StackPlan, seeded: Sample, settings: Settings, tokens: Path) -> StackPlan:
    scene.set_up(plan, seeded, settings)
    plan = welcome.keep_flower_password(plan, tokens.with_name(welcome.FLOWER_FILE))
    if not plan.is_its_own:
        return plan
    playground = tokens.with_name(scene.PLAYGROUND).absolute()
    scene.write_playground(playground, plan, seeded)
    return replace(plan, playground=playground)


def _kept_up(run: RunPlan) -> int:
    plan = run.stack
    welcome.write_tokens(run.tokens, plan, run.seeded)
    # A busy worker takes the ten seconds of Celery's soft shutdown to end.
    honcho.manager.KILL_WAIT = stack.STOP_SECONDS
    commands = stack.commands()
    if (why := _why_not_connected(plan, run.settings)) is not None:
        del commands[CONNECTORS]
        CONSOLE.print(why, markup=False, end="\n" if why else "")
    with new_log(run.log) as log:
        manager = PatientManager(len(commands), lambda: _announce(run), LogPrinter(log, CONSOLE if run.log else None))
        for process, command in commands.items():
            own = {"LOCKBOX_LOG_FORMAT": "console", **(VENDOR if process == API else {})}
            own |= {**run.passed.of(process), **plan.variables(process)}
            words = shlex.split(Template(command).substitute(own))
            if process != API:
                words = [sys.executable, "-m", "devstack.restart", *words]
            # With exec, the pid that is reported and signalled is the process's own, not that of a shell around it.
            made = manager.add_process(
                process, f"exec {shlex.join(words)}", env=environment(own), cwd=str(stack.CHECKOUT)
            )
            made.listener = run.listeners.get(process)
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
        manager.loop()
    if manager.returncode in STOPPED_ON_REQUEST:
        return 0
    manager.explain(run.log)
    return 1


def _why_not_connected(plan: StackPlan, settings: Settings) -> str | None:
    """Return why no connector worker starts, an empty text if none is expected, or None if one starts."""
    has_connector = any(service.connector for service in settings.catalogue.services.values())
    if not has_connector:
        return NO_CONNECTOR if settings.connector_targets else ""
    if settings.connector_targets is None:
        return NO_TARGETS
    return None if plan.connectors_database_url else NO_LOGIN


class _ListeningProcess(honcho.process.Process):  # type: ignore[misc] # honcho has no types
    listener: socket.socket | None = None

    def run(self, *arguments: object) -> None:
        if self.listener is not None:
            self.cmd += f" --fd {self.listener.fileno()}"
            self._child_ctor = partial(honcho.process.Popen, pass_fds=[self.listener.fileno()])
        super().run(*arguments)


class PatientManager(honcho.manager.Manager):  # type: ignore[misc] # honcho has no types
    """A signal that comes while processes are being started waits until all are started.

    After that, `when_started` is called in a thread: no thread may run while processes are forked.
    """

    def __init__(self, starting: int, when_started: Callable[[], None], printer: LogPrinter) -> None:
        super().__init__(printer)
        self._process_ctor = _ListeningProcess
        printer.tell = self._hear
        self._lines = printer
        self._starting = starting
        self._when_started = when_started
        self._to_end = False
        self._first_stopped: str | None = None

    def loop(self) -> None:
        try:
            super().loop()
        except BaseException:
            # Kill the processes: Python waits for its children before it ends, and they wait for theirs.
            for process in self._processes.values():
                if "pid" in process and "returncode" not in process:
                    self._procmgr.kill(process["pid"])
            raise

    def terminate(self) -> None:
        if not self._to_end:
            self._lines.in_turn(partial(CONSOLE.print, "Stopping everything …"))
        self._to_end = True
        if self._starting <= 0:
            super().terminate()

    def explain(self, log: Path | None) -> None:
        name = self._first_stopped or API
        CONSOLE.print(f"The process {name} ended by itself, and so everything was stopped.", markup=False)
        if log:
            CONSOLE.print("\n".join(self._lines.last_of(name)), markup=False)
            CONSOLE.print(f"All logs: {welcome.shown(log)}", markup=False)

    def _hear(self, line: str) -> None:
        if STOPPED in line:
            self._first_stopped = self._first_stopped or line.partition(STOPPED)[0]
        if STARTED not in line:
            return
        self._starting -= 1
        if self._starting == 0:
            threading.Thread(target=self._when_started, daemon=True).start()
            if self._to_end:
                super().terminate()


def _announce(run: RunPlan) -> None:
    steps = Steps(CONSOLE)
    if run.log:
        steps.say("Starting the API, the workers and Flower")
    is_up = _comes_up(run.stack)
    steps.end()
    if is_up:
        welcome.show(CONSOLE, run.stack, run.seeded, run.settings.catalogue.services, run.tokens, run.log)
    else:
        where = f"{welcome.shown(run.log)} says why" if run.log else "the lines above say why"
        CONSOLE.print(f"Not everything came up within {READY_SECONDS} seconds: {where}.", markup=False)


def _comes_up(plan: StackPlan) -> bool:
    until = time.monotonic() + READY_SECONDS
    with Flower(plan) as flower:
        while time.monotonic() < until:
            if flower.sees({"core", "notifications"}) and stack.is_ready(plan):
                return True
            time.sleep(0.2)
    return False


if __name__ == "__main__":
    sys.exit(main())
