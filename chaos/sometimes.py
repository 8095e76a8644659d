"""What has to happen sometimes: otherwise the stories missed their aim. It is counted from what people have seen."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, combinations
from uuid import UUID

from chaos.gate_history import DOORS
from chaos.gate_judge import HANDED_OVER, IN_MEMORY, NOT_BEGUN, STREAM, TOLD_IN_TIME
from chaos.journal import AttemptedAct, Journal, Sight

NEAR = 0.1
"""Events within this many seconds of a deadline, or of each other, count as close."""

CHECKS = (
    "door open in the last 100 ms",
    "door closed within 100 ms of the end",
    "door closed within 100 ms of a revoke",
)
NAMES = (
    *(f"{action} in the last 100 ms counted" for action in ("approve", "endorse", "deny", "cancel")),
    *(f"late {action} lost" for action in ("approve", "endorse", "deny", "cancel")),
    *(f"{action} beat expire" for action in ("revoke", "complete")),
    *(f"{action} met expire" for action in ("revoke", "complete")),
    *(f"{pair} met, one counted" for pair in ("approve and deny", "approve and cancel", "cancel and deny")),
    *(f"{pair} met, one counted" for pair in ("cancel and endorse", "complete and revoke")),
    "two yeses met, both counted",
    "one yes sent twice, counted once",
    "filings by one key met, one request",
    *CHECKS,
)
AT_DOORS = (
    *((door, shown) for door in DOORS for shown in (HANDED_OVER, NOT_BEGUN)),
    *((STREAM, shown) for shown in (TOLD_IN_TIME, IN_MEMORY)),
)
FURTHER = (*Sight, *(f"{door}: {shown}" for door, shown in AT_DOORS))
"""What is seen of the further ways to access: in stories, at the gate and the guard, and on the stream."""


def counted(journal: Journal, windows: Mapping[UUID, float]) -> dict[str, int]:
    """Return how often each of `NAMES` has happened; `windows` are the ends of all windows, by request."""
    counts = dict.fromkeys(NAMES, 0)
    acts = by_request(journal.acts)
    for name in chain(_at_deadlines(journal.acts), _met(acts.values()), _at_doors(journal, windows)):
        counts[name] += 1
    return counts


def further(journal: Journal, tested: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Return how often each of `FURTHER` was seen; `tested` is what the answers of the gate and the guard show."""
    at_doors = {f"{door}: {shown}": tested.get((door, shown), 0) for door, shown in AT_DOORS}
    return {one.value: journal.seen[one] for one in Sight} | at_doors


def close(acts: Iterable[AttemptedAct]) -> tuple[int, int]:
    """Return in how many requests people acted within 100 ms of a deadline or of each other, and of how many.

    Only requests with more than one answer count: while the API was down, nobody could act on a request.
    """
    stories = [story for story in by_request(act for act in acts if act.status).values() if len(story) > 1]
    return sum(any(map(_at_deadline, story)) or any(_pairs(story)) for story in stories), len(stories)


def by_request(acts: Iterable[AttemptedAct]) -> dict[UUID, list[AttemptedAct]]:
    """Return the acts of each request."""
    found: dict[UUID, list[AttemptedAct]] = defaultdict(list)
    for act in acts:
        found[act.request_id].append(act)
    return found


def meets(sent: float, answered: float, moment: float) -> bool:
    """Whether an act was under way within 100 ms of a moment."""
    return sent - NEAR <= moment <= answered + NEAR


def _at_deadline(act: AttemptedAct) -> bool:
    return meets(act.sent, act.answered, act.deadline)


def _at_deadlines(acts: Iterable[AttemptedAct]) -> Iterator[str]:
    for act in filter(_at_deadline, acts):
        ends_a_window = act.action in {"revoke", "complete"}
        if act.counted:
            yield f"{act.action} beat expire" if ends_a_window else f"{act.action} in the last 100 ms counted"
        elif act.late:
            yield f"{act.action} met expire" if ends_a_window else f"late {act.action} lost"


def _pairs(story: Iterable[AttemptedAct]) -> Iterator[tuple[AttemptedAct, AttemptedAct]]:
    """Yield all pairs of acts that were sent within 100 ms of each other, in the order of their names."""
    for one, other in combinations(sorted(story, key=lambda act: act.action), 2):
        if abs(one.sent - other.sent) <= NEAR:
            yield one, other


def _met(stories: Iterable[Iterable[AttemptedAct]]) -> Iterator[str]:
    for story in stories:
        for one, other in _pairs(story):
            one_counted = {one.counted, other.counted} == {True, False} and (one.lost or other.lost)
            if one.action != other.action:
                if one_counted and (name := f"{one.action} and {other.action} met, one counted") in NAMES:
                    yield name
            elif one.action == "submit":
                yield "filings by one key met, one request"
            elif one.action == "approve" and one.who == other.who:
                yield from ["one yes sent twice, counted once"] * one_counted
            elif one.action == "approve":
                yield from ["two yeses met, both counted"] * (one.counted and other.counted)


def _at_doors(journal: Journal, windows: Mapping[UUID, float]) -> Iterator[str]:
    opened, last, past, revoked = {one.resource: one.request_id for one in journal.opened}, *CHECKS
    revokes = {act.request_id: act.answered for act in journal.acts if act.action == "revoke" and act.counted}
    for one in journal.opened:
        if meets(one.sent, one.answered, windows.get(one.request_id, 0.0)):
            yield last
    for closed in journal.closed:
        request_id = opened[closed.resource]
        if request_id in revokes:
            yield from [revoked] * meets(closed.sent, closed.answered, revokes[request_id])
        elif meets(closed.sent, closed.answered, windows.get(request_id, 0.0)):
            yield past
