"""The webhook pages."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Form, Query, Request, Response
from pydantic import BaseModel, Field

from api import browser, deps
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal import phrases
from api.portal.pages import REFUSED, TAG, FormContext, FormContextDep, origin
from api.portal.tenant_admin import TenantAdminPage, done, read, tenant_admin_page
from api.schemas.parts import Slug
from api.schemas.webhooks import EndpointChange, NewEndpoint, NewSecret
from lockbox.admin import delivery_log, webhooks
from lockbox.admin.webhooks import OF_REQUESTS, OF_TENANTS, WebhookInput, WebhookUrlPolicy, WebhookWithSecret
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork
from lockbox.errors import LockboxError, NotFound
from lockbox.identity.roles import Caller, Role
from lockbox.notifications.models import Endpoint, Format

router = CallRouter(prefix="/tenants/{slug}/endpoints", tags=[TAG], include_in_schema=False)

MOST_TRIES = 50
HOURS = "24"
"""For how many hours an old secret signs too, by default."""
CHECKPOINTS = "audit.checkpoint"
EVENTS = (*sorted(OF_REQUESTS), CHECKPOINTS, *sorted(OF_TENANTS))

One = Annotated[UUID, Form(alias="id")]
LongText = Annotated[str, Field(max_length=4000)]


class WebhookForm(BaseModel):
    """If no events are chosen, the webhook receives all."""

    url: LongText = ""
    description: LongText = ""
    events: Annotated[list[str], Field(max_length=len(EVENTS) + 10)] = []
    form: LongText = Format.JSON
    """The format of the call's body."""
    why: LongText = ""

    @classmethod
    def of(cls, endpoint: Endpoint) -> "WebhookForm":
        why = "yes" if endpoint.with_justification else ""
        return cls(
            url=endpoint.url,
            description=endpoint.description,
            events=endpoint.event_types,
            form=endpoint.format,
            why=why,
        )

    @property
    def values(self) -> dict[str, object]:
        return {
            "url": self.url.strip(),
            "description": self.description.strip() or None,
            "event_types": self.events,
            "format": self.form,
            "with_justification": self.why == "yes",
        }


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    return _listed(
        tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug, Role.TENANT_ADMIN)
    )


@router.post("")
def add(work: FormContextDep, slug: Slug, written: Annotated[WebhookForm, Form()]) -> Response:
    """Only the page that answers this form shows the secret."""

    def made(session: UnitOfWork, caller: Caller) -> WebhookWithSecret:
        body = read(NewEndpoint, **written.values)
        wanted = WebhookInput(
            body.url, body.event_types, body.description or "", body.format, body.with_justification
        )
        return webhooks.add(session, caller, origin(work.request), slug, wanted, reach=_url_policy(work))

    return _with_secret(work, slug, made, lambda at, refused: _listed(at, refused, written))


@router.get("/{endpoint_id}")
def show_one(
    request: Request,
    slug: Slug,
    endpoint_id: UUID,
    chosen: SettingsDep,
    session: SessionDep,
    after: Annotated[UUID | None, Query()] = None,
) -> Response:
    at = tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug, Role.TENANT_ADMIN)
    return _one(at, endpoint_id, after=after)


@router.post("/change")
def change(work: FormContextDep, slug: Slug, one: One, written: Annotated[WebhookForm, Form()]) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        _of_this(session, caller, slug, one)
        body = read(EndpointChange, **written.values)
        webhooks.change(session, caller, origin, one, body.values(), reach=_url_policy(work))

    return _done(work, slug, one, deed, written)


@router.post("/turn")
def turn(work: FormContextDep, slug: Slug, one: One, enabled: Annotated[str, Form(max_length=3)] = "no") -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        _of_this(session, caller, slug, one)
        webhooks.change(session, caller, origin, one, {"enabled": enabled == "yes"}, reach=_url_policy(work))

    return _done(work, slug, one, deed)


