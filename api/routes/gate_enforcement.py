"""Routes for gates: whether they enforce or only report."""

from typing import Annotated

from fastapi import Query

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep
from api.schemas.gate import (
    EnforcementList,
    EnforcementView,
    GateDefinitionView,
    GateProbeView,
    GateReportView,
    ReportConsentInput,
    TenantGateList,
    TenantGateView,
    WouldDenyCallView,
    WouldDenyReasonView,
)
from api.schemas.parts import PersonView, Slug, problems, view_of
from gate import enforcement, gate_report
from gate.enforcement import EnforcementOverview, TenantGate
from gate.gate_report import WouldDenyCall, WouldDenyReason
from lockbox.facts.bounds import Word

router = CallRouter()


@router.get("/v1/gate/enforcement", tags=["vendor"], responses=problems())
def list_gate_enforcement(who: CurrentUser, session: SessionDep) -> EnforcementList:
    """List what the gate of each service does, to the vendor's operators and auditors.

    `wanted` is what the catalogue says. `reporting` counts the tenants for which the gate only reports.
    """
    return EnforcementList(items=[_overview(one) for one in enforcement.overviews(session, who)])


@router.get("/v1/gate/enforcement/{service}/report", tags=["vendor"], responses=problems(404))
def get_gate_report(
    service: Word,
    who: CurrentUser,
    session: SessionDep,
    days: Annotated[int, Query(ge=1, le=gate_report.MOST_DAYS)] = gate_report.MOST_DAYS,
) -> GateReportView:
    """Show operators and auditors which calls the gate of a service has let in but would have refused if it enforced.

    The report counts calls of the last `days`, for the tenants for which the gate only reports.
    """
    found = gate_report.of_service(session, who, service, days=days)
    return GateReportView(gate=_overview(found.gate), days=days, items=[_reason(reason) for reason in found.reasons])


@router.get("/v1/tenants/{slug}/gates", tags=["tenants"], responses=problems(404))
def list_tenant_gates(slug: Slug, who: CurrentUser, session: SessionDep) -> TenantGateList:
    """List what the gate of each service does for a tenant, to its members."""
    return TenantGateList(items=[_gate(one) for one in enforcement.of_tenant(session, who, slug)])


@router.put("/v1/tenants/{slug}/gates/{service}/report", tags=["tenants"], responses=problems(400, 404, 409))
def allow_gate_report(
    slug: Slug, service: Word, body: ReportConsentInput, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> TenantGateView:
    """Let the gate of a service only report for the tenant, as a tenant admin with a fresh sign-in.

    `revision` is the gate's revision in the list of gates. The consent is for this revision only: it ends when the
    vendor next switches the gate.
    """
    return _gate(enforcement.allow_report(session, who, origin, slug, service, revision=body.revision))


@router.delete(
    "/v1/tenants/{slug}/gates/{service}/report", tags=["tenants"], status_code=204, responses=problems(404, 409)
)
def end_gate_report(slug: Slug, service: Word, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> None:
    """As a tenant admin, withdraw the consent to a gate that only reports: the gate enforces at once."""
    enforcement.end_report(session, who, origin, slug, service)


def _reason(one: WouldDenyReason) -> WouldDenyReasonView:
    return view_of(WouldDenyReasonView, one, kinds=[_kind(kind) for kind in one.kinds])


def _kind(one: WouldDenyCall) -> WouldDenyCallView:
    engineer = PersonView(id=one.engineer_id, name=one.engineer or "") if one.engineer_id else None
    return view_of(WouldDenyCallView, one, engineer=engineer)


def _overview(one: EnforcementOverview) -> EnforcementView:
    return EnforcementView.model_validate(one, from_attributes=True)


def _gate(one: TenantGate) -> TenantGateView:
    return view_of(
        TenantGateView,
        one,
        enforced=one.is_enforced,
        report_asked=one.is_asked,
        definition=one.definition and GateDefinitionView.of(one.definition),
        probe=one.probe and GateProbeView.of(one.probe),
    )
