"""The page of approvers' keys."""

import json
from functools import partial

from fastapi import Request, Response

from api import browser
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep, relying_party
from api.portal.pages import NO_PAGE, TAG, protect
from api.portal.tenant_admin import tenant_admin_page
from api.schemas.parts import Slug
from lockbox.admin import audit_access
from lockbox.audit.verifier import approver_keys as files
from lockbox.identity.roles import Role

router = CallRouter(prefix="/tenants/{slug}/approver-keys", tags=[TAG], include_in_schema=False)


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    at = tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug, Role.TENANT_ADMIN)
    given = audit_access.export_approver_keys(session, at.caller, slug, partial(relying_party, chosen))
    return at.page("approver_keys", keys=[(key, files.grouped(key.fingerprint)) for key in given.keys])


@router.get("/file", tags=[NO_PAGE])
def export(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    visitor = browser.visitor(request, session, chosen)
    given = audit_access.export_approver_keys(session, visitor.caller, slug, partial(relying_party, chosen))
    text = json.dumps(files.document(given), ensure_ascii=False, indent=2) + "\n"
    answer = Response(text, media_type="application/json")
    protect(request, answer)
    answer.headers["content-disposition"] = f'attachment; filename="{slug}-approver-keys.json"'
    return answer
