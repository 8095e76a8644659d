"""`make chaos` and `make soak`: play seeds, each on servers of its own.

The exit code is 0 only if every invariant holds for each seed and, with several seeds, all that has to happen
sometimes happened for at least one.
"""

import argparse
import math
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from chaos import hunt, plan, planted, report, run, sometimes, stage
from chaos.drain import NotHealed
from devstack import stack
from devstack.embedded import EmbeddedRefused
from devstack.signals import end_on_signals
from harness.stage import own_stack

MOST_SEEDS = 1_000_000
PATIENCE, MOST_PATIENCE = 70.0, 600.0
"""In seconds. The lease of a notification's first claim is a minute."""


def main(arguments: list[str] | None = None) -> int:
    """Play the seeds, print the results and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(MOST_SEEDS))
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds to play, one after the other")
    parser.add_argument("--seconds", type=float, default=75, help="of load and faults")
    parser.add_argument(
        "--patience",
        type=patience,
        help=f"seconds before leases and back-offs are wound on; {PATIENCE:g} where not given",
    )
    parser.add_argument("--bug", choices=planted.BUGS, help="plant this bug, and look whether each seed finds it")
    parser.add_argument("--logs", type=Path, default=stack.LOGS / "chaos")
    asked = parser.parse_args(arguments)
    end_on_signals()
    console = Console()
    plans = [plan.make(seed, asked.seconds) for seed in range(asked.seed, asked.seed + asked.seeds)]
    try:
        if asked.bug:
            return max(_hunted(planned, asked.bug, asked.logs, console) for planned in plans)
        return _checked([_played(planned, asked.patience, asked.logs, console) for planned in plans], console)
    except (NotHealed, EmbeddedRefused, OSError, RuntimeError) as failure:
        console.print(f"chaos: {type(failure).__name__} {failure}; logs are in {asked.logs}")
        return 1


def patience(word: str) -> float:
    """Read how long to wait.

    Raises:
        ArgumentTypeError: the word is not a number of seconds from 0 to ten minutes.
    """
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MOST_PATIENCE:
        raise argparse.ArgumentTypeError(f"{word!r} is no number of seconds from 0 to {MOST_PATIENCE:g}")
    return seconds


def _checked(results: Sequence[run.Result], console: Console) -> int:
    """Print how often what has to happen sometimes did, over all seeds; return 0 if all is well.

    A single seed may miss some of it.
    """
    total = {
        name: sum(result.sometimes[name] for result in results) for name in (*sometimes.NAMES, *sometimes.FURTHER)
    }
    never = report.show_sometimes(console, total)
    is_demanded = len(results) > 1
    return int(bool(is_demanded and never) or not all(result.good for result in results))


def _played(planned: plan.FaultPlan, asked: float | None, logs: Path, console: Console) -> run.Result:
    with _stage(planned, logs, console) as built, _progress(console) as tell:
        try:
            result = run.play(built, PATIENCE if asked is None else asked, tell)
        except Exception:
            console.print(report.again(planned, asked))
            raise
    report.show(console, result, asked)
    return result


def _hunted(planned: plan.FaultPlan, bug: str, logs: Path, console: Console) -> int:
    with _stage(planned, logs, console, bug) as built, _progress(console) as tell:
        found, seconds = hunt.play(built, tell)
    said = f"found after {seconds:.1f} s: {found}" if found else f"not found in {seconds:.1f} s"
    console.print(f"seed {planned.seed}, {bug}: {said}", highlight=False)
    return int(not found)


@contextmanager
def _stage(planned: plan.FaultPlan, logs: Path, console: Console, bug: str = "") -> Iterator[stage.ChaosStack]:
    for line in planned.lines():
        console.print(line, highlight=False)
    for old in logs.glob("*.log"):
        old.unlink()
    console.print("starting the servers …")
    with own_stack("chaos") as prepared, stage.built(prepared, planned, logs, bug=bug) as built:
        yield built


@contextmanager
def _progress(console: Console) -> Iterator[run.Tell]:
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1)

        def tell(what: str, share: float) -> None:
            progress.update(task, completed=share, **({"description": what} if what else {}))  # type: ignore[arg-type]

        yield tell


if __name__ == "__main__":
    sys.exit(main())
