"""The mode page, and temporary consent."""

from datetime import datetime
from typing import Annotated

from fastapi import Form, Request, Response

from api import browser
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal import phrases
from api.portal.pages import REFUSED, TAG, FormContextDep
from api.portal.tenant import policy_form
from api.portal.tenant.policy import preview_page
from api.portal.tenant_admin import TenantAdminPage, done, read, tenant_admin_page
from api.schemas.parts import Slug
from api.schemas.tenants import NewMode
from lockbox.admin import emergency_stop, policies, tenants, unapproved_access, what_if
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import Invalid, LockboxError
from lockbox.facts.enumerations import Mode
from lockbox.identity import time_zones
from lockbox.identity.roles import Caller, Role
from lockbox.requests.policy_rules import Policy

router = CallRouter(prefix="/tenants/{slug}/mode", tags=[TAG], include_in_schema=False)

ModeName = Annotated[str, Form(max_length=20)]


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug))


@router.post("")
def look(work: FormContextDep, slug: Slug, mode: ModeName = "") -> Response:
    with work.open() as (session, visitor):
        at = tenant_admin_page(work.request, session, visitor, slug, Role.TENANT_ADMIN)
        try:
            wanted = read(NewMode, mode=mode).mode
        except Invalid as refused:
            return _shown(at, refused)
        return _confirmation_page(at, wanted)


@router.post("/save")
def switch(work: FormContextDep, slug: Slug, mode: ModeName = "") -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        wanted = read(NewMode, mode=mode).mode
        emergency_stop.switch_mode(session, caller, origin, slug, wanted, plans=work.chosen.catalogue.plans)

    return done(work, slug, deed, _shown, f"/tenants/{slug}/mode")


@router.post("/consent")
def consent(
    work: FormContextDep, slug: Slug, mode: ModeName = "", until: Annotated[str, Form(max_length=40)] = ""
) -> Response:
    """Preview temporary consent to `mode`. If `mode` is empty, preview the withdrawal of the consent."""
    with work.open() as (session, visitor):
        at = tenant_admin_page(work.request, session, visitor, slug, Role.TENANT_ADMIN)
        held = policies.read(session, visitor.caller, slug)
        try:
            wanted = _consenting(held.policy, mode, until.strip(), at.zone, now(session))
            return preview_page(at, wanted, held.edition.version)
        except REFUSED as refused:
            return _shown(at, refused, until=until, consented=mode)


def _consenting(policy: Policy, mode: str, until: str, zone: str, at: datetime) -> Policy:
    said = policy.model_dump(mode="json") | {"consent": None}
    if mode:
        try:
            ends = time_zones.instant(until, zone)
        except ValueError as error:
            raise Invalid(phrases.NO_TIME.format(why=error), field="until") from None
        if ends <= at:
            raise Invalid(phrases.CONSENT_IN_THE_PAST, field="until")
        said["consent"] = {"mode": mode, "until": ends}
    return policy_form.checked(said)


def _shown(
    at: TenantAdminPage, refused: LockboxError | None = None, *, until: str = "", consented: str = "observe"
) -> Response:
    return at.page(
        "mode",
        refused,
        overview=tenants.show(at.session, at.caller, at.tenant.slug),
        unapproved=unapproved_access.of_tenant(at.session, at.caller, at.tenant.slug),
        until=until,
        consented=consented,
        modes=Mode,
    )


def _confirmation_page(at: TenantAdminPage, mode: Mode) -> Response:
    return at.page(
        "mode_confirmation",
        mode=mode,
        switch=what_if.preview_mode_change(at.session, at.caller, at.tenant.slug, mode),
        overview=tenants.show(at.session, at.caller, at.tenant.slug),
        unapproved=unapproved_access.of_tenant(at.session, at.caller, at.tenant.slug),
    )
