"""The README's table of what was measured: `python -m bench.readme` writes it from bench/results/bench.json."""

from collections.abc import Iterator
from pathlib import Path

from bench.figures import Comparison, Figure
from bench.report import NONE, RESULTS, limit, number, read
from bench.sizes import USUAL
from bench.targets import COMPARED, BenchResults, comparisons, targets

README = Path(__file__).parents[1] / "README.md"
BEGINNING = "<!-- the rows below are written by make bench -->\n"
PEERS = {"celery_eta": "Celery ETA", "dramatiq_delay": "dramatiq"}
HEAD = ["", "Lockbox", "floor", *PEERS.values(), "target"]


def main() -> None:
    """Write the table of the last `make bench`."""
    write(read(RESULTS / f"{USUAL.name}.json"))


def write(found: BenchResults) -> None:
    """Write the table of a run into the README."""
    README.write_text(placed(README.read_text(), table(found)))


def placed(page: str, rows: str) -> str:
    """Return the page with these rows from the marker to the first empty line, in the place of those that were there.

    Raises:
        ValueError: the marker is not there, or not once.
    """
    before, rest = page.split(BEGINNING)
    _, end, after = f"\n{rest}".partition("\n\n")
    return f"{before}{BEGINNING}{rows}{end[1:]}{after}"


def table(found: BenchResults) -> str:
    """Return the table, a line each, won or lost: all that others were put to, and what people wait for."""
    rows = [HEAD, ["---"] * len(HEAD), *lines(found)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def lines(found: BenchResults) -> Iterator[list[str]]:
    """Yield the rows."""
    beside, held = list(comparisons(found)), targets(found)

    def ours(what: str) -> Comparison:
        return next(one for one in beside if one.what.startswith(what))

    def limited(what: str) -> Figure:
        return next(one for one in held if one.what.startswith(what))

    told = f"CPU of a whole life, {found.lives['notifications']:.0f} mails included (theirs: 2), ms"
    at_once = ours(f"{COMPARED:,} due")
    yield _beside(
        "10,000 deadlines at one instant: ended, /s", at_once, limited("10,000 at one instant: times"), "the best"
    )
    yield _beside("the last of them late by, s", _last(found), limited("10,000 due at one instant: last"))
    yield _beside("filed by 8 clients and told of by mail, /s", ours("filed and told of"))
    yield _beside(told, ours("CPU of a life"), limited("CPU of a life"))
    yield _beside("a pending deadline beside its row, bytes", ours("a deadline that waits"))
    yield _beside(
        "filed over HTTP by 8 clients, /s",
        ours("filed over HTTP by 8"),
        limited("filed over HTTP by 8: of"),
        "of the floor",
    )
    yield _alone("p99 of these", limited("filed over HTTP by 8: p99"))
    yield _alone("access check from 16 clients, p99", limited("access check"))
    yield _alone("200 deadlines a second: late by, p99", limited("200 deadlines a second"))


def _last(found: BenchResults) -> Comparison:
    peers = {name: peer.storms[COMPARED]["last_seconds"] for name, peer in found.peers.items()}
    last, floor = (runs[COMPARED]["last_seconds"] for runs in (found.storms, found.floor))
    return Comparison("last", "s", last, floor, peers, more_is_better=False)


def _beside(what: str, row: Comparison, figure: Figure | None = None, of: str = "") -> list[str]:
    others = [None if row.floor is None else row.floor, *(row.peers.get(name) for name in PEERS)]
    shown = [NONE if value is None else number(value) for value in others]
    return [what, f"**{number(row.lockbox)}**", *shown, _aim(figure, of) if figure else _ahead(row)]


def _alone(what: str, figure: Figure) -> list[str]:
    return [f"{what}, {figure.unit}", f"**{number(figure.value)}**", NONE, NONE, NONE, _aim(figure, "")]


def _aim(figure: Figure, of: str) -> str:
    """Say what is aimed at and whether it is missed; where it is a share of what others do, what it was."""
    aim = f"{limit(figure)} {of}".strip()
    said = [] if figure.is_met else ["missed"]
    if of:
        said.append(f"{number(figure.value)} {figure.unit}")
    if figure.refused:
        said.append(f"{number(figure.refused)} turned away")
    return f"{aim}: {', '.join(said)}" if said else aim


def _ahead(row: Comparison) -> str:
    times = row.times_best_peer
    if times is None:
        return NONE
    return f"more than the best: {'' if times > 1 else 'missed, '}{number(times)} times as good"


if __name__ == "__main__":
    main()
