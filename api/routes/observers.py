"""Routes for a tenant's observers, and the preview of a request's recipients."""

from uuid import UUID

from fastapi import Depends

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep, SettingsDep
from api.rate_limits import count_address
from api.schemas.addresses import NewObserver, ObserverList, ObserverView
from api.schemas.parts import PersonView, Slug, problems, view_of
from api.schemas.previews import WhatIfInput
from lockbox.admin import observers, what_if
from lockbox.admin.observers import ObserverInput, ObserverSummary
from lockbox.admin.what_if import WhatIfResult
from lockbox.requests.policy_rules import RequestFacts

router = CallRouter(prefix="/v1/tenants/{slug}/observers", tags=["tenants"])
what_if_router = CallRouter(prefix="/v1/tenants/{slug}/preview", tags=["tenants"])


@router.get("", responses=problems(404))
def list_observers(slug: Slug, who: CurrentUser, session: SessionDep) -> ObserverList:
    """List the observers, to the tenant's members."""
    return ObserverList(items=[_view(one) for one in observers.listed(session, who, slug)])


@router.post("", status_code=201, responses=problems(400, 404, 409, 429), dependencies=[Depends(count_address)])
def add_observer(
    slug: Slug, body: NewObserver, who: CurrentUser, origin: RequestOrigin, session: SessionDep, chosen: SettingsDep
) -> ObserverView:
    """As the tenant's admin with a fresh sign-in, add an observer, who gets copies and decides nothing."""
    wanted = ObserverInput(body.name, body.address, body.service)
    return _view(observers.add(session, who, origin, slug, wanted, services=chosen.catalogue.services))


@router.delete("/{observer_id}", status_code=204, responses=problems(404, 409))
def remove_observer(
    slug: Slug, observer_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> None:
    """Remove an observer, as the tenant's admin."""
    observers.remove(session, who, origin, slug, observer_id)


@what_if_router.post("", responses=problems(400, 404))
def preview_policy(
    slug: Slug, body: WhatIfInput, who: CurrentUser, session: SessionDep, chosen: SettingsDep
) -> WhatIfResult:
    """Preview which people a hypothetical request would reach, and where. Nothing is written or sent.

    For the tenant's members.
    """
    ask = RequestFacts.of(body, requester=body)
    return what_if.preview_request(session, who, slug, ask, chosen.catalogue.services)


def _view(listed: ObserverSummary) -> ObserverView:
    one = listed.observer
    added_by = PersonView(id=one.added_by, name=listed.added_by)
    return view_of(ObserverView, one, address=one.email, added_by=added_by)
