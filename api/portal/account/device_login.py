"""The page on which a person allows a device login by its code."""

from typing import Annotated, Literal

from fastapi import Form, Request, Response

from api import browser, deps
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal.pages import TAG, FormContext, FormContextDep, page, status_of
from api.portal.sign_in import session as sign_in_session
from lockbox.errors import Invalid, NotYours, SignInAgain
from lockbox.identity import device_login

router = CallRouter(prefix="/device", tags=[TAG], include_in_schema=False)

Code = Annotated[str, Form(max_length=100)]
Answer = Annotated[Literal["allow", "refuse"], Form()]


@router.get("")
def show(request: Request, chosen: SettingsDep, session: SessionDep) -> Response:
    """The person must type the code: no link contains it."""
    visitor = browser.visitor(request, session, chosen)
    return page(request, "device_login", visitor=visitor, refused=None, needs_sign_in=False, code="")


@router.post("")
def look(work: FormContextDep, code: Code = "") -> Response:
    _count(work)
    here = deps.address(work.request)
    try:
        with work.open() as (session, visitor):
            found = device_login.pending_for_code(session, visitor.caller, code)
            return page(
                work.request,
                "device_login_confirmation",
                visitor=visitor,
                asks=found,
                called_from=here,
                is_here=here is not None and found.address == here,
                code=code,
                minutes=int(device_login.SIGNED_IN_FOR.total_seconds() // 60),
            )
    except (Invalid, NotYours) as refused:
        return _refused(work, refused, code)


@router.post("/answer")
def answer(work: FormContextDep, said: Annotated[Literal["allow", "refuse"], Form()], code: Code = "") -> Response:
    _count(work)
    allowed = said == "allow"
    try:
        with work.open() as (session, visitor):
            device_login.answer(session, visitor.caller, work.place, code, allowed=allowed)
            return page(work.request, "device_login_done", visitor=visitor, allowed=allowed)
    except (Invalid, NotYours) as refused:
        return _refused(work, refused, code)


def _count(work: FormContext) -> None:
    with work.open() as (_, visitor):
        account = f"device login of {visitor.caller.person_id}"
    sign_in_session.count(work.request, work.chosen, work.db, account=account)


def _refused(work: FormContext, refused: Invalid | NotYours, code: str) -> Response:
    with work.open() as (_, visitor):
        return page(
            work.request,
            "device_login",
            status_of(refused),
            visitor=visitor,
            refused=refused,
            code=code,
            needs_sign_in=isinstance(refused, SignInAgain),
        )
