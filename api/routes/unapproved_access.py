"""The route for access that can open without a tenant's approval."""

from api.call_routes import CallRouter
from api.deps import CurrentUser, SessionDep
from api.routes.members import delegation_view
from api.routes.pre_approvals import pre_approval_view
from api.schemas.parts import PersonView, Slug, problems, view_of
from api.schemas.unapproved_access import (
    BreakGlassAllowanceView,
    GivenConsentView,
    OpenedLatelyView,
    ReportingGateView,
    UnapprovedAccessView,
)
from lockbox.admin import unapproved_access
from lockbox.admin.unapproved_access import BreakGlassAllowance, UnapprovedWay

router = CallRouter()


@router.get("/v1/tenants/{slug}/unapproved-access", tags=["tenants"], responses=problems(404))
def get_unapproved_access(slug: Slug, who: CurrentUser, session: SessionDep) -> UnapprovedAccessView:
    """Show what access can open at a tenant without its approval: who can open it, how often and until when.

    For its admins, approvers and auditors. `opened` says for each way what was opened in the last 90 days.
    """
    found = unapproved_access.of_tenant(session, who, slug)
    return UnapprovedAccessView(
        tenant=found.tenant.slug,
        at=found.at,
        since=found.since,
        ways=sorted(found.ways),
        mode=found.mode,
        consent=GivenConsentView(mode=found.consent.mode, until=found.consent.until) if found.consent else None,
        policy_verified=found.is_verified,
        gates=[ReportingGateView(service=gate.service, since=gate.since) for gate in found.gates],
        pre_approvals=[pre_approval_view(session, who, grant) for grant in found.pre_approvals],
        break_glass=_break_glass(found.break_glass) if found.break_glass else None,
        delegations=[delegation_view(delegation) for delegation in found.delegations],
        opened=[
            OpenedLatelyView(way=way, count=one.count, newest=one.newest, at=one.at)
            for way in UnapprovedWay
            for one in [found.opened[way]]
        ],
    )


def _break_glass(allowed: BreakGlassAllowance) -> BreakGlassAllowanceView:
    people = allowed.people
    named = None if people is None else [PersonView(id=one, name=name) for one, name in people.items()]
    return view_of(BreakGlassAllowanceView, allowed, people=named, access_window=allowed.ceiling)
