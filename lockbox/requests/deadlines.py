"""The deadlines of a request, and when its clock has something to do next: reminders, escalations, warnings; pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from lockbox.requests.lifecycle import FINAL_STATES, Action, State
from lockbox.requests.policy import Terms


@dataclass(frozen=True)
class Phase:
    """The stretch of time for which a request stands in one state, and how far the clock's nudges have come in it.

    `since` is when it was asked or opened, `tiers_asked` how many tiers of those who can answer were asked so far:
    0 where there are none, and everybody was asked at once. `review_tiers` is how many the vendor's managers have.
    """

    state: State
    since: datetime
    deadline_at: datetime
    tiers_asked: int = 0
    review_tiers: int = 1
    warned: bool = False


@dataclass(frozen=True)
class DueReminders:
    """What is due of all that the clock does to a request that stays as it is; `widen` is the tiers to be asked."""

    remind: bool
    widen: int
    warn: bool


def deadline(state: State, since: datetime, *, review: int, approval: int, access: int) -> datetime:
    """Return when the clock that starts with this state runs out; `since` itself for the states that end."""
    seconds = {State.REVIEWING: review, State.PENDING: approval, State.ACTIVE: access}.get(state, 0)
    return since.astimezone(UTC) + timedelta(seconds=seconds)


def too_late_at(
    action: Action,
    terms: Terms,
    *,
    deadline_at: datetime,
    created_at: datetime,
    asked_at: datetime | None,
    paused: timedelta,
) -> datetime:
    """Return the moment from which a move on a request is too late, whether or not the clock has ended it already.

    A policy that has become stricter since leaves less time for a yes. `paused` is how long questions stopped the
    clock.
    """
    if action is Action.APPROVE and asked_at:
        return min(deadline_at, asked_at + timedelta(seconds=terms.approval_window) + paused)
    if action is Action.ENDORSE:
        return min(deadline_at, created_at + timedelta(seconds=terms.review_window))
    return deadline_at


def wake_at(stretch: Phase, terms: Terms, at: datetime) -> datetime | None:
    """Return the next moment after `at` at which the clock has something to do for this request, if any.

    It is the earliest of the next reminder, the next widening, the warning and the deadline. What would come at the
    deadline or after it never comes.
    """
    if stretch.state in FINAL_STATES:
        return None
    stretch, at = _in_utc(stretch), at.astimezone(UTC)
    moments = [*_reminders(stretch, terms), *_warnings(stretch, terms)]
    moments += _widenings(stretch, terms)[stretch.tiers_asked - 1 :] if stretch.tiers_asked else []
    return min((moment for moment in moments if at < moment < stretch.deadline_at), default=stretch.deadline_at)


def due_reminders(stretch: Phase, terms: Terms, woken_at: datetime, at: datetime) -> DueReminders:
    """Return what is due at `at` for a request whose clock was set to `woken_at`.

    However late it is, that is one reminder at most; at the deadline it is nothing at all.
    """
    stretch, at, asked = _in_utc(stretch), at.astimezone(UTC), stretch.tiers_asked
    if stretch.state in FINAL_STATES or at >= stretch.deadline_at:
        return DueReminders(remind=False, widen=asked, warn=False)
    passed = sum(moment <= at for moment in _widenings(stretch, terms))
    return DueReminders(
        remind=any(woken_at <= moment <= at for moment in _reminders(stretch, terms)),
        widen=max(asked, passed + 1) if asked else 0,
        warn=any(moment <= at for moment in _warnings(stretch, terms)),
    )


def _reminders(stretch: Phase, terms: Terms) -> list[datetime]:
    percents = {State.REVIEWING: terms.review_reminders, State.PENDING: terms.approval_reminders}
    return list(_moments(stretch, percents.get(stretch.state, ())))


def _widenings(stretch: Phase, terms: Terms) -> list[datetime]:
    """Return when the second tier, the third and so on are to be asked."""
    further = {
        State.REVIEWING: terms.review_widening[: max(stretch.review_tiers - 1, 0)],
        State.PENDING: terms.widening[: max(len(terms.tiers) - 1, 0)],
    }
    return list(_moments(stretch, further.get(stretch.state, ())))


def _warnings(stretch: Phase, terms: Terms) -> Iterator[datetime]:
    before = timedelta(seconds=terms.closing_warning)
    opened = stretch.state is State.ACTIVE and not stretch.warned
    if opened and before and stretch.deadline_at - before > stretch.since:
        yield stretch.deadline_at - before


def _moments(stretch: Phase, percents: tuple[int, ...]) -> Iterator[datetime]:
    return (stretch.since + (stretch.deadline_at - stretch.since) * percent / 100 for percent in percents)


def _in_utc(stretch: Phase) -> Phase:
    # Between two readings of a clock on a wall, an hour may be missing or come twice.
    since, until = stretch.since.astimezone(UTC), stretch.deadline_at.astimezone(UTC)
    return replace(stretch, since=since, deadline_at=until)
