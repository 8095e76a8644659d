"""Reminders, escalations to the next tier, and warnings of a window's end, for requests that stay in their state."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.database import UnitOfWork
from lockbox.facts.enumerations import State
from lockbox.notifications import announcements, delivery_status, recipients
from lockbox.notifications.account_mail import NOBODY_NOTIFIED, REVIEW_UNREACHED
from lockbox.notifications.audience import ASKING, Reminder
from lockbox.notifications.delivery_status import DeliveryReach
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import access_check, decision_context, policy_store, prompt_tiers, transition
from lockbox.requests.deadlines import DueReminders, due_reminders, wake_at
from lockbox.requests.lifecycle import HeldBack
from lockbox.requests.policy import Terms
from lockbox.requests.policy_parts import FIRST_STEP
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.requests.prompt_tiers import PromptedApprovers
from lockbox.requests.quorum import has_steps, has_turn, step_of, tallies
from lockbox.requests.transition import Move, ReminderUpdate

MOST_LINES = 50
KNOWN = text("""
SELECT e.request_id FROM events e JOIN requests r ON r.id = e.request_id
WHERE e.request_id = ANY(:ids) AND e.seq IS NULL AND e.action = :action AND e.to_state = r.state
""")
NAMES = text("SELECT id, name FROM tenants WHERE id = ANY(:ids)")
VOTED = text("SELECT request_id, person_id FROM decisions WHERE request_id = ANY(:ids)")


@dataclass(frozen=True)
class UndeliveredRequest:
    """`is_said` is whether an event in the request's current state already records that no one was reached."""

    asked: frozenset[UUID]
    is_said: bool


def undelivered_requests(session: UnitOfWork, rows: Sequence[Row[Any]]) -> dict[UUID, UndeliveredRequest]:
    found = reaches(session, rows)
    unreached = [one for one, reached in found.items() if reached.nobody]
    if not unreached:
        return {}
    said = set(session.execute(KNOWN, {"ids": unreached, "action": Reminder.UNREACHED.value}).scalars())
    return {one: UndeliveredRequest(found[one].people, one in said) for one in unreached}


def reaches(session: UnitOfWork, rows: Iterable[Row[Any]]) -> dict[UUID, DeliveryReach]:
    return delivery_status.of_requests(session, {row.id: row.state for row in rows if row.state in ASKING})


def last_resort(
    row: Row[Any],
    silence: UndeliveredRequest,
    known: RecipientDirectory,
    voted: AbstractSet[UUID],
    waiting: AbstractSet[UUID] = frozenset(),
) -> dict[Reminder, frozenset[UUID]]:
    """Return whom to prompt if no tier is left: all others who can decide.

    The first time, also remind the people who can fix delivery. People who want no prompts are asked too, but not
    people in `waiting`: their step comes later.
    """
    prompts: dict[Reminder, frozenset[UUID]] = {}
    rest = known.able(row.tenant_id) - silence.asked - voted - waiting - {row.requester_id}
    if row.state == State.PENDING and rest:
        prompts[Reminder.ESCALATE] = rest
    if not silence.is_said:
        prompts[Reminder.UNREACHED] = frozenset()
    return prompts


def notify_undelivered(
    session: UnitOfWork, rows: Iterable[Row[Any]], found: Mapping[UUID, DeliveryReach], at: datetime
) -> None:
    unreached = [(row, found[row.id]) for row in rows if row.id in found and not found[row.id].reached]
    lines = {
        row.id: (row.tenant_id, delivery_status.undelivered_sentence(reach.stage, reach.asked))
        for row, reach in unreached
    }
    _notify_operators(session, NOBODY_NOTIFIED, lines, at)


def notify_unreached_reviews(
    session: UnitOfWork, rows: Iterable[Row[Any]], silent: Mapping[UUID, UndeliveredRequest], at: datetime
) -> None:
    waiting = [row for row in rows if row.state == State.REVIEWING]
    lines = {
        row.id: (row.tenant_id, delivery_status.undelivered_sentence(row.state, len(silent[row.id].asked)))
        for row in waiting
    }
    _notify_operators(session, REVIEW_UNREACHED, lines, at)


