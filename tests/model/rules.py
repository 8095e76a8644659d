"""The house in ticks: what its pure code says to each person's act and to the clock; each part can be broken."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from lockbox.errors import LockboxError
from lockbox.facts.enumerations import Mode, Severity, State
from lockbox.requests import deadlines, permitted_moves, policy, quorum
from lockbox.requests.deadlines import Phase
from lockbox.requests.lifecycle import CLOCK_ACTIONS, DECISIONS, FINAL_STATES, OPEN_STATES, Action, Party
from lockbox.requests.permitted_moves import OPENING
from lockbox.requests.policy import Terms
from lockbox.requests.quorum import Vote, granted_window

STATES = tuple(State)
ACTIONS = tuple(Action)
NEVER = -1
APPROVED = ACTIONS.index(Action.APPROVE)
START = datetime(2026, 1, 1, tzinfo=UTC)

ERIN, MAX, ANN, AMIR, TARA, DESK, CLOCK = range(7)
NAMES = ("erin", "max", "ann", "amir", "tara", "the ticket system", "the clock")
IDS = tuple(UUID(int=number + 1) for number in range(6))
PARTIES: tuple[set[Party], ...] = (
    {Party.REQUESTER, Party.APPROVER},
    {Party.MANAGER},
    {Party.APPROVER},
    {Party.APPROVER},
    {Party.TENANT_ADMIN},
    {Party.SYSTEM},
)
APPROVERS = frozenset({ERIN, ANN, AMIR})
ACTS = tuple(
    (person, action)
    for person, actions in (
        (ERIN, (Action.CANCEL, Action.COMPLETE, Action.APPROVE)),
        (MAX, (Action.ENDORSE, Action.BREAK_GLASS, Action.DENY, Action.REVOKE, Action.APPROVE)),
        (ANN, (Action.APPROVE, Action.DENY, Action.REVOKE)),
        (AMIR, (Action.APPROVE, Action.DENY)),
        (TARA, (Action.DENY, Action.REVOKE, Action.APPROVE)),
    )
    for action in actions
)


CLOSES_ITS_CASE = ((DESK, Action.CANCEL), (DESK, Action.REVOKE))
"""What a ticket system does once the case of the request is closed."""


def acts_of(*people: int) -> tuple[tuple[int, Action], ...]:
    return tuple(act for act in ACTS if act[0] in people)


class ModelRow(NamedTuple):
    """The row of one request and its audit log, in numbers: states and actions by their place, times in ticks.

    `events` holds for each event who did what and when, and the state after it. `enforced` is when the tenant has
    switched to `enforce` since, `withdrawn` when it has revoked what it had approved beforehand. `begins` is when a
    window begins that was approved for later, `stopped` after how many events an emergency stop began that nobody has
    ended, and `cut` after how many events somebody has ended the window that
    this one extends.
    """

    state: int
    version: int
    since: int
    deadline: int
    wake: int
    warned: int
    votes: tuple[tuple[int, int], ...]
    events: tuple[tuple[int, int, int, int], ...]
    enforced: int = NEVER
    begins: int = NEVER
    cut: int = NEVER
    withdrawn: int = NEVER
    stopped: int = NEVER

    @property
    def is_open(self) -> bool:
        return STATES[self.state] in OPEN_STATES


@dataclass(frozen=True)
class Case:
    """Under what terms and in what mode a request lives, windows in ticks; and which acts are tried by whom.

    With `switches` the tenant's admin may switch to `enforce` at any time. `start` is when access is to begin. With
    `extends` that is the end of a window that may be revoked before: by code that ends its extension too, or not.
    What is `pre_approved` opens without the customer being asked, until an approver revokes that, at any time.
    With `break_glass` a manager may open it without the customer, or have the customer asked. With `stops` an
    emergency stop may miss it, which is submitted at that moment, and bars that until it is ended.
    Its `severity` has the clock wake earlier.
    """

    name: str
    terms: Terms
    mode: Mode = Mode.ENFORCE
    acts: tuple[tuple[int, Action], ...] = ACTS
    switches: bool = False
    pre_approved: bool = False
    groups: Mapping[str, Collection[UUID]] = field(default_factory=dict)
    start: int = NEVER
    extends: bool = False
    break_glass: bool = False
    stops: bool = False
    severity: Severity | None = None

    @property
    def first(self) -> State:
        if self.break_glass or policy.reviewed_first(self.terms, self.mode):
            return State.REVIEWING
        return State.ACTIVE if self.pre_approved else State.PENDING


def _late(at: int, deadline: int) -> bool:
    return at >= deadline


def _has_turn(votes: Collection[Vote], person: int, case: Case) -> bool:
    stages, groups = case.terms.stages, case.groups
    step = quorum.step_of(quorum.tallies(votes, case.terms.quorum, stages, groups))
    return quorum.has_turn(
        IDS[person], frozenset({IDS[person]} & {IDS[one] for one in APPROVERS}), stages, groups, step
    )


@dataclass(frozen=True)
class ModelRules:
    """The code that is explored. To break it is to give another part in the place of the real one.

    `rechecks` is whether a handler looks at the row again once it has locked it, `own_is_refused` whether nobody
    decides about the own request, `overdue_runs` whether reconciling acts on what is overdue. What extends a window
    that was ended is not approved any more (`outlived_is_refused`) and lets nobody in (`outlived_is_shut`).
    """

    move: Callable[..., Any] = permitted_moves.move
    deadline: Callable[..., datetime] = deadlines.deadline
    wake_at: Callable[..., datetime | None] = deadlines.wake_at
    reminders: Callable[..., Any] = deadlines.due_reminders
    quorum_met: Callable[..., bool] = quorum.quorum_met
    stricter_mode: Callable[..., Mode] = policy.stricter_mode
    has_turn: Callable[..., bool] = _has_turn
    is_late: Callable[[int, int], bool] = _late
    is_due: Callable[[int, int], bool] = _late
    is_shut: Callable[[int, int], bool] = _late
    has_begun: Callable[[int, int], bool] = _late
    outlived_is_refused: bool = True
    outlived_is_shut: bool = True
    covers: Callable[[int], bool] = lambda withdrawn: withdrawn == NEVER
    own_is_refused: bool = True
    glass_is_refused: bool = True
    stop_bars: bool = True
    rechecks: bool = True
    overdue_runs: bool = True


def instant(tick: int) -> datetime:
    return START + timedelta(seconds=tick)


def ticks(moment: datetime | None) -> int:
    """Return the tick of a moment, rounded up as the schedule does."""
    return NEVER if moment is None else -int((START - moment) // timedelta(seconds=1))


@dataclass
class RuleModel:
    """The rules for one case, remembering what they said before; so many `faults` may go wrong in all."""

    rules: ModelRules
    case: Case
    faults: int = 1
    said: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def submitted(self) -> ModelRow:
        """Return the row of a request that was submitted at tick 0."""
        self.rules.move(None, Action.SUBMIT, {Party.ENGINEER})
        submitted = (ERIN, ACTIONS.index(Action.SUBMIT), 0, STATES.index(self.case.first))
        return self._begun(ModelRow(0, 1, 0, 0, 0, 0, (), (submitted,)), self.case.first, 0)

    def judged(self, row: ModelRow, person: int, action: Action, at: int) -> ModelRow | None:
        """Return the row after a person's act, None if it is refused."""
        key = (row, person, action, at)
        if key not in self.said:
            self.said[key] = self._checked(row, person, action, at)
        found: ModelRow | None = self.said[key]
        return found

    def switched(self, row: ModelRow, at: int) -> ModelRow:
        """Return the row after the tenant has switched to `enforce`: a window that the vendor opened is revoked."""
        after = row._replace(enforced=at)
        revoked = self.judged(after, TARA, Action.REVOKE, at) if STATES[row.state] is State.ACTIVE else None
        return revoked or after

    def cut(self, row: ModelRow, at: int, *, by_older_code: bool) -> ModelRow:
        """Return the row after the window was revoked that it extends; older code leaves the extension alone."""
        after = row._replace(cut=row.version)
        if by_older_code or STATES[row.state] is not State.ACTIVE:
            return after
        return self.judged(after, ANN, Action.REVOKE, at) or after

    def withdrawn(self, row: ModelRow, at: int) -> ModelRow:
        """Return the row after the pre-approval was revoked: the window that it opened is revoked with it."""
        after = row._replace(withdrawn=at)
        by_it = STATES[row.state] is State.ACTIVE and not any(act == APPROVED for _, act, *_ in row.events)
        return (self.judged(after, ANN, Action.REVOKE, at) if by_it else None) or after

    def clocked(self, row: ModelRow, at: int) -> ModelRow:
        """Return the row after the clock has looked at it; the same where nothing is due."""
        key = (row, CLOCK, at)
        if key not in self.said:
            self.said[key] = self._clocked(row, at)
        found: ModelRow = self.said[key]
        return found

    def ended(self, row: ModelRow, at: int) -> ModelRow:
        state = STATES[row.state]
        action = CLOCK_ACTIONS[state]
        taken, _ = self.rules.move(state, action, {Party.CLOCK})
        return self._moved(row, CLOCK, action, taken.to, at)

    def door(self, row: ModelRow, now: int) -> bool:
        """Whether the guarded system would let the engineer in at this moment."""
        if STATES[row.state] is not State.ACTIVE or (row.cut != NEVER and self.rules.outlived_is_shut):
            return False
        return self.rules.has_begun(now, row.begins) and not self.rules.is_shut(now, row.deadline)

    def _checked(self, row: ModelRow, person: int, action: Action, at: int) -> ModelRow | None:
        is_own = person == ERIN and action in DECISIONS and self.rules.own_is_refused
        is_no_glass = action is Action.BREAK_GLASS and not self.case.break_glass and self.rules.glass_is_refused
        is_barred = action is Action.BREAK_GLASS and row.stopped != NEVER and self.rules.stop_bars
        if is_own or is_no_glass or is_barred:
            return None
        state = STATES[row.state]
        try:
            taken, _ = self.rules.move(state, action, PARTIES[person])
        except LockboxError:
            return None
        is_outlived = action in OPENING and row.cut != NEVER and self.rules.outlived_is_refused
        if is_outlived or self.rules.is_late(at, row.deadline):
            return None
        votes = row.votes
        if action in DECISIONS:
            given = (person, ACTIONS.index(action))
            if given in votes:
                return None
            if action is Action.APPROVE and not self.rules.has_turn(_votes(row), person, self.case):
                return None
            votes = tuple(sorted({vote for vote in votes if vote[0] != person} | {given}))
        after = row._replace(votes=votes)
        return self._moved(after, person, action, self._next(taken, after, action), at)

    def _next(self, taken: Any, row: ModelRow, action: Action) -> State:
        mode = self.rules.stricter_mode(self.case.mode, self.case.mode if row.enforced == NEVER else Mode.ENFORCE)
        if action is Action.ENDORSE and self.case.pre_approved and self.rules.covers(row.withdrawn):
            return State(taken.pre_approved)
        if taken.instead is None or (action is Action.ENDORSE and policy.customer_decides(mode)):
            return State(taken.to)
        if action is Action.ENDORSE:
            return State(taken.instead)
        terms = self.case.terms
        met = self.rules.quorum_met(list(_votes(row)), terms.quorum, terms.stages, self.case.groups)
        return State(taken.to if met else taken.instead)

    def _moved(self, row: ModelRow, person: int, action: Action, to: State, at: int) -> ModelRow:
        event = (person, ACTIONS.index(action), at, STATES.index(to))
        after = row._replace(version=row.version + 1, events=(*row.events, event))
        if to is STATES[row.state]:
            return after
        if to in FINAL_STATES:
            return after._replace(state=STATES.index(to), wake=NEVER)
        return self._begun(after, to, at)

    def _begun(self, row: ModelRow, to: State, at: int) -> ModelRow:
        terms = self.case.terms
        access = granted_window(terms.access_ceiling, _votes(row))
        start = self.case.start
        ends = self.rules.deadline(
            to,
            instant(at),
            review=terms.review_window,
            approval=terms.approval_window,
            access=access,
            start=None if start == NEVER else instant(start),
        )
        begins = max(at, start) if to is State.ACTIVE else NEVER
        begun = row._replace(state=STATES.index(to), since=at, deadline=ticks(ends), warned=0, begins=begins)
        return begun._replace(wake=self._wake(begun, at))

    def _clocked(self, row: ModelRow, at: int) -> ModelRow:
        if row.wake == NEVER or row.wake > at:
            return row
        if self.rules.is_due(at, row.deadline):
            return self.ended(row, at)
        due = self.rules.reminders(self._phase(row), self.case.terms, instant(row.wake), instant(at))
        reminded = row._replace(warned=int(row.warned or due.warn))
        return reminded._replace(wake=self._wake(reminded, at))

    def _wake(self, row: ModelRow, at: int) -> int:
        return ticks(self.rules.wake_at(self._phase(row), self.case.terms, instant(at)))

    def _phase(self, row: ModelRow) -> Phase:
        since = row.since if row.begins == NEVER else row.begins
        opens_at = instant(row.begins) if row.begins > row.since else None
        phase = STATES[row.state], instant(since), instant(row.deadline)
        return Phase(*phase, 0, 1, bool(row.warned), opens_at, self.case.severity)


def _votes(row: ModelRow) -> tuple[Vote, ...]:
    """Return the votes as the quorum counts them; who is no approver fills no seat."""
    return tuple(
        Vote(IDS[person], ACTIONS[decision], frozenset({IDS[person]} if person in APPROVERS else ()))
        for person, decision in row.votes
    )
