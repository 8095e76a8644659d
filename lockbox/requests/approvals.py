"""What an approval says, and whether it was signed: the statement that is rebuilt from the row at every check."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from sqlmodel import Session

from lockbox.audit import approval_keys
from lockbox.audit.approval_keys import Signature
from lockbox.audit.canonical import Value, canonical
from lockbox.audit.verifier.approval_checks import FORMAT, signed_text
from lockbox.identity import row_security
from lockbox.requests.models import AccessRequest, Decision


def statement(request: AccessRequest, by: Iterable[str]) -> bytes:
    """Return the canonical bytes whose hash is signed: who may do what to what until when, and by whose yes.

    Args:
        request: a row whose window is open; all but `by` is taken from it.
        by: the ids of those whose votes count.
    """
    return canonical(
        {
            "format": FORMAT,
            "request_id": request.id,
            "tenant_id": request.tenant_id,
            "engineer": request.requester_id,
            "service": request.service,
            "resources": list(request.open_resources),
            "actions": list(request.open_actions),
            "opened_at": request.opened_at,
            "until": request.deadline_at,
            "by": sorted(by),
            "mode": request.mode.value,
            "policy_version": request.policy_version,
        }
    )


def sign(session: Session, request: AccessRequest, by: Iterable[UUID], at: datetime) -> Mapping[str, Value]:
    """Return what the event of the move that opens a window at this moment says of its approval, signed.

    Resources are personal: the event holds the statement's SHA-256, and what else it says stands in the event.
    """
    people = row_security.ids(by)
    said = _hash_of(request, people)
    made = approval_keys.of(session).sign(_signed_text(request, people, said))
    approval_keys.list_key(session, at)
    return {
        "approved_by": people,
        "approval": {
            "statement": said,
            "signature": made.signature,
            "key": made.key,
        },
    }


def kept(decision: Decision | None, request: AccessRequest) -> dict[str, Value]:
    """Return the actions that an approval keeps, and those for which it opens a window, where they are not all."""
    found = {"kept_actions": decision.actions if decision else None, "granted_actions": _opened(decision, request)[1]}
    return {name: value for name, value in found.items() if value is not None}


def kept_resources(decision: Decision | None, request: AccessRequest) -> dict[str, str]:
    """Return the same of resources, which are personal, in JSON."""
    found = {
        "kept_resources": decision.resources if decision else None,
        "granted_resources": _opened(decision, request)[0],
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in found.items() if value is not None}


def _opened(decision: Decision | None, request: AccessRequest) -> tuple[list[str] | None, list[str] | None]:
    """Return what a decision has just opened a window for; None where it has opened none, or one for all."""
    opens = decision is not None and request.opened_at == decision.decided_at
    return (request.granted_resources, request.granted_actions) if opens else (None, None)


def is_signed(session: Session, request: AccessRequest, body: bytes | None) -> bool:
    """Whether the event with this body, by which the window was opened, is signed over what the row says now."""
    if body is None:
        return False
    try:
        event = json.loads(body)
        people, approval = event["approved_by"], event["approval"]
        signature = Signature(str(approval["key"]), str(approval["signature"]))
        by = [str(one) for one in people]
        said = _hash_of(request, by)
        text = _signed_text(request, by, said)
    except (KeyError, TypeError, ValueError):
        return False
    return bool(approval.get("statement") == said) and approval_keys.of(session).has_signed(text, signature)


def _hash_of(request: AccessRequest, by: Iterable[str]) -> str:
    return hashlib.sha256(statement(request, by)).hexdigest()


def _signed_text(request: AccessRequest, by: Iterable[str], said: str) -> bytes:
    return signed_text(request.id, request.tenant_id, request.opened_at, request.deadline_at, by=by, statement=said)
