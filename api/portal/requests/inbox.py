"""The inbox."""

from contextlib import suppress
from typing import Annotated

from fastapi import Query, Request, Response

from api import browser
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal.pages import TAG, page
from api.portal.requests.selection import grouped
from lockbox import database
from lockbox.admin import pre_approval_status, recovery
from lockbox.database import now
from lockbox.errors import Invalid
from lockbox.identity import roles
from lockbox.identity.roles import ProtectedField
from lockbox.requests import after_reviews, inbox
from lockbox.requests.models import AccessRequest

router = CallRouter(tags=[TAG], include_in_schema=False)

Cursor = Annotated[str, Query(max_length=60)]


@router.get("/waiting")
def show_waiting(request: Request, chosen: SettingsDep, session: SessionDep, after: Cursor = "") -> Response:
    session.foresee(_ahead(after or None))
    visitor = browser.visitor(request, session, chosen)

    def reads_why(asked: AccessRequest) -> bool:
        held = roles.reader_roles(visitor.caller, asked.requester_id, asked.tenant_id)
        return roles.may_read(ProtectedField.JUSTIFICATION, held)

    read = inbox.pending_requests(session, visitor.caller, cursor=after or None)
    return page(
        request,
        "inbox",
        visitor=visitor,
        waiting=read.pending,
        groups=grouped(read.pending, lambda one: one.entry),
        next_cursor=read.beyond,
        is_first=not after,
        beforehand=pre_approval_status.awaiting(session, visitor.caller),
        proposals=recovery.open_for(session, visitor.caller),
        findings=after_reviews.due_findings(session, visitor.caller, read.known),
        titles=chosen.catalogue.titles,
        reads_why=reads_why,
        at=visitor.at,
    )


def _ahead(cursor: str | None) -> list[database.Query]:
    with suppress(Invalid):
        return [
            *inbox.ahead_of_pending(cursor),
            pre_approval_status.ahead_of_awaiting(),
            recovery.ahead_of_open_for(),
            after_reviews.ahead_of_due_findings(),
        ]
    return []


@router.get("/open")
def show_open(request: Request, chosen: SettingsDep, session: SessionDep, after: Cursor = "") -> Response:
    visitor = browser.visitor(request, session, chosen)
    inside, beyond = inbox.open_windows(session, visitor.caller, cursor=after or None)
    return page(
        request,
        "open_windows",
        visitor=visitor,
        inside=inside,
        next_cursor=beyond,
        is_first=not after,
        titles=chosen.catalogue.titles,
        at=now(session),
    )
