"""Keeps the whole stack up: `python -m cli.run [--folder F]`; Ctrl-C stops everything that it started."""

import argparse
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

import honcho.manager
import honcho.printer
from rich.console import Console

from cli import passed_settings, sample, scene, stack, welcome
from cli.flower import Flower
from cli.owner_transaction import as_owner
from cli.passed_settings import PassedSettings
from cli.sample import Sample
from cli.signals import end_on_signals, ignore_signals, unbroken
from cli.stack import StackPlan
from config.children import environment, given
from config.embedded import EmbeddedRefused
from config.service_catalogue import Service
from config.settings import Settings, UnsafeSettings, load
from lockbox import migrations
from lockbox.requests.policy_rules import Policy

TENANT = "contoso"
# Short enough for a newcomer to see things happen; vendor review stays on, so that the manager has a part.
POLICY = Policy(review_window=900, approval_window=900, access_ceiling=900)
READY_SECONDS = 60
STOPPED_ON_REQUEST = {128 + signal.SIGINT, 128 + signal.SIGTERM}
STARTED = " started (pid="
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
API = "api"
"""All processes end with this one; the others are restarted when they end by themselves."""
CONSOLE = Console(soft_wrap=True, highlight=False)


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop: 0 then, 1 where something failed or a process ended by itself."""
    parser = argparse.ArgumentParser(prog="python -m cli.run", description=__doc__)
    parser.add_argument("--folder", type=Path, help="data folder of the embedded servers")
    parser.add_argument("--tokens", type=Path, default=welcome.TOKENS, help="where the tokens go (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, help="of the API, or the next one that is free (%(default)s)"
    )
    parser.add_argument("--flower-port", type=int, default=5555, help="of Flower, likewise (%(default)s)")
    asked = parser.parse_args(arguments)
    end_on_signals()
    try:
        settings = _for_this_machine(load())
        passed = _passed()
        with ExitStack() as ends:
            with unbroken():
                CONSOLE.print("Starting Postgres, Redis and a mail catcher where none is configured …")
                plan = stack.prepare(settings, asked.folder, api_port=asked.port, flower_port=asked.flower_port)
                ends.callback(_leave, plan)
            seeded = _seeded(plan, settings)
            return _kept_up(_furnished(plan, seeded, settings, asked.tokens), seeded, settings, passed, asked.tokens)
    except (EmbeddedRefused, UnsafeSettings, sample.NotInProduction, OSError) as refused:
        sys.stderr.write(f"run: {refused}\n")
        return 1


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
    """Add sample data, and on embedded servers let local browsers switch between the demo users."""
    scene.set_up(plan, seeded, settings)
    if not plan.is_its_own:
        return plan
    playground = tokens.with_name(scene.PLAYGROUND).absolute()
    scene.write_playground(playground, plan, seeded)
    return replace(plan, playground=playground)


def _kept_up(plan: StackPlan, seeded: Sample, settings: Settings, passed: PassedSettings, tokens: Path) -> int:
    """Run the Procfile's processes until a signal comes or the API ends, and then end the others."""
    welcome.write_tokens(tokens, plan, seeded)
    # A worker that is at work when it is asked to end takes the ten seconds of Celery's soft shutdown.
    honcho.manager.KILL_WAIT = stack.STOP_SECONDS
    commands = stack.commands()
    services = settings.catalogue.services
    if (why := _why_not_connected(plan, settings)) is not None:
        del commands[CONNECTORS]
        CONSOLE.print(why, markup=False, end="\n" if why else "")
    manager = _PatientManager(len(commands), lambda: _announce(plan, seeded, services, tokens))
    for process, command in commands.items():
        own = {"LOCKBOX_LOG_FORMAT": "console", **passed.of(process), **plan.variables(process)}
        words = shlex.split(Template(command).substitute(own))
        if process != API:
            words = [sys.executable, "-m", "cli.restart", *words]
        # exec: the pid that is reported and signalled is that of the process itself, not of a shell around it.
        manager.add_process(process, f"exec {shlex.join(words)}", env=environment(own), cwd=str(stack.CHECKOUT))
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    manager.loop()
    return 0 if manager.returncode in STOPPED_ON_REQUEST else 1


def _why_not_connected(plan: StackPlan, settings: Settings) -> str | None:
    """Return why no connector worker is started, None where one is; nothing where nobody would expect it."""
    has_connector = any(service.connector for service in settings.catalogue.services.values())
    if not has_connector:
        return NO_CONNECTOR if settings.connector_targets else ""
    if settings.connector_targets is None:
        return NO_TARGETS
    return None if plan.connectors_database_url else NO_LOGIN


class _PatientManager(honcho.manager.Manager):  # type: ignore[misc] # honcho has no types
    """honcho's manager; a signal that comes while processes are being started waits until all are.

    Args:
        starting: how many there will be.
        when_started: called in a thread once all are started; none may be running when processes are forked.
    """

    def __init__(self, starting: int, when_started: Callable[[], None]) -> None:
        super().__init__(_TeePrinter(self._hear))
        self._starting = starting
        self._when_started = when_started
        self._to_end = False

    def terminate(self) -> None:
        """End all processes, once all have started."""
        self._to_end = True
        if self._starting <= 0:
            super().terminate()

    def _hear(self, line: str) -> None:
        if STARTED not in line:
            return
        self._starting -= 1
        if self._starting == 0:
            threading.Thread(target=self._when_started, daemon=True).start()
            if self._to_end:
                super().terminate()


class _TeePrinter(honcho.printer.Printer):  # type: ignore[misc] # honcho has no types
    """honcho's printer; what honcho itself says is also passed on."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(sys.stdout)
        self._tell = tell

    def write(self, message: Any) -> None:  # noqa: ANN401 - honcho's
        super().write(message)
        if message.name == honcho.manager.SYSTEM_PRINTER_NAME:
            self._tell(message.data)


def _announce(plan: StackPlan, seeded: Sample, services: Mapping[str, Service], tokens: Path) -> None:
    flower = Flower(plan)
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        if flower.sees({"core", "notifications"}) and stack.is_ready(plan):
            welcome.show(CONSOLE, plan, seeded, services, tokens)
            break
        time.sleep(0.2)
    else:
        CONSOLE.print(f"Not everything came up within {READY_SECONDS} seconds: the lines above say why.")
    flower.close()


if __name__ == "__main__":
    sys.exit(main())
