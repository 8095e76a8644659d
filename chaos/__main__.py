"""`make chaos` and `make soak`: one seed, played on servers of its own; 0 only if every invariant holds."""

import argparse
import math
import os
import secrets
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from chaos import plan, report, run, stage
from chaos.drain import NotHealed
from cli import stack
from cli.endings import end_on_signals
from config.embedded import EmbeddedRefused

FIRST_PORT = 13000 + os.getpid() * 40 % 1200
"""Where nothing else of ours listens, and hardly another run beside this one."""
MOST_SEEDS = 1_000_000
PATIENCE, MOST_PATIENCE = 70.0, 600.0
"""Seconds; a lease of a notice's first claim is a minute."""


def main(arguments: list[str] | None = None) -> int:
    """Play, print and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(MOST_SEEDS))
    parser.add_argument("--seconds", type=float, default=75, help="of load and faults")
    parser.add_argument(
        "--patience",
        type=patience,
        help=f"seconds before leases and back-offs are wound on; {PATIENCE:g} where not given",
    )
    parser.add_argument("--logs", type=Path, default=stack.LOGS / "chaos")
    asked = parser.parse_args(arguments)
    end_on_signals()
    console = Console()
    planned = plan.make(asked.seed, asked.seconds)
    for line in planned.lines():
        console.print(line, highlight=False)
    for old in asked.logs.glob("*.log"):
        old.unlink()
    try:
        result = _played(planned, PATIENCE if asked.patience is None else asked.patience, asked.logs, console)
    except (NotHealed, EmbeddedRefused, OSError, RuntimeError) as failure:
        console.print(f"chaos: {type(failure).__name__} {failure}; logs are in {asked.logs}")
        console.print(report.again(planned, asked.patience))
        return 1
    report.show(console, result, asked.patience)
    return 0 if result.good else 1


def patience(word: str) -> float:
    """Read how long to wait.

    Raises:
        ArgumentTypeError: it is no number of seconds from 0 to ten minutes.
    """
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MOST_PATIENCE:
        raise argparse.ArgumentTypeError(f"{word!r} is no number of seconds from 0 to {MOST_PATIENCE:g}")
    return seconds


def _played(planned: plan.Plan, patience: float, logs: Path, console: Console) -> run.Result:
    with ExitStack() as ends:
        parent = Path(tempfile.mkdtemp(prefix="lockbox-chaos-"))
        ends.callback(shutil.rmtree, parent, ignore_errors=True)
        parent.chmod(0o755)
        console.print("starting the servers …")
        prepared = stage.prepare(parent / "servers", FIRST_PORT)
        servers = prepared.servers
        if servers is None:
            raise EmbeddedRefused("chaos needs servers of its own")
        ends.callback(servers.stop)
        built = ends.enter_context(stage.built(prepared, servers, planned, logs, FIRST_PORT))
        columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        progress = ends.enter_context(Progress(*columns, console=console, transient=True))
        task = progress.add_task("", total=1)

        def tell(what: str, share: float) -> None:
            progress.update(task, completed=share, **({"description": what} if what else {}))  # type: ignore[arg-type]

        return run.play(built, patience, tell)


if __name__ == "__main__":
    sys.exit(main())
