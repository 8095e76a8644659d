"""Keeps the whole stack up: `python -m cli.run [--folder F]`; Ctrl-C stops everything that it started."""

import argparse
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

import honcho.manager
from honcho.printer import Printer
from rich.console import Console

from cli import sample, stack, welcome
from cli.demo.flower import Flower
from cli.endings import end_on_signals, ignore_signals
from cli.sample import Sample
from cli.stack import Plan
from config.children import environment
from config.embedded import EmbeddedRefused
from config.settings import Settings, UnsafeSettings, load
from lockbox.database import Database, make_engine
from lockbox.requests.policy import Policy
from lockbox.schedule import Schedule

TENANT = "contoso"
# Short enough for a newcomer to see things happen; vendor review stays on, so that the manager has a part.
POLICY = Policy(review_window=900, approval_window=900, access_ceiling=900)
READY_SECONDS = 60
STOPPED_ON_REQUEST = {128 + signal.SIGINT, 128 + signal.SIGTERM}
CONSOLE = Console(soft_wrap=True, highlight=False)


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop: 0 then, 1 where something failed or a process ended by itself."""
    parser = argparse.ArgumentParser(prog="python -m cli.run", description=__doc__)
    parser.add_argument("--folder", type=Path, help="data folder of the embedded servers")
    asked = parser.parse_args(arguments)
    end_on_signals()
    try:
        settings = _for_this_machine(load())
        CONSOLE.print("Starting Postgres, Redis and a mail catcher where none is configured …")
        plan = stack.prepare(settings, asked.folder)
    except (EmbeddedRefused, UnsafeSettings, sample.NotInProduction, OSError) as refused:
        sys.stderr.write(f"run: {refused}\n")
        return 1
    try:
        return _kept_up(plan, _seeded(plan, settings))
    finally:
        ignore_signals()
        stopped = stack.release(plan)
        if plan.servers and not stopped:
            CONSOLE.print("The embedded servers were running before, or others use them: they are left running.")


def _for_this_machine(settings: Settings) -> Settings:
    if settings.environment == "production":
        raise sample.NotInProduction("make run is for a machine of your own; docs/operating.md is for production")
    return settings


def _seeded(plan: Plan, settings: Settings) -> Sample:
    house = Database(make_engine(plan.database_url, role="run"), Schedule(plan.redis_url))
    try:
        with house.transaction() as session:
            return sample.seed(
                session, tenant=TENANT, policy=POLICY, environment=plan.environment, services=settings.services
            )
    finally:
        house.dispose()


def _kept_up(plan: Plan, seeded: Sample) -> int:
    """Run the Procfile's processes until a signal comes or one of them ends; the others are ended then."""
    welcome.write_tokens(plan, seeded)
    # A worker that is at work when it is asked to end takes the ten seconds of Celery's soft shutdown.
    honcho.manager.KILL_WAIT = stack.STOP_SECONDS
    manager = honcho.manager.Manager(_Announcing(lambda: _announce(plan, seeded)))
    for process, command in stack.commands().items():
        own = {"LOCKBOX_LOG_FORMAT": "console", **plan.variables(process)}
        words = shlex.split(Template(command).substitute(own))
        # exec: the pid that is told and signalled is that of the process itself, not of a shell around it.
        manager.add_process(process, f"exec {shlex.join(words)}", env=environment(own), cwd=str(stack.CHECKOUT))
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    manager.loop()
    return 0 if manager.returncode in STOPPED_ON_REQUEST else 1


class _Announcing(Printer):  # type: ignore[misc] # honcho has no types
    """honcho's printer; begins to look for readiness at its first line: all processes have been forked by then."""

    def __init__(self, announce: Callable[[], None]) -> None:
        super().__init__(sys.stdout)
        self._thread = threading.Thread(target=announce, daemon=True)

    def write(self, message: Any) -> None:  # noqa: ANN401 - honcho's
        if not self._thread.ident:
            self._thread.start()
        super().write(message)


def _announce(plan: Plan, seeded: Sample) -> None:
    flower = Flower(plan)
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        if flower.sees({"core", "notices"}) and stack.is_ready(plan):
            welcome.show(CONSOLE, plan, seeded)
            break
        time.sleep(0.2)
    else:
        CONSOLE.print(f"Not everything came up within {READY_SECONDS} seconds: the lines above say why.")
    flower.close()


if __name__ == "__main__":
    sys.exit(main())
