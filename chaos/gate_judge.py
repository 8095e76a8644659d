"""Check histories: which answers of the gate and the guard are wrong, and whether open windows let calls in.

A yes is judged by Postgres' rows, by the moments at which revokes were answered, and by Postgres' clock. If only the
bounds of a moment are known, the answer gets the benefit of the doubt.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from uuid import UUID

from chaos.gate_history import (
    DOORS,
    GATE,
    GUARD,
    GateHistory,
    GateYes,
    PostgresTime,
    ProbedCall,
    RecordedAnswer,
    TrueWindow,
)

YES, NO = 200, frozenset({401, 403})
NO_ANSWER = 0
REVOKED_SECONDS = {GATE: 1.0, GUARD: 3.0}
"""A call that begins this long after a revoke was answered must be refused."""
REMEMBERED_SECONDS = {GATE: 1.0, GUARD: 3.0}
"""A call may still be refused for this long after its window has opened. The gate remembers a refusal for one second,
and the guard waits for the gate for up to two seconds."""
EARLY_SECONDS = {GATE: 0.0, GUARD: 3.0}
"""A window may be treated as over this long before its deadline. The guard assumes the latest time that Postgres'
clock can have; if that may be off by more than this, the guard answers `behind`. The gate asks Postgres itself by
then.
"""
TOLD_SECONDS = 2.0
"""This long after an approval was answered, its window is on the gate's stream, if the stream is read throughout."""
REMEMBERED_BY, MOST_BEATS = 1.0, 1
"""This long after an approval was answered, its window is in the gate's memory. The stream reports memory in order.
One heartbeat of a later time may come before the window, because Postgres may go away in the middle of a read."""
BEAT_SECONDS = 1.0
"""The longest time between two heartbeats while all is well. The gate sends one each half second."""
AWAY = frozenset({"busy", "behind"})
"""Reasons for a refusal that are about Lockbox, not about the window."""
LEAST_QUIET, LEAST_LET_IN = 10, 0.9
YES_SAID, NO_WINDOW, REVOKED, PAST_DEADLINE = "let in", "without a window", "past a revoke", "past a deadline"
OTHERS = "away or not open yet"
NOT_BEGUN, HANDED_OVER = "before a later start", "as one window follows another"
"""What an answer shows."""
STREAM, TOLD_IN_TIME, IN_MEMORY = "stream", "an open window within 2 s", "in memory within 1 s"
JUST_SECONDS = 1.0
"""A call allowed within this time after its window's beginning shows that the window continues another one."""
Windows = Mapping[UUID, TrueWindow]


