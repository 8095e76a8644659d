"""The report of a run: its invariants, faults and counts as tables, and the command that plays it again."""

from collections import Counter
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from chaos.invariants import MOST_SHOWN
from chaos.plan import FaultPlan
from chaos.run import Result

GOOD, BAD = Text("✓", "bold green"), Text("✗", "bold red")


def again(plan: FaultPlan, patience: float | None) -> str:
    """Return the command that plays a run once more; `patience` is the option's value, None if it was not given."""
    command = f"again: make chaos SEED={plan.seed} SECONDS={plan.seconds:g}"
    return command if patience is None else f"{command} PATIENCE={patience:g}"


def show(console: Console, result: Result, patience: float | None) -> None:
    """Print the report; `patience` is as in `again`."""
    table = Table("", "", "invariant", "looked at", title=f"seed {result.plan.seed}, {result.seconds:.0f} s in all")
    for finding in result.findings:
        table.add_row(GOOD if finding.holds else BAD, finding.name, finding.says, finding.looked_at)
    console.print(table)
    for line in _lines(result, patience):
        console.print(Text(line))


def show_sometimes(console: Console, counts: Mapping[str, int]) -> list[str]:
    """Print how often what has to happen sometimes did, over all seeds; return what never did."""
    never = [name for name, count in counts.items() if not count]
    console.print(Text(", ".join(f"{count} times {name}" for name, count in counts.items() if count)))
    for name in never:
        console.print(Text(f"never happened: {name}; play longer, or more seeds: SECONDS=, SEEDS="))
    return never


def _lines(result: Result, patience: float | None) -> Iterator[str]:
    done = Counter(one.fault.kind for one in result.struck if not one.failed)
    yield f"{done.total()} faults: {', '.join(f'{kind} {count}' for kind, count in sorted(done.items()))}"
    if missed := [f"{one.fault.kind} {one.fault.target}: {one.failed}" for one in result.struck if one.failed]:
        yield f"not done: {', '.join(missed)}"
    yield ", ".join(f"{count:,} {what}" for what, count in result.counts.items())
    for (name, code), count in Counter((one.name, one.code) for one in result.ended).items():
        yield f"{name} ended by itself with {code}, {count} times"
    for one in result.findings:
        yield from (f"{one.name}: {line}" for line in one.off[:MOST_SHOWN])
        if len(one.off) > MOST_SHOWN:
            yield f"{one.name}: and {len(one.off) - MOST_SHOWN} more"
    if not result.good:
        yield "the plan was:"
        yield from (f"  {line}" for line in result.plan.lines())
        yield again(result.plan, patience)
