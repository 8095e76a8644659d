"""The invariants I1 to I13, and two checks of the run: each is a function that finds errors in the evidence."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from chaos import dead, enough, questions, sometimes
from chaos.evidence import ChaosEvidence, by_id
from chaos.gate_history import DOORS
from chaos.gate_judge import NO_WINDOW, PAST_DEADLINE, REVOKED, YES_SAID
from chaos.journal import AcknowledgedAct, AttemptedAct, Journal
from lockbox.notifications.audience import AWAITING_FINDING, PROMPTS, REPORT

MOST_SHOWN = 5
ENOUGH = 10
MOST_KEYS = 60
MOST_GROWN = 96 << 20
MOST_GROWN_REDIS = 32 << 20
FORBIDDEN = CLOSED = 403
ENDING = ("complete", "revoke")
SHOWN = (YES_SAID, NO_WINDOW, REVOKED, PAST_DEADLINE)
OPENING = ("endorse", "break_glass", "approve")
MAY_BE_MOOT = frozenset({*PROMPTS, *AWAITING_FINDING, REPORT})
SEALS, TOLD = ("unsealed",), ("notifications", "reports")
# The expected keys: the schedule, kombu's own keys, queues, and mailboxes of answers. Any other key is a leftover.
OURS = re.compile(
    r"\{lockbox\}:|_kombu\.|unacked|core$|notify$|maintenance$|celery|.*\.reply\.celery\.pidbox|celeryev"
)


@dataclass(frozen=True)
class InvariantResult:
    """One invariant: what it says, how much was looked at, and what is wrong."""

    name: str
    says: str
    looked_at: str
    off: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.off


def check(seen: ChaosEvidence) -> list[InvariantResult]:
    """Check all invariants."""
    return [_found(seen, *one) for one in INVARIANTS]


def _found(
    seen: ChaosEvidence, name: str, says: str, find: Callable[[ChaosEvidence], tuple[str, Iterable[str]]]
) -> InvariantResult:
    looked_at, off = find(seen)
    return InvariantResult(name, says, looked_at, tuple(off))


def _asked(seen: ChaosEvidence, **named: str) -> Iterator[str]:
    """Yield a line for each row that these SQL questions find."""
    for name, question in named.items():
        yield from (f"{name.replace('_', ' ')}: {row.id}" for row in seen.rows(question))


def _left(seen: ChaosEvidence, *wanted: str) -> Iterator[str]:
    """Yield a line for each of these kinds of which the drain left some."""
    yield from (f"{count} {what} left after the drain" for what, count in seen.left.items() if what in wanted)


def approved_first(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I1: no window without an earlier approval by people who may give it, before their time ran out."""
    off = _asked(seen, opened_without_a_yes=questions.UNFOUNDED, decided_too_late=questions.LATE)
    return f"{len(seen.rows(questions.WINDOWS))} windows", chain(off, late_and_counted(seen.journal))


def late_and_counted(journal: Journal) -> Iterator[str]:
    """Yield a line for each approval that was acknowledged although it was sent after its deadline."""
    for act in journal.acts:
        if act.action in OPENING and act.counted and act.sent >= act.deadline:
            yield f"{act.action} of {act.request_id} counted, sent {act.sent - act.deadline:.3f} s after its deadline"


