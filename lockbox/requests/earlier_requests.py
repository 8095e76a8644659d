"""Earlier requests for the same case or resource, as somebody who looks at a request may know of them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, and_, or_, select, text
from sqlmodel import Session, col

from lockbox.identity.roles import Caller
from lockbox.requests.models import AccessRequest
from lockbox.requests.queries import visible

MOST = 5
LOOKED_THROUGH = 2000

# Row-level security lets no index help with arrays: the newest of the tenant are looked through, and no more, by a
# range of one, for which Postgres takes the index of tenants, however many newer requests others have.
LAST = text("""
SELECT r.id, q.name AS requester, v.at, d.value AS actor,
    CASE WHEN v.to_state = 'timed_out' AND convert_from(v.body, 'UTF8') LIKE '%"nobody_told"%' THEN 'nobody_told'
        ELSE v.to_state END AS state
FROM requests r JOIN people q ON q.id = r.requester_id
JOIN events v ON v.request_id = r.id AND v.seq = r.version
LEFT JOIN event_details d ON d.event_id = v.id AND d.field = 'name'
WHERE r.id = ANY(:ids) ORDER BY r.id DESC
""")


def before(session: Session, caller: Caller, request: AccessRequest) -> Sequence[Row[Any]]:
    """Return the newest earlier requests of the tenant for the same case or resource, five at most.

    Each row has its id, requester, state, when that began, and who brought it about. What timed out before anybody
    could be told has `nobody_told` for a state.
    """
    newest = (
        select(AccessRequest)
        .where(
            col(AccessRequest.tenant_id).between(request.tenant_id, request.tenant_id),
            col(AccessRequest.id) < request.id,
            visible(caller),
        )
        .order_by(col(AccessRequest.tenant_id).desc(), col(AccessRequest.id).desc())
        .limit(LOOKED_THROUGH)
        .subquery()
    )
    alike = and_(newest.c.service == request.service, newest.c.resources.overlap(request.resources))
    if request.case_ref is not None:
        alike = or_(alike, newest.c.case_ref == request.case_ref)
    ids = session.execute(select(newest.c.id).where(alike).order_by(newest.c.id.desc()).limit(MOST)).scalars().all()
    return session.connection().execute(LAST, {"ids": list(ids)}).all() if ids else ()
