"""How the notices of a request fare: counts by outcome, so that a dead one is seen."""

from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

COUNT = text("""
SELECT coalesce(n.outcome, 'waiting') AS outcome, count(*) AS number
FROM events e JOIN notices n ON n.event_id = e.id WHERE e.request_id = :request_id GROUP BY 1
""")


def count(session: Session, request_id: UUID) -> dict[str, int]:
    """Return how many notices are waiting, sent, moot and dead."""
    rows = session.connection().execute(COUNT, {"request_id": request_id})
    return {row.outcome: row.number for row in rows}
