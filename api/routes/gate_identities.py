"""Routes for the gate's identity map."""

from typing import Annotated
from uuid import UUID

from fastapi import Query

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep, SettingsDep
from api.schemas.gate import GateIdentityPage, GateIdentityView, NewGateIdentity
from api.schemas.parts import PersonView, problems, view_of
from gate import engineers, identity_map
from gate.identity_map import MappedIdentity, MappingInput

router = CallRouter(prefix="/v1/gate/identities", tags=["vendor"])


@router.get("", responses=problems())
def list_gate_identities(
    who: CurrentUser,
    session: SessionDep,
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=identity_map.MOST_A_PAGE)] = 50,
) -> GateIdentityPage:
    """List the identities that are mapped to engineers. For the vendor's operators and auditors."""
    page = identity_map.page(session, who, cursor=cursor, most=limit)
    return GateIdentityPage(items=[_view(identity) for identity in page.identities], next_cursor=page.next_cursor)


@router.post("", status_code=201, responses=problems(400, 409))
def add_gate_identity(
    body: NewGateIdentity, who: CurrentUser, origin: RequestOrigin, session: SessionDep, chosen: SettingsDep
) -> GateIdentityView:
    """Map an identity to an engineer other than the caller, as an operator with a fresh sign-in.

    The issuer is one of the catalogue's issuers, `mtls:` and a service (for subjects of certificates), or `header:`
    and the id of a gateway's service account. The subject is compared exactly.
    """
    wanted = MappingInput(body.issuer, body.subject, body.person_id)
    return _view(identity_map.add(session, who, origin, wanted, engineers.issuer_names(chosen.catalogue)))


@router.delete("/{identity_id}", status_code=204, responses=problems(404))
def remove_gate_identity(identity_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> None:
    """Remove an identity from the map, as an operator with a fresh sign-in."""
    identity_map.remove(session, who, origin, identity_id)


def _view(mapped: MappedIdentity) -> GateIdentityView:
    row = mapped.row
    return view_of(GateIdentityView, row, person=PersonView(id=row.person_id, name=mapped.person))
