"""Choosing on the account's page what mails are to be like: their time zone, and whether prompts are among them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Response
from sqlmodel import Session

from api.browser import Visitor
from api.portal.account import AccountContextDep, done
from api.portal.pages import TAG
from lockbox.identity import preferences, time_zones

router = APIRouter(prefix="/account/preferences", tags=[TAG], include_in_schema=False)


@router.post("")
def choose_time_zone(
    work: AccountContextDep, time_zone: Annotated[str, Form(max_length=time_zones.LONGEST)] = ""
) -> Response:
    """Let mails tell the person the time in another zone."""

    def deed(session: Session, visitor: Visitor) -> None:
        preferences.choose_time_zone(session, visitor.caller, time_zone.strip())

    return done(work, "time-zone", deed, time_zone)


@router.post("/prompts")
def choose_prompts(work: AccountContextDep, prompts: Annotated[Literal["yes", "no"], Form()] = "yes") -> Response:
    """Let the person be asked by mail, or not."""

    def deed(session: Session, visitor: Visitor) -> None:
        preferences.choose_prompts(session, visitor.caller, work.place, wanted=prompts == "yes")

    return done(work, "prompts", deed)
