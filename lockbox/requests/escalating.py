"""Escalating at once: what is done for requests of which nobody who was asked could be told."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK, Happening
from lockbox.notifications import announcements, reach
from lockbox.notifications.account_mail import NOBODY_TOLD, REVIEW_UNREACHED
from lockbox.notifications.audience import ASKING, Nudge
from lockbox.notifications.reach import Reach
from lockbox.notifications.recipients import Directory
from lockbox.requests.lifecycle import State

MOST_LINES = 50

KNOWN = text("""
SELECT e.request_id FROM events e JOIN requests r ON r.id = e.request_id
WHERE e.request_id = ANY(:ids) AND e.seq IS NULL AND e.action = :action AND e.to_state = r.state
""")
NAMES = text("SELECT id, name FROM tenants WHERE id = ANY(:ids)")


@dataclass(frozen=True)
class Silence:
    """Nobody of those who were asked could be told; `is_said` is whether that was said before in this state."""

    asked: frozenset[UUID]
    is_said: bool


def silences(session: Session, rows: Sequence[Row[Any]]) -> dict[UUID, Silence]:
    """Return those of these locked requests that wait for an answer and of which nobody could be told."""
    found = reaches(session, rows)
    untold = [one for one, reached in found.items() if reached.nobody]
    if not untold:
        return {}
    said = set(session.connection().execute(KNOWN, {"ids": untold, "action": Nudge.UNREACHED.value}).scalars())
    return {one: Silence(found[one].people, one in said) for one in untold}


def reaches(session: Session, rows: Iterable[Row[Any]]) -> dict[UUID, Reach]:
    """Return how many were told, for those of these requests that wait for an answer."""
    return reach.of_requests(session, {row.id: row.state for row in rows if row.state in ASKING})


def last_resort(
    row: Row[Any], silence: Silence, known: Directory, voted: AbstractSet[UUID]
) -> dict[Nudge, frozenset[UUID]]:
    """Return whom to tell where no tier is left: everybody else who can decide, and once whoever can see to it.

    Who wants no prompts is asked too. A review has nobody else: all managers were asked.
    """
    told: dict[Nudge, frozenset[UUID]] = {}
    rest = known.able(row.tenant_id) - silence.asked - voted - {row.requester_id}
    if row.state == State.PENDING and rest:
        told[Nudge.WIDEN] = rest
    if not silence.is_said:
        told[Nudge.UNREACHED] = frozenset()
    return told


def mourn(session: Session, rows: Iterable[Row[Any]], told: Mapping[UUID, Reach], at: datetime) -> None:
    """Tell the operators which of these requests, whose time is over, nobody had been told of."""
    untold = [(row, told[row.id]) for row in rows if row.id in told and not told[row.id].reached]
    lines = {row.id: (row.tenant_id, reach.in_vain(found.stage, found.asked)) for row, found in untold}
    _tell_operators(session, NOBODY_TOLD, lines, at)


def tell_of_reviews(session: Session, rows: Iterable[Row[Any]], silent: Mapping[UUID, Silence], at: datetime) -> None:
    """Tell the operators which of these requests, of which nobody could be told, wait for the vendor's managers."""
    waiting = [row for row in rows if row.state == State.REVIEWING]
    lines = {row.id: (row.tenant_id, reach.in_vain(row.state, len(silent[row.id].asked))) for row in waiting}
    _tell_operators(session, REVIEW_UNREACHED, lines, at)


def _tell_operators(session: Session, action: str, lines: Mapping[UUID, tuple[UUID, str]], at: datetime) -> None:
    """Tell the vendor's operators by one mail each; `lines` are, by request, its tenant and what to say."""
    if not lines:
        return
    tenants = list({tenant for tenant, _ in lines.values()})
    names = {row.id: row.name for row in session.connection().execute(NAMES, {"ids": tenants})}
    changes = {str(one): f"{names[tenant]}: {said}" for one, (tenant, said) in list(lines.items())[:MOST_LINES]}
    if len(lines) > MOST_LINES:
        changes["and"] = f"{len(lines) - MOST_LINES} more"
    facts: dict[str, Value] = {"requests": len(lines), "changes": changes}
    announcements.tell_operators(session, Happening(at=at, action=action, actor=THE_CLOCK, facts=facts))
