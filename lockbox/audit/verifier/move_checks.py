"""Check that a log has each move of a request exactly once, and that no window was used too often; pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from lockbox.audit.verifier.export_format import FindingKind, Findings

ACTIVE, SUBMISSION = "active", "submission"
OPEN = frozenset({"reviewing", "pending", ACTIVE})
USED_UP, LAST_USED = "used_up", "last_used"
STOPPED, STOP_ENDED, BREAK_GLASS = "emergency_stop", "emergency_stop_ended", "break_glass"


def begins(fields: Mapping[str, Any]) -> bool:
    return fields["seq"] == 1 or SUBMISSION in fields


@dataclass
class KnownMoves:
    """The known moves of one request: all from `first` to before `next`, and some outside this range.

    `last` is the highest known number, `begin` the first move in this log, and `end` the move to a final state, once
    known. Numbers in the file may be huge: no loop counts up to them.
    """

    first: int
    next: int
    last: int = 0
    behind: set[int] = field(default_factory=set)
    ahead: set[int] = field(default_factory=set)
    begin: int | None = None
    end: int | None = None

    def take(self, seq: int) -> bool:
        if self.first <= seq < self.next or seq in self.ahead or seq in self.behind:
            return False
        (self.behind if seq < self.first else self.ahead).add(seq)
        self.last = max(self.last, seq)
        while self.next in self.ahead:
            self.ahead.remove(self.next)
            self.next += 1
        while self.first - 1 in self.behind:
            self.first -= 1
            self.behind.remove(self.first)
        return True

    @property
    def lowest(self) -> int:
        return min(self.behind, default=self.first)

    @property
    def lacks(self) -> int | None:
        if self.behind:
            missing = min(self.behind)
            while missing in self.behind:
                missing += 1
            return missing
        return self.next if self.ahead else None


@dataclass
class MoveChecker:
    """Memory keeps an id for each finished request and a few numbers for others.

    `removed_before` is whether retention removed events: then a request's first move may be missing.
    """

    findings: Findings
    removed_before: bool = False
    _known: dict[str, KnownMoves] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    _named: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def name(self, request: str, where: Mapping[str, Any]) -> None:
        if request not in self._known and request not in self._over:
            self._named.setdefault(request, where)

    def take(self, request: str, seq: int, to_state: str, where: Mapping[str, Any], *, begins: bool) -> None:
        self._named.pop(request, None)
        if request in self._over:
            self._say(f"request {request} has its move {seq} after its final state, or twice", where)
            return
        known = self._known.setdefault(request, KnownMoves(seq, seq))
        if not known.take(seq):
            self._say(f"request {request} has its move {seq} twice", where)
            return
        if begins and known.begin is not None:
            self._say(f"request {request} begins twice: with its move {known.begin}, and with {seq}", where)
        if begins:
            known.begin = seq if known.begin is None else min(seq, known.begin)
        if known.begin is not None and known.lowest < known.begin:
            self._say(f"request {request} has its move {known.lowest} before the one with which it begins", where)
        if to_state not in OPEN:
            known.end = seq if known.end is None else min(seq, known.end)
        if known.end is None:
            return
        if known.last > known.end:
            self._say(f"request {request} has events after its final state, move {known.end}", where)
        if known.lowest == known.begin and known.lacks is None:
            del self._known[request]
            self._over.add(request)

    def finish(self) -> None:
        for request, known in self._known.items():
            lacks = known.lacks
            if lacks is None and known.begin is None and not self.removed_before:
                lacks = known.first - 1
            if lacks is not None:
                message = f"request {request} lacks its move {lacks}; others up to {known.last} are there"
                self.findings.add(FindingKind.GAP_IN_MOVES, message)
        for request, where in self._named.items() if not self.removed_before else ():
            self._say(f"request {request} lacks its first move, and all others: this event names it", where)

    def _say(self, message: str, where: Mapping[str, Any]) -> None:
        self.findings.add(FindingKind.GAP_IN_MOVES, message, **where)


@dataclass
class UseChecker:
    findings: Findings
    _allowed: dict[str, int] = field(default_factory=dict)
    _used_up: set[str] = field(default_factory=set)

    def take(self, fields: Mapping[str, Any], where: Mapping[str, Any]) -> None:
        request, allowed, action = fields.get("request_id"), fields.get("max_uses"), fields.get("action")
        if not isinstance(request, str):
            return
        if fields.get("seq") is not None:
            if fields.get("to_state") == ACTIVE and type(allowed) is int:
                self._allowed.setdefault(request, allowed)
        elif request in self._allowed and action == USED_UP:
            self._take_used_up(request, allowed, where)
        elif request in self._allowed and action == LAST_USED:
            self._take_count(request, fields.get("count"), where)

    def _take_used_up(self, request: str, allowed: object, where: Mapping[str, Any]) -> None:
        if allowed != self._allowed[request]:
            self._say(f"request {request} was for {self._allowed[request]} uses, and used up after {allowed}", where)
        if request in self._used_up:
            self._say(f"request {request} was used up twice", where)
        self._used_up.add(request)

    def _take_count(self, request: str, count: object, where: Mapping[str, Any]) -> None:
        allowed = self._allowed.pop(request)
        self._used_up.discard(request)
        if type(count) is not int or count > allowed:
            self._say(f"request {request} was used {count} times, and was for {allowed}", where)

    def _say(self, message: str, where: Mapping[str, Any]) -> None:
        self.findings.add(FindingKind.USES, message, **where)


@dataclass
class StopChecker:
    """Report windows that break-glass opened while a recorded emergency stop barred break-glass."""

    findings: Findings
    _stopped_at: str | None = None

    def take(self, fields: Mapping[str, Any], where: Mapping[str, Any]) -> None:
        """Stops that do not record that they bar break-glass are ignored."""
        action, at = fields.get("action"), str(fields.get("at"))
        if action == STOPPED and fields.get("bars_break_glass") is True:
            self._stopped_at = self._stopped_at or at
        elif action == STOP_ENDED:
            self._stopped_at = None
        elif (
            action == BREAK_GLASS and fields.get("to_state") == ACTIVE and self._stopped_at and at > self._stopped_at
        ):
            message = f"request {fields.get('request_id')} was opened by break-glass during an emergency stop"
            self.findings.add(FindingKind.APPROVAL, message, **where)


Move = TypeVar("Move")


@dataclass
class MoveSequencer(Generic[Move]):
    """Yield each request's moves in the order of their `seq`, which may differ from their order in the log."""

    _waiting: dict[str, dict[int, Move]] = field(default_factory=dict)
    _next: dict[str, int] = field(default_factory=dict)

    def take(self, request: str, seq: int, move: Move, *, begins: bool) -> Iterator[Move]:
        waiting = self._waiting.setdefault(request, {})
        waiting.setdefault(seq, move)
        if begins:
            self._next.setdefault(request, seq)
        while (due := self._next.get(request)) in waiting:
            yield waiting.pop(due)
            self._next[request] = due + 1
        if not waiting:
            del self._waiting[request]

    def rest(self) -> Iterator[Move]:
        for waiting in self._waiting.values():
            yield from (waiting[seq] for seq in sorted(waiting))
        self._waiting.clear()
