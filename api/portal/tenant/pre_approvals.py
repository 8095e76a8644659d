"""The pre-approvals page."""

from typing import Annotated
from uuid import UUID

from fastapi import Form, Request, Response
from pydantic import BaseModel, Field

from api import browser, deps
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal import phrases
from api.portal.pages import TAG, FormContextDep
from api.portal.tenant_admin import TenantAdminPage, done, read, tenant_admin_page
from api.schemas.parts import Slug
from api.schemas.requests import CommentInput
from lockbox.admin import pre_approvals
from lockbox.admin.pre_approval_status import OPEN, approval_obstacle, judged_by, namesakes, summaries
from lockbox.admin.pre_approvals import LONGEST, PreApprovalInput
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import Invalid, LockboxError
from lockbox.facts.enumerations import Reason
from lockbox.identity import time_zones
from lockbox.identity.roles import Caller
from lockbox.notifications import addresses
from lockbox.requests.policy_parts import DAY, HOUR

router = CallRouter(prefix="/tenants/{slug}/pre-approvals", tags=[TAG], include_in_schema=False)

MINUTE = 60
WINDOWS = (15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, DAY)
FormText = Annotated[str, Field(max_length=300)]
Comment = Annotated[str, Form(max_length=5000)]


class PreApprovalForm(BaseModel):
    """`ends` is in the author's time zone."""

    service: FormText = ""
    resource: FormText = ""
    actions: list[str] = []
    reason_code: FormText = ""
    access_window: FormText = ""
    max_uses: FormText = ""
    ends: FormText = ""
    comment: Annotated[str, Field(max_length=5000)] = ""

    def wanted(self, zone: str) -> PreApprovalInput:
        try:
            ends_at = time_zones.instant(self.ends.strip(), zone)
        except ValueError as error:
            raise Invalid(phrases.SAY_WHEN.format(what=phrases.PRE_APPROVAL_UNTIL, why=error)) from None
        numbers = {"access_window": _number(self.access_window), "max_uses": _number(self.max_uses)}
        further = {"ends_at": ends_at, "comment": _said(self.comment), "resource": self.resource.strip()}
        return read(PreApprovalInput, **self.model_dump(exclude={"ends"}) | numbers | further)


EMPTY_FORM = PreApprovalForm(
    actions=["read"], reason_code=Reason.SUPPORT_CASE, access_window=str(30 * MINUTE), max_uses="5"
)


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug))


@router.post("")
def propose(work: FormContextDep, slug: Slug, written: Annotated[PreApprovalForm, Form()]) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        wanted = written.wanted(addresses.preferences(session, caller).time_zone)
        pre_approvals.propose(session, caller, origin, slug, wanted, work.chosen.catalogue.services)

    return done(work, slug, deed, lambda at, refused: _shown(at, refused, written), _place(slug))


@router.post("/{pre_approval_id}/approve")
def approve(work: FormContextDep, slug: Slug, pre_approval_id: UUID, comment: Comment = "") -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        because = read(CommentInput, comment=_said(comment)).comment
        pre_approvals.approve(session, caller, origin, slug, pre_approval_id, because)

    return done(work, slug, deed, _shown, _place(slug))


@router.post("/{pre_approval_id}/revoke")
def revoke(work: FormContextDep, slug: Slug, pre_approval_id: UUID, comment: Comment = "") -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        because = read(CommentInput, comment=_said(comment)).comment
        pre_approvals.revoke(session, caller, origin, slug, pre_approval_id, because)

    return done(work, slug, deed, _shown, _place(slug))


def _place(slug: str) -> str:
    return f"/tenants/{slug}/pre-approvals"


def _said(typed: str) -> str | None:
    return typed.replace("\r\n", "\n").strip() or None


def _number(typed: str) -> int | str:
    is_number = typed.strip().isascii() and typed.strip().isdecimal() and len(typed.strip()) <= len("604800")
    return int(typed) if is_number else typed


def _shown(
    at: TenantAdminPage, refused: LockboxError | None = None, written: PreApprovalForm | None = None
) -> Response:
    judged = judged_by(at.session, at.tenant, now(at.session))
    found = summaries(at.session, at.tenant, judged)
    current = [one for one in found if one.status in OPEN]
    obstacles = {one.row.id: approval_obstacle(at.session, at.caller, one, judged) for one in current}
    services = deps.settings(at.request).catalogue.services
    return at.page(
        "pre_approvals",
        refused,
        current=current,
        over=[one for one in found if one.status not in OPEN],
        approves=bool(judged.known.seats(at.tenant.id).get(at.caller.person_id)),
        obstacles=obstacles,
        alike={one.row.id: namesakes(at.session, at.caller, one) for one in current},
        written=written or EMPTY_FORM,
        actions=sorted({action for service in services.values() for action in service.actions}),
        reasons=list(Reason),
        windows=WINDOWS,
        longest=LONGEST.days,
    )
