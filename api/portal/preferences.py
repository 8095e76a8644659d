"""Choosing on the account's page what mails are to be like: in which time zone they tell the time."""

from typing import Annotated

from fastapi import APIRouter, Form, Response

from api.portal.account import HERE, AtDesk
from api.portal.pages import TAG, go
from lockbox.people import preferences, zones

router = APIRouter(prefix="/account/preferences", tags=[TAG], include_in_schema=False)


@router.post("")
def choose(work: AtDesk, time_zone: Annotated[str, Form(max_length=zones.LONGEST)] = "") -> Response:
    """Let mails tell the person the time in another zone."""
    with work.open() as (session, visitor):
        preferences.choose_time_zone(session, visitor.caller, time_zone.strip())
    return go(work.request, HERE)
