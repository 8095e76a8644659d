"""The report of a run: its invariants, faults and counts as tables, and how to play it again."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from chaos.invariants import MOST_SHOWN
from chaos.run import Result

GOOD, BAD = Text("✓", "bold green"), Text("✗", "bold red")


def show(console: Console, result: Result) -> None:
    """Print it."""
    table = Table("", "", "invariant", "looked at", title=f"seed {result.plan.seed}, {result.seconds:.0f} s in all")
    for one in result.findings:
        table.add_row(GOOD if one.holds else BAD, one.name, one.says, one.looked_at)
    console.print(table)
    for line in _lines(result):
        console.print(Text(line))


def _lines(result: Result) -> Iterator[str]:
    done = ", ".join(f"{kind} {count}" for kind, count in sorted(result.done.items()))
    yield f"{sum(result.done.values())} faults: {done}"
    if result.missed:
        yield f"not done: {', '.join(result.missed)}"
    yield ", ".join(f"{count:,} {what}" for what, count in result.counts.items())
    for (name, code), count in result.ended.items():
        yield f"{name} ended by itself with {code}, {count} times"
    for one in result.findings:
        yield from (f"{one.name}: {line}" for line in one.off[:MOST_SHOWN])
        if len(one.off) > MOST_SHOWN:
            yield f"{one.name}: and {len(one.off) - MOST_SHOWN} more"
    if not result.good:
        yield "the plan was:"
        yield from (f"  {line}" for line in result.plan.lines())
        yield f"again: make chaos SEED={result.plan.seed} SECONDS={result.plan.seconds:g}"
