"""Set the time zone of pages and mails and whether to get prompts, on the account page."""

from typing import Annotated, Literal

from fastapi import Form, Response

from api.browser import Visitor
from api.call_routes import CallRouter
from api.portal.account.profile import HERE, LONGEST_PATH, AccountContextDep, done
from api.portal.pages import TAG, go, local
from lockbox.database import UnitOfWork
from lockbox.identity import time_zones
from lockbox.notifications import addresses

router = CallRouter(prefix="/account/preferences", tags=[TAG], include_in_schema=False)


@router.post("")
def choose_time_zone(
    work: AccountContextDep,
    time_zone: Annotated[str, Form(max_length=time_zones.LONGEST)] = "",
    path: Annotated[str, Form(alias="next", max_length=LONGEST_PATH)] = HERE,
) -> Response:
    """Set the time zone of the person's pages and mails, and go back to where that was offered."""

    def deed(session: UnitOfWork, visitor: Visitor) -> Response:
        addresses.choose_time_zone(session, visitor.caller, time_zone.strip())
        return go(work.request, local(path))

    return done(work, "time-zone", deed, time_zone)


@router.post("/prompts")
def choose_prompts(work: AccountContextDep, prompts: Annotated[Literal["yes", "no"], Form()] = "yes") -> Response:
    """Set whether the person gets prompts by mail."""

    def deed(session: UnitOfWork, visitor: Visitor) -> None:
        addresses.choose_prompts(session, visitor.caller, work.place, wanted=prompts == "yes")

    return done(work, "prompts", deed)
