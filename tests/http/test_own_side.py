"""A tenant's own data, route by route: not found for strangers, and not changed by the vendor's operators."""

from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from httpx import Response

from api.app import make_app, make_database
from config.settings import Settings
from lockbox.sql import new_id
from tests.database.scenes import read
from tests.each import each
from tests.http.door import Door, OpenDoor, facts
from tests.http.places import RouteExample, place_of

NOWHERE = Settings(environment="test", database_url="postgresql://nobody@localhost/x", redis_url="redis://localhost")
ROUTES = sorted(
    f"{method} {route.path}"
    for route in iter_route_contexts(make_app(NOWHERE, make_database(NOWHERE)).routes)
    for method in route.methods or ()
    if str(route.path).startswith("/v1/tenants/{slug}")
)
APPROVAL = "POST /v1/tenants/{slug}/pre-approvals/{pre_approval_id}/approve"
PROPOSAL = "DELETE /v1/tenants/{slug}/recovery/{invitation_id}"
DECLARED = "POST /v1/tenants/{slug}/outside-access"
PROBED = "POST /v1/tenants/{slug}/gate-probes"
OPERATORS = [
    r
    for r in ROUTES
    if r.endswith(("/suspend", "/resume", "/plan", "/recovery")) or r in {PROPOSAL, DECLARED, PROBED}
]
# What either side does for itself.
BOTH_SIDES = ["GET /v1/tenants/{slug}/data", "PUT /v1/tenants/{slug}/hold", "DELETE /v1/tenants/{slug}/hold"]
OWN_SIDE = """
SELECT (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.id) FROM tenants t WHERE t.id = :t) AS tenant,
    (SELECT jsonb_agg(to_jsonb(m) ORDER BY m.id) FROM memberships m WHERE m.tenant_id = :t) AS members,
    (SELECT jsonb_agg(to_jsonb(p) ORDER BY p.version) FROM policies p WHERE p.tenant_id = :t) AS policies,
    (SELECT jsonb_agg(to_jsonb(i) ORDER BY i.id) FROM invitations i WHERE i.tenant_id = :t) AS invitations,
    (SELECT jsonb_agg(to_jsonb(d) ORDER BY d.id) FROM delegations d WHERE d.tenant_id = :t) AS delegations,
    (SELECT jsonb_agg(to_jsonb(e) ORDER BY e.person_id) FROM eligible_delegates e WHERE e.tenant_id = :t) AS eligible,
    (SELECT jsonb_agg(to_jsonb(p) ORDER BY p.id) FROM pre_approvals p WHERE p.tenant_id = :t) AS pre_approvals,
    (SELECT jsonb_agg(to_jsonb(h) ORDER BY h.id) FROM legal_holds h WHERE h.tenant_id = :t AND h.side = 'customer')
        AS holds,
    (SELECT jsonb_agg(to_jsonb(o)) FROM offboardings o WHERE o.tenant_id = :t) AS offboarding,
    (SELECT jsonb_agg(to_jsonb(k)) FROM retentions k WHERE k.tenant_id = :t) AS retention,
    (SELECT jsonb_agg(to_jsonb(e) ORDER BY e.id) FROM events e WHERE e.tenant_id = :t) AS events
"""


@pytest.fixture(scope="module")
def shared(open_door: OpenDoor) -> Door:
    door = open_door()
    door.add_outsider(open_door())
    return door


def call(door: Door, who: str, route: str, slug: str, place: RouteExample) -> Response:
    method, path = route.split()
    parts: dict[str, Any] = {"json": place.body, "headers": place.headers} if place.body else {}
    return door.call(who, method, path.format(slug=slug, **place.ids), **parts)


def own_side(door: Door) -> dict[str, Any]:
    (row,) = read(door.root, OWN_SIDE, t=door.world.tenant.id)
    return dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


@each("route", ROUTES)
def test_people_of_another_tenant_can_use_no_route_of_a_tenant(shared: Door, route: str) -> None:
    place = place_of(shared, route)
    before = own_side(shared)

    theirs = call(shared, "zoe", route, shared.world.tenant.slug, place)
    nobodys = call(shared, "zoe", route, "no-such-tenant", place)

    facts(theirs, 404, "not-found")
    assert theirs.content == nobodys.content
    assert set(theirs.headers) == set(nobodys.headers)
    assert own_side(shared) == before


@each("route", [*OPERATORS, *BOTH_SIDES])
def test_operators_may_not_change_members_policy_or_mode_of_a_tenant(fresh_door: Door, route: str) -> None:
    place = place_of(fresh_door, route)
    before = own_side(fresh_door)

    answer = call(fresh_door, "olga", route, fresh_door.world.tenant.slug, place)

    after = own_side(fresh_door)
    assert answer.is_success
    for what in (
        "members",
        "policies",
        "delegations",
        "eligible",
        "pre_approvals",
        "holds",
        "offboarding",
        "retention",
    ):
        assert after[what] == before[what]
    assert after["tenant"][0]["mode"] == before["tenant"][0]["mode"]


@each("route", [route for route in ROUTES if "_id}" in route])
def test_ids_of_another_tenant_are_not_found_under_the_callers_own_tenant(
    shared: Door, fresh_door: Door, route: str
) -> None:
    elsewhere, who = fresh_door, {PROPOSAL: "olga", APPROVAL: "ann"}.get(route, "tara")
    place = place_of(elsewhere, route)
    before = own_side(elsewhere)

    theirs = call(shared, who, route, shared.world.tenant.slug, place)
    nobodys = call(
        shared,
        who,
        route,
        shared.world.tenant.slug,
        RouteExample(dict.fromkeys(place.ids, new_id()), place.body, place.headers),
    )

    facts(theirs, 404, "not-found")
    assert theirs.content == nobodys.content
    assert own_side(elsewhere) == before
