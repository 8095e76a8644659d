"""Routes for what probes of gateways found, by the vendor's operators."""

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep, SettingsDep
from api.schemas.gate import GateProbeView, NewGateProbe
from api.schemas.parts import Slug, problems
from gate import probe_records
from gate.probe_records import ProbeResult

router = CallRouter(prefix="/v1/tenants/{slug}/gate-probes", tags=["vendor"])


@router.post("", status_code=201, responses=problems(400, 404, 409))
def record_gate_probe(
    slug: Slug,
    body: NewGateProbe,
    who: CurrentUser,
    came: RequestOrigin,
    session: SessionDep,
    chosen: SettingsDep,
) -> GateProbeView:
    """Record what a probe of the gateway in front of a service found, as an operator.

    It is an event of the tenant's log and stands on the tenant's page; nobody is notified.
    """
    result = ProbeResult(body.service, body.gateway, body.refused, body.let_through)
    recorded = probe_records.record(session, who, came, slug, result, services=chosen.catalogue.services)
    return GateProbeView(**body.model_dump(), at=recorded.at)
