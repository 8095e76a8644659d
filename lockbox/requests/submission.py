"""What was asked for, as events say it: when it is submitted, and where the customer is asked later, again then."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import Session

from lockbox.audit.canonical import Plain, Value
from lockbox.audit.verifier.agreeing import SUBMISSION
from lockbox.requests.models import AccessRequest

# The vendor's log holds them; by their hashes both sides can compare later. Mails about them are left out.
EARLIER = text("""
SELECT e.id, e.seq, e.actor_id, encode(sha256('\\x00'::bytea || e.body), 'hex') AS leaf,
    CASE WHEN e.seq = 1 THEN (SELECT jsonb_object_agg(d.field, encode(d.salt, 'hex')) FROM event_details d
        WHERE d.event_id = e.id) END AS salts,
    (SELECT p.name FROM people p WHERE p.id = :requester_id) AS engineer
FROM events e WHERE e.request_id = :id AND e.internal AND e.action NOT IN ('notices_sent', 'notice_dead')
ORDER BY e.at, e.id
""")


@dataclass(frozen=True)
class Submission:
    """What an event says of a submission: facts, personal values, and the salts by which these were hidden before."""

    facts: Mapping[str, Value]
    personal: Mapping[str, str | None]
    salts: Mapping[str, bytes]


def facts(request: AccessRequest) -> dict[str, Plain]:
    """Return what a request asks for, but for what is personal."""
    return {
        "service": request.service,
        "actions": list(request.actions),
        "reason_code": request.reason_code,
        "access_window": request.access_window,
        "approval_window": request.approval_window,
        "quorum": request.quorum,
        "mode": request.mode.value,
        **({"follows": request.follows} if request.follows else {}),
    }


def personal(request: AccessRequest) -> dict[str, str | None]:
    """Return what a request asks for that is personal."""
    return {
        "justification": request.justification,
        "case_ref": request.case_ref,
        "resources": json.dumps(request.resources, ensure_ascii=False),
    }


def read(session: Session, request: AccessRequest) -> Submission:
    """Return what was submitted, of a row that was not moved yet, and the hashes of all that happened since.

    It is for the event by which the customer is asked or told, with which their log of the request begins.
    """
    values = {"id": request.id, "requester_id": request.requester_id}
    earlier = session.connection().execute(EARLIER, values).all()
    first = next(row for row in earlier if row.seq == 1)
    said = facts(request) | {
        "event": first.id,
        "at": request.created_at,
        "engineer": request.requester_id,
        "submitted_by": first.actor_id,
        "policy_version": request.policy_version,
    }
    values_now = personal(request)
    salts = {field: bytes.fromhex(salt) for field, salt in (first.salts or {}).items() if field in values_now}
    return Submission(
        facts={SUBMISSION: said, "earlier": {str(row.id): row.leaf for row in earlier}},
        personal=values_now | {"engineer": first.engineer},
        salts=salts,
    )
