"""`make explore`: more states than the tests have time for; `EXPLORE="--states 3000000 --faults 2"` says how many."""

import argparse
import time

from rich.console import Console

from tests.model.explorer import (
    EVERYBODY,
    EXTENSION,
    FEW,
    GLASS,
    LATER,
    SEVERE,
    SILENCE,
    STEPS,
    YES,
    Bound,
    explore,
    explore_outbox,
)
from tests.model.outbox import LIVES, OutboxRules
from tests.model.rules import ModelRules


def main() -> int:
    """Explore each case that far; the exit code is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--states", type=int, default=1_000_000, help="at most, for each case")
    parser.add_argument("--faults", type=int, default=1, help="how much may go wrong")
    parser.add_argument("--ticks", type=int, default=4, help="how far the clock goes")
    given = parser.parse_args()
    bound, out, bad = Bound(given.states, given.ticks, given.faults), Console(highlight=False), False
    for case in (*FEW, GLASS, YES, STEPS, SILENCE, *EVERYBODY, LATER, EXTENSION, SEVERE):
        began = time.monotonic()
        explored = explore(case, ModelRules(), bound)
        out.print(f"{case.name}: {explored} ({time.monotonic() - began:.0f} s)")
        bad = bad or explored.wrong is not None
    for name, life in LIVES.items():
        explored = explore_outbox(life, OutboxRules(), bound)
        out.print(f"the outbox, {name}: {explored}")
        bad = bad or explored.wrong is not None
    return int(bad)


raise SystemExit(main())
