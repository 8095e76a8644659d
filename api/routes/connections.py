"""Routes for a request's connections at targets."""

from uuid import UUID

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep, SettingsDep
from api.schemas.connections import ConnectionList, NewCredential
from api.schemas.parts import problems
from connectors import credential_requests
from connectors.credential_requests import ConnectionStatus

router = CallRouter(prefix="/v1/requests", tags=["requests"])


@router.post("/{request_id}/credential", status_code=202, responses=problems(400, 404, 409))
def request_credential(
    request_id: UUID,
    body: NewCredential,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    chosen: SettingsDep,
) -> ConnectionStatus:
    """Open the target system to the window's engineer, who signs in with the password that `verifier` was made from.

    The connection opens within seconds and is closed at the window's end at the latest. Earlier credentials of the
    request are closed. A request has at most three credentials that are not closed yet.
    """
    return credential_requests.request_credential(
        session, who, origin, request_id, verifier=body.verifier, catalogue=chosen.catalogue
    )


@router.get("/{request_id}/connections", responses=problems(404))
def list_connections(request_id: UUID, who: CurrentUser, session: SessionDep, chosen: SettingsDep) -> ConnectionList:
    """List the connections that were opened at target systems for a request."""
    return ConnectionList(items=credential_requests.connections(session, who, request_id, chosen.catalogue))
