"""Activity inside a window, as reported by the system in which the engineer works."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Row, text

from lockbox import database
from lockbox.audit.canonical import LARGEST_INTEGER
from lockbox.audit.events import AuditEvent, Origin
from lockbox.audit.report import ACTIVITY, LATE
from lockbox.database import Query, UnitOfWork, now
from lockbox.errors import Invalid, NotFound, NotYours, OutsideWindow, TooLate
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role, Scope
from lockbox.notifications import announcements
from lockbox.pubsub import PAGES
from lockbox.requests import queries
from lockbox.requests.lifecycle import Party

CLOCKS_DIFFER = timedelta(seconds=5)
MOST_SHOWN = 1000

WINDOW = text("""
SELECT id, tenant_id, requester_id, service, resources, actions, max_uses, opened_at, deadline_at, closed_at
FROM reported_window(:id)
""")
# Uses are counted in the report's transaction, which a repeated report does not reach. The counts are locked before
# events are written, as in the transaction that writes the events of uses.
COUNT_USES = text("""
SELECT add_gate_counts(NULL, NULL, CAST(:answers AS jsonb), CAST(:uses AS jsonb), '[]', '[]', 0)
""")
READ = text("""
SELECT e.id, e.at, e.body,
    (SELECT d.fields #>> '{resource,1}' FROM event_details d WHERE d.event_id = e.id) AS resource
FROM events e WHERE e.request_id = :id AND e.action = 'activity' ORDER BY e.at DESC, e.id DESC LIMIT :most
""")

USES = text("""
SELECT coalesce(w.count, 0) AS times, coalesce(x.count, 0) AS refused, w.first_at, w.last_at, w.first_action,
    w.last_action, w.first_gateway, w.last_gateway, f.name AS first_name, l.name AS last_name,
    (coalesce(r.granted_resources, r.resources))[w.first_resource] AS first_resource,
    (coalesce(r.granted_resources, r.resources))[w.last_resource] AS last_resource
FROM requests r LEFT JOIN window_uses w ON w.request_id = r.id LEFT JOIN window_refusals x ON x.request_id = r.id
LEFT JOIN people f ON f.id = w.first_gateway LEFT JOIN people l ON l.id = w.last_gateway
WHERE r.id = :id
""")


class GateUse(BaseModel, frozen=True):
    """`gateway` is null if its name was erased."""

    at: datetime
    gateway: str | None
    action: str
    resource: str | None


class WindowUsage(BaseModel, frozen=True):
    """How often the gate admitted the engineer by a window, and how often it refused the engineer's other calls.

    Refused calls to the window's service count while the window is open and for an hour afterwards.
    """

    times: int
    refused: int
    first: GateUse | None
    last: GateUse | None


@dataclass(frozen=True)
class ActivityEntry:
    """An act of the engineer, done `count` times from `at` on."""

    at: datetime
    method: str
    resource: str
    outcome: str
    action: str | None = None
    count: int = 1


@dataclass(frozen=True)
class GuardUse:
    """`count` calls, from `at` on, that a guard admitted by itself and no gate has counted."""

    at: datetime
    resource: str
    action: str
    count: int = 1


@dataclass(frozen=True)
class RecordedActivity:
    """An activity inside a window, `count` times; `resource` is null if erased.

    `as_asked` is whether the request names the resource and the action.
    """

    reported_at: datetime
    first_at: datetime
    last_at: datetime
    method: str
    resource: str | None
    action: str | None
    outcome: str
    count: int
    as_asked: bool


def report(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    request_id: UUID,
    entries: Sequence[ActivityEntry],
    *,
    uses: Sequence[GuardUse] = (),
) -> int:
    """Write one event for each kind of activity; return the number of events.

    Uses are counted like uses at the gate, with the caller as the gateway. The whole report is refused if one entry
    or use lies more than five seconds outside the window.

    Raises:
        OutsideWindow: the window was never open, was not open at a reported time, or does not cover a reported use.
        Invalid: uses are reported for a window of limited uses.
        TooLate: the window ended more than an hour ago.
    """
    authentication.enter(session, caller)
    window = _window(session, caller, request_id)
    at = now(session)
    if window.opened_at is None:
        raise OutsideWindow("This request was never open, so no activity can be reported.")
    end = min(window.deadline_at, window.closed_at or window.deadline_at)
    if at > end + LATE:
        raise TooLate("The window ended more than an hour ago. Its activity can no longer be reported.")
    since, until = window.opened_at - CLOCKS_DIFFER, min(end, at) + CLOCKS_DIFFER
    errors = (
        _not_then("entries", entries, since, until) + _not_then("uses", uses, since, until) + _not_for(window, uses)
    )
    if uses and window.max_uses is not None:
        raise Invalid(
            "This access is for a number of uses. A guard asks Lockbox for each, which counts it.", field="uses"
        )
    if errors:
        raise OutsideWindow(
            "Some activity is outside the window. Nothing was recorded; leave these entries out.", errors=errors
        )
    authentication.turn_to(session, window.tenant_id)
    if uses:
        _count_uses(session, caller, window, uses, at)
    audit_events = _audit_events(caller, origin, window, entries, at)
    if audit_events:
        announcements.record(session, *audit_events)
    database.publish_after_commit(session, [request_id], PAGES)
    return len(audit_events)


def read(session: UnitOfWork, caller: Caller, request_id: UUID) -> list[RecordedActivity]:
    """Return at most a thousand entries, latest report first."""
    if not queries.known(session, caller, [request_id]):
        raise NotFound(queries.NOT_KNOWN)
    return inside(session, request_id)


def ahead_of_inside(request_id: UUID) -> Query:
    return READ, {"id": request_id, "most": MOST_SHOWN}


def inside(session: UnitOfWork, request_id: UUID) -> list[RecordedActivity]:
    """Return the reported activity; the calling code must have checked that its user may know of the request."""
    return [_done(row) for row in session.execute(*ahead_of_inside(request_id))]


def ahead_of_usage(request_id: UUID) -> Query:
    return USES, {"id": request_id}


def usage(session: UnitOfWork, request_id: UUID) -> WindowUsage:
    """The calling code must have checked that its user may know of the request."""
    row = session.execute(*ahead_of_usage(request_id)).one()
    if not row.times:
        return WindowUsage(times=0, refused=row.refused, first=None, last=None)
    first = GateUse(at=row.first_at, gateway=row.first_name, action=row.first_action, resource=row.first_resource)
    last = GateUse(at=row.last_at, gateway=row.last_name, action=row.last_action, resource=row.last_resource)
    return WindowUsage(times=row.times, refused=row.refused, first=first, last=last)


def _window(session: UnitOfWork, caller: Caller, request_id: UUID) -> Row[Any]:
    if not caller.holds(Role.SYSTEM):
        queries.find(session, caller, request_id)
        raise NotYours("Only a service account of the vendor can report activity.")
    if Scope.ACTIVITY_REPORT not in caller.scopes:
        raise NotYours(f"This token needs the scope {Scope.ACTIVITY_REPORT}: create a token that has it.")
    window = session.execute(WINDOW, {"id": request_id}).one_or_none()
    if window is None or window.service not in caller.services:
        raise NotFound("There is no such request.")
    return window


def _not_then(
    field: str, things: Sequence[ActivityEntry | GuardUse], since: datetime, until: datetime
) -> list[dict[str, str]]:
    outside = [place for place, one in enumerate(things) if not since <= one.at <= until]
    return [{"field": f"{field}.{place}.at", "message": "the window was not open then"} for place in outside]


def _not_for(window: Row[Any], uses: Sequence[GuardUse]) -> list[dict[str, str]]:
    return [
        {"field": f"uses.{place}", "message": "the window is not for this resource and action"}
        for place, one in enumerate(uses)
        if one.resource not in window.resources or one.action not in window.actions
    ]


def _count_uses(
    session: UnitOfWork, caller: Caller, window: Row[Any], uses: Sequence[GuardUse], at: datetime
) -> None:
    gateway, count = str(caller.person_id), sum(one.count for one in uses)
    used: dict[str, str | int] = {"request_id": str(window.id), "count": count}
    for which, use in (("first", min(uses, key=_moment)), ("last", max(uses, key=_moment))):
        # The reporter's clock may be ahead of ours.
        used |= {f"{which}_at": min(use.at, at).isoformat(), f"{which}_gateway": gateway}
        used |= {f"{which}_action": use.action, f"{which}_resource": use.resource}
    answer = {"gateway_id": gateway, "service": window.service, "decision": "allow", "reason": "", "count": count}
    session.execute(COUNT_USES, {"answers": json.dumps([answer]), "uses": json.dumps([used])})


def _moment(use: GuardUse) -> datetime:
    return use.at


def _audit_events(
    caller: Caller, origin: Origin, window: Row[Any], entries: Sequence[ActivityEntry], at: datetime
) -> list[AuditEvent]:
    kinds: dict[tuple[str, str, str | None, str], list[ActivityEntry]] = defaultdict(list)
    for one in entries:
        kinds[one.method, one.resource, one.action, one.outcome].append(one)
    actor = origin.actor(caller, Party.SYSTEM, on_behalf_of=window.requester_id)
    return [
        AuditEvent(
            at=at,
            action=ACTIVITY,
            actor=actor,
            tenant_id=window.tenant_id,
            request_id=window.id,
            facts={
                "method": method,
                "did": action,
                "outcome": outcome,
                "count": min(sum(one.count for one in some), LARGEST_INTEGER),
                "first_at": min(one.at for one in some),
                "last_at": max(one.at for one in some),
                "as_asked": resource in window.resources and (action is None or action in window.actions),
            },
            personal={"resource": resource},
        )
        for (method, resource, action, outcome), some in kinds.items()
    ]


def _done(row: Row[Any]) -> RecordedActivity:
    said = json.loads(row.body)
    return RecordedActivity(
        reported_at=row.at,
        first_at=datetime.fromisoformat(said["first_at"]),
        last_at=datetime.fromisoformat(said["last_at"]),
        method=said["method"],
        resource=row.resource,
        action=said["did"],
        outcome=said["outcome"],
        count=said["count"],
        as_asked=said["as_asked"],
    )
