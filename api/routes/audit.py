"""Routes for the audit log."""

import base64
import binascii
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Depends, Query
from fastapi.responses import StreamingResponse

from api import rate_limits
from api.call_routes import CallRouter
from api.deps import CurrentUser, DatabaseDep, RequestOrigin, SessionDep
from api.routes.timeline import ERASED
from api.schemas.audit import (
    LARGEST,
    NAMES,
    AuditEventView,
    AuditKeyList,
    AuditKeyView,
    AuditPage,
    CheckpointView,
    ConsistencyView,
    InclusionView,
    ReportView,
)
from api.schemas.parts import PersonView, Slug, Words, problems, view_of
from lockbox.admin import audit_access
from lockbox.admin.audit_access import AuditReader
from lockbox.audit import export as exports
from lockbox.audit import report as reports
from lockbox.audit.event_search import EventFilter, RecordedEvent
from lockbox.audit.events import AUDIT_LOG_EXPORTED, AUDIT_LOG_READ
from lockbox.audit.export import table
from lockbox.audit.log import proofs
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.database import now
from lockbox.errors import Invalid
from lockbox.facts.bounds import Word
from lockbox.text_rules import Instant

router = CallRouter(prefix="/v1/audit", tags=["audit"])
known = CallRouter(tags=["audit"])


def reader(who: CurrentUser, session: SessionDep, tenant: Slug | None = None) -> AuditReader:
    """Without a tenant, return the reader of the vendor's log, or of the log of the caller's only tenant."""
    return audit_access.audit_reader(session, who, tenant)


async def event_filter(
    person: UUID | None = None,
    action: Word | None = None,
    request: UUID | None = None,
    service: Word | None = None,
    after: Instant | None = None,
    before: Instant | None = None,
    text: Words | None = None,
) -> EventFilter:
    return EventFilter(person, action, request, service, after, before, text)


AuditReaderDep = Annotated[AuditReader, Depends(reader)]
EventFilterDep = Annotated[EventFilter, Depends(event_filter)]
LogSize = Annotated[int, Query(ge=0, le=LARGEST)]


@router.get("", responses=problems(404))
def search_audit_log(
    who: AuditReaderDep,
    what: EventFilterDep,
    origin: RequestOrigin,
    session: SessionDep,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=audit_access.MOST_A_PAGE)] = 50,
) -> AuditPage:
    """Search the audit log by person, action, request, service, time and text, the newest events first.

    Text is searched case-insensitively in comments and justifications. Each event says whether it is sealed. The
    search is recorded as an event.
    """
    before = _read_cursor(cursor) if cursor is not None else None
    found = audit_access.search(session, who, what, before=before, most=limit)
    items = [_event(event) for event in found.events]
    audit_access.record_read(session, who, origin, AUDIT_LOG_READ, asked=what.recorded(), count=len(items))
    return AuditPage(items=items, next_cursor=_cursor(found.before) if found.before else None)


@router.get("/export", response_class=StreamingResponse, responses=problems(404, 429))
def export_audit_log(
    who: AuditReaderDep,
    what: EventFilterDep,
    origin: RequestOrigin,
    session: SessionDep,
    db: DatabaseDep,
    form: Annotated[Literal["ndjson", "csv"], Query(alias="format")] = "ndjson",
    since: Annotated[list[LogSize] | None, Query(max_length=audit_access.MOST_SINCE)] = None,
) -> StreamingResponse:
    """Export sealed events: as lines of JSON with proofs (see docs/audit-format.md), or as a table.

    Without a filter, the lines also show that nothing is missing. `since` are earlier sizes of the log: the export
    then proves that the log has only grown. An interrupted file lacks its last line.
    """
    rate_limits.count_export(who.caller, db)
    asked = what.recorded()
    begun = audit_access.export(session, who, what, asked, since or ())
    audit_access.record_read(
        session,
        who,
        origin,
        AUDIT_LOG_EXPORTED,
        asked=asked | {"format": form},
        count=audit_access.length(session, begun),
    )
    made = table if form == "csv" else exports.lines
    name = f"audit-{who.log_id if who.tenant_id else 'vendor'}-{begun.log.size}.{form}"
    headers = {"cache-control": "no-store", "content-disposition": f'attachment; filename="{name}"'}
    lines = rate_limits.streamed(made(audit_access.pages(db, who), begun))
    return StreamingResponse(lines, media_type=NAMES[form], headers=headers)


@router.get("/checkpoint", responses=problems(404))
def get_audit_checkpoint(who: AuditReaderDep, session: SessionDep) -> CheckpointView:
    """Show the log's newest signed checkpoint: its size and root."""
    log = audit_access.head(session, who)
    return view_of(CheckpointView, log, log=log.id, root=_text(log.root), at=log.noted_at)


@router.get("/proof/inclusion", responses=problems(404))
def get_inclusion_proof(event: UUID, who: AuditReaderDep, session: SessionDep) -> InclusionView:
    """Prove that an event is in the log."""
    log, number, path = audit_access.inclusion(session, who, event)
    return InclusionView(event=event, number=number, size=log.size, proof=list(map(_text, path)), note=log.note)


@router.get("/proof/consistency", responses=problems(404))
def get_consistency_proof(
    who: AuditReaderDep,
    session: SessionDep,
    older: Annotated[int, Query(alias="from", ge=0, le=LARGEST)],
    newer: Annotated[int | None, Query(alias="to", ge=0, le=LARGEST)] = None,
) -> ConsistencyView:
    """Prove that the log has only grown between two sizes; the newer one is the current size if left out."""
    log, new, path = audit_access.consistency(session, who, older, newer)
    return ConsistencyView(older=older, newer=new, proof=list(map(_text, path)), note=log.note)


@router.get("/report", responses=problems(404))
def get_access_report(request: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> ReportView:
    """Report on one request: who asked, who decided, when access was open, and what was done."""
    found = audit_access.report(session, who, origin, request)
    words = {"sealed": found.sealed, "ending": found.ending, "use": found.use}
    page = reports.page(found, made_at=now(session))
    return ReportView.model_validate({**dict(found), **words, "page": page})


@known.get("/.well-known/lockbox-audit-keys")
def list_audit_keys(session: SessionDep) -> AuditKeyList:
    """List every key that has ever signed checkpoints or approvals here.

    Verifiers must compare the fingerprints over another channel: anyone who can forge a log can forge this list.
    """
    return AuditKeyList(items=[_key(key) for key in proofs.keys(session)])


def _key(key: proofs.PublicKeyEntry) -> AuditKeyView:
    return AuditKeyView(**vars(key), fingerprint=VerifierKey.read(key.key).fingerprint)


def _event(event: RecordedEvent) -> AuditEventView:
    actor = PersonView(id=event.actor_id, name=event.value("name") or ERASED) if event.actor_id else None
    own = {"sealed": event.number is not None, "actor": actor, "role": event.actor_role}
    return view_of(AuditEventView, event, **own)


def _text(hashed: bytes) -> str:
    return base64.b64encode(hashed).decode()


def _cursor(last: UUID) -> str:
    return base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def _read_cursor(cursor: str) -> UUID:
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))
    except (ValueError, binascii.Error):
        raise Invalid("The cursor is invalid. Start again without it.", field="cursor") from None
