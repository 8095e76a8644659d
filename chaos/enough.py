"""Whether enough happened in a run to show anything: a run in which nothing happens breaks no invariant."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from chaos.crew import ProcessExit
from chaos.plan import AppliedFault

LEAST_A_SECOND = {
    "requests submitted": 0.3,
    "windows opened": 0.05,
    "stories acknowledged": 0.3,
    "doors found open": 0.05,
    "doors found closed": 2.0,
    "events verified": 1.0,
    "notifications arrived": 2.0,
    "calls by gate let in": 0.5,
    "calls by guard let in": 0.5,
    "calls by gate without a window": 1.0,
    "calls by guard without a window": 1.0,
    "calls by gate past a revoke": 0.2,
    "calls by guard past a revoke": 0.1,
    "calls by gate past a deadline": 0.1,
    "calls by guard past a deadline": 0.1,
}
"""The least counts in a second of load. A seed reaches several times as much on two busy cores, and ten times as much
on quiet cores."""
LEAST_DONE = 0.6
LEAST_CLOSE, FEW_STORIES = 1 / 3, 20
OF_ITS_OWN = ("freeze", "kill_child")
ENDS_AFTER = 30.0
REFUSED = 1
REFUSES_AFTER = 5.0


def too_little(happened: Mapping[str, int], seconds: float) -> Iterator[str]:
    """Yield a line for each thing that happened too rarely in this many seconds of load; a missing count is 0."""
    for what, rate in LEAST_A_SECOND.items():
        least = max(1, round(rate * seconds))
        if (count := happened.get(what, 0)) < least:
            yield f"only {count} {what}, of at least {least}"


def too_calm(planned: int, struck: Sequence[AppliedFault]) -> Iterator[str]:
    """Yield a line if most of the plan was not carried out, or if nothing was planned."""
    done = sum(not one.failed for one in struck)
    if done < max(1, LEAST_DONE * planned):
        yield f"only {done} of {planned} faults were done"


def too_far(close: int, stories: int) -> Iterator[str]:
    """Yield a line if, of twenty stories or more, too few acted within 100 ms of a deadline or of each other."""
    if stories >= FEW_STORIES and close < LEAST_CLOSE * stories:
        yield f"only {close} of {stories} stories acted within 100 ms of a deadline or of each other"


def unasked(ended: Iterable[ProcessExit], struck: Iterable[AppliedFault]) -> Iterator[str]:
    """Yield a line for each process that ended without a cause.

    A worker may give up if it loses a child, or is frozen, while it starts. Each such fault explains one end of the
    process that it struck, and no other. If Postgres has too few connections for a process, the process refuses to
    start, each time that it is started.
    """
    struck = list(struck)
    own = [one for one in struck if one.fault.kind in OF_ITS_OWN]
    few = [one for one in struck if one.fault.kind == "few_connections"]
    for end in sorted(ended, key=lambda one: one.at):
        if any(_refuses(one, end) for one in few):
            continue
        by = next((one for one in own if _explains(one, end)), None)
        if by is None:
            yield f"{end.name} ended by itself with {end.code}"
        else:
            own.remove(by)


def _explains(one: AppliedFault, end: ProcessExit) -> bool:
    return one.fault.target == end.name and one.began <= end.at <= one.ended + ENDS_AFTER


def _refuses(one: AppliedFault, end: ProcessExit) -> bool:
    return end.code == REFUSED and one.began <= end.at <= one.ended + REFUSES_AFTER
