"""The pages of a tenant's policy: read it, write another one, see what that would change, and save it."""

import json
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from sqlmodel import Session

from api import browser
from api.browser import Visitor
from api.deps import Chosen, Work
from api.portal.account import AtDesk
from api.portal.pages import TAG, go, page, status_of
from api.schemas.parts import Slug
from lockbox.people.roles import Role
from lockbox.refusals import Conflict, Invalid, NotYours, Refusal, SignInAgain
from lockbox.requests.changes import changes
from lockbox.requests.rules import Policy
from lockbox.requests.writing import Origin
from lockbox.tenancy import policies, tenants

router = APIRouter(prefix="/tenants/{slug}/policy", tags=[TAG], include_in_schema=False)

LONGEST = 30_000
MOST_VERSIONS = 20

Text = Annotated[str, Form(max_length=LONGEST)]
Seen = Annotated[int, Form(ge=1, le=2**31 - 2)]


@router.get("")
def show(request: Request, slug: Slug, chosen: Chosen, session: Work) -> Response:
    """Show the policy to the tenant's members, in a text area to its admins."""
    return _shown(request, session, browser.visitor(request, session, chosen), slug)


@router.post("")
def look(work: AtDesk, slug: Slug, text: Text = "", version: Seen = 1) -> Response:
    """Show what the written policy would change; nothing is changed by that."""
    with work.open() as (session, visitor):
        held = policies.read(session, visitor.caller, slug)
        try:
            wanted = _read(text)
        except Invalid as refused:
            return _shown(work.request, session, visitor, slug, refused=refused, text=text, version=version)
        return page(
            work.request,
            "policy_asks",
            visitor=visitor,
            tenant=tenants.show(session, visitor.caller, slug).tenant,
            changes=changes(held.policy, wanted),
            text=text,
            version=version,
        )


@router.post("/save")
def save(work: AtDesk, slug: Slug, text: Text = "", version: Seen = 1) -> Response:
    """Put the written policy in place of the one that was seen; what is refused loses nothing that was written."""
    place = work.place
    try:
        with work.open() as (session, visitor):
            origin = Origin("portal", place.address, place.user_agent)
            policies.change(session, visitor.caller, origin, slug, _read(text), seen=version)
    except (Conflict, NotYours, Invalid) as refused:
        with work.open() as (session, visitor):
            return _shown(work.request, session, visitor, slug, refused=refused, text=text, version=version)
    return go(work.request, f"/tenants/{slug}/policy")


def _read(text: str) -> Policy:
    try:
        return Policy.model_validate(json.loads(text))
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        lines = [f"{'.'.join(map(str, one['loc'])) or 'policy'}: {one['msg']}" for one in found]
        raise Invalid(f"This is no policy: {'; '.join(lines)}.") from None
    except (ValueError, RecursionError):
        raise Invalid("This is not JSON: look for a comma or a quote that is missing or one too many.") from None


def _shown(
    request: Request,
    session: Session,
    visitor: Visitor,
    slug: str,
    *,
    refused: Refusal | None = None,
    text: str | None = None,
    version: int | None = None,
) -> HTMLResponse:
    held = policies.read(session, visitor.caller, slug)
    tenant = tenants.show(session, visitor.caller, slug).tenant
    return page(
        request,
        "policy",
        status_of(refused) if refused else 200,
        visitor=visitor,
        tenant=tenant,
        held=held,
        editions=policies.editions(session, visitor.caller, slug, before=None, most=MOST_VERSIONS),
        text=text if text is not None else held.policy.model_dump_json(indent=2),
        version=version or held.edition.version,
        is_admin=visitor.caller.holds(Role.TENANT_ADMIN, tenant_id=tenant.id),
        longest=LONGEST,
        refused=refused,
        needs_sign_in=isinstance(refused, SignInAgain),
    )
