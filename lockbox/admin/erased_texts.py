"""Erasure of texts and names in closed requests, by the database's owner. Decisions remain."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from lockbox.admin import legal_holds
from lockbox.audit.events import THE_OWNER, AuditEvent
from lockbox.audit.report import LATE
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict, NotFound
from lockbox.facts.ask import Ask
from lockbox.facts.fact import committed
from lockbox.facts.requester import Requester
from lockbox.notifications import announcements

TEXTS_ERASED = "texts_erased"
PURPOSE = text("SELECT set_config('lockbox.owner_command', 'erase', true)")
PEOPLE = ("name", "address", "user_agent", "engineer", "credential", "gateway_name")
"""The fields of a request's events that identify people; `NUMBERED` matches more such fields. All other personal
fields are texts: what people wrote or named, and the requester's location."""
NUMBERED = "^(principal|recipient|engineer)_[0-9]+$"
SETTLED: timedelta = LATE
"""How long a request must be closed before its texts are erased. Until then, reports of activity may arrive, which
name resources."""
FIELDS = {"people": list(PEOPLE), "numbered": NUMBERED, "settled": SETTLED}
OF_REQUEST = text("SELECT tenant_id, closed_at, asked_at FROM requests WHERE id = :id FOR UPDATE")
DETAILS = text("""
WITH said AS (
    SELECT d.event_id, array_agg(f.field) AS fields FROM events e JOIN event_details d ON d.event_id = e.id
    CROSS JOIN jsonb_object_keys(d.fields) AS f (field)
    WHERE e.request_id = ANY(:ids) AND NOT (f.field = ANY(:people) OR f.field ~ :numbered)
    GROUP BY d.event_id
), gone AS (
    UPDATE event_details d SET fields = d.fields - s.fields FROM said s WHERE d.event_id = s.event_id
    RETURNING cardinality(s.fields) AS number
)
SELECT coalesce(sum(number), 0) FROM gone
""")
# Texts of the request become 'erased'. The link, the parameters and where the requester worked become null.
LINK = "case_url"
SAY_ERASED = [f"{name} = CASE WHEN r.{name} IS NOT NULL THEN 'erased' END" for name in committed(Ask) if name != LINK]
GONE = [f"{name} = NULL" for name in (LINK, "context", *committed(Requester))]
# An erased resource keeps its position, so that readers can still tell which of the requested resources were granted.
ROWS = tuple(
    text(statement)
    for statement in (
        """
        UPDATE decisions d SET comment = CASE WHEN d.comment IS NOT NULL THEN 'erased' END,
            signed_content = CASE WHEN d.signed_content IS NOT NULL THEN '{}' END,
            resources = CASE WHEN d.resources IS NOT NULL THEN ARRAY(SELECT 'erased:' || k.place
                FROM unnest(r.resources) WITH ORDINALITY AS k (resource, place) WHERE k.resource = ANY (d.resources)
                ORDER BY k.place) END
        FROM requests r WHERE r.id = d.request_id AND r.id = ANY(:ids)
        """,
        f"""
        UPDATE requests r SET {", ".join(SAY_ERASED)}, {", ".join(GONE)},
            resources = ARRAY(SELECT 'erased:' || place FROM generate_subscripts(r.resources, 1) AS place
                ORDER BY place),
            granted_resources = CASE WHEN r.granted_resources IS NOT NULL THEN ARRAY(SELECT 'erased:' || k.place
                FROM unnest(r.resources) WITH ORDINALITY AS k (resource, place)
                WHERE k.resource = ANY (r.granted_resources) ORDER BY k.place) END
        WHERE r.id = ANY(:ids)
        """,  # noqa: S608 - names of our own
        """
        UPDATE deliveries d SET answer = '' FROM notifications n
        WHERE n.id = d.notification_id AND n.request_id = ANY(:ids) AND d.answer <> ''
        """,
        "UPDATE notifications SET last_error = NULL WHERE request_id = ANY(:ids) AND last_error IS NOT NULL",
        "DELETE FROM case_checks WHERE request_id = ANY(:ids)",
        "UPDATE refused SET personal = '{}' WHERE request_id = ANY(:ids)",
        "DELETE FROM idempotency_keys WHERE answer ->> 'id' = ANY(CAST(:ids AS text[]))",
    )
)


@dataclass(frozen=True)
class TextErasure:
    """`details` counts the erased personal values of events."""

    tenant_id: UUID
    details: int


def erase(session: UnitOfWork, request_id: UUID) -> TextErasure:
    """Erase a closed request's reason, case, resources, comments and questions, and its requester's location.

    Raises:
        Conflict: the request is open or was closed within the last hour, or there is a legal hold.
    """
    connection, at = session.connection(), now(session)
    row = connection.execute(OF_REQUEST, {"id": request_id}).one_or_none()
    if row is None:
        raise NotFound("There is no such request.")
    if row.closed_at is None or row.closed_at > at - SETTLED:
        raise Conflict("This request is open, or was closed within the hour. Erase it an hour after its end.")
    legal_holds.refuse_held(session, [row.tenant_id])
    details = blank(connection, [request_id])
    event = AuditEvent(
        at=at,
        action=TEXTS_ERASED,
        actor=THE_OWNER,
        tenant_id=row.tenant_id,
        request_id=request_id,
        facts={"count": details},
        stays_inside=row.asked_at is None,
    )
    announcements.record(session, event)
    return TextErasure(row.tenant_id, details)


def blank(connection: Connection, request_ids: Collection[UUID]) -> int:
    """Erase the texts of requests in every log; return the number of erased personal values. Idempotent.

    The calling function has checked that the requests are closed and not under a legal hold, and records the erasure.
    """
    if not request_ids:
        return 0
    connection.execute(PURPOSE)
    ids: Sequence[UUID] = sorted(request_ids)
    details: int = connection.execute(DETAILS, {**FIELDS, "ids": ids}).scalar_one()
    for statement in ROWS:
        connection.execute(statement, {"ids": ids})
    return details
