"""The times until which a request can be answered or used, and when a timer next acts on it; pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Protocol

from lockbox.facts.enumerations import Severity, State
from lockbox.requests.lifecycle import CLOCK_ACTIONS, FINAL_STATES, Action
from lockbox.requests.policy import AT_ONCE, Terms, Timing

EARLIER = {Severity.S1: 4, Severity.S2: 2}
"""How much sooner people are asked again: after a quarter or half of the policy's time."""
REMIND = "remind"
"""The action of a timer before a request's deadline. The request stays in its state."""


@dataclass(frozen=True)
class Phase:
    """`since` is when the review began, the customer was asked, or the window begins.

    `opens_at` is the window's start if it is later than the approval. `tiers_asked` is 0 if everyone was asked at
    once. `review_tiers` is how many tiers the vendor's managers have.
    """

    state: State
    since: datetime
    deadline_at: datetime
    tiers_asked: int = 0
    review_tiers: int = 1
    warned: bool = False
    opens_at: datetime | None = None
    severity: str | None = None


@dataclass(frozen=True)
class DueReminders:
    remind: bool
    escalate: int
    warn: bool
    begin: bool = False


def deadline(
    state: State, since: datetime, *, review: int, approval: int, access: int, start: datetime | None = None
) -> datetime:
    """The deadline of a request that enters this state at `since`; for final states, `since` itself.

    A window is counted from `start` if that is later; an answer is due before `start`.
    """
    if state is State.ACTIVE:
        return max(since, start or since).astimezone(UTC) + timedelta(seconds=access)
    seconds = {State.REVIEWING: review, State.PENDING: approval}.get(state, 0)
    ends = since.astimezone(UTC) + timedelta(seconds=seconds)
    return min(ends, start.astimezone(UTC)) if start and seconds else ends


def too_late_at(
    action: Action,
    terms: Terms,
    *,
    deadline_at: datetime,
    created_at: datetime,
    asked_at: datetime | None,
    paused: timedelta,
) -> datetime:
    """The time from which a move is too late, even if no timer has ended the request yet.

    A policy that became stricter since the submission leaves less time. `paused` is how long questions stopped the
    approval clock.
    """
    if action is Action.APPROVE and asked_at:
        return min(deadline_at, asked_at + timedelta(seconds=terms.approval_window) + paused)
    if action in {Action.ENDORSE, Action.BREAK_GLASS}:
        return min(deadline_at, created_at + timedelta(seconds=terms.review_window))
    return deadline_at


def wake_at(phase: Phase, terms: Terms, at: datetime) -> datetime | None:
    """Return the next time after `at` at which a timer must act on this request; None for a final state."""
    if phase.state in FINAL_STATES:
        return None
    phase, at = _in_utc(phase), at.astimezone(UTC)
    moments = [*_reminders(phase, terms), *_beginnings(phase), *_warnings(phase, terms)]
    moments += _escalations(phase, terms)[phase.tiers_asked - 1 :] if phase.tiers_asked else []
    return min((moment for moment in moments if at < moment < phase.deadline_at), default=phase.deadline_at)


def due_reminders(phase: Phase, terms: Terms, woken_at: datetime, at: datetime) -> DueReminders:
    """`woken_at` is the time for which the timer was set.

    However late the timer runs, at most one reminder is due. From the deadline on, nothing is due.
    """
    phase, at, asked = _in_utc(phase), at.astimezone(UTC), phase.tiers_asked
    if phase.state in FINAL_STATES or at >= phase.deadline_at:
        return DueReminders(remind=False, escalate=asked, warn=False)
    passed = sum(moment <= at for moment in _escalations(phase, terms))
    return DueReminders(
        remind=any(woken_at <= moment <= at for moment in _reminders(phase, terms)),
        escalate=max(asked, passed + 1) if asked else 0,
        warn=any(moment <= at for moment in _warnings(phase, terms)),
        begin=any(woken_at <= moment <= at for moment in _beginnings(phase)),
    )


def clock_task(state: State, wake_at: datetime | None, deadline_at: datetime) -> str:
    if wake_at is not None and wake_at < deadline_at:
        return REMIND
    return CLOCK_ACTIONS.get(state, Action.EXPIRE).value