class HistoryJudge:
    """Judges one history by all windows that Postgres knows; the windows must be read after the history ends."""

    def __init__(self, history: GateHistory, windows: Iterable[TrueWindow]) -> None:
        self._history = history
        self._answers = list(history.answers)
        self._windows = {window.request_id: window for window in windows}
        self._clock = PostgresTime(list(history.readings))
        self._covering = defaultdict[ProbedCall, list[TrueWindow]](list)
        for call in {answer.call for answer in self._answers}:
            self._covering[call] = [window for window in self._windows.values() if window.covers(call)]

    def wrong_yeses(self) -> Iterator[str]:
        """Yield a line for each yes that must never be given, and for each answer that is neither yes nor no."""
        for answer in self._answers:
            if answer.status not in {YES, NO_ANSWER, *NO}:
                yield f"{answer}: answered {answer.status}"
            elif answer.status == YES:
                yield from (f"{answer}: yes {why}" for why in self._wrong_yes(answer))

    def wrong_noes(self) -> Iterator[str]:
        """Yield a line for each no to a call that an open window covers."""
        for answer in self._answers:
            if answer.status in NO and answer.reason not in AWAY and (window := self._surely_open(answer)):
                since = answer.began - self._history.opened[window.request_id]
                why = answer.reason or "for no reason"
                yield f"{answer}: no, {why}, {since:.3f} s after {window.request_id} opened"

    def not_told(self) -> Iterator[str]:
        """Yield a line for each open window that was not on the gate's stream in time."""
        for request_id, opened in self._open_after(TOLD_SECONDS):
            told = self._history.told.get(request_id)
            if not self._is_told(request_id, opened + TOLD_SECONDS):
                late = f"only {told - opened:.3f} s after it opened" if told else "never"
                yield f"{request_id} was open, and {late} on the gate's stream"

    def not_remembered(self) -> Iterator[str]:
        """Yield a line for each open window that the gate did not take into memory in time."""
        for request_id, opened in self._open_after(TOLD_SECONDS):
            if (late := self._beats_without(request_id, opened)) > MOST_BEATS:
                yield f"{request_id} was open, and not in the gate's memory at {late} heartbeats past a second"

    def _beats_without(self, request_id: UUID, opened: float) -> int:
        """Return how many heartbeats, with a time after the window's first second, came before the window.

        They are of the stream that was read since the window opened: a later stream may show a memory that is still
        being filled.
        """
        by, until = self._clock.latest(opened) + REMEMBERED_BY, opened + TOLD_SECONDS
        before = min(self._history.told.get(request_id, until), until)
        return sum(by <= one.at and one.heard < before for one in chain.from_iterable(self._history.beats))

    def _open_after(self, seconds: float) -> Iterator[tuple[UUID, float]]:
        """Yield the windows that were open for this long while the stream was read, and when that began."""
        for request_id, opened in list(self._history.opened.items()):
            window, until = self._windows.get(request_id), opened + seconds
            if (
                window is not None
                and self._clock.latest(opened) >= window.opened_at
                and self._clock.latest(until) < window.ends_at
                and self._history.ending.get(request_id, float("inf")) > until
                and not self._history.was_frozen(opened, until)
                and self._history.was_heard(opened, until, BEAT_SECONDS)
            ):
                yield request_id, opened

    def _is_told(self, request_id: UUID, by: float) -> bool:
        """Whether a window was on the stream, and so in memory, at a moment."""
        return self._history.told.get(request_id, float("inf")) <= by

    def too_few_let_in(self) -> Iterator[str]:
        """Yield a line for the gate and the guard each, if open windows did not let calls in during quiet times."""
        if not self._history.quiet:
            return
        for door in DOORS:
            asked = [answer for answer in self._answers if answer.door == door and self._counts_as_quiet(answer)]
            let_in = sum(one.status == YES for one in asked)
            if len(asked) < LEAST_QUIET:
                yield f"only {len(asked)} calls by open windows at the {door} while all was quiet"
            elif let_in < LEAST_LET_IN * len(asked):
                yield f"only {let_in} of {len(asked)} calls by open windows let in at the {door} while all was quiet"

    def tested(self) -> Counter[tuple[str, str]]:
        """Count the answers by the door and by what they show."""
        found = Counter[tuple[str, str]]()
        for shown, seconds in ((TOLD_IN_TIME, TOLD_SECONDS), (IN_MEMORY, REMEMBERED_BY)):
            if in_time := sum(self._is_told(one, opened + seconds) for one, opened in self._open_after(seconds)):
                found[STREAM, shown] = in_time
        for one in self._answers:
            if one.status == YES:
                found[one.door, YES_SAID] += 1
                if self._is_handed_over(one):
                    found[one.door, HANDED_OVER] += 1
            elif one.status in NO:
                found[one.door, self._why_not(one)] += 1
        return found

    def _wrong_yes(self, one: RecordedAnswer) -> Iterator[str]:
        if one.yes is None:
            yield f"without a window: {one.reason or 'nothing'}"
            return
        window = self._windows.get(one.yes.request_id)
        if window is None:
            yield f"by {one.yes.request_id}, which never opened a window"
            return
        yield from _misnamed(one, one.yes, window)
        # Compare with what the approver left out, whatever Postgres returns as granted.
        if one.call.resource == self._history.withheld.get(window.request_id):
            yield f"by {window.request_id}, though its approver left this resource out"
        yield from self._late(one, window)

    def _late(self, one: RecordedAnswer, window: TrueWindow) -> Iterator[str]:
        ended = self._history.ended.get(window.request_id)
        if ended is not None and one.began - ended > REVOKED_SECONDS[one.door]:
            yield f"by {window.request_id}, {one.began - ended:.3f} s after its revoke was answered"
        # The gate decides after the call has begun, so Postgres' time is at least this.
        past = self._clock.earliest(one.began) - window.ends_at
        if past >= 0:
            yield f"by {window.request_id}, {past:.3f} s past its deadline"
        early = window.opened_at - self._clock.latest(one.ended)
        if early > 0:
            yield f"by {window.request_id}, {early:.3f} s before it opened"

    def _surely_open(self, one: RecordedAnswer) -> TrueWindow | None:
        return next((window for window in self._covering[one.call] if self._is_open_all_along(one, window)), None)

    def _is_open_all_along(self, one: RecordedAnswer, window: TrueWindow) -> bool:
        opened = self._history.opened.get(window.request_id, float("inf"))
        remembered = REMEMBERED_SECONDS[one.door]
        # A process that was frozen meanwhile may give an answer that it got before.
        return (
            one.began > opened + remembered
            and self._has_begun(one, window)
            and not self._history.was_frozen(one.began - remembered, one.ended)
            and one.ended < self._history.ending.get(window.request_id, float("inf"))
            and self._clock.latest(one.ended) < window.ends_at - EARLY_SECONDS[one.door]
        )

    def _has_begun(self, one: RecordedAnswer, window: TrueWindow) -> bool:
        """Whether a window had surely begun when the call did, or whether the window that it extends was open.

        From one window to the next, the gate keeps nobody out. The guard may end one early and begin the other late.
        """
        before = self._windows.get(window.extends) if window.extends else None
        if before is not None and one.door == GATE:
            is_open = one.began > self._history.opened.get(before.request_id, float("inf")) + REMEMBERED_SECONDS[GATE]
            return is_open and one.ended < self._history.ending.get(before.request_id, float("inf"))
        is_later = self._clock.latest(self._history.opened.get(window.request_id, 0.0)) < window.opened_at
        return not is_later or self._clock.earliest(one.began) > window.opened_at + REMEMBERED_SECONDS[one.door]

    def _is_handed_over(self, one: RecordedAnswer) -> bool:
        """Whether the window of a yes has just followed another."""
        window = self._windows.get(one.yes.request_id) if one.yes else None
        if window is None or window.extends is None:
            return False
        return 0 <= self._clock.earliest(one.began) - window.opened_at < JUST_SECONDS

    def _counts_as_quiet(self, one: RecordedAnswer) -> bool:
        return self._history.is_quiet(one.began, one.ended) and self._surely_open(one) is not None

    def _why_not(self, one: RecordedAnswer) -> str:
        """Return the rule by which an answer had to be no; the answer shows that this rule holds."""
        covering = self._covering[one.call]
        if one.reason in AWAY:
            return OTHERS
        if not covering:
            return NO_WINDOW
        if any(self._is_revoked(one, window) for window in covering):
            return REVOKED
        if any(self._clock.earliest(one.began) >= window.ends_at for window in covering):
            return PAST_DEADLINE
        return NOT_BEGUN if any(self._is_early(one, window) for window in covering) else OTHERS

    def _is_early(self, one: RecordedAnswer, window: TrueWindow) -> bool:
        """Whether a window was approved but had surely not begun."""
        is_approved = one.began > self._history.opened.get(window.request_id, float("inf"))
        return is_approved and self._clock.latest(one.ended) < window.opened_at

    def _is_revoked(self, one: RecordedAnswer, window: TrueWindow) -> bool:
        """Whether only the revoke, and no deadline, keeps a call out."""
        ended = self._history.ended.get(window.request_id, float("inf"))
        return one.began - ended > REVOKED_SECONDS[one.door] and self._clock.latest(one.ended) < window.ends_at


def _misnamed(one: RecordedAnswer, yes: GateYes, window: TrueWindow) -> Iterator[str]:
    if yes.call != one.call:
        yield f"about something else: {yes.call}"
    if not window.covers(one.call):
        yield f"by {window.request_id}, which is no window for it"
    if yes.until != window.deadline:
        yield f"until {yes.until}, and {window.request_id} ends at {window.deadline}"