def never_past_the_end(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I2: nobody was let in before a window's start, or after its end by the clock or by an acknowledged act."""
    windows = by_id(seen.rows(questions.WINDOWS))
    closed = seen.journal.closed_at(ENDING)
    off = []
    for one in seen.journal.opened:
        window = windows.get(one.request_id)
        if window is None or window.resource != one.resource:
            off.append(f"{one.resource} was open by {one.request_id}, which is no window of it")
            continue
        ends = min(window.deadline_at.timestamp(), closed.get(one.request_id, float("inf")))
        if one.sent >= ends:
            off.append(f"{one.request_id} was open {one.sent - ends:.3f} s after its end")
        if one.answered < window.opened_at.timestamp():
            off.append(f"{one.request_id} was open before it was opened")
    if len(windows) > ENOUGH and not seen.journal.opened:
        off.append("no door was ever found open: the prober has shown nothing")
    return f"{seen.journal.checks.total()} questions, {len(seen.journal.opened)} yes", off


def all_final(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I3: after the drain every request is final."""
    off = [f"{row.id} is {row.state}" for row in seen.rows(questions.OPEN)]
    left = _left(seen, *(seen.left.keys() - {*SEALS, *TOLD}))
    return f"{len(seen.rows(questions.SUBMITTED))} requests", [*off, *left]


def one_event_a_move(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I4: moves and seals are numbered without a gap, each event is sealed once, and exports verify."""
    off = _asked(
        seen,
        moves_with_a_gap=questions.GAPS,
        another_state_than_its_last_move=questions.OTHER_STATE,
        seals_with_a_gap=questions.BROKEN_SEALS,
        not_sealed_once=questions.NOT_SEALED_ONCE,
        not_sealed_for_long=questions.UNSEALED,
        alarmed_by_itself=questions.ALARMED,
    )
    found = (f"the audit log of {export.slug}: {line}" for export in seen.exports for line in export.found)
    return f"{sum(export.events for export in seen.exports)} events verified", chain(_left(seen, *SEALS), off, found)


def told_once_or_more(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I5: each move happens at most once; each notification arrives under one id or is recorded as not delivered."""
    off = _asked(
        seen,
        moved_twice=questions.MOVED_TWICE,
        ended_twice=questions.ENDED_TWICE,
        vendor_not_told=questions.VENDOR_NOT_TOLD,
        approver_not_asked=questions.NOT_ASKED,
        requester_not_told=questions.REQUESTER_NOT_TOLD,
        promised_twice=questions.PROMISED_TWICE,
        mail_not_in_one_event=questions.NOT_NOTED,
    )
    notifications = by_id(seen.rows(questions.NOTIFICATIONS))
    return f"{len(notifications)} notifications", chain(_left(seen, *TOLD), off, _undelivered(seen), _strange(seen))


def _undelivered(seen: ChaosEvidence) -> Iterator[str]:
    arrived = {arrival.id for arrival in seen.arrivals}
    notifications = seen.rows(questions.NOTIFICATIONS)
    yield from dead.unexplained(notifications, seen.stage.mail.refused, seen.struck)
    for row in notifications:
        if row.outcome is None:
            yield f"{row.id} ({row.template}) is still open"
        elif row.outcome == "sent" and str(row.id) not in arrived:
            yield f"{row.id} ({row.template}) is said to be sent and never arrived"
        elif row.outcome == "moot" and row.template not in MAY_BE_MOOT:
            yield f"{row.id} ({row.template}) was dropped though it is no prompt"


def _strange(seen: ChaosEvidence) -> Iterator[str]:
    to = {str(row.id): row.to for row in seen.rows(questions.NOTIFICATIONS)}
    for arrival in seen.arrivals:
        if to.get(arrival.id) != arrival.to:
            mail = f"{arrival.subject!r} arrived at {arrival.to}"
            yield f"{mail} under the id {arrival.id}, which is no notification to there"
        if not arrival.good:
            yield f"{arrival.subject!r} arrived at {arrival.to} with a wrong form or signature"


def acknowledged_is_kept(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I6: what was acknowledged is there, whatever was requested is there once, and no answer was wrong."""
    submitted = seen.rows(questions.SUBMITTED)
    requests = {row.id: row for row in submitted}
    moves = {(row.request_id, row.seq, row.action, row.actor_id) for row in seen.rows(questions.MOVES)}
    off = [
        f"{one.action} of {one.request_id} was acknowledged and is not there"
        for one in seen.journal.acknowledged
        if (one.request_id, one.version, one.action, one.by) not in moves
        or requests[one.request_id].tenant_id != one.tenant_id
    ]
    first = Counter(row.resource for row in submitted if row.extends is None)
    twice = [name for name, count in first.items() if count > 1]
    off += [f"{name} was submitted twice" for name in twice]
    given = {row.id for row in seen.rows(questions.FINDINGS)}
    off += [
        f"the finding about {finding} was acknowledged and is not there"
        for finding in seen.journal.findings
        if finding not in given
    ]
    return f"{len(seen.journal.acknowledged)} acknowledged", [*off, *seen.journal.surprises]


def nothing_foreign(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I7: nobody was shown a row of another customer."""
    wrong = [
        f"{row.id} is submitted for another customer than it was asked of"
        for row in seen.rows(questions.SUBMITTED)
        if seen.journal.resources.get(row.resource) != row.tenant_id
    ]
    return f"{seen.journal.statuses.total()} answers", [*seen.journal.foreign, *wrong]


def indexes_are_true(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I8: after a reconcile the indexes hold all that is due in the next minute, and nothing beyond Postgres."""
    return "both indexes", seen.drift


def nothing_told(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I9: no secret, reason or address in logs, Redis or Flower; and Flower refuses to change anything."""
    off = [f"{place} tells what it must not" for place, tells in seen.told.items() if tells]
    off += [f"Flower answered {status} to a control call" for status in set(seen.stage.controls) - {FORBIDDEN}]
    if not seen.stage.controls:
        off.append("Flower was never asked for what it must refuse")
    return f"{len(seen.told)} places, {len(seen.stage.controls)} control calls", off


def back_to_base(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I10: memory and keys are back to their base, no message is left, and killed processes left nothing running."""
    plant, base = seen.plant, seen.base
    off = [f"a key of nobody's: {key}" for key in sorted(plant.keys) if not OURS.match(key)]
    off += [f"{len(plant.keys)} keys in Redis"] if len(plant.keys) > MOST_KEYS else []
    off += [f"{plant.waiting} messages still wait"] if plant.waiting else []
    off += [f"still runs: {orphan}" for orphan in plant.orphans]
    for name, size in plant.memory.items():
        if size - base.memory[name] > MOST_GROWN:
            off.append(f"{name} has grown by {(size - base.memory[name]) >> 20} MiB")
    if plant.redis_bytes - base.redis_bytes > MOST_GROWN_REDIS:
        off.append(f"Redis has grown by {(plant.redis_bytes - base.redis_bytes) >> 20} MiB")
    return f"{len(plant.keys)} keys, {sum(plant.memory.values()) >> 20} MiB", off


def in_stories(seen: ChaosEvidence) -> list[AcknowledgedAct]:
    """Return what was acknowledged in the stories that aim at races."""
    quick = {one.tenant_id for one in seen.stage.cast.quick}
    return [one for one in seen.journal.acknowledged if one.tenant_id in quick]


def acts_in_stories(seen: ChaosEvidence) -> list[AttemptedAct]:
    """Return what people did in those stories."""
    ids = {story.request_id for story in in_stories(seen)}
    return [act for act in seen.journal.acts if act.request_id in ids]


def gates_hold(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I11: the gate and the guard say yes only to what a window allows, never past its deadline or a revoke.

    They never say no to an open window, and the gate has it in memory and on its stream in time.
    """
    tested = seen.gates.tested()
    says = [
        f"{tested[door, REVOKED]:,} past a revoke and {tested[door, PAST_DEADLINE]:,} past a deadline"
        for door in DOORS
    ]
    return f"{len(seen.history.answers):,} calls; {' and '.join(says)}", chain(
        seen.gates.wrong_yeses(), seen.gates.wrong_noes(), seen.gates.not_told(), seen.gates.not_remembered()
    )


def gates_let_in(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I12: while no fault is active, the gate and the guard let in whoever has a window."""
    tested = seen.gates.tested()
    return " and ".join(f"{tested[door, YES_SAID]:,} yes" for door in DOORS), seen.gates.too_few_let_in()


def as_was_allowed(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """I13: steps come in order, and no extension, pre-approval or break-glass exceeds what allows it."""
    off = _asked(
        seen,
        approved_before_its_step=questions.OUT_OF_STEP,
        begins_elsewhere_than_what_it_extends_ends=questions.ELSEWHERE,
        goes_on_from_a_window_that_somebody_ended=questions.OUTLIVED,
        used_more_often_than_allowed_or_counted=questions.OVERUSED,
        beyond_its_pre_approval=questions.BEYOND,
        break_glass_for_too_long_or_without_a_review=questions.GLASS_TOO_LONG,
        break_glass_too_often=questions.GLASS_TOO_OFTEN,
        break_glass_while_a_finding_was_overdue=questions.GLASS_WHILE_OVERDUE,
        break_glass_during_an_emergency_stop=questions.GLASS_DURING_STOP,
    )
    return f"{seen.journal.seen.total()} further ways seen", off


def enough_happened(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """Run: enough was submitted, opened, notified and struck for the other checks to show something."""
    journal = seen.journal
    stories, tested = in_stories(seen), seen.gates.tested()
    happened = {
        "requests submitted": len(seen.rows(questions.SUBMITTED)),
        "windows opened": len(seen.rows(questions.WINDOWS)),
        "stories acknowledged": len(stories),
        "doors found open": len(journal.opened),
        "doors found closed": journal.checks[CLOSED],
        "events verified": sum(export.events for export in seen.exports),
        "notifications arrived": len(seen.arrivals),
        **{f"calls by {door} {what}": tested[door, what] for door in DOORS for what in SHOWN},
    }
    planned = seen.stage.faults
    off = [
        *enough.too_little(happened, planned.seconds),
        *enough.too_calm(len(planned.faults), seen.struck),
        *enough.too_far(*sometimes.close(acts_in_stories(seen))),
    ]
    return f"{len(stories)} acknowledged in stories, {len(seen.struck)} faults", off


def none_ended(seen: ChaosEvidence) -> tuple[str, Iterable[str]]:
    """Crew: every process that ended had been struck by a fault."""
    return f"{seen.stage.crew.restarts} processes started again", enough.unasked(seen.ended, seen.struck)


INVARIANTS: tuple[tuple[str, str, Callable[[ChaosEvidence], tuple[str, Iterable[str]]]], ...] = (
    ("I1", "no window without an earlier yes", approved_first),
    ("I2", "nobody in before a window or after its end", never_past_the_end),
    ("I3", "every request is final", all_final),
    ("I4", "one event a move, sealed without a gap", one_event_a_move),
    ("I5", "each move once, each notification told or recorded", told_once_or_more),
    ("I6", "what was acknowledged is there", acknowledged_is_kept),
    ("I7", "no row of another customer", nothing_foreign),
    ("I8", "the indexes hold all of the next minute, and no more than Postgres", indexes_are_true),
    ("I9", "no secret told, nothing controlled", nothing_told),
    ("I10", "memory and keys back to base", back_to_base),
    ("I11", "the gate and the guard say yes to an open window alone", gates_hold),
    ("I12", "an open window is let in while nothing is struck", gates_let_in),
    ("I13", "more time, pre-approvals, break-glass and steps as allowed", as_was_allowed),
    ("run", "enough happened to show it", enough_happened),
    ("crew", "no process ended unasked", none_ended),
)