def _reminders(phase: Phase, terms: Terms) -> list[datetime]:
    percents = {State.REVIEWING: terms.review_reminders, State.PENDING: terms.approval_reminders}
    said = percents.get(phase.state, ())
    return [*_moments(phase, said), *(_moments(phase, said, _sooner(phase)) if _sooner(phase) > 1 else ())]


def _escalations(phase: Phase, terms: Terms) -> list[datetime]:
    further = {
        State.REVIEWING: terms.review_escalation[: max(phase.review_tiers - 1, 0)],
        State.PENDING: terms.escalation[: max(len(terms.tiers) - 1, 0)],
    }
    return list(_moments(phase, further.get(phase.state, ()), _sooner(phase)))


def _sooner(phase: Phase) -> int:
    return EARLIER.get(Severity(phase.severity), 1) if phase.severity else 1


def _beginnings(phase: Phase) -> Iterator[datetime]:
    if phase.state is State.ACTIVE and phase.opens_at is not None:
        yield phase.opens_at.astimezone(UTC)


def _warnings(phase: Phase, terms: Terms) -> Iterator[datetime]:
    before = timedelta(seconds=terms.closing_warning)
    opened = phase.state is State.ACTIVE and not phase.warned
    if opened and before and phase.deadline_at - before > phase.since:
        yield phase.deadline_at - before


def _moments(phase: Phase, percents: tuple[int, ...], sooner: int = 1) -> Iterator[datetime]:
    return (phase.since + (phase.deadline_at - phase.since) * percent / (100 * sooner) for percent in percents)


def _in_utc(phase: Phase) -> Phase:
    # In local time, an hour may be missing or come twice.
    since, until = phase.since.astimezone(UTC), phase.deadline_at.astimezone(UTC)
    return replace(phase, since=since, deadline_at=until)


@dataclass(frozen=True)
class RequestClock:
    """While the approval clock is stopped, `deadline_at` is the latest deadline to which the stop can lead.

    `stopped_at` is when the clock stopped, and `stopped_deadline` is the deadline before the stop. `stopped_for` is
    the length of earlier stops in seconds.
    """

    deadline_at: datetime
    stopped_at: datetime | None = None
    stopped_deadline: datetime | None = None
    stopped_for: int = 0


def stopped(clock: RequestClock, window: int, at: datetime, latest: datetime | None = None) -> RequestClock:
    """All stops of the clock together last at most `window` seconds.

    A stop moves the deadline no further than `latest`. A clock that is already stopped, or has used up its stops, is
    returned unchanged.
    """
    left = window - clock.stopped_for
    if latest is not None:
        left = min(left, (latest - clock.deadline_at) // timedelta(seconds=1))
    if clock.stopped_at is not None or left <= 0:
        return clock
    return RequestClock(clock.deadline_at + timedelta(seconds=left), at, clock.deadline_at, clock.stopped_for)


def resumed(clock: RequestClock, at: datetime) -> RequestClock:
    """The deadline moves by the length of the stop, rounded up to whole seconds."""
    if clock.stopped_at is None or clock.stopped_deadline is None:
        return clock
    moved = _moved(clock, at)
    return RequestClock(clock.stopped_deadline + timedelta(seconds=moved), stopped_for=clock.stopped_for + moved)


def stood(clock: RequestClock, at: datetime) -> timedelta:
    return timedelta(seconds=clock.stopped_for + _moved(clock, at))


def whole_seconds(span: timedelta) -> int:
    """Rounded up."""
    return -(-span // timedelta(seconds=1))


class TimedAsk(Protocol):
    """`first_opened_at` is the start of the first window in the chain that this request extends."""

    @property
    def not_before(self) -> datetime | None: ...

    @property
    def first_opened_at(self) -> datetime | None: ...


def timing_of(asked: TimedAsk, submitted_at: datetime) -> Timing:
    if asked.not_before is None:
        return AT_ONCE
    if asked.first_opened_at is None:
        return Timing(ahead=whole_seconds(asked.not_before - submitted_at))
    return Timing(used=whole_seconds(asked.not_before - asked.first_opened_at))


def _moved(clock: RequestClock, at: datetime) -> int:
    if clock.stopped_at is None or clock.stopped_deadline is None:
        return 0
    most = (clock.deadline_at - clock.stopped_deadline) // timedelta(seconds=1)
    return min(max(ceil((at - clock.stopped_at).total_seconds()), 0), most)
