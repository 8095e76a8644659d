"""Webhooks of a tenant, managed by its admins, and of the vendor (`slug` is None), managed by operators."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlmodel import col, select

from config.outbound import OutboundRoute
from lockbox import safe_http
from lockbox.admin import permissions
from lockbox.admin.permissions import AdminActor, AdminChange
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import Invalid, NotFound, TooManyEndpoints
from lockbox.identity import authentication
from lockbox.identity.models import Tenant
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import endpoints as kept
from lockbox.notifications.account_mail import CHECKPOINT_TYPE, INVARIANT_TYPE, PERSONAL
from lockbox.notifications.audience import TYPES
from lockbox.notifications.endpoints import SecretVault
from lockbox.notifications.mail_text import ACCOUNT_TITLES
from lockbox.notifications.models import Endpoint, Format
from lockbox.safe_http import FetchFailed

MOST_ENDPOINTS = 50
BY_HAND = "by_hand"
ADMINS = (Role.TENANT_ADMIN,)
OPERATORS = (Role.OPERATOR,)
NOT_THE_VENDORS = "A webhook of the vendor cannot receive justifications. Leave out this option."
OF_REQUESTS = TYPES
OF_TENANTS = frozenset(f"tenant.{kind}" for kind in ACCOUNT_TITLES.keys() - PERSONAL)
# These changes add neither events nor another destination, so they need no fresh sign-in.
HARMLESS = frozenset({"description"})


@dataclass(frozen=True)
class WebhookUrlPolicy:
    """The allowed URLs of webhooks: plain HTTP only to loopback, and only if the development setting allows it.

    The vendor's webhooks may be in the private networks of `route`.
    """

    vault: SecretVault
    allow_http: bool = False
    route: OutboundRoute = safe_http.NO_WAY_ASIDE


@dataclass(frozen=True)
class WebhookInput:
    """Empty `event_types` means all events."""

    url: str
    event_types: Sequence[str] = ()
    description: str = ""
    format: Format = Format.JSON
    with_justification: bool = False


@dataclass(frozen=True)
class WebhookWithSecret:
    """The secret is shown only this one time."""

    endpoint: Endpoint
    secret: str = field(repr=False)


def listed(session: UnitOfWork, caller: Caller, slug: str | None) -> Sequence[Endpoint]:
    if slug is None:
        authentication.enter(session, caller)
        permissions.capacity(caller, OPERATORS)
        return _of(session, None)
    return _of(session, permissions.readable(session, caller, slug, ADMINS).id)


def show(session: UnitOfWork, caller: Caller, endpoint_id: UUID) -> Endpoint:
    endpoint = _seen(session, caller, endpoint_id)
    permissions.capacity(caller, ADMINS if endpoint.tenant_id else OPERATORS, endpoint.tenant_id)
    return endpoint


def add(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    slug: str | None,
    wanted: WebhookInput,
    *,
    reach: WebhookUrlPolicy,
) -> WebhookWithSecret:
    tenant = None if slug is None else permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, ADMINS if tenant else OPERATORS, tenant)
    _firmly(session, actor, tenant)
    _good(wanted.url, wanted.event_types, actor.tenant_id, reach)
    _may_show_justification(actor.tenant_id, is_told=wanted.with_justification)
    if len(_of(session, actor.tenant_id)) >= MOST_ENDPOINTS:
        raise TooManyEndpoints(f"There may be {MOST_ENDPOINTS} webhooks; remove one.")
    at = now(session)
    signing = kept.new_signing(reach.vault)
    endpoint = kept.made(
        signing,
        wanted.url,
        tenant_id=actor.tenant_id,
        at=at,
        event_types=wanted.event_types,
        description=wanted.description,
        format_=wanted.format,
        with_justification=wanted.with_justification,
    )
    session.orm.add(endpoint)
    session.orm.flush()
    _record_change(session, actor, endpoint, "endpoint_added", _diff({}, _facts(endpoint)), at=at)
    return WebhookWithSecret(endpoint, signing.secret)


def change(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    endpoint_id: UUID,
    wanted: Mapping[str, Any],
    *,
    reach: WebhookUrlPolicy,
) -> Endpoint:
    """Change fields of `WebhookInput`, or `enabled`; equal values change nothing."""
    actor, endpoint, tenant = locked(session, caller, origin, endpoint_id)
    before = _facts(endpoint)
    values = {name: value for name, value in wanted.items() if name != "enabled"}
    changed = {name for name, value in values.items() if getattr(endpoint, name) != value}
    enabled = wanted.get("enabled")
    turns = enabled is not None and enabled is not (endpoint.disabled_at is None)
    if not changed and not turns:
        return endpoint
    if changed - HARMLESS or (turns and enabled):
        _firmly(session, actor, tenant)
    _good(wanted.get("url", endpoint.url), wanted.get("event_types", ()), endpoint.tenant_id, reach)
    _may_show_justification(endpoint.tenant_id, is_told=wanted.get("with_justification", False))
    at = now(session)
    for name in changed:
        setattr(endpoint, name, values[name])
    if turns:
        _turn(endpoint, None if enabled else at)
    session.orm.add(endpoint)
    session.orm.flush()
    differences = _diff(before, _facts(endpoint))
    for name in changed & {"url", "description"}:
        differences.setdefault(name, "changed")
    _record_change(session, actor, endpoint, "endpoint_changed", differences, at=at)
    return endpoint


def remove(session: UnitOfWork, caller: Caller, origin: Origin, endpoint_id: UUID) -> None:
    """The secrets are deleted; the delivery log stays."""
    actor, endpoint, _ = locked(session, caller, origin, endpoint_id)
    at = now(session)
    if endpoint.disabled_at is None:
        _turn(endpoint, at)
    endpoint.removed_at = at
    endpoint.secret, endpoint.public_key, endpoint.old_secret, endpoint.old_secret_until = b"", None, None, None
    session.orm.add(endpoint)
    session.orm.flush()
    _record_change(session, actor, endpoint, "endpoint_removed", {"url": place(endpoint.url)}, at=at)


def rotate(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    endpoint_id: UUID,
    *,
    vault: SecretVault,
    overlap: timedelta = kept.OVERLAP,
) -> WebhookWithSecret:
    """Calls are signed with the old secret too until the overlap ends."""
    actor, endpoint, tenant = locked(session, caller, origin, endpoint_id)
    _firmly(session, actor, tenant)
    at = now(session)
    signing = kept.new_signing(vault)
    kept.rotate(endpoint, signing, at, overlap)
    session.orm.add(endpoint)
    session.orm.flush()
    hours = round(overlap.total_seconds() / 3600)
    _record_change(
        session, actor, endpoint, "endpoint_rotated", {"secret": f"replaced; both sign for {hours} h"}, at=at
    )
    return WebhookWithSecret(endpoint, signing.secret)


def locked(
    session: UnitOfWork, caller: Caller, origin: Origin, endpoint_id: UUID
) -> tuple[AdminActor, Endpoint, Tenant | None]:
    endpoint = _seen(session, caller, endpoint_id)
    tenant = session.orm.get(Tenant, endpoint.tenant_id) if endpoint.tenant_id else None
    actor = permissions.acting_as(session, caller, origin, ADMINS if tenant else OPERATORS, tenant)
    session.orm.refresh(endpoint, with_for_update={"key_share": True})
    if endpoint.removed_at is not None:
        raise NotFound("There is no such webhook.")
    return actor, endpoint, tenant


def place(url: str) -> str:
    """Return the scheme and host of a URL, without the parts that may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _seen(session: UnitOfWork, caller: Caller, endpoint_id: UUID) -> Endpoint:
    authentication.enter(session, caller)
    endpoint = session.orm.get(Endpoint, endpoint_id)
    if endpoint is None or endpoint.removed_at is not None:
        raise NotFound("There is no such webhook.")
    return endpoint


