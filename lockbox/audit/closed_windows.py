"""Read the moves and a bounded part of the activity of many closed windows at once, for reports."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

from lockbox.audit import event_search
from lockbox.audit.event_search import RecordedEvent
from lockbox.audit.report import OPEN, ReportedUse, ReportStep, step, use
from lockbox.audit.verifier.event_checks import MEMBERS

MOST_USES = 20
WANTED = frozenset({*MEMBERS, "number", "body", "details"})

MOVES = text("""
SELECT e.id, s.number, e.tenant_id, e.request_id, e.seq, e.at, e.action, e.actor_id, e.actor_role, e.from_state,
    e.to_state, e.body, e.deadline_at,
    (SELECT jsonb_object_agg(d.field, jsonb_build_array(encode(d.salt, 'base64'), d.value)) FROM event_details d
        WHERE d.event_id = e.id AND (d.field IN ('name', 'comment') OR starts_with(d.field, 'principal_'))) AS details
FROM events e LEFT JOIN seals s ON s.event_id = e.id
WHERE e.request_id = ANY(:ids) AND e.seq IS NOT NULL ORDER BY e.request_id, e.seq
""")
# Unrequested activity is listed first, however much other activity there is.
USES = text("""
SELECT e.id, NULL AS number, e.tenant_id, e.request_id, e.seq, e.at, e.action, e.actor_id, e.actor_role, e.from_state,
    e.to_state, e.body, e.entries, e.times, e.astray,
    (SELECT jsonb_object_agg(d.field, jsonb_build_array(encode(d.salt, 'base64'), d.value)) FROM event_details d
        WHERE d.event_id = e.id AND d.field IN ('name', 'resource')) AS details
FROM unnest(CAST(:ids AS uuid[])) AS i (id) CROSS JOIN LATERAL (
    SELECT a.*, said ->> 'as_asked' AS as_asked, count(*) OVER () AS entries,
        sum(CAST(said ->> 'count' AS numeric)) OVER () AS times,
        sum(CAST(said ->> 'count' AS numeric)) FILTER (WHERE said ->> 'as_asked' = 'false') OVER () AS astray
    FROM (SELECT v.*, CAST(convert_from(v.body, 'UTF8') AS jsonb) AS said FROM events v
        WHERE v.request_id = i.id AND v.action = 'activity') a
    ORDER BY as_asked, a.at, a.id LIMIT :most
) e ORDER BY e.request_id, e.at, e.id
""")


@dataclass(frozen=True)
class ClosedWindow:
    """A closed window as the customer may see it.

    `shut_at` is when the window stopped granting access, which may be before the clock recorded it. `uses` are some
    of the `entries` of activity in the audit log, which report `times` uses in all, `astray` of them outside the
    request.
    """

    steps: tuple[ReportStep, ...]
    opened_at: datetime
    shut_at: datetime
    uses: tuple[ReportedUse, ...] = ()
    entries: int = 0
    times: int = 0
    astray: int = 0


def read(session: Session, request_ids: Sequence[UUID]) -> dict[UUID, ClosedWindow]:
    """Return the closed windows of these requests; requests without one in the audit log are left out."""
    if not request_ids:
        return {}
    moves, used = defaultdict[UUID, list[Row[Any]]](list), defaultdict[UUID, list[Row[Any]]](list)
    for row in session.connection().execute(MOVES, {"ids": list(request_ids)}):
        moves[row.request_id].append(row)
    for row in session.connection().execute(USES, {"ids": list(request_ids), "most": MOST_USES}):
        used[row.request_id].append(row)
    found = {one: _closed(rows, used[one]) for one, rows in moves.items()}
    return {one: closed for one, closed in found.items() if closed}


def _closed(moves: Sequence[Row[Any]], used: Sequence[Row[Any]]) -> ClosedWindow | None:
    opening = next((row for row in moves if row.to_state == OPEN), None)
    end = next((row for row in moves if row.from_state == OPEN and row.to_state != OPEN), None)
    if opening is None or end is None:
        return None
    return ClosedWindow(
        steps=tuple(step(_recorded(row)) for row in moves),
        opened_at=opening.at,
        shut_at=min(end.at, opening.deadline_at or end.at),
        uses=tuple(use(_recorded(row)) for row in used),
        entries=used[0].entries if used else 0,
        times=int(used[0].times) if used else 0,
        astray=int(used[0].astray or 0) if used else 0,
    )


def _recorded(row: Row[Any]) -> RecordedEvent:
    """Return an event as its body states it; columns that contradict the body are ignored."""
    facts = {name: value for name, value in row._asdict().items() if name in WANTED}
    return event_search.checked(facts | {"in_place": None})
