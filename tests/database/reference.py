"""The reference model: a request's life in plain Python, written again without a line of Lockbox's code."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

MANAGERS, APPROVERS, ADMINS = ("max", "mia"), ("ann", "amir", "abe"), ("tara",)
ENGINEERS = ("erin", "eve")
EVERYBODY = (*ENGINEERS, *MANAGERS, *APPROVERS, *ADMINS, "aude", "olga")
DECISIONS = ("endorse", "break_glass", "approve", "deny")
OPENING = ("endorse", "break_glass", "approve")
OPEN = ("reviewing", "pending", "active")
FIRST, THEN = "abe", "ann"
"""Where approvals go by steps: who has to approve first, and who after that."""

# from, action: who may, by what they are to the request
TABLE = {
    ("reviewing", "endorse"): {"manager"},
    ("reviewing", "break_glass"): {"manager"},
    ("reviewing", "deny"): {"manager"},
    ("reviewing", "cancel"): {"requester"},
    ("pending", "approve"): {"approver"},
    ("pending", "deny"): {"approver", "admin"},
    ("pending", "cancel"): {"requester"},
    ("active", "complete"): {"requester"},
    ("active", "revoke"): {"approver", "admin", "manager"},
}
WITH_IT = {
    "revoke": {"active": "revoked"},
    "complete": {"active": "completed", "pending": "cancelled", "reviewing": "cancelled"},
}
"""What becomes of an extension as somebody ends its window."""
WITH_ITS_CASE = {"reviewing": "cancelled", "pending": "cancelled", "active": "revoked"}
ENDS = {"deny": "denied", "cancel": "cancelled", "complete": "completed", "revoke": "revoked"}


@dataclass(eq=False)
class Beforehand:
    """A pre-approval that covers every request: when it was made, who approved it, and how often it was used."""

    most: int
    at: datetime
    approved_by: set[str] = field(default_factory=set)
    used: int = 0
    is_revoked: bool = False

    @property
    def is_over(self) -> bool:
        return self.is_revoked or self.used == self.most


@dataclass
class ReferenceRules:
    """The tenant's rules; windows are in seconds. `able` are the approvers who may approve now.

    `glass` are the requests that were opened by break-glass, at most `most_glass`; none may be opened during an
    emergency stop.
    """

    quorum: int
    review: bool
    enforce: bool
    review_window: int
    approval_window: int
    able: set[str] = field(default_factory=lambda: set(APPROVERS))
    most_glass: int = 2
    glass: list["Request"] = field(default_factory=list)
    is_stopped: bool = False
    beforehand: Beforehand | None = None
    steps: bool = False

    @property
    def first(self) -> str:
        return "reviewing" if self.review or not self.enforce else "pending"

    def covers(self, at: datetime) -> bool:
        """Return whether the pre-approval opens a request; the clock may have been set back since it was approved."""
        rule = self.beforehand
        if rule is None or rule.is_over or at < rule.at:
            return False
        return self.is_enough(rule.approved_by & self.able)

    def is_enough(self, approvers: Iterable[str]) -> bool:
        needed = {FIRST, THEN} if self.steps else set()
        return len({*approvers}) >= self.quorum and needed <= {*approvers}


@dataclass(eq=False)
class Request:
    """One request in the state that it must have.

    `starts` is when access begins, if later than the approval; `extends` is the request whose window this request
    extends; `by` is the pre-approval that opened it.
    """

    who: str
    state: str
    deadline: datetime
    access: int
    most_uses: int | None = None
    votes: dict[str, "ReferenceAct"] = field(default_factory=dict)
    moves: int = 1
    used: int = 0
    starts: datetime | None = None
    extends: Self | None = None
    extension: Self | None = None
    break_glass: bool = False
    is_found: bool = False
    by: Beforehand | None = None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def is_used_up(self) -> bool:
        """Return whether all its uses are spent."""
        return self.used == self.most_uses


@dataclass(frozen=True)
class ReferenceAct:
    """Who does what, and when; `window` (in seconds) and `uses` are set if an approver lowers them."""

    who: str
    action: str
    window: int | None
    uses: int | None
    at: datetime


def submitted(
    rules: ReferenceRules,
    who: str,
    access: int,
    at: datetime,
    most_uses: int | None = None,
    *,
    starts: datetime | None = None,
    break_glass: bool = False,
) -> Request | None:
    """Return a new request, or None if it must be refused because no one could ever open it."""
    if rules.enforce and not break_glass and not rules.is_enough(rules.able):
        return None
    if break_glass and not _allows_glass(rules):
        return None
    first = "reviewing" if break_glass else rules.first
    window = rules.review_window if first == "reviewing" else rules.approval_window
    ends = min(filter(None, (at + timedelta(seconds=window), starts)))
    request = Request(who, first, ends, access, most_uses, starts=starts, break_glass=break_glass)
    if first == "pending" and _is_covered(rules, request, at):
        _open_beforehand(rules, request, at)
    return request


def extended(rules: ReferenceRules, window: Request, access: int, at: datetime) -> Request | None:
    """Return a request that extends a window, or None if it must be refused."""
    earlier = window.extension
    if not _runs(window, at) or window.break_glass or (earlier is not None and earlier.is_open):
        return None
    request = submitted(rules, window.who, access, at, window.most_uses, starts=window.deadline)
    if request is not None:
        request.extends, window.extension = window, request
    return request


def close_case(requests: Iterable[Request], at: datetime) -> None:
    """End the requests whose deadline has not passed, because their case is closed."""
    for request in requests:
        if request.is_open and at < request.deadline:
            _end(request, WITH_ITS_CASE[request.state])


def revoke_beforehand(rules: ReferenceRules, requests: Iterable[Request], at: datetime) -> None:
    """Revoke the pre-approval, and the windows that it opened."""
    rule = rules.beforehand
    if rule is None or rule.is_revoked:
        return
    rule.is_revoked = True
    opened = [
        request for request in requests if request.by is rule and request.state == "active" and at < request.deadline
    ]
    for one in opened:
        _end_with_extension(one, "revoke")
        one.moves += 1


def stop(rules: ReferenceRules, requests: Iterable[Request], at: datetime) -> None:
    """End the requests whose deadline has not passed, revoke the pre-approval, and bar break-glass."""
    for request in requests:
        if request.is_open and at < request.deadline:
            _end(request, "revoked" if request.state == "active" else "denied")
    if rules.beforehand is not None:
        rules.beforehand.is_revoked = True
    rules.is_stopped = True


def found(request: Request, at: datetime) -> bool:
    """Record the finding about break-glass; if none is due, change nothing and return False."""
    is_due = not request.is_found and (request.state != "active" or at >= request.deadline)
    request.is_found = request.is_found or is_due
    return is_due


def acted(rules: ReferenceRules, request: Request, act: ReferenceAct) -> bool:
    """Change a request as a person's act must change it; if the act is refused, change nothing and return False."""
    may = TABLE.get((request.state, act.action), set()) & _parties(rules, request, act.who)
    if not may or act.at >= request.deadline or not _may_open(rules, request, act):
        return False
    if act.action in DECISIONS:
        if act.who in request.votes and request.votes[act.who].action == act.action:
            return False
        if (act.window or 0) > request.access or (act.uses or 0) > (request.most_uses or act.uses or 0):
            return False
        request.votes[act.who] = act
    request.moves += 1
    if act.action in ENDS:
        _end_with_extension(request, act.action)
    elif act.action in {"endorse", "break_glass"}:
        _pass_on(rules, request, act)
    elif rules.is_enough(_counting(rules, request)):
        _begin(rules, request, "active", act.at)
    return True