def _of(session: UnitOfWork, tenant_id: UUID | None) -> Sequence[Endpoint]:
    whose = col(Endpoint.tenant_id).is_(None) if tenant_id is None else col(Endpoint.tenant_id) == tenant_id
    query = select(Endpoint).where(whose, col(Endpoint.removed_at).is_(None))
    return session.orm.exec(query.order_by(col(Endpoint.id))).all()


def _firmly(session: UnitOfWork, actor: AdminActor, tenant: Tenant | None) -> None:
    if tenant is not None:
        permissions.require_fresh_admin(session, actor, tenant)
    else:
        permissions.require_fresh_operator(session, actor)


def _good(url: str, event_types: Iterable[str], tenant_id: UUID | None, reach: WebhookUrlPolicy) -> None:
    try:
        route = reach.route.to_tenants if tenant_id else reach.route
        safe_http.check(url, allow_loopback=reach.allow_http, route=route)
    except FetchFailed as failed:
        raise Invalid(f"This URL cannot be called: {failed.reason}.", field="url") from None
    known = OF_REQUESTS | {CHECKPOINT_TYPE} | (OF_TENANTS if tenant_id else {INVARIANT_TYPE})
    if unknown := sorted(set(event_types) - known):
        raise Invalid(
            f"There is no event {unknown[0]}; the events are {', '.join(sorted(known))}.", field="event_types"
        )


def _may_show_justification(tenant_id: UUID | None, *, is_told: bool) -> None:
    if is_told and tenant_id is None:
        raise Invalid(NOT_THE_VENDORS, field="with_justification")


def _turn(endpoint: Endpoint, disabled_at: datetime | None) -> None:
    endpoint.disabled_at = disabled_at
    endpoint.why_disabled = BY_HAND if disabled_at else None
    endpoint.failing_since = None


def _facts(endpoint: Endpoint) -> dict[str, str]:
    return {
        "url": place(endpoint.url),
        "events": permissions.listed(endpoint.event_types) if endpoint.event_types else "all",
        "format": endpoint.format,
        "justification": "included" if endpoint.with_justification else "left out",
        "enabled": "no" if endpoint.disabled_at else "yes",
    }


def _diff(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    return {
        name: permissions.change(before.get(name, permissions.ABSENT), value)
        for name, value in after.items()
        if before.get(name) != value
    }


def _record_change(
    session: UnitOfWork,
    actor: AdminActor,
    endpoint: Endpoint,
    action: str,
    changes: Mapping[str, str],
    *,
    at: datetime,
) -> None:
    named = {"endpoint": endpoint.description or None}
    permissions.record_change(
        session, actor, AdminChange(action, at, changes, personal=named, facts={"endpoint_id": endpoint.id})
    )
