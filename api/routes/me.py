"""Routes for the caller's own identity and preferences."""

from fastapi import Response

from api.call_routes import CallRouter
from api.deps import ClientInfoDep, CurrentUser, SessionDep
from api.schemas.parts import problems
from api.schemas.people import MeView, Preferences
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import tenants
from lockbox.notifications import addresses

router = CallRouter(tags=["account"])


@router.get("/v1/me", responses=problems())
def get_me(who: CurrentUser, session: SessionDep, response: Response) -> MeView:
    """Show the caller's identity, roles and sign-in method."""
    response.headers["cache-control"] = "no-store"
    slugs, chosen = tenants.slugs(session, who.tenants()), addresses.preferences(session, who)
    return MeView(
        id=who.person_id,
        name=who.name,
        side=who.side,
        roles=sorted(who.vendor_roles()),
        tenants={
            slug: sorted(standing.role for standing in who.standings if standing.tenant_id == tenant_id)
            for tenant_id, slug in sorted(slugs.items(), key=lambda pair: pair[1])
        },
        means=who.means,
        signed_in_at=None if who.means is AuthMethod.TOKEN else who.signed_in_at,
        time_zone=chosen.time_zone,
        wants_prompts=chosen.wants_prompts,
    )


@router.patch("/v1/me", responses=problems(400))
def change_preferences(
    body: Preferences, who: CurrentUser, origin: ClientInfoDep, session: SessionDep, response: Response
) -> MeView:
    """Set the time zone of the caller's mails, and whether the caller gets prompts. API tokens may not do this."""
    if body.time_zone is not None:
        addresses.choose_time_zone(session, who, body.time_zone)
    if body.wants_prompts is not None:
        addresses.choose_prompts(session, who, origin, wanted=body.wants_prompts)
    return get_me(who, session, response)