def _notify_operators(session: UnitOfWork, action: str, lines: Mapping[UUID, tuple[UUID, str]], at: datetime) -> None:
    """`lines` has the tenant and text for each request."""
    if not lines:
        return
    tenants = list({tenant for tenant, _ in lines.values()})
    names = {row.id: row.name for row in session.execute(NAMES, {"ids": tenants})}
    changes = {str(one): f"{names[tenant]}: {said}" for one, (tenant, said) in list(lines.items())[:MOST_LINES]}
    if len(lines) > MOST_LINES:
        changes["and"] = f"{len(lines) - MOST_LINES} more"
    facts: dict[str, Value] = {"requests": len(lines), "changes": changes}
    announcements.notify_operators(session, AuditEvent(at=at, action=action, actor=THE_CLOCK, facts=facts))


def remind(session: UnitOfWork, rows: Sequence[Row[Any]], at: datetime) -> None:
    """Remind, escalate and warn for locked rows whose timer is due before the deadline; set their timers.

    If no one who was asked could be notified, the next tier is asked before its time. No one is asked about an
    extension of a window that was ended.
    """
    policies = policy_store.effective_policies(session, [row.id for row in rows])
    known = recipients.look_up(session, {row.tenant_id for row in rows}, at)
    voted = defaultdict[UUID, set[UUID]](set)
    for vote in session.execute(VOTED, {"ids": [row.id for row in rows]}):
        voted[vote.request_id].add(vote.person_id)
    silent = undelivered_requests(session, [row for row in rows if not policies[row.id].is_outlived])
    steps, held_back = _steps(session, rows, policies, known), access_check.held_back(session, _begun(rows, at))
    updates = [
        _reminded(
            row,
            policies[row.id],
            known,
            at,
            voted=voted[row.id],
            silence=silent.get(row.id),
            step=steps[row.id],
            held_back=held_back.get(row.id),
        )
        for row in rows
    ]
    transition.remind(session, updates)
    unreviewed = [
        row
        for row, one in zip(rows, updates, strict=True)
        if any(move.reminder is Reminder.UNREACHED for move in one.moves)
    ]
    notify_unreached_reviews(session, unreviewed, silent, at)


def _begun(rows: Sequence[Row[Any]], at: datetime) -> list[UUID]:
    return [row.id for row in rows if row.state == State.ACTIVE and row.opens_at and row.opens_at <= at]


def _steps(
    session: UnitOfWork, rows: Sequence[Row[Any]], policies: Mapping[UUID, EffectivePolicy], known: RecipientDirectory
) -> dict[UUID, int]:
    steps = {row.id: FIRST_STEP for row in rows}
    ordered = [row for row in rows if row.state == State.PENDING and has_steps(policies[row.id].terms.stages)]
    if not ordered:
        return steps
    terms = {row.id: policies[row.id].terms for row in ordered}
    for request_id, votes in decision_context.all_votes(session, ordered, known, terms).items():
        stages, groups = terms[request_id].stages, policies[request_id].groups
        steps[request_id] = step_of(tallies(votes, terms[request_id].quorum, stages, groups))
    return steps


def _reminded(
    row: Row[Any],
    effective: EffectivePolicy,
    known: RecipientDirectory,
    at: datetime,
    *,
    voted: AbstractSet[UUID],
    silence: UndeliveredRequest | None,
    step: int,
    held_back: HeldBack | None,
) -> ReminderUpdate:
    phase = transition.phase_of(row, known)
    due = due_reminders(phase, effective.terms, row.wake_at, at)
    if held_back:
        due = replace(due, warn=False)
    if effective.is_outlived:
        due = replace(due, remind=False, escalate=row.tiers_asked)
    if silence and phase.tiers_asked:
        due = replace(due, escalate=max(due.escalate, phase.tiers_asked + 1))
    prompts, tiers_asked = _recipients(row, due, effective, known, voted=voted, step=step, held_back=held_back)
    if silence and Reminder.ESCALATE not in prompts:
        prompts |= last_resort(row, silence, known, voted, _waiting(row, effective, known, step))
    after = replace(phase, tiers_asked=tiers_asked, warned=row.warned or due.warn)
    reminded = row.reminders + (Reminder.REMIND in prompts)
    facts = _facts(reminded, tiers_asked, silence, held_back)
    moves = [
        Move.of(
            row,
            action=reminder,
            actor=THE_CLOCK,
            from_state=phase.state,
            at=at,
            asked=asked,
            reminder=reminder,
            policy_version=effective.version,
            facts=facts.get(reminder, {}),
        )
        for reminder, asked in prompts.items()
    ]
    return ReminderUpdate(
        request_id=row.id,
        state=phase.state,
        deadline_at=row.deadline_at,
        wake_at=wake_at(after, effective.terms, at) or row.deadline_at,
        reminders=reminded,
        tiers_asked=tiers_asked,
        warned=after.warned,
        moves=moves,
    )