def clocked(request: Request, at: datetime) -> bool:
    """Let the timer check a request; return whether the timer ended it."""
    if not request.is_open or at < request.deadline:
        return False
    request.state = "expired" if request.state == "active" else "timed_out"
    request.moves += 1
    return True


def lets_in(request: Request, at: datetime) -> bool:
    """Return whether the request grants access; a revoked one never does, even if the clock was set back since."""
    is_revoked = request.by is not None and request.by.is_revoked
    return _runs(request, at) and not request.is_used_up and not is_revoked


def used(request: Request, at: datetime) -> bool:
    """Count a use as an access check must; if access is refused, change nothing and return False."""
    if not lets_in(request, at):
        return False
    request.used += request.most_uses is not None
    return True


def _runs(request: Request, at: datetime) -> bool:
    begun = request.starts is None or request.starts <= at
    goes_on = request.extends is None or request.extends.state in {"active", "expired"}
    return request.state == "active" and begun and at < request.deadline and goes_on


def _allows_glass(rules: ReferenceRules) -> bool:
    return rules.enforce and not rules.is_stopped and len(rules.glass) < rules.most_glass


def _is_covered(rules: ReferenceRules, request: Request, at: datetime) -> bool:
    return rules.enforce and rules.covers(at) and request.starts is None


def _open_beforehand(rules: ReferenceRules, request: Request, at: datetime) -> None:
    assert rules.beforehand is not None
    request.by = rules.beforehand
    request.by.used += 1
    _begin(rules, request, "active", at)


def _may_open(rules: ReferenceRules, request: Request, act: ReferenceAct) -> bool:
    if act.action == "break_glass" and not (request.break_glass and _allows_glass(rules)):
        return False
    if act.action == "approve" and rules.steps and act.who == THEN and FIRST not in _counting(rules, request):
        return False
    return act.action not in OPENING or request.extends is None or request.extends.state == "active"


def _pass_on(rules: ReferenceRules, request: Request, act: ReferenceAct) -> None:
    if act.action == "break_glass":
        rules.glass.append(request)
        _begin(rules, request, "active", act.at)
        return
    request.break_glass = False
    if _is_covered(rules, request, act.at):
        _open_beforehand(rules, request, act.at)
    else:
        _begin(rules, request, "pending" if rules.enforce else "active", act.at)


def _end_with_extension(request: Request, action: str, state: str | None = None) -> None:
    request.state = state or ENDS[action]
    extension = request.extension
    if extension is not None and (state := WITH_IT.get(action, {}).get(extension.state)):
        _end_with_extension(extension, action, state)
        extension.moves += 1


def _end(request: Request, state: str) -> None:
    request.state = state
    request.moves += 1


def _begin(rules: ReferenceRules, request: Request, state: str, at: datetime) -> None:
    seconds = rules.approval_window
    if state == "active":
        counting = _counting(rules, request).values()
        seconds = min([request.access, *(act.window for act in counting if act.window)])
        limits = [request.most_uses, *(act.uses for act in counting)]
        request.most_uses = min((limit for limit in limits if limit), default=None)
        at = max(at, request.starts or at)
    ends = at + timedelta(seconds=seconds)
    request.state, request.deadline = state, ends if state == "active" else min(ends, request.starts or ends)


def _counting(rules: ReferenceRules, request: Request) -> dict[str, ReferenceAct]:
    return {who: vote for who, vote in request.votes.items() if vote.action == "approve" and who in rules.able}


def _parties(rules: ReferenceRules, request: Request, who: str) -> set[str]:
    held = {
        "requester": who == request.who,
        "manager": who in MANAGERS,
        "approver": who in rules.able,
        "admin": who in ADMINS,
    }
    return {party for party, holds in held.items() if holds}
