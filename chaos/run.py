"""One run: settle in, strike under load, heal, drain, and gather the evidence."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from chaos import drain, drift, evidence, invariants, questions, sometimes
from chaos.clock_reader import ClockReader
from chaos.crew import ProcessExit
from chaos.crowd import Crowd
from chaos.invariants import InvariantResult
from chaos.plan import AppliedFault, FaultPlan
from chaos.stage import ChaosStack
from chaos.striker import Striker

Tell = Callable[[str, float], object]

SHARE_OF_FAULTS = 0.6
TICK = 0.2
SETTLES_SECONDS, LEAST_QUIET_SECONDS = 8.0, 5.0
"""The quiet time after everything is healed, and its minimum: a guard reconnects after five seconds at most."""


@dataclass(frozen=True)
class Result:
    """How a run ended: its findings, the faults that were carried out, and what was counted."""

    plan: FaultPlan
    findings: list[InvariantResult]
    struck: Sequence[AppliedFault]
    counts: Mapping[str, int]
    sometimes: Mapping[str, int]
    ended: Sequence[ProcessExit]
    seconds: float

    @property
    def good(self) -> bool:
        """Whether every invariant holds."""
        return all(finding.holds for finding in self.findings)


def play(stage: ChaosStack, patience: float, tell: Tell) -> Result:
    """Play the plan of a stage, and return the result; `tell` gets what happens and the progress, from 0 to 1.

    Raises:
        NotHealed: something did not come up again.
    """
    began = time.monotonic()
    crowd = Crowd(stage.faults.seed, stage.gates, stage.cast)
    clock = ClockReader(stage.superuser, crowd.history)
    try:
        clock.start()
        tell("settling in", 0)
        crowd.settle_in()
        stage.let_a_day_pass()
        base = evidence.plant(stage)
        striker = Striker(stage)
        crowd.begin()
        strike(stage, striker, tell, lambda: False)
        tell("healing", SHARE_OF_FAULTS)
        crowd.begin_nothing_more()
        striker.wait()
        crowd.history.frozen.extend(_frozen(striker.struck))
        drain.heal(stage)
        calm = time.monotonic() + SETTLES_SECONDS
        crowd.end_load()
        tell("draining", 0.7)
        left = drain.drain(stage, crowd.calm, patience)
        drifted = drift.drift(stage.superuser, stage.servers.redis_url)
        time.sleep(max(0.0, calm + LEAST_QUIET_SECONDS - time.monotonic()))
        crowd.history.quiet.append((calm, time.monotonic()))
        crowd.leave()
        tell("draining the rest", 0.85)
        left |= drain.drain(stage, (), patience)
        crowd.close()
        tell("looking at everything", 0.9)
        seen = evidence.gather(
            stage, crowd.journal, crowd.history, base, struck=striker.struck, left=left, drifted=drifted
        )
        findings = invariants.check(seen)
    finally:
        clock.stop()
        stage.calm()
    return Result(
        plan=stage.faults,
        findings=findings,
        struck=seen.struck,
        counts=_counts(seen, stage),
        sometimes=sometimes.counted(crowd.journal, _windows(seen))
        | sometimes.further(crowd.journal, seen.gates.tested()),
        ended=seen.ended,
        seconds=time.monotonic() - began,
    )


def strike(stage: ChaosStack, striker: Striker, tell: Tell, is_over: Callable[[], bool]) -> None:
    """Strike as planned until the plan's time is over, or until `is_over`."""
    began = time.monotonic()
    waiting = list(stage.faults.faults)
    while (at := time.monotonic() - began) < stage.faults.seconds and not is_over():
        while waiting and waiting[0].at <= at:
            fault = waiting.pop(0)
            tell(f"{fault.kind} {fault.target}", SHARE_OF_FAULTS * at / stage.faults.seconds)
            striker.strike(fault)
        tell("", SHARE_OF_FAULTS * at / stage.faults.seconds)
        time.sleep(TICK)


def _frozen(struck: Sequence[AppliedFault]) -> Iterator[tuple[float, float]]:
    """Yield the periods in which the API or the guard was frozen, by the monotonic clock."""
    ahead = time.time() - time.monotonic()
    for one in struck:
        if one.fault.kind == "freeze" and one.fault.target in {"api", "guard"}:
            yield one.began - ahead, one.ended - ahead


def _windows(seen: evidence.ChaosEvidence) -> dict[UUID, float]:
    return {row.id: row.deadline_at.timestamp() for row in seen.rows(questions.WINDOWS)}


def _counts(seen: evidence.ChaosEvidence, stage: ChaosStack) -> dict[str, int]:
    found = seen.rows(questions.COUNTS)[0]._mapping  # noqa: SLF001 - SQLAlchemy's public name
    arrived = Counter(arrival.id for arrival in seen.arrivals)
    close, stories = sometimes.close(invariants.acts_in_stories(seen))
    return {
        **{name: int(count) for name, count in found.items()},
        "arrivals": arrived.total(),
        "arrived twice or more": sum(count > 1 for count in arrived.values()),
        "checks": seen.journal.checks.total(),
        "answers that doors are open": len(seen.journal.opened),
        **{f"{door} {what}": count for (door, what), count in sorted(seen.gates.tested().items())},
        "calls without an answer": seen.journal.statuses[0],
        "answers 503": seen.journal.statuses[503],
        "acknowledged": len(seen.journal.acknowledged),
        "acknowledged in stories": len(invariants.in_stories(seen)),
        "stories": stories,
        "stories within 100 ms of a deadline or of each other": close,
        "messages published": stage.messages.published,
        "processes started again": stage.crew.restarts,
    }
