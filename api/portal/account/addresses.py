"""Add, confirm and remove further addresses on the account page."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Form, Response
from pydantic import TypeAdapter, ValidationError

from api import address_limits
from api.browser import Visitor
from api.call_routes import CallRouter
from api.portal import phrases
from api.portal.account.profile import AccountContextDep, done
from api.portal.pages import TAG
from api.schemas.members import Address
from lockbox.database import UnitOfWork
from lockbox.errors import Invalid
from lockbox.notifications import addresses

router = CallRouter(prefix="/account/addresses", tags=[TAG], include_in_schema=False)

ADDRESSES = TypeAdapter[str](Address)

One = Annotated[UUID, Form(alias="id")]


@router.post("")
def add(work: AccountContextDep, email: Annotated[str, Form(max_length=320)] = "") -> Response:
    """Add an address and have a code mailed to it."""

    def deed(session: UnitOfWork, visitor: Visitor) -> None:
        addresses.add(session, visitor.caller, work.place, _address(email))

    return done(work, "address", deed, email, first=lambda who: address_limits.count(work.db, who))


@router.post("/confirm")
def confirm(work: AccountContextDep, one: One, code: Annotated[str, Form(max_length=100)] = "") -> Response:
    """Confirm an address with the mailed code."""

    def deed(session: UnitOfWork, visitor: Visitor) -> None:
        addresses.confirm(session, visitor.caller, work.place, one, code)

    return done(work, str(one), deed, code)


@router.post("/prompts")
def choose(work: AccountContextDep, one: One, prompts: Annotated[Literal["yes", "no"], Form()] = "yes") -> Response:
    """Set whether prompts, reminders and outcomes go to an address."""

    def deed(session: UnitOfWork, visitor: Visitor) -> None:
        addresses.choose(session, visitor.caller, work.place, one, prompts=prompts == "yes")

    return done(work, str(one), deed)


@router.post("/remove")
def remove(work: AccountContextDep, one: One) -> Response:
    """Remove an address."""
    return done(work, str(one), lambda session, who: addresses.remove(session, who.caller, work.place, one))


def _address(typed: str) -> str:
    try:
        return ADDRESSES.validate_python(typed.strip())
    except ValidationError:
        raise Invalid(phrases.ONE_ADDRESS, field="email") from None
