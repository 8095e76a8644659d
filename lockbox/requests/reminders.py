"""What the clock does to requests that stay as they are: reminders, the next tier of those asked, a window's end."""

from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

from lockbox.identity.roles import Mode
from lockbox.notifications import recipients
from lockbox.notifications.audience import Nudge
from lockbox.notifications.recipients import Directory
from lockbox.requests import escalating, policy_store, reviewers, tiers, transition
from lockbox.requests.escalating import Silence
from lockbox.requests.lifecycle import State
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import Nudges, Stretch, nudges, wake_at
from lockbox.requests.policy_store import Ruling
from lockbox.requests.tiers import Asked
from lockbox.requests.transition import Nudged

VOTED = text("SELECT request_id, person_id FROM decisions WHERE request_id = ANY(:ids)")


def stretch_of(request: AccessRequest | Row[Any], known: Directory) -> Stretch:
    """Return for how long a request stands in its present state, and how far its nudges have come."""
    state = State(request.state)
    begun = {State.REVIEWING: request.created_at, State.PENDING: request.asked_at, State.ACTIVE: request.opened_at}
    return Stretch(
        state=state,
        since=begun.get(state) or request.created_at,
        deadline_at=request.deadline_at,
        tiers_asked=request.tiers_asked,
        review_tiers=reviewers.count(known),
        warned=request.warned,
    )


def nudge(session: Session, rows: Sequence[Row[Any]], at: datetime) -> None:
    """Remind, widen and warn for these locked rows, whose clock is due and whose deadline is not; set their clocks.

    Where nobody who was asked could be told, the next tier is asked whenever its time would be. Policies, people,
    votes and how notices fared are read once for all of them.
    """
    rulings = policy_store.rulings(session, [row.id for row in rows])
    requesters = {row.requester_id for row in rows}
    known = recipients.look_up(session, {row.tenant_id for row in rows}, at, also=requesters)
    voted = defaultdict[UUID, set[UUID]](set)
    for vote in session.connection().execute(VOTED, {"ids": [row.id for row in rows]}):
        voted[vote.request_id].add(vote.person_id)
    silent = escalating.silences(session, rows)
    nudged = [
        _nudged(row, rulings[row.id], known, at, voted=voted[row.id], silence=silent.get(row.id)) for row in rows
    ]
    transition.nudge(session, nudged, known)
    unreviewed = [row for row, one in zip(rows, nudged, strict=True) if Nudge.UNREACHED in one.told]
    escalating.tell_of_reviews(session, unreviewed, silent, at)


def _nudged(
    row: Row[Any],
    ruling: Ruling,
    known: Directory,
    at: datetime,
    *,
    voted: AbstractSet[UUID],
    silence: Silence | None,
) -> Nudged:
    stretch = stretch_of(row, known)
    due = nudges(stretch, ruling.terms, row.wake_at, at)
    if silence and stretch.tiers_asked:
        due = replace(due, widen=max(due.widen, stretch.tiers_asked + 1))
    told, tiers_asked = _told(row, due, ruling, known, voted)
    if silence and Nudge.WIDEN not in told:
        told |= escalating.last_resort(row, silence, known, voted)
    after = replace(stretch, tiers_asked=tiers_asked, warned=row.warned or due.warn)
    return Nudged(
        request_id=row.id,
        tenant_id=row.tenant_id,
        requester_id=row.requester_id,
        mode=Mode(row.mode),
        service=row.service,
        state=stretch.state,
        at=at,
        deadline_at=row.deadline_at,
        wake_at=wake_at(after, ruling.terms, at) or row.deadline_at,
        reminders=row.reminders + (Nudge.REMIND in told),
        tiers_asked=tiers_asked,
        warned=after.warned,
        told=told,
        policy_version=ruling.version,
        unreached=len(silence.asked) if silence else None,
    )


def _told(
    row: Row[Any], due: Nudges, ruling: Ruling, known: Directory, voted: AbstractSet[UUID]
) -> tuple[dict[Nudge, frozenset[UUID]], int]:
    """Return who is asked by what, and how many tiers are asked after it."""
    told: dict[Nudge, frozenset[UUID]] = {}
    tiers_asked: int = row.tiers_asked
    if due.remind and (waited_for := _waited_for(row, ruling, known, voted)):
        told[Nudge.REMIND] = waited_for
    if due.widen > tiers_asked:
        asked = _wider(row, ruling, known, heard=_so_far(row, ruling, known) | voted, to=due.widen)
        tiers_asked = asked.tiers
        if asked.people:
            told[Nudge.WIDEN] = asked.people
    if due.warn:
        told[Nudge.WARN] = frozenset()
    return told, tiers_asked


def _waited_for(row: Row[Any], ruling: Ruling, known: Directory, voted: AbstractSet[UUID]) -> frozenset[UUID]:
    """Return whose answer is still of use: not that of a deputy of those alone who have answered themselves."""
    seats = known.seats(row.tenant_id) if row.state == State.PENDING else {}
    return frozenset(
        one for one in _so_far(row, ruling, known) - voted if one not in seats or not seats[one] <= voted
    )


def _so_far(row: Row[Any], ruling: Ruling, known: Directory) -> frozenset[UUID]:
    if row.state == State.REVIEWING:
        return reviewers.so_far(known, row.requester_id, row.tiers_asked)
    return tiers.so_far(ruling.terms, ruling.groups, known, row.tenant_id, row.tiers_asked)


def _wider(row: Row[Any], ruling: Ruling, known: Directory, *, heard: AbstractSet[UUID], to: int) -> Asked:
    if row.state == State.REVIEWING:
        return reviewers.wider(known, row.requester_id, heard=heard, asked=row.tiers_asked, to=to)
    terms, groups = ruling.terms, ruling.groups
    return tiers.wider(terms, groups, known, row.tenant_id, heard=heard, tiers=row.tiers_asked, to=to)
