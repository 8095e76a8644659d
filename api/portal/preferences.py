"""Choosing on the account's page what mails are to be like: their time zone, and whether prompts are among them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Response

from api.portal.account import HERE, AtDesk
from api.portal.pages import TAG, go
from lockbox.people import preferences, zones

router = APIRouter(prefix="/account/preferences", tags=[TAG], include_in_schema=False)


@router.post("")
def choose_time_zone(work: AtDesk, time_zone: Annotated[str, Form(max_length=zones.LONGEST)] = "") -> Response:
    """Let mails tell the person the time in another zone."""
    with work.open() as (session, visitor):
        preferences.choose_time_zone(session, visitor.caller, time_zone.strip())
    return go(work.request, HERE)


@router.post("/prompts")
def choose_prompts(work: AtDesk, prompts: Annotated[Literal["yes", "no"], Form()] = "yes") -> Response:
    """Let the person be asked by mail, or not."""
    with work.open() as (session, visitor):
        preferences.choose_prompts(session, visitor.caller, work.place, wanted=prompts == "yes")
    return go(work.request, HERE)
