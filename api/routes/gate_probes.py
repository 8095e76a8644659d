"""Routes for the results of gateway probes."""

from typing import Annotated
from uuid import UUID

from fastapi import Query

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep, SettingsDep
from api.schemas.gate import GateProbePage, GateProbeView, NewGateProbe
from api.schemas.parts import Slug, problems
from lockbox.admin import gate_probes
from lockbox.admin.gate_probes import ProbeResult

router = CallRouter(prefix="/v1/tenants/{slug}/gate-probes")


@router.post("", tags=["vendor"], status_code=201, responses=problems(400, 404, 409))
def record_gate_probe(
    slug: Slug,
    body: NewGateProbe,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    chosen: SettingsDep,
) -> GateProbeView:
    """As an operator, record what a probe of the gateway in front of a service found.

    The result is recorded in the tenant's log and shown on the tenant's page. No one is notified.
    """
    result = ProbeResult(body.service, body.gateway, body.refused, body.let_through)
    recorded = gate_probes.record(session, who, origin, slug, result, services=chosen.catalogue.services)
    return GateProbeView.of(recorded)


@router.get("", tags=["tenants"], responses=problems(404))
def list_gate_probes(
    slug: Slug,
    who: CurrentUser,
    session: SessionDep,
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=gate_probes.MOST_A_PAGE)] = 50,
) -> GateProbePage:
    """List the results of gateway probes to the tenant's members, the newest first."""
    page = gate_probes.page(session, who, slug, cursor=cursor, most=limit)
    return GateProbePage(items=[GateProbeView.of(probe) for probe in page.probes], next_cursor=page.next_cursor)
