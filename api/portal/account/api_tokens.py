"""Create and revoke API tokens on the account page; a new token is shown once."""

import re
from typing import Annotated
from uuid import UUID

from fastapi import Form, Response

from api.browser import Visitor
from api.call_routes import CallRouter
from api.portal import phrases
from api.portal.account.profile import HERE, AccountContextDep, done, line
from api.portal.pages import TAG, page
from api.routes.tokens import TokenRulesDep
from lockbox.database import UnitOfWork
from lockbox.facts.bounds import Word
from lockbox.identity import token_creation
from lockbox.identity.roles import Scope
from lockbox.identity.token_creation import TokenInput

router = CallRouter(prefix="/account/tokens", tags=[TAG], include_in_schema=False)

LONGEST_NAME = 100
MOST_SERVICES = 200
LONGEST_TENANTS = 2000
SLUG_BREAKS = re.compile(r"[\s,;]+")


@router.post("/new")
def make(
    work: AccountContextDep,
    laid_down: TokenRulesDep,
    name: Annotated[str, Form(max_length=LONGEST_NAME)] = "",
    scopes: Annotated[frozenset[Scope], Form(max_length=len(Scope))] = frozenset(),
    services: Annotated[frozenset[Word], Form(max_length=MOST_SERVICES)] = frozenset(),
    tenants: Annotated[str, Form(max_length=LONGEST_TENANTS)] = "",
) -> Response:
    """Create a token for a freshly signed-in person, and show it on this page only."""

    def deed(session: UnitOfWork, visitor: Visitor) -> Response:
        bound_to = frozenset(SLUG_BREAKS.split(tenants.strip())) - {""}
        called = line(name, phrases.TOKEN) or phrases.TOKEN
        wanted = TokenInput(called, scopes=scopes, services=services, tenants=bound_to)
        issued = token_creation.make(session, visitor.caller, work.place, wanted, laid_down)
        return page(
            work.request, "api_token", visitor=visitor, issued=issued, public_url=work.chosen.public_url, back=HERE
        )

    return done(work, "tokens", deed, name, ticked=scopes | services)


@router.post("/revoke")
def revoke(work: AccountContextDep, one: Annotated[UUID, Form(alias="id")]) -> Response:
    """Revoke one of the person's tokens."""
    return done(work, "tokens", lambda session, who: token_creation.revoke(session, who.caller, work.place, one))
