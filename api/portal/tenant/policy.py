"""The policy pages."""

from typing import Annotated

from fastapi import Form, Request, Response

from api import browser
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal import form_errors
from api.portal.pages import REFUSED, TAG, FormContextDep
from api.portal.tenant import policy_form
from api.portal.tenant.policy_form import PLACES, PolicyForm
from api.portal.tenant_admin import TenantAdminPage, done, tenant_admin_page
from api.schemas.parts import Slug
from lockbox.admin import policies, what_if
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork
from lockbox.errors import LockboxError
from lockbox.facts.enumerations import Reason
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import policy_wording
from lockbox.notifications.policy_wording import TERMS
from lockbox.requests.policy_rules import Policy

router = CallRouter(prefix="/tenants/{slug}/policy", tags=[TAG], include_in_schema=False)

LONGEST = 30_000
MOST_VERSIONS = 20

Text = Annotated[str, Form(max_length=LONGEST)]
PolicyVersionField = Annotated[int, Form(ge=1, le=2**31 - 2)]


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug))


@router.post("")
def look(work: FormContextDep, slug: Slug, text: Text = "", version: PolicyVersionField = 1) -> Response:
    with work.open() as (session, visitor):
        at = tenant_admin_page(work.request, session, visitor, slug, Role.TENANT_ADMIN)
        try:
            return preview_page(at, policy_form.read(text), version)
        except REFUSED as refused:
            return _shown(at, refused, text=text, version=version)


@router.post("/terms")
def look_at_terms(
    work: FormContextDep, slug: Slug, form: Annotated[PolicyForm, Form()], version: PolicyVersionField = 1
) -> Response:
    with work.open() as (session, visitor):
        at = tenant_admin_page(work.request, session, visitor, slug, Role.TENANT_ADMIN)
        held = policies.read(session, visitor.caller, slug)
        try:
            return preview_page(at, form.onto(held.policy), version)
        except REFUSED as refused:
            return _shown(at, refused, form=form, version=version)


@router.post("/save")
def save(work: FormContextDep, slug: Slug, text: Text = "", version: PolicyVersionField = 1) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        policies.change(session, caller, origin, slug, policy_form.read(text), seen=version)

    def shown(at: TenantAdminPage, refused: LockboxError) -> Response:
        return _shown(at, refused, text=text, version=version)

    return done(work, slug, deed, shown, f"/tenants/{slug}/policy")


def preview_page(at: TenantAdminPage, policy: Policy, seen: int) -> Response:
    """`seen` is the version on which the policy is based."""
    found = what_if.preview_policy(at.session, at.caller, at.tenant.slug, policy)
    if found.refusal:
        raise found.refusal
    return at.page(
        "policy_preview",
        lines=list(policy_wording.lines(found.changes, found.names)),
        found=found,
        text=policy.model_dump_json(indent=2),
        version=seen,
        is_stale=seen != at.tenant.policy_version,
    )


def _shown(
    at: TenantAdminPage,
    refused: LockboxError | None = None,
    *,
    text: str | None = None,
    form: PolicyForm | None = None,
    version: int | None = None,
) -> Response:
    held = policies.read(at.session, at.caller, at.tenant.slug)
    return at.page(
        "policy",
        refused,
        held=held,
        editions=policies.editions(at.session, at.caller, at.tenant.slug, before=None, most=MOST_VERSIONS),
        text=text if text is not None else held.policy.model_dump_json(indent=2),
        is_text=text is not None,
        form=form or PolicyForm.of(held.policy),
        reasons=Reason,
        terms=TERMS,
        wrong=form_errors.by_field(form_errors.mistakes_of(refused)),
        mistakes=form_errors.summary(refused, TERMS, PLACES),
        version=version or held.edition.version,
        longest=LONGEST,
    )
