"""The audit log pages."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from api import browser, deps, rate_limits
from api.browser import Visitor
from api.call_routes import CallRouter
from api.deps import DatabaseDep, SessionDep, SettingsDep
from api.portal import phrases
from api.portal.pages import NO_PAGE, TAG, origin, page, protect, status_of
from api.schemas.audit import LARGEST, NAMES
from api.schemas.parts import Line, Slug
from config.settings import Settings
from lockbox.admin import audit_access, tenants
from lockbox.admin.audit_access import READERS, AuditReader
from lockbox.audit import export as exports
from lockbox.audit.event_search import EventFilter, FoundEvents
from lockbox.audit.events import AUDIT_LOG_EXPORTED, AUDIT_LOG_READ
from lockbox.audit.export import Pages, table
from lockbox.audit.log import proofs
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.wording import WORDS, describe
from lockbox.database import UnitOfWork
from lockbox.errors import Invalid, LockboxError, NotFound
from lockbox.facts.bounds import Word
from lockbox.identity import time_zones
from lockbox.identity.models import Tenant
from lockbox.identity.roles import Role
from lockbox.notifications import addresses

router = CallRouter(prefix="/audit-log", tags=[TAG], include_in_schema=False)

MOST = 50
MOST_TENANTS = 200
SLUG, WORD, LINE = TypeAdapter[str](Slug), TypeAdapter[str](Word), TypeAdapter[str](Line)

SearchField = Annotated[str, Query(max_length=200)]
SearchText = Annotated[str, Field(max_length=200), AfterValidator(str.strip)]


class AuditSearchForm(BaseModel):
    """Times are in the reader's time zone."""

    tenant: SearchText = ""
    person: SearchText = ""
    action: SearchText = ""
    request: SearchText = ""
    service: SearchText = ""
    after: SearchText = ""
    before: SearchText = ""
    text: SearchText = ""
    show: SearchText = ""

    @property
    def query(self) -> str:
        return urlencode({name: value for name, value in self if value})

    @property
    def is_narrow(self) -> bool:
        return any(value for name, value in self if name not in {"tenant", "show"})

    @property
    def is_of_moves(self) -> bool:
        return not (self.show or self.action or self.person or self.request or self.text)

    def wanted(self, zone: str) -> EventFilter:
        return EventFilter(
            person=_id(self.person, "person"),
            action=_word(self.action, "action"),
            request=_id(self.request, "request"),
            service=_word(self.service, "service"),
            after=_moment(self.after, zone),
            before=_moment(self.before, zone),
            words=_line(self.text),
        )


AuditSearch = Annotated[AuditSearchForm, Query()]


@router.get("")
def search(
    request: Request, chosen: SettingsDep, session: SessionDep, what: AuditSearch, cursor: SearchField = ""
) -> Response:
    visitor = browser.visitor(request, session, chosen)
    readable = _readable(session, visitor)
    try:
        who = _reading(session, visitor, what.tenant, readable)
        zone = addresses.preferences(session, visitor.caller).time_zone
        wanted = replace(what.wanted(zone), moves=who.tenant_id is not None and what.is_of_moves)
        found = audit_access.search(session, who, wanted, before=_id(cursor, "cursor"), most=MOST)
    except Invalid as refused:
        return _shown(request, session, visitor, what, readable, refused=refused)
    audit_access.record_read(
        session, who, origin(request), AUDIT_LOG_READ, asked=wanted.recorded(), count=len(found.events)
    )
    return _shown(request, session, visitor, what, readable, who=who, found=found)


@router.get("/export", tags=[NO_PAGE])
def export(
    request: Request,
    chosen: SettingsDep,
    session: SessionDep,
    db: DatabaseDep,
    what: AuditSearch,
    form: Annotated[Literal["ndjson", "csv"], Query(alias="format")] = "ndjson",
    since: SearchField = "",
) -> Response:
    visitor = browser.visitor(request, session, chosen)
    readable = _readable(session, visitor)
    rate_limits.count_export(visitor.caller, db)
    try:
        who = _reading(session, visitor, what.tenant, readable)
        wanted = what.wanted(addresses.preferences(session, visitor.caller).time_zone)
        looked = wanted.recorded()
        begun = audit_access.export(session, who, wanted, looked, _sizes(since))
    except Invalid as refused:
        if since:
            return _take_away(request, session, visitor, what.tenant, since, refused)
        return _shown(request, session, visitor, what, readable, refused=refused)
    count = audit_access.length(session, begun)
    audit_access.record_read(
        session, who, origin(request), AUDIT_LOG_EXPORTED, asked=looked | {"format": form}, count=count
    )
    made = table if form == "csv" else exports.lines
    opened = while_signed_in(audit_access.pages(db, who), request, chosen)
    answer = StreamingResponse(rate_limits.streamed(made(opened, begun)), media_type=NAMES[form])
    protect(request, answer)
    name = f"audit-{who.log_id if who.tenant_id else 'vendor'}-{begun.log.size}.{form}"
    answer.headers["content-disposition"] = f'attachment; filename="{name}"'
    return answer


