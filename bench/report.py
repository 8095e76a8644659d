"""Report the results of a run: on the terminal, as JSON and as Markdown, the ratios first."""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from bench.figures import Comparison, Figure
from bench.targets import BenchResults, Measured, Peer, comparisons, targets

RESULTS = Path(__file__).parent / "results"
CPUINFO = Path("/proc/cpuinfo")
BUSY_PERCENT = 20
SMALL = 100
COUNTED = ("storms", "floor_storms", "submits", "floor_submits", "floor_rows")
"""Results whose keys are numbers: JSON only has text keys."""
NONE = "-"


def machine() -> str:
    """Return a description of the machine."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores ({_model()}), {memory:.0f} GiB, Python {platform.python_version()}"


def _model() -> str:
    if CPUINFO.exists():
        for line in CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def busy() -> float:
    """Return how many percent of the machine other processes take at this moment."""
    return psutil.cpu_percent(interval=1)


def number(value: float) -> str:
    """Write a figure with as many digits as are meaningful."""
    return f"{value:,.0f}" if abs(value) >= SMALL else f"{value:.3g}"


def beside(rows: Iterable[Comparison]) -> list[list[str]]:
    """Return the table of ratios and of the figures behind them; its first row is the head."""
    listed = list(rows)
    peers = list(dict.fromkeys(name for row in listed for name in row.peers))
    head = ["load", "of the floor", "times the best peer", "Lockbox", "floor", *peers]
    return [head, *([*_ratios(row), *_others(row, peers)] for row in listed)]


def _ratios(row: Comparison) -> list[str]:
    share, times = row.of_floor, row.times_best_peer
    return [
        f"{row.what}, {row.unit}",
        NONE if share is None else f"{share:.0%}",
        NONE if times is None else f"{number(times)} times",
        number(row.lockbox),
    ]


def _others(row: Comparison, peers: Iterable[str]) -> list[str]:
    found = [row.floor, *(row.peers.get(name) for name in peers)]
    return [NONE if value is None else number(value) for value in found]


def held(rows: Iterable[Figure]) -> list[list[str]]:
    """Return the table of targets; its first row is the head."""
    head = ["measured", "figure", "target", "of target"]
    return [
        head,
        *(
            [row.what, f"{number(row.value)} {row.unit}".strip(), limit(row), f"{row.ratio:.0%}" + _missed(row)]
            for row in rows
        ),
    ]


def limit(row: Figure) -> str:
    """Return the smallest or largest value that meets the target."""
    sign = "≥" if row.more_is_better else "≤"
    return f"{sign} {number(row.target)} {row.unit}".strip()


def _missed(row: Figure) -> str:
    if row.is_met:
        return ""
    return f", {number(row.refused)} turned away: missed" if row.refused else " missed"


def times(took: Mapping[str, float], whole: float) -> list[list[str]]:
    """Return how many seconds each part took, the longest first, and the seconds that belong to no part."""
    listed = sorted({**took, "all else": whole - sum(took.values())}.items(), key=lambda part: -part[1])
    return [["part", "s"], *([name, f"{seconds:.1f}"] for name, seconds in listed), ["all", f"{whole:.1f}"]]


def markdown(title: str, tables: Iterable[tuple[str, Sequence[Sequence[str]]]]) -> str:
    """Return a page of tables."""
    parts = [f"# {title}"]
    for name, (head, *rows) in tables:
        lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
        parts += [f"## {name}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def show(console: Console, title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a table; rows that missed their target are red."""
    table = Table(*rows[0], title=title)
    for row in rows[1:]:
        table.add_row(*row, style="red" if row[-1].endswith("missed") else None)
    console.print(table)


def write(name: str, title: str, found: BenchResults) -> Path:
    """Store a run as NAME.json and NAME.md; return the path of the JSON."""
    ratios, limits = comparisons(found), targets(found)
    RESULTS.mkdir(parents=True, exist_ok=True)
    tables = (
        ("Beside floor and peers", beside(ratios)),
        ("Targets", held(limits)),
        ("All figures", everything(found)),
    )
    (RESULTS / f"{name}.md").write_text(markdown(title, tables))
    path = RESULTS / f"{name}.json"
    held_to = [{**asdict(row), "ratio": row.ratio} for row in limits]
    path.write_text(json.dumps({"title": title, "targets": held_to, "measured": asdict(found)}, indent=2) + "\n")
    return path


def read(path: Path) -> BenchResults:
    """Return the results of a stored run."""
    found = json.loads(path.read_text())["measured"]
    for part in COUNTED:
        found[part] = _counted(found[part])
    for name, peer in found["peers"].items():
        found["peers"][name] = Peer(**{**peer, "storms": _counted(peer["storms"])})
    return BenchResults(**found)


def _counted(runs: Mapping[str, Measured]) -> dict[int, Measured]:
    return {int(count): run for count, run in runs.items()}


def everything(found: BenchResults) -> list[list[str]]:
    """Return all figures as a table, each named by its path in the results."""
    return [["figure", "value"], *([name, number(value)] for name, value in _flat("", asdict(found)))]


def _flat(path: str, values: object) -> Iterable[tuple[str, float]]:
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _flat(f"{path} {name}".strip(), value)
    elif isinstance(values, int | float):
        yield path, float(values)
