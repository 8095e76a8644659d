"""Routes for pre-approvals."""

from uuid import UUID

from fastapi import Response

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep, SettingsDep
from api.schemas.parts import PersonView, Slug, problems, view_of
from api.schemas.pre_approvals import NewPreApproval, PreApprovalApproverView, PreApprovalList, PreApprovalView
from api.schemas.requests import CommentInput
from lockbox.admin import pre_approvals
from lockbox.admin.pre_approval_status import PreApprovalSummary, namesakes
from lockbox.database import UnitOfWork
from lockbox.identity.roles import Caller

router = CallRouter(prefix="/v1/tenants/{slug}/pre-approvals", tags=["tenants"])


@router.get("", responses=problems(404))
def list_pre_approvals(slug: Slug, who: CurrentUser, session: SessionDep) -> PreApprovalList:
    """List the tenant's proposed and approved pre-approvals, for its members."""
    found = pre_approvals.listed(session, who, slug)
    return PreApprovalList(items=[pre_approval_view(session, who, one) for one in found])


@router.post("", status_code=201, responses=problems(400, 404, 409))
def propose_pre_approval(
    slug: Slug,
    body: NewPreApproval,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    chosen: SettingsDep,
    response: Response,
) -> PreApprovalView:
    """Propose a pre-approval, as a tenant admin; it opens nothing before approvers have approved it.

    It needs as many approvals as the strictest request that it would cover. The proposer cannot approve it.
    """
    made = pre_approvals.propose(session, who, origin, slug, body, chosen.catalogue.services)
    response.headers["location"] = f"/v1/tenants/{slug}/pre-approvals/{made.row.id}"
    return pre_approval_view(session, who, made)


@router.get("/{pre_approval_id}", responses=problems(404))
def get_pre_approval(slug: Slug, pre_approval_id: UUID, who: CurrentUser, session: SessionDep) -> PreApprovalView:
    """Show one pre-approval to the tenant's members."""
    return pre_approval_view(session, who, pre_approvals.find(session, who, slug, pre_approval_id))


@router.post("/{pre_approval_id}/approve", responses=problems(400, 404, 409))
def approve_pre_approval(
    slug: Slug,
    pre_approval_id: UUID,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    body: CommentInput | None = None,
) -> PreApprovalView:
    """Approve a pre-approval, as an approver with a fresh sign-in."""
    comment = body.comment if body else None
    return pre_approval_view(
        session, who, pre_approvals.approve(session, who, origin, slug, pre_approval_id, comment)
    )


@router.post("/{pre_approval_id}/revoke", responses=problems(400, 404, 409))
def revoke_pre_approval(
    slug: Slug,
    pre_approval_id: UUID,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    body: CommentInput | None = None,
) -> PreApprovalView:
    """Revoke a pre-approval and its open windows, as an approver or a tenant admin."""
    comment = body.comment if body else None
    return pre_approval_view(session, who, pre_approvals.revoke(session, who, origin, slug, pre_approval_id, comment))


def pre_approval_view(session: UnitOfWork, who: Caller, one: PreApprovalSummary) -> PreApprovalView:
    approvers = [
        PreApprovalApproverView(by=PersonView(id=by.person_id, name=by.name), at=by.at, counts=by.counts)
        for by in one.approvers
    ]
    return view_of(
        PreApprovalView,
        one.row,
        status=one.status,
        lacks=one.lacks,
        proposed_by=PersonView(id=one.row.proposed_by, name=one.proposed_by),
        approvers=approvers,
        look_alikes=namesakes(session, who, one),
    )
