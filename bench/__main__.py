"""`make bench`: one run on one machine, one table; figures also as JSON in bench/results/."""

import json
import math
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy.engine import make_url

from bench import crowd, reach, trail
from bench.load import observer
from bench.measure import Bench, idle, lone, settle, storm
from cli import sample, stack
from config.settings import Settings
from lockbox.database import Database, as_owner, make_engine
from lockbox.requests.rules import Policy
from lockbox.schedule import Schedule

RESULTS = Path(__file__).parent / "results"
STORM = 10_000
STORM_SECONDS = 1.5
STORMS = 3
LONE_ROUNDS = 30
LONE_MS = 20
PENDING = 100_000
IDLE_SECONDS = 15
IDLE_PERCENT = 2
GROWN_MIB = 20
CROWD_RATIO = 1.1
IN_TIME_PERCENT = 99
MAILS_A_MINUTE = 1_000
SEALED_A_SECOND = 20_000
VERIFY_SECONDS = 60
PROOF_MS = 20
LAG_SECONDS = 3
SEALING_RATIO = 1.05
OUT = Console()


@dataclass(frozen=True)
class Figure:
    """One line of the table; the ratio to the target is at most one where it is met, also where more is better."""

    what: str
    value: float
    target: float
    unit: str
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """The figure as a share of its target; the target as a share of the figure where more is better."""
        if self.more_is_better:
            return self.target / self.value if self.value else math.inf
        return self.value / self.target


def main() -> int:
    """Measure, print, and return 0 if every target is met."""
    with running() as (bench, crowded, kept), Progress(console=OUT, transient=True) as progress:
        task = progress.add_task("measuring", total=3 + LONE_ROUNDS + 2 * (STORMS + 2))

        def tick() -> None:
            progress.advance(task)

        still = idle(bench, PENDING, IDLE_SECONDS, tick)
        alone = lone(bench, LONE_ROUNDS, tick)
        storm(bench, 500, tick)
        storms = []
        for _ in range(STORMS):
            settle(bench)
            storms.append(storm(bench, STORM, tick))
        behind = storm(bench, STORM, tick)
        reached = reach.measure(bench)
        tick()
    worst = max(one["last_seconds"] for one in storms)
    rows = [
        Figure(f"{STORM:,} due at one instant: last one late by", worst, STORM_SECONDS, "s"),
        Figure("the same at once again, with 30,000 notices unsent", behind["last_seconds"], 2 * STORM_SECONDS, "s"),
        Figure("a lone deadline: late by, median", alone["median_ms"], LONE_MS, "ms"),
        Figure(f"{PENDING:,} pending: idle workers", still["core_percent"], IDLE_PERCENT, "% of a core"),
        Figure(f"{PENDING:,} pending: workers grown by", still["grown_mib"], GROWN_MIB, "MiB"),
        Figure(
            f"a submit among {crowd.TENANTS:,} tenants and {crowd.MEMBERS:,} members, to one alone",
            crowded["ratio"],
            CROWD_RATIO,
            "times",
        ),
        *_reached(reached),
        *_kept(kept),
    ]
    _print(rows)
    deadlines = {"storms": storms, "storm_behind": behind, "lone": alone, "idle": still}
    _save({**deadlines, "crowd": crowded, "reach": reached, "trail": kept})
    return 0 if all(row.ratio <= 1 for row in rows) else 1


def _reached(reached: dict[str, float]) -> list[Figure]:
    asked = f"{reach.APPROVERS} approvers, {reach.ENDPOINTS} endpoints, {reach.REQUESTS} requests, one domain and one"
    hanging = f"{asked} endpoint hang: of the others left within {reach.SOON_SECONDS} s"
    mails = "mails a minute through one notices worker"
    return [
        Figure(hanging, reached["in_time_percent"], IN_TIME_PERCENT, "%", more_is_better=True),
        Figure(f"{mails}, to one domain", reached["one_domain"], MAILS_A_MINUTE, "", more_is_better=True),
        Figure(f"{mails}, to {reach.MANY_DOMAINS}", reached["many_domains"], MAILS_A_MINUTE, "", more_is_better=True),
    ]


def _kept(kept: dict[str, float]) -> list[Figure]:
    events = f"{kept['events']:,.0f} events"
    beside = "submit, endorse, approve while a sealer runs, to without"
    return [
        Figure(f"{events} sealed a second", kept["sealed_a_second"], SEALED_A_SECOND, "", more_is_better=True),
        Figure(f"{events} verified offline", kept["verify_seconds"], VERIFY_SECONDS, "s"),
        Figure(f"an inclusion proof among {events}, p99", kept["proof_p99_ms"], PROOF_MS, "ms"),
        Figure(f"{trail.STEADY} events a second: sealed after, p99", kept["lag_p99_seconds"], LAG_SECONDS, "s"),
        Figure(beside, kept["cost_ratio"], SEALING_RATIO, "times"),
    ]


@contextmanager
def running() -> Iterator[tuple[Bench, dict[str, float], dict[str, float]]]:
    """Start servers, a worker and a notices worker of one's own, and remove them at the end."""
    parent = Path(tempfile.mkdtemp(prefix="lockbox-bench-"))
    parent.chmod(0o755)
    plan = stack.prepare(Settings(), parent / "servers", api_port=18800, flower_port=18900)
    processes = stack.Processes(plan, parent / "log")
    house = Database(make_engine(plan.database_url, role="bench"), Schedule(plan.redis_url))
    try:
        with as_owner(plan.owner_database_url) as session:
            people = sample.seed(session, tenant="bench", policy=Policy(), environment="development", services=())
        superuser = make_url(plan.servers.superuser_url if plan.servers else plan.owner_database_url)
        with crowd.copies(superuser):
            OUT.print("submits beside a crowd …")
            crowded = crowd.measure(superuser, make_url(plan.database_url), plan.redis_url, people, lambda: None)
        with trail.copy(superuser):
            OUT.print(f"{trail.EVENTS:,} events of a trail …")
            kept = trail.measure(superuser, plan, people, parent)
        processes.start("worker")
        processes.start("notices")
        with observer(superuser.set(database="lockbox")) as engine:
            yield Bench(engine, house, people, processes), crowded, kept
    finally:
        processes.stop()
        house.dispose()
        if plan.servers:
            plan.servers.stop()
        shutil.rmtree(parent, ignore_errors=True)


def _print(rows: list[Figure]) -> None:
    table = Table("measured", "figure", "target", "of target", title=_machine())
    for row in rows:
        colour = "green" if row.ratio <= 1 else "red"
        table.add_row(
            row.what, f"{row.value:.2f} {row.unit}", f"{row.target} {row.unit}", f"[{colour}]{row.ratio:.0%}[/]"
        )
    OUT.print(table)


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def _save(figures: dict[str, object]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "deadlines.json").write_text(json.dumps({"machine": _machine(), **figures}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
