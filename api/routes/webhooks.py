"""Routes for webhooks and their delivery log."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Response

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep, SettingsDep, VaultDep
from api.routes.audit import AuditReaderDep
from api.schemas.parts import Slug, problems, view_of
from api.schemas.webhooks import (
    CallView,
    DeliveryPage,
    DeliveryView,
    EndpointChange,
    EndpointList,
    EndpointView,
    EventReplayView,
    NewEndpoint,
    NewEndpointView,
    NewSecret,
)
from lockbox.admin import delivery_log, webhooks
from lockbox.admin.webhooks import WebhookInput, WebhookUrlPolicy, WebhookWithSecret
from lockbox.notifications.models import Delivery, Endpoint

router = CallRouter(prefix="/v1", tags=["webhooks"])

MOST_CURSOR = 64


async def webhook_url_policy(chosen: SettingsDep, keys: VaultDep) -> WebhookUrlPolicy:
    return WebhookUrlPolicy(keys, chosen.webhooks_allow_http, chosen.outbound)


WebhookUrlPolicyDep = Annotated[WebhookUrlPolicy, Depends(webhook_url_policy)]


@router.get("/tenants/{slug}/endpoints", responses=problems(404))
def list_tenant_endpoints(slug: Slug, who: CurrentUser, session: SessionDep) -> EndpointList:
    """List a tenant's webhooks, to its admins, without secrets."""
    return EndpointList(items=[_view(one) for one in webhooks.listed(session, who, slug)])


@router.post("/tenants/{slug}/endpoints", status_code=201, responses=problems(400, 404, 409))
def add_tenant_endpoint(
    slug: Slug,
    body: NewEndpoint,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    within: WebhookUrlPolicyDep,
    response: Response,
) -> NewEndpointView:
    """Add a webhook of a tenant, as its admin with a fresh sign-in; its secret is only in this answer."""
    return _added(webhooks.add(session, who, origin, slug, _wanted(body), reach=within), response)


@router.get("/vendor/endpoints", responses=problems())
def list_vendor_endpoints(who: CurrentUser, session: SessionDep) -> EndpointList:
    """List the vendor's own webhooks, which are called for the requests of every tenant, to its operators."""
    return EndpointList(items=[_view(one) for one in webhooks.listed(session, who, None)])


@router.post("/vendor/endpoints", status_code=201, responses=problems(400, 409))
def add_vendor_endpoint(
    body: NewEndpoint,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    within: WebhookUrlPolicyDep,
    response: Response,
) -> NewEndpointView:
    """Add a webhook of the vendor, as an operator with a fresh sign-in; its secret is only in this answer."""
    return _added(webhooks.add(session, who, origin, None, _wanted(body), reach=within), response)


@router.get("/endpoints/{endpoint_id}", responses=problems(404))
def get_endpoint(endpoint_id: UUID, who: CurrentUser, session: SessionDep) -> EndpointView:
    """Show one webhook, without its secret."""
    return _view(webhooks.show(session, who, endpoint_id))


@router.patch("/endpoints/{endpoint_id}", responses=problems(400, 404))
def change_endpoint(
    endpoint_id: UUID,
    body: EndpointChange,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    within: WebhookUrlPolicyDep,
) -> EndpointView:
    """Change a webhook; everything but disabling and describing it needs a fresh sign-in."""
    return _view(webhooks.change(session, who, origin, endpoint_id, body.values(), reach=within))


@router.delete("/endpoints/{endpoint_id}", status_code=204, responses=problems(404))
def remove_endpoint(endpoint_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> None:
    """Remove a webhook; it is not called any more."""
    webhooks.remove(session, who, origin, endpoint_id)


@router.post("/endpoints/{endpoint_id}/rotate", responses=problems(400, 404))
def rotate_endpoint_secret(
    endpoint_id: UUID,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    keys: VaultDep,
    response: Response,
    body: NewSecret | None = None,
) -> NewEndpointView:
    """Rotate a webhook's secret and key, with a fresh sign-in; for a while, the old ones sign calls too.

    The new secret is shown only in this answer.
    """
    overlap = timedelta(hours=(body or NewSecret()).overlap_hours)
    response.headers["cache-control"] = "no-store"
    return _with_secret(webhooks.rotate(session, who, origin, endpoint_id, vault=keys, overlap=overlap))


@router.post("/endpoints/{endpoint_id}/test", status_code=202, responses=problems(404, 409, 429))
def test_endpoint(endpoint_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> CallView:
    """Send a test event to a webhook; the result is in its log."""
    return CallView(webhook_id=delivery_log.try_out(session, who, origin, endpoint_id))


@router.get("/endpoints/{endpoint_id}/deliveries", responses=problems(404))
def list_deliveries(
    endpoint_id: UUID,
    who: CurrentUser,
    session: SessionDep,
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=delivery_log.MOST_A_PAGE)] = 50,
) -> DeliveryPage:
    """List each attempt to call a webhook, the newest first."""
    log = delivery_log.log(session, who, endpoint_id, cursor=cursor, most=limit)
    return DeliveryPage(items=[_delivery(delivery) for delivery in log.deliveries], next_cursor=log.next_cursor)


@router.get("/events", responses=problems(404))
def replay_events(
    who: AuditReaderDep,
    session: SessionDep,
    chosen: SettingsDep,
    after: Annotated[str | None, Query(max_length=MOST_CURSOR)] = None,
    limit: Annotated[int, Query(ge=1, le=delivery_log.MOST_A_PAGE)] = 50,
) -> EventReplayView:
    """Replay the events of a log in the form in which webhooks receive them, the oldest first.

    For receivers that missed calls (see docs/webhooks.md). An event is included once it is sealed, within seconds.
    `next_cursor` is never null: keep it to ask for later events. For the readers of the log: a tenant's admins and
    auditors, and the vendor's auditors.
    """
    found = delivery_log.replay(session, who, after=after, most=limit, public_url=chosen.public_url)
    return EventReplayView(items=list(found.bodies), next_cursor=found.next_cursor, more=found.more)


@router.post("/deliveries/{delivery_id}/redeliver", status_code=202, responses=problems(404, 409, 429))
def redeliver_call(delivery_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> CallView:
    """Repeat, with the same id, a call that has succeeded or failed permanently.

    A call still being retried is refused.
    """
    return CallView(webhook_id=delivery_log.redeliver(session, who, origin, delivery_id))


def _wanted(body: NewEndpoint) -> WebhookInput:
    return WebhookInput(body.url, body.event_types, body.description or "", body.format, body.with_justification)


def _view(endpoint: Endpoint) -> EndpointView:
    return view_of(EndpointView, endpoint)


def _with_secret(shown: WebhookWithSecret) -> NewEndpointView:
    return view_of(NewEndpointView, shown.endpoint, secret=shown.secret)


def _added(shown: WebhookWithSecret, response: Response) -> NewEndpointView:
    response.headers.update({"location": f"/v1/endpoints/{shown.endpoint.id}", "cache-control": "no-store"})
    return _with_secret(shown)


def _delivery(delivery: Delivery) -> DeliveryView:
    return view_of(DeliveryView, delivery, webhook_id=delivery.notification_id)
