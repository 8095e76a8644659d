"""`make bench`: one run on one machine. It prints ratios and targets as tables, and writes all to bench/results/.

`python -m bench SIZE PART…` measures only some parts, prints them and writes nothing.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import structlog
from rich.console import Console
from sqlalchemy.engine import make_url

from bench import (
    audit_log,
    backlog,
    bare_stack,
    crowd,
    customers,
    deadlines,
    floor,
    gate_checks,
    http_load,
    lists,
    mails,
    peer_runs,
    pending,
    readme,
    report,
)
from bench.bench_size import OF_STACK, PARTS, SIZES, USUAL, Size
from bench.customers import Customers
from bench.figures import medians
from bench.http_load import Subject
from bench.lockbox_stack import Bench, Site, running, site
from bench.targets import BenchResults, comparisons, targets
from devstack.signals import end_on_signals
from harness.stage import copied

CUSTOMERS = 200
A_SECOND = 200
WARM_UP = 500
BEHIND = 10_000
MOST_OF_FLOOR = 100_000
WITH_FLOOR = ("storms", "submits", "lives", "notified", "checks")
OUT = Console()
STARTED = time.monotonic()
TOOK: dict[str, float] = {}
Found = TypeVar("Found")


def main() -> int:
    """Measure, print and write; the usual size also into the README. Return 0 if every target is met, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("size", nargs="?", choices=SIZES, default=USUAL.name)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; by default what the size has"
    )
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    size = SIZES[asked.size]
    size = replace(size, parts=tuple(asked.parts) or size.parts)
    end_on_signals()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    others = report.busy()
    title = f"Lockbox on {report.machine()}"
    if others > report.BUSY_PERCENT:
        OUT.print(f"[yellow]Other processes take {others:.0f} % of this machine: the figures will mean little.[/]")
    found = measure_all(size)
    ratios, limits = list(comparisons(found)), targets(found)
    report.show(OUT, title, report.beside(ratios))
    report.show(OUT, title, report.held(limits))
    report.show(OUT, "Time", report.times(TOOK, time.monotonic() - STARTED))
    if asked.parts:
        report.show(OUT, title, report.everything(found))
    else:
        _write(size, f"{title}; others took {others:.0f} % of it", found)
    return 0 if all(row.is_met for row in limits) else 1


def _write(size: Size, title: str, found: BenchResults) -> None:
    written = report.write(size.name, title, found)
    if size.name == USUAL.name:
        readme.write(report.read(written))
    if size.peers:
        peer_runs.draw(written)
    OUT.print(f"Written to {written.with_suffix('.md')} after {time.monotonic() - STARTED:.0f} s.")


def measure_all(size: Size) -> BenchResults:
    """Measure all parts of a size: those that need quiet servers, then those of the running stack, then the peers."""
    found: dict[str, Any] = {}
    if size.has("gate"):
        found["gate"] = _stage("gate", lambda: gate_checks.measure(size.http_seconds))
    if size.parts == ("gate",):
        return BenchResults(**found)
    with _entered("servers and people", site()) as place:
        crowd_ = _stage("customers", lambda: customers.settle_in(place.plan, CUSTOMERS))
        found |= _history(place, crowd_, size)
        if size.has(*WITH_FLOOR):
            found |= _floor(place, crowd_, size)
        if size.has(*OF_STACK):
            with _entered("the stack", running(place)) as bench:
                found |= _deadlines(bench, size)
                found |= _over_http(bench, crowd_, size)
        if size.has("peers"):
            found["peers"] = {
                name: _stage(name, partial(peer_runs.measure, place, crowd_, name, size)) for name in size.peers
            }
    return BenchResults(**found)


def _history(place: Site, crowd_: Customers, size: Size) -> dict[str, Any]:
    superuser, plan, people = place.superuser, place.plan, place.reviewed
    found: dict[str, Any] = {}
    if size.has("crowd"):
        api = make_url(plan.database_url)
        found["crowd"] = _stage("crowd", lambda: crowd.measure(superuser, api, plan.redis_url, people))
    if size.has("audit_log"):
        with copied(superuser, audit_log.COPY):
            found["audit_log"] = _stage(
                "audit_log", lambda: audit_log.measure(superuser, plan, people, place.folder, size.audit_log_events)
            )
    if size.has("lists"):
        found["lists"] = _stage("lists", lambda: lists.measure(place, crowd_, size.closed))
    if size.has("sorted_set"):
        found["sorted_set"] = _stage("sorted_set", lambda: floor.sorted_set(place.plan.redis_url))
    return found


def _floor(place: Site, crowd_: Customers, size: Size) -> dict[str, Any]:
    """Measure the floor of each part that has one, on a copy of the database."""
    found: dict[str, Any] = {}
    with _entered("a copy of the database", copied(place.superuser, bare_stack.DATABASE)):
        if size.has("storms"):
            counts = [count for count, _ in size.storms if count <= MOST_OF_FLOOR]
            counts.sort(key=lambda count: abs(count - BEHIND))
            found["floor_storms"] = _stage(
                "storms: floor", lambda: floor.storms(place, counts, size.floor_batches, size.floor_rounds)
            )
        if size.has(*WITH_FLOOR[1:]):
            with _entered("a bare endpoint", bare_stack.serving(place)) as bare:
                found |= _bare(bare, crowd_, place.world.tokens["gate"], size)
    return found


