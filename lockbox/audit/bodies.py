"""What is checked of each event beside its hash: form, personal values, whose it is, and the moves' numbers; pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from lockbox.audit.exported import Detail, Entry
from lockbox.audit.findings import Findings, Kind

LARGEST_INTEGER = 2**53 - 1
HIGHEST_OF_BMP = "\uffff"
TRAIL_REMOVED = "trail_removed"
OPEN = frozenset({"reviewing", "pending", "active"})


class NotCanonical(Exception):  # noqa: N818 - it names what was found
    """It is no JSON object in the canonical form of RFC 8785, as events have it."""


def _refuse(_: str) -> NoReturn:
    raise NotCanonical


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) > LARGEST_INTEGER:
        raise NotCanonical
    return value


DECODE = json.JSONDecoder(parse_float=_refuse, parse_int=_integer, parse_constant=_refuse).decode
ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


def fields_of(body: bytes) -> dict[str, Any]:
    """Return what a body says.

    Raises:
        NotCanonical: it is not in canonical form.
    """
    try:
        text = body.decode()
        fields = DECODE(text)
        # By code points names sort as by UTF-16, which the standard wants, while none is beyond the first plane.
        written = ENCODE(fields if body.isascii() or max(text) <= HIGHEST_OF_BMP else _in_order(fields))
    except (ValueError, RecursionError):
        raise NotCanonical from None
    if not isinstance(fields, dict) or written != text:
        raise NotCanonical
    return fields


def _in_order(value: object) -> object:
    """Return a value whose names, were they written in the order of code points, are in that of UTF-16."""
    if isinstance(value, dict):
        if list(value) != sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass")):
            raise NotCanonical
        return {name: _in_order(one) for name, one in value.items()}
    return [_in_order(one) for one in value] if isinstance(value, list) else value


@dataclass
class Moves:
    """How far the moves of one request are known: all from `first` to before `next`, and some ahead of it."""

    first: int
    next: int
    ahead: set[int] = field(default_factory=set)

    def take(self, seq: int) -> bool:
        """Note a move; return whether it was new."""
        if self.first <= seq < self.next or seq in self.ahead:
            return False
        if seq < self.first:
            return True
        self.ahead.add(seq)
        while self.next in self.ahead:
            self.ahead.remove(self.next)
            self.next += 1
        return True


@dataclass
class Bodies:
    """Checks the events of one log, whose hashes are good, one after the other.

    `tenant` is whose log it is, None for the vendor's own; `whole` is whether every move must be there. What is kept
    is bounded by the requests that are open at one time, not by how long the file is.
    """

    tenant: str | None
    whole: bool
    findings: Findings
    removed_before: bool = False
    removals: list[tuple[int, int]] = field(default_factory=list)
    details: int = 0
    left_out: int = 0
    _moves: dict[str, Moves] = field(default_factory=dict)

    def check(self, line: int, entry: Entry) -> None:
        """Check one event."""
        try:
            fields = fields_of(entry.body)
        except NotCanonical:
            message = "the body is not in the canonical form of RFC 8785"
            self.findings.add(Kind.NOT_CANONICAL, message, line=line, number=entry.number)
            return
        where: dict[str, Any] = {"line": line, "number": entry.number, "event": str(fields.get("id"))}
        if fields.get("tenant_id") != self.tenant:
            self.findings.add(Kind.FOREIGN, f"this event is of {fields.get('tenant_id') or 'the vendor'}", **where)
        self._check_details(fields.get("personal"), entry.personal, where)
        if fields.get("action") == TRAIL_REMOVED:
            self._note_removal(fields)
        if self.whole and fields.get("seq") is not None:
            self._check_move(fields, where)

    def finish(self) -> None:
        """Say which moves never came."""
        for request, moves in self._moves.items():
            if moves.ahead:
                message = f"request {request} lacks its move {moves.next}; others up to {max(moves.ahead)} are there"
                self.findings.add(Kind.GAP_IN_MOVES, message)

    def _check_details(self, committed: object, shown: Mapping[str, Detail], where: dict[str, Any]) -> None:
        commitments = committed if isinstance(committed, dict) else {}
        for name, detail in shown.items():
            if commitments.get(name) != hashlib.sha256(detail.salt + detail.value.encode()).hexdigest():
                message = f"the value shown as {name} is not the one that the event commits to"
                self.findings.add(Kind.COMMITMENT, message, **where)
        self.details += len(shown)
        self.left_out += len(commitments.keys() - shown.keys())

    def _note_removal(self, fields: Mapping[str, Any]) -> None:
        start, end = fields.get("removed_from"), fields.get("removed_to")
        if isinstance(start, int) and isinstance(end, int):
            self.removals.append((start, end))

    def _check_move(self, fields: Mapping[str, Any], where: dict[str, Any]) -> None:
        request, seq = str(fields.get("request_id")), fields["seq"]
        if request not in self._moves:
            # What retention has removed are the first moves of what was open then.
            first = seq if self.removed_before else 1
            self._moves[request] = Moves(first, first)
        moves = self._moves[request]
        if not moves.take(seq):
            self.findings.add(Kind.GAP_IN_MOVES, f"request {request} has its move {seq} twice", **where)
        if fields.get("to_state") not in OPEN and not moves.ahead:
            del self._moves[request]