def _facts(
    reminders: int, tiers_asked: int, silence: UndeliveredRequest | None, held_back: HeldBack | None
) -> dict[Reminder, Mapping[str, Value]]:
    unreached: dict[str, Value] = {"unreached": len(silence.asked)} if silence else {}
    return {
        Reminder.REMIND: {"reminders": reminders},
        Reminder.ESCALATE: {"tiers_asked": tiers_asked, **unreached},
        Reminder.UNREACHED: unreached,
        Reminder.HOLD_BACK: {"held_back": held_back} if held_back else {},
    }


def _recipients(
    row: Row[Any],
    due: DueReminders,
    effective: EffectivePolicy,
    known: RecipientDirectory,
    *,
    voted: AbstractSet[UUID],
    step: int,
    held_back: HeldBack | None,
) -> tuple[dict[Reminder, frozenset[UUID]], int]:
    prompts: dict[Reminder, frozenset[UUID]] = {}
    tiers_asked: int = row.tiers_asked
    if due.remind and (waited_for := _still_needed(row, effective, known, voted, step)):
        prompts[Reminder.REMIND] = waited_for
    if due.escalate > tiers_asked:
        informed = _so_far(row, effective, known, step) | voted
        asked = _wider(row, effective, known, informed=informed, to=due.escalate, step=step)
        tiers_asked = asked.tiers
        if asked.people:
            prompts[Reminder.ESCALATE] = asked.people
    if due.begin:
        prompts[Reminder.HOLD_BACK if held_back else Reminder.BEGIN] = frozenset()
    if due.warn:
        prompts[Reminder.WARN] = frozenset()
    return prompts, tiers_asked


def _still_needed(
    row: Row[Any], effective: EffectivePolicy, known: RecipientDirectory, voted: AbstractSet[UUID], step: int
) -> frozenset[UUID]:
    """A delegate is left out once all of the delegate's principals have voted themselves."""
    seats = known.seats(row.tenant_id) if row.state == State.PENDING else {}
    return frozenset(
        one for one in _so_far(row, effective, known, step) - voted if one not in seats or not seats[one] <= voted
    )


def _so_far(row: Row[Any], effective: EffectivePolicy, known: RecipientDirectory, step: int) -> frozenset[UUID]:
    if row.state == State.REVIEWING:
        return prompt_tiers.reviewers_so_far(known, row.requester_id, row.tiers_asked)
    terms, groups = effective.terms, effective.groups
    return prompt_tiers.approvers_so_far(terms, groups, known, row.tenant_id, row.tiers_asked, step=step)


def _waiting(row: Row[Any], effective: EffectivePolicy, known: RecipientDirectory, step: int) -> frozenset[UUID]:
    stages, groups = effective.terms.stages, effective.groups
    seats = known.seats(row.tenant_id)
    return frozenset(seat for seat in seats if not has_turn(seat, seats[seat], stages, groups, step))


def _wider(
    row: Row[Any],
    effective: EffectivePolicy,
    known: RecipientDirectory,
    *,
    informed: AbstractSet[UUID],
    to: int,
    step: int,
) -> PromptedApprovers:
    if row.state == State.REVIEWING:
        return prompt_tiers.wider_reviewers(known, row.requester_id, informed=informed, asked=row.tiers_asked, to=to)
    terms, groups = effective.terms, effective.groups
    return _wider_approvers(
        terms, groups, known, row.tenant_id, informed=informed, tiers=row.tiers_asked, to=to, step=step
    )


def _wider_approvers(
    terms: Terms,
    groups: prompt_tiers.Groups,
    known: RecipientDirectory,
    tenant_id: UUID,
    *,
    informed: AbstractSet[UUID],
    tiers: int,
    to: int,
    step: int = FIRST_STEP,
) -> PromptedApprovers:
    def asked(count: int) -> frozenset[UUID]:
        return prompt_tiers.approvers_so_far(terms, groups, known, tenant_id, count, step=step)

    return prompt_tiers.added_by_tier(asked, len(terms.tiers), informed=informed, tiers=tiers, to=to)
