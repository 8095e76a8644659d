"""Plays the demo and exits: `python -m demo [--folder F]`; 0 only if every proof holds."""

import argparse
import shutil
import sys
import time
from pathlib import Path

import httpx
from rich.console import Console

from catalogue.unsafe_settings import UnsafeSettings
from config.settings import load
from demo import proofs, screen, stage
from demo.gateway import CaddyMissing
from demo.play import DemoRun
from demo.screen import DemoOutcome
from demo.table import View, view_on
from devstack.embedded import EmbeddedRefused
from devstack.signals import end_on_signals

WIDTH_WITHOUT_TERMINAL = 80


def main(arguments: list[str] | None = None) -> int:
    """Play the demo, show the result, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, help="data folder of the embedded servers, to keep (default: none is kept)"
    )
    asked = parser.parse_args(arguments)
    end_on_signals()
    console = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
    try:
        with view_on(console) as view:
            outcome = _played(asked.folder, view)
    except (stage.DemoFailure, CaddyMissing, EmbeddedRefused, UnsafeSettings, OSError, httpx.HTTPError) as failure:
        sys.stderr.write(f"demo: {failure}\n")
        return 1
    except SystemExit:
        sys.stderr.write("demo: stopped before its end\n")
        raise
    screen.show(console, outcome)
    if outcome.good:
        shutil.rmtree(stage.LOGS, ignore_errors=True)
    return 0 if outcome.good else 1


def _played(folder: Path | None, view: View) -> DemoOutcome:
    began = time.monotonic()
    with stage.built(load(), folder, view.say) as built:
        play = DemoRun(built)
        for rows in play.perform():
            view.show(rows, *play.counts)
        view.say("Collecting the evidence")
        seen = play.gather()
    stories, evidence = proofs.of_stories(seen), proofs.of_evidence(seen)
    outcome = DemoOutcome(built.cast.tenant, time.monotonic() - began, stories, evidence)
    screen.write_details(seen, outcome)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
