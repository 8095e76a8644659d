"""The page that greets a new member."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query, Request, Response

from api import browser
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal import navigation
from api.portal.pages import TAG, page
from api.portal.user_agents import known_as
from lockbox.admin import first_passkeys, tenants
from lockbox.database import UnitOfWork
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import identities
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications.mail_text import ROLE_WORDINGS, RoleWording, roles_in_words

router = CallRouter(prefix="/welcome", tags=[TAG], include_in_schema=False)

HERE = "/welcome"
DECIDES = frozenset({Role.APPROVER, Role.TENANT_ADMIN, Role.MANAGER, Role.ENGINEER})
READS_THE_LOG = frozenset({Role.AUDITOR, Role.VENDOR_AUDITOR})


@dataclass(frozen=True)
class Place:
    """`tenant` is None for the vendor."""

    tenant: str | None
    roles: str
    wordings: Sequence[RoleWording]


@router.get("")
def show(
    request: Request, chosen: SettingsDep, session: SessionDep, later: Annotated[str, Query(max_length=3)] = ""
) -> Response:
    visitor = browser.visitor(request, session, chosen)
    caller = visitor.caller
    is_weak = caller.means is AuthMethod.MAIL and not identities.is_bound(session, caller, chosen.issuers)
    held = {standing.role for standing in caller.standings}
    return page(
        request,
        "welcome",
        visitor=visitor,
        asks_for_passkey=is_weak and chosen.passkey_domain is not None and not later,
        device=known_as(request.headers.get("user-agent")),
        places=_places(session, caller),
        waits=first_passkeys.waits(session, caller),
        decides=bool(held & DECIDES),
        reads_the_log=bool(held & READS_THE_LOG),
        onward=navigation.first(caller),
    )


def _places(session: UnitOfWork, caller: Caller) -> list[Place]:
    is_customer = caller.side is Side.CUSTOMER
    names = {one.tenant.id: one.tenant.name for one in tenants.own(session, caller)} if is_customer else {}
    held = {standing.tenant_id for standing in caller.standings}
    places = sorted(held, key=lambda tenant_id: names.get(tenant_id, "") if tenant_id else "")
    roles = {place: {one.role for one in caller.standings if one.tenant_id == place} for place in places}
    return [
        Place(
            names.get(place) if place else None,
            roles_in_words(roles[place]),
            [wording for role, wording in ROLE_WORDINGS.items() if role in roles[place]],
        )
        for place in places
    ]
