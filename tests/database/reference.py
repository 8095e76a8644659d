"""The reference: a request's life in plain Python, written out once more without a line of the house's own code."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

MANAGERS, APPROVERS, ADMINS = ("max", "mia"), ("ann", "amir", "abe"), ("tara",)
ENGINEERS = ("erin", "eve")
EVERYBODY = (*ENGINEERS, *MANAGERS, *APPROVERS, *ADMINS, "aude", "olga")
DECISIONS = ("endorse", "approve", "deny")
OPEN = ("reviewing", "pending", "active")

# from, action: who may, by what they are to the request
TABLE = {
    ("reviewing", "endorse"): {"manager"},
    ("reviewing", "deny"): {"manager"},
    ("reviewing", "cancel"): {"requester"},
    ("pending", "approve"): {"approver"},
    ("pending", "deny"): {"approver", "admin"},
    ("pending", "cancel"): {"requester"},
    ("active", "complete"): {"requester"},
    ("active", "revoke"): {"approver", "admin", "manager"},
}
ENDS = {"deny": "denied", "cancel": "cancelled", "complete": "completed", "revoke": "revoked"}


@dataclass
class ReferenceRules:
    """What the tenant has laid down; windows in seconds. `able` are the approvers who may approve now."""

    quorum: int
    review: bool
    enforce: bool
    review_window: int
    approval_window: int
    able: set[str] = field(default_factory=lambda: set(APPROVERS))

    @property
    def first(self) -> str:
        """The state in which a request begins."""
        return "reviewing" if self.review or not self.enforce else "pending"


@dataclass
class Request:
    """One request as it must be."""

    who: str
    state: str
    deadline: datetime
    access: int
    most_uses: int | None = None
    votes: dict[str, "ReferenceAct"] = field(default_factory=dict)
    moves: int = 1
    used: int = 0

    @property
    def is_open(self) -> bool:
        """Whether its clock runs."""
        return self.state in OPEN

    @property
    def is_used_up(self) -> bool:
        """Whether it was used as often as it may be."""
        return self.used == self.most_uses


@dataclass(frozen=True)
class ReferenceAct:
    """Who does what, and when; `window` in seconds and `uses` where an approver lowers them."""

    who: str
    action: str
    window: int | None
    uses: int | None
    at: datetime


def submitted(
    rules: ReferenceRules, who: str, access: int, at: datetime, most_uses: int | None = None
) -> Request | None:
    """Return a new request, None where it has to be refused: nobody could ever open it."""
    if rules.enforce and len(rules.able) < rules.quorum:
        return None
    window = rules.review_window if rules.first == "reviewing" else rules.approval_window
    return Request(who, rules.first, at + timedelta(seconds=window), access, most_uses)


def acted(rules: ReferenceRules, request: Request, act: ReferenceAct) -> bool:
    """Change a request as a person's act must change it; return False, and leave it alone, where it is refused."""
    may = TABLE.get((request.state, act.action), set()) & _parties(rules, request, act.who)
    if not may or act.at >= request.deadline:
        return False
    if act.action in DECISIONS:
        if act.who in request.votes and request.votes[act.who].action == act.action:
            return False
        if (act.window or 0) > request.access or (act.uses or 0) > (request.most_uses or act.uses or 0):
            return False
        request.votes[act.who] = act
    request.moves += 1
    if act.action in ENDS:
        request.state = ENDS[act.action]
    elif act.action == "endorse":
        _begin(rules, request, "pending" if rules.enforce else "active", act.at)
    elif len(_counting(rules, request)) >= rules.quorum:
        _begin(rules, request, "active", act.at)
    return True


def clocked(request: Request, at: datetime) -> bool:
    """Let the clock look at a request; return whether it has ended it."""
    if not request.is_open or at < request.deadline:
        return False
    request.state = "expired" if request.state == "active" else "timed_out"
    request.moves += 1
    return True


def lets_in(request: Request, at: datetime) -> bool:
    """Whether the door is open."""
    return request.state == "active" and at < request.deadline and not request.is_used_up


def used(request: Request, at: datetime) -> bool:
    """Use a window as a check must; return False, and leave it alone, where nobody is let in."""
    if not lets_in(request, at):
        return False
    request.used += request.most_uses is not None
    return True


def _begin(rules: ReferenceRules, request: Request, state: str, at: datetime) -> None:
    seconds = rules.approval_window
    if state == "active":
        counting = _counting(rules, request).values()
        seconds = min([request.access, *(act.window for act in counting if act.window)])
        limits = [request.most_uses, *(act.uses for act in counting)]
        request.most_uses = min((one for one in limits if one), default=None)
    request.state, request.deadline = state, at + timedelta(seconds=seconds)


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