def _bare(bare: Subject, crowd_: Customers, gate: str, size: Size) -> dict[str, Any]:
    found: dict[str, Any] = {}
    seconds, rounds = size.http_seconds, size.http_rounds
    if size.has("submits"):
        rows = bare.under("/rows")
        found["floor_submits"] = _stage("submits: floor", lambda: http_load.submits(bare, crowd_, seconds, rounds))
        found["floor_rows"] = _stage("submits: same rows", lambda: http_load.submits(rows, crowd_, seconds, rounds))
        found["floor_paced_submits"] = _stage(
            "paced submits: floor", lambda: http_load.paced_submits(bare, crowd_, 2 * seconds)
        )
    with_mails = bare.under("/mail")
    if size.has("lives"):
        found["floor_lives"] = _stage("lives: floor", lambda: http_load.lives(with_mails, crowd_, size.lives))
    if size.has("notified"):
        found["floor_notified"] = _stage(
            "notified: floor", lambda: http_load.notified(with_mails, crowd_, size.notified)
        )
    if size.has("checks"):
        found["floor_checks"] = _stage("checks: floor", lambda: http_load.idle_checks(bare, crowd_, gate, seconds))
    return found


def _deadlines(bench: Bench, size: Size) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if size.has("pending"):
        found["pending"] = _stage("pending", lambda: pending.wait(bench, size.pending, size.idle_seconds))
    if size.has("lone", "steady"):
        found["lone"] = _stage("lone", lambda: deadlines.lone(bench, size.lone_rounds))
    if size.has("storms"):
        found["storms"] = _stage("storms", lambda: _storms(bench, size))
        found["storm_behind"] = _stage("a storm behind a storm", lambda: _behind(bench, size))
    if size.has("steady"):
        _rest(bench)
        found["steady"] = _stage("steady", lambda: deadlines.steady(bench, A_SECOND, size.steady_seconds))
    return found


def _storms(bench: Bench, size: Size) -> dict[int, dict[str, float]]:
    deadlines.storm(bench, WARM_UP)
    seen = {}
    for count, rounds in size.storms:
        runs = []
        for _ in range(rounds):
            backlog.give_up(bench.superuser)
            runs.append(deadlines.storm(bench, count))
        seen[count] = medians(runs)
    return seen


def _behind(bench: Bench, size: Size) -> dict[str, float]:
    """Let ten thousand requests fall due while the notifications of as many others, due earlier, are unsent.

    These are the last storm's, if that storm had this size.
    """
    if size.storms[-1][0] != BEHIND:
        backlog.give_up(bench.superuser)
        deadlines.storm(bench, BEHIND)
    return deadlines.storm(bench, BEHIND)


def _over_http(bench: Bench, crowd_: Customers, size: Size) -> dict[str, Any]:
    gate, seconds, subject = bench.world.tokens["gate"], size.http_seconds, bench.subject
    loads: Sequence[tuple[str, str, Callable[[], Any]]] = (
        ("checks", "checks", lambda: http_load.checks(subject, crowd_, gate, seconds)),
        ("flooded", "flooded", lambda: http_load.flooded_checks(subject, crowd_, gate, seconds)),
        ("submits", "submits", lambda: http_load.submits(subject, crowd_, seconds, size.http_rounds)),
        ("submits", "paced_submits", lambda: http_load.paced_submits(subject, crowd_, 2 * seconds)),
        ("lives", "lives", lambda: http_load.lives(subject, crowd_, size.lives)),
        ("notified", "notified", lambda: http_load.notified(subject, crowd_, size.notified)),
        ("pending", "rebuild", lambda: pending.rebuild(bench)),
        ("mails", "mails", lambda: mails.measure(bench)),
    )
    found = {}
    for part, name, load in loads:
        if size.has(part):
            _rest(bench)
            found[name] = _stage(name, load)
    return found


@contextmanager
def _entered(name: str, place: AbstractContextManager[Found]) -> Iterator[Found]:
    with ExitStack() as ends:
        yield _stage(f"{name}: to start", lambda: ends.enter_context(place))
        _stage(f"{name}: to end", ends.close)


def _stage(name: str, work: Callable[[], Found]) -> Found:
    began = time.monotonic()
    found = work()
    took = time.monotonic() - began
    TOOK[name] = TOOK.get(name, 0.0) + took
    OUT.print(f"{time.monotonic() - STARTED:5.0f} s  {name}: {took:.1f} s")
    return found


def _rest(bench: Bench) -> None:
    _stage("rests", lambda: backlog.give_up(bench.superuser))


if __name__ == "__main__":
    sys.exit(main())