@router.post("/rotate")
def rotate(work: FormContextDep, slug: Slug, one: One, hours: Annotated[str, Form(max_length=9)] = HOURS) -> Response:
    def made(session: UnitOfWork, caller: Caller) -> WebhookWithSecret:
        _of_this(session, caller, slug, one)
        text = hours.strip()
        body = read(NewSecret, overlap_hours=int(text) if text.isascii() and text.isdigit() else text)
        overlap = timedelta(hours=body.overlap_hours)
        return webhooks.rotate(
            session, caller, origin(work.request), one, vault=deps.vault(work.request), overlap=overlap
        )

    return _with_secret(work, slug, made, lambda at, refused: _one(at, one, refused, hours=hours))


@router.post("/test")
def try_out(work: FormContextDep, slug: Slug, one: One) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        _of_this(session, caller, slug, one)
        delivery_log.try_out(session, caller, origin, one)

    return _done(work, slug, one, deed)


@router.post("/redeliver")
def redeliver(work: FormContextDep, slug: Slug, one: One, delivery: Annotated[UUID, Form()]) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        _of_this(session, caller, slug, one)
        delivery_log.redeliver(session, caller, origin, delivery)

    return _done(work, slug, one, deed)


@router.post("/remove")
def remove(work: FormContextDep, slug: Slug, one: One) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        _of_this(session, caller, slug, one)
        webhooks.remove(session, caller, origin, one)

    return done(work, slug, deed, lambda at, refused: _one(at, one, refused), f"/tenants/{slug}/endpoints")


def _of_this(session: UnitOfWork, caller: Caller, slug: str, one: UUID) -> Endpoint:
    for endpoint in webhooks.listed(session, caller, slug):
        if endpoint.id == one:
            return endpoint
    raise NotFound(phrases.NO_WEBHOOK)


def _url_policy(work: FormContext) -> WebhookUrlPolicy:
    return WebhookUrlPolicy(deps.vault(work.request), work.chosen.webhooks_allow_http, work.chosen.outbound)


def _done(
    work: FormContext,
    slug: str,
    one: UUID,
    deed: Callable[[UnitOfWork, Caller, Origin], None],
    written: WebhookForm | None = None,
) -> Response:
    def shown(at: TenantAdminPage, refused: LockboxError) -> Response:
        return _one(at, one, refused, written=written)

    return done(work, slug, deed, shown, f"/tenants/{slug}/endpoints/{one}")


def _with_secret(
    work: FormContext,
    slug: str,
    made: Callable[[UnitOfWork, Caller], WebhookWithSecret],
    shown: Callable[[TenantAdminPage, LockboxError], Response],
) -> Response:
    try:
        with work.open() as (session, visitor):
            found = made(session, visitor.caller)
            at = tenant_admin_page(work.request, session, visitor, slug, Role.TENANT_ADMIN)
            return at.page("webhook_secret", endpoint=found.endpoint, secret=found.secret)
    except REFUSED as refused:
        with work.open() as (session, visitor):
            return shown(tenant_admin_page(work.request, session, visitor, slug, Role.TENANT_ADMIN), refused)


def _listed(at: TenantAdminPage, refused: LockboxError | None = None, written: WebhookForm | None = None) -> Response:
    return at.page(
        "webhooks",
        refused,
        endpoints=webhooks.listed(at.session, at.caller, at.tenant.slug),
        written=written or WebhookForm(),
        events=EVENTS,
        formats=Format,
    )


def _one(
    at: TenantAdminPage,
    one: UUID,
    refused: LockboxError | None = None,
    *,
    after: UUID | None = None,
    written: WebhookForm | None = None,
    hours: str = HOURS,
) -> Response:
    endpoint = _of_this(at.session, at.caller, at.tenant.slug, one)
    log = delivery_log.log(at.session, at.caller, one, cursor=after, most=MOST_TRIES)
    return at.page(
        "webhook",
        refused,
        endpoint=endpoint,
        log=log,
        standings=delivery_log.delivery_states(at.session, at.caller, log.deliveries),
        written=written or WebhookForm.of(endpoint),
        hours=hours,
        events=EVENTS,
        formats=Format,
    )
