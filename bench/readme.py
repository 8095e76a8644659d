"""The README's table of measurements: `python -m bench.readme` writes it from bench/results/bench.json."""

from collections.abc import Iterator
from pathlib import Path

from bench.bench_size import USUAL
from bench.figures import Comparison, Figure
from bench.report import NONE, RESULTS, limit, number, read
from bench.targets import BenchResults, comparisons, targets

README = Path(__file__).parents[1] / "README.md"
BEGINNING = "<!-- the rows below are written by make bench -->\n"
PEERS = {"celery_eta": "Celery ETA", "dramatiq_delay": "dramatiq", "redbeat_entries": "RedBeat", "dbos_delay": "DBOS"}
HEAD = ["", "Lockbox", "floor", "best peer", "target"]
SHOWN = (
    ("10,000 deadlines at once: the last one ended after", "10,000 deadlines at once", "10,000 deadlines at once"),
    (
        "submitted by 8 clients and the approver notified by mail",
        "submitted by 8 clients and",
        "submitted and notified, 8 clients",
    ),
    ("CPU of a whole life over HTTP, {mails} mails", "CPU of a life", "CPU of a life"),
    ("submitted by 8 clients", "submitted by 8 clients, to a bare endpoint with one row", "submitted by 8 clients:"),
    (
        "answered by the gate to 16 clients, a core",
        "the gate, 16 clients, remembered tokens, to a route that does nothing",
        "the gate, 16 clients, remembered tokens: a core",
    ),
    ("from a revoke to the gate's last yes, without Redis: p99", "", "revoke, without Redis: the gate's last yes"),
)
"""The text of a row, and the beginnings of the names of its comparison (empty if there is none) and of its target."""
ALL = "bench/results/bench.md#targets"


def main() -> None:
    """Write the table of the last `make bench`."""
    write(read(RESULTS / f"{USUAL.name}.json"))


def write(found: BenchResults) -> None:
    """Write the table of a run into the README."""
    README.write_text(placed(README.read_text(), table(found)))


def placed(page: str, rows: str) -> str:
    """Return the page with these rows in place of those between the marker and the next empty line.

    Raises:
        ValueError: the marker is missing, or is there more than once.
    """
    before, rest = page.split(BEGINNING)
    _, end, after = f"\n{rest}".partition("\n\n")
    return f"{before}{BEGINNING}{rows}{end[1:]}{after}"


def table(found: BenchResults) -> str:
    """Return the table: what a reader compares, won or lost, and how many targets are met."""
    rows = [HEAD, ["---"] * len(HEAD), *lines(found)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def lines(found: BenchResults) -> Iterator[list[str]]:
    """Yield the rows."""
    beside, held = list(comparisons(found)), targets(found)
    for what, compared, held_to in SHOWN:
        row = next((one for one in beside if compared and one.what.startswith(compared)), None)
        figure = next((one for one in held if one.what.startswith(held_to)), None)
        label = what.format(mails=f"{found.lives.get('mails', 0):.0f}")
        if row and figure:
            yield _beside(label, row, figure)
        elif figure:
            yield [f"{label}, {figure.unit}", f"**{number(figure.value)}**", NONE, NONE, _aim(figure)]
    missed = sum(not figure.is_met for figure in held)
    yield [f"all {len(held)} targets: met", f"**{len(held) - missed}**", NONE, NONE, f"[{missed} missed]({ALL})"]


def _beside(what: str, row: Comparison, figure: Figure) -> list[str]:
    floor = NONE if row.floor is None else number(row.floor)
    return [f"{what}, {row.unit}", f"**{number(row.lockbox)}**", floor, _best(row), _aim(figure)]


def _best(row: Comparison) -> str:
    if row.best_peer is None:
        return NONE
    name = next(name for name, value in row.peers.items() if value == row.best_peer)
    return f"{number(row.best_peer)} ({PEERS[name]})"


def _aim(figure: Figure) -> str:
    """Return the target and the figure in words, and whether the target was missed."""
    aim = limit(figure)
    if figure.is_met:
        return f"{aim}: {number(figure.value)}"
    refused = f", {number(figure.refused)} turned away" if figure.refused else ""
    return f"{aim}: {number(figure.value)}{refused}, missed"


if __name__ == "__main__":
    main()
