"""`make bench`: one run on one machine; ratios and targets as tables, and all of it in bench/results/."""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

import structlog
from rich.console import Console
from sqlalchemy.engine import make_url

from bench import audit_log, crowd, customers, doors, floor, least, measure, peer_runs, pending, reach, readme, report
from bench.customers import Customers
from bench.db import Bench, Site, running, site
from bench.figures import medians
from bench.sizes import SIZES, USUAL, Size
from bench.targets import BenchResults, comparisons, targets
from cli.signals import end_on_signals
from harness.stage import copied

CUSTOMERS = 200
A_SECOND = 200
TELLING = 8
WARM_UP = 500
BEHIND = 10_000
MOST_OF_FLOOR = 100_000
OUT = Console()
STARTED = time.monotonic()
TOOK: dict[str, float] = {}
Found = TypeVar("Found")


def main() -> int:
    """Measure, print, write it down, the usual size in the README too; 0 if every target is met, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("size", nargs="?", choices=SIZES, default=USUAL.name)
    size = SIZES[parser.parse_args().size]
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
    written = report.write(size.name, f"{title}; others took {others:.0f} % of it", found, ratios, limits)
    if size is USUAL:
        readme.write(report.read(written))
    if size.peers:
        peer_runs.plot(written)
    OUT.print(f"Written to {written.with_suffix('.md')} after {time.monotonic() - STARTED:.0f} s.")
    return 0 if all(row.is_met for row in limits) else 1


def measure_all(size: Size) -> BenchResults:
    """Measure all that a size names: first what needs quiet servers, then the running stack, then the others."""
    with _entered("servers and people", site()) as place:
        found = _history(place, size) if size.has_history else {}
        crowd_ = _stage("customers", lambda: customers.settle_in(place.plan, CUSTOMERS))
        found |= _quiet(place, crowd_, size)
        with _entered("the stack", running(place)) as bench:
            found |= _deadlines(bench, size)
            found |= _doors(bench, crowd_, size)
            found["rebuild"] = _stage("a schedule that is lost", lambda: pending.rebuild(bench))
            if size.has_history:
                found["reach"] = _stage("notifications", lambda: reach.measure(bench))
        found["peers"] = {name: _stage(name, partial(peer_runs.measure, place, name, size)) for name in size.peers}
    return BenchResults(**found)


def _history(place: Site, size: Size) -> dict[str, Any]:
    superuser, plan, people = place.superuser, place.plan, place.reviewed
    api = make_url(plan.database_url)
    with crowd.copies(superuser):
        beside = _stage(
            "submits beside a crowd", lambda: crowd.measure(superuser, api, plan.redis_url, people, lambda: None)
        )
    with copied(superuser, audit_log.COPY):
        kept = _stage(
            "the audit log", lambda: audit_log.measure(superuser, plan, people, place.folder, size.audit_log_events)
        )
    return {"crowd": beside, "audit_log": kept}


def _quiet(place: Site, crowd_: Customers, size: Size) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with _entered("a copy of the database", copied(place.superuser, least.DATABASE)):
        floor.prepare(place)
        counts = [count for count, _ in size.storms if count <= MOST_OF_FLOOR]
        counts.sort(key=lambda count: abs(count - BEHIND))
        found["floor"] = _stage(
            "the floor of storms", lambda: floor.storms(place, counts, size.floor_batches, size.floor_rounds)
        )
        with _entered("a bare endpoint", least.serving(place)) as bare:
            found["bare"] = _stage("its intake", lambda: bare.intake(crowd_, size.intake_seconds, size.intake_rounds))
            found["bare_lives"] = _stage("its lives", lambda: bare.lives(crowd_, size.lives))
            found["bare_told"] = _stage("its mails", lambda: bare.told(crowd_, TELLING, size.told))
    found["sorted_set"] = _stage("sorted sets", lambda: floor.sorted_set(place.plan.redis_url))
    return found


def _deadlines(bench: Bench, size: Size) -> dict[str, Any]:
    def storms() -> dict[int, dict[str, float]]:
        measure.storm(bench, WARM_UP)
        seen = {}
        for count, rounds in size.storms:
            runs = []
            for _ in range(rounds):
                measure.settle(bench)
                runs.append(measure.storm(bench, count))
            seen[count] = medians(runs)
        return seen

    def behind() -> dict[str, float]:
        """Let ten thousand more be due while as many have unsent notifications, of the last storm if it was such."""
        if size.storms[-1][0] != BEHIND:
            measure.settle(bench)
            measure.storm(bench, BEHIND)
        return measure.storm(bench, BEHIND)

    waiting = _stage(f"{size.pending:,} pending", lambda: pending.wait(bench, size.pending, size.idle_seconds))
    found: dict[str, Any] = {"pending": {"count": float(size.pending), **waiting}}
    found["lone"] = _stage("lone deadlines", lambda: measure.lone(bench, size.lone_rounds))
    found["storms"] = _stage("storms", storms)
    found["storm_behind"] = _stage("a storm behind a storm", behind)
    _rest(bench)
    found["steady"] = _stage("steady deadlines", lambda: measure.steady(bench, A_SECOND, size.steady_seconds))
    return found


def _doors(bench: Bench, crowd_: Customers, size: Size) -> dict[str, Any]:
    gate = bench.world.tokens["gate"]
    found: dict[str, Any] = {}
    _rest(bench)
    found["access"] = _stage("access checks", lambda: doors.access(bench, crowd_, gate, size.access_seconds))
    found["flooded"] = _stage("a flood", lambda: doors.flooded(bench, crowd_, gate, size.access_seconds))
    found["intake"] = _stage("intake", lambda: doors.intake(bench, crowd_, size.intake_seconds, size.intake_rounds))
    _rest(bench)
    found["lives"] = _stage("whole lives", lambda: doors.lives(bench, crowd_, size.lives))
    _rest(bench)
    found["told"] = _stage("filed and told of", lambda: doors.told(bench, crowd_, TELLING, size.told))
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
    _stage("rests", lambda: measure.settle(bench))


if __name__ == "__main__":
    sys.exit(main())
