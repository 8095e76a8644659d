"""Routes of watchers, whom a tenant has copied, and of the preview of whom a request would reach."""

from uuid import UUID

from fastapi import APIRouter, Depends

from api.deps import Chosen, From, Who, Work
from api.rate_limits import name_an_address
from api.schemas.addresses import NewWatcher, WatcherList, WatcherView
from api.schemas.parts import Named, Slug, problems
from api.schemas.requests import ForeseenView, Needed, WhatIf
from lockbox.admin import observers, what_if
from lockbox.admin.observers import Listed, Wanted
from lockbox.requests.policy_rules import Ask

router = APIRouter(prefix="/v1/tenants/{slug}/watchers", tags=["tenants"])
foresight = APIRouter(prefix="/v1/tenants/{slug}/preview", tags=["tenants"])


@router.get("", responses=problems(404))
def list_watchers(slug: Slug, who: Who, session: Work) -> WatcherList:
    """List who is copied, to the tenant's members."""
    return WatcherList(items=[_view(one) for one in observers.listed(session, who, slug)])


@router.post("", status_code=201, responses=problems(400, 404, 409, 429), dependencies=[Depends(name_an_address)])
def add_watcher(slug: Slug, body: NewWatcher, who: Who, came: From, session: Work, chosen: Chosen) -> WatcherView:
    """Have somebody copied who decides nothing, as the tenant's admin with a fresh sign-in."""
    wanted = Wanted(body.name, body.address, body.service)
    return _view(observers.add(session, who, came, slug, wanted, services=chosen.services))


@router.delete("/{watcher_id}", status_code=204, responses=problems(404))
def remove_watcher(slug: Slug, watcher_id: UUID, who: Who, came: From, session: Work) -> None:
    """Have somebody copied no longer, as the tenant's admin."""
    observers.remove(session, who, came, slug, watcher_id)


@foresight.post("", responses=problems(400, 404))
def preview(slug: Slug, body: WhatIf, who: Who, session: Work, chosen: Chosen) -> ForeseenView:
    """Say to the tenant's members whom such a request would reach and where; nothing is written, nobody is told."""
    ask = Ask(body.service, tuple(body.actions), body.reason_code, tuple(body.resources))
    found = what_if.foresee(session, who, slug, ask, chosen.services)
    stages = [Needed(group=one.name, approvals=one.approvals, people=list(one.people)) for one in found.stages]
    return ForeseenView.model_validate({**vars(found), "stages": stages}, from_attributes=True)


def _view(listed: Listed) -> WatcherView:
    one = listed.watcher
    return WatcherView(
        id=one.id,
        name=one.name,
        address=one.email,
        service=one.service,
        added_by=Named(id=one.added_by, name=listed.added_by),
        created_at=one.created_at,
    )