def while_signed_in(pages: Pages, request: Request, settings: Settings) -> Pages:
    """Make each transaction of `pages` raise NotSignedIn at its start if the person is no longer signed in."""

    @contextmanager
    def opened() -> Iterator[UnitOfWork]:
        with pages() as session:
            browser.visitor(request, session, settings)
            yield session

    return opened


@router.get("/checkpoint")
def checkpoint(request: Request, chosen: SettingsDep, session: SessionDep, tenant: SearchField = "") -> Response:
    return _take_away(request, session, browser.visitor(request, session, chosen), tenant.strip())


def _take_away(
    request: Request,
    session: UnitOfWork,
    visitor: Visitor,
    slug: str,
    since: str = "",
    refused: LockboxError | None = None,
) -> Response:
    readable = _readable(session, visitor)
    who = _reading(session, visitor, slug, readable)
    return page(
        request,
        "checkpoint",
        status_of(refused) if refused else 200,
        visitor=visitor,
        refused=refused,
        since=since,
        readable=readable,
        whose=_whose(who, readable),
        slug=slug or _slug(who, readable),
        log=_head(session, who),
        keys=[(key, VerifierKey.read(key.key).fingerprint) for key in proofs.keys(session)],
        zone=addresses.preferences(session, visitor.caller).time_zone,
    )


def _readable(session: UnitOfWork, visitor: Visitor) -> Mapping[UUID, Tenant]:
    caller = visitor.caller
    if caller.holds(Role.VENDOR_AUDITOR):
        some = tenants.page(session, caller, cursor=None, most=MOST_TENANTS).overviews
        return {one.tenant.id: one.tenant for one in some}
    own, read = tenants.own(session, caller), caller.tenants(READERS)
    return {one.tenant.id: one.tenant for one in own if one.tenant.id in read}


def _reading(session: UnitOfWork, visitor: Visitor, slug: str, readable: Mapping[UUID, Tenant]) -> AuditReader:
    if not slug and readable and not visitor.caller.holds(Role.VENDOR_AUDITOR):
        slug = next(iter(readable.values())).slug
    try:
        named = SLUG.validate_python(slug) if slug else None
    except ValidationError:
        raise NotFound(phrases.NO_TENANT) from None
    return audit_access.audit_reader(session, visitor.caller, named)


def _shown(
    request: Request,
    session: UnitOfWork,
    visitor: Visitor,
    what: AuditSearchForm,
    readable: Mapping[UUID, Tenant],
    *,
    who: AuditReader | None = None,
    found: FoundEvents | None = None,
    refused: LockboxError | None = None,
) -> Response:
    is_of_moves = who is not None and who.tenant_id is not None and what.is_of_moves
    return page(
        request,
        "audit_log",
        status_of(refused) if refused else 200,
        visitor=visitor,
        asked=what,
        readable=readable,
        whose=_whose(who, readable),
        is_vendors=visitor.caller.holds(Role.VENDOR_AUDITOR),
        slug=what.tenant or (_slug(who, readable) if who else ""),
        events=[describe(event) for event in found.events] if found else [],
        before=found.before if found else None,
        is_of_moves=is_of_moves,
        chosen_show=what.show if refused or is_of_moves else "all",
        words=WORDS,
        services=deps.settings(request).catalogue.services,
        zone=addresses.preferences(session, visitor.caller).time_zone,
        refused=refused,
    )


def _whose(who: AuditReader | None, readable: Mapping[UUID, Tenant]) -> str:
    if who is None:
        return ""
    tenant = readable.get(who.tenant_id) if who.tenant_id else None
    return tenant.name if tenant else phrases.THIS_ORGANISATION if who.tenant_id else phrases.THE_VENDOR


def _slug(who: AuditReader, readable: Mapping[UUID, Tenant]) -> str:
    tenant = readable.get(who.tenant_id) if who.tenant_id else None
    return tenant.slug if tenant else ""


def _head(session: UnitOfWork, who: AuditReader) -> proofs.LogHead | None:
    try:
        return audit_access.head(session, who)
    except NotFound:
        return None


def _id(text: str, which: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise Invalid(phrases.SEARCH_BY_ID.format(what=which), field=which) from None


def _word(text: str, which: str) -> str | None:
    try:
        return WORD.validate_python(text) if text else None
    except ValidationError:
        raise Invalid(phrases.NOT_IN_LIST.format(what=which), field=which) from None


def _line(text: str) -> str | None:
    try:
        return LINE.validate_python(text) if text else None
    except ValidationError:
        raise Invalid(phrases.NO_SEARCH_LINE, field="text") from None


def _moment(text: str, zone: str) -> datetime | None:
    try:
        return time_zones.instant(text, zone) if text else None
    except ValueError as error:
        raise Invalid(phrases.NO_SPAN.format(why=error), field="after") from None


def _sizes(text: str) -> list[int]:
    if not text.strip():
        return []
    if not (text.strip().isascii() and text.strip().isdigit()) or int(text) > LARGEST:
        raise Invalid(phrases.NO_SIZE, field="since")
    return [int(text)]
