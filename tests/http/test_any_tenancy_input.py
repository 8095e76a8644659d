"""Whatever comes in for tenants and people, the answer is a success or a problem document, and no internal error."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockbox.sql import new_id
from tests.database.tenancy import id_of
from tests.examples import examples
from tests.http.door import Door
from tests.http.places import eligible, endpoint, pre_approval, somebody
from tests.http.test_any_input import ANYTHING, TEXTS, good_or_refused

FIELDS = st.sampled_from(
    [
        "slug",
        "name",
        "address",
        "admin",
        "plan",
        "mode",
        "roles",
        "eligible",
        "delegate",
        "principal",
        "starts_at",
        "ends_at",
        "quorum",
        "groups",
        "stages",
        "tiers",
        "rules",
        "consent",
        "url",
        "event_types",
        "description",
        "format",
        "with_justification",
        "days",
        "reason",
        "text",
        "version",
    ]
)
CHANGES = st.dictionaries(FIELDS | TEXTS, ANYTHING, max_size=4)
CALLS = [
    ("olga", "POST", "/v1/tenants"),
    ("olga", "PUT", "/v1/tenants/{slug}/plan"),
    ("tara", "PUT", "/v1/tenants/{slug}/mode"),
    ("tara", "PUT", "/v1/tenants/{slug}/name"),
    ("tara", "POST", "/v1/tenants/{slug}/emergency-stop"),
    ("tara", "PUT", "/v1/tenants/{slug}/policy"),
    ("tara", "POST", "/v1/tenants/{slug}/members"),
    ("tara", "PUT", "/v1/tenants/{slug}/members/{person_id}"),
    ("tara", "POST", "/v1/tenants/{slug}/delegations"),
    ("tara", "POST", "/v1/tenants/{slug}/pre-approvals"),
    ("tara", "PUT", "/v1/tenants/{slug}/retention"),
    ("tara", "PUT", "/v1/tenants/{slug}/hold"),
    ("olga", "PUT", "/v1/exclusions"),
    ("tara", "PUT", "/v1/tenants/{slug}/exclusions"),
    ("olga", "POST", "/v1/tenants/{slug}/recovery"),
    ("olga", "POST", "/v1/vendor/members"),
    ("tara", "POST", "/v1/tenants/{slug}/endpoints"),
    ("tara", "PATCH", "/v1/endpoints/{endpoint_id}"),
]


@pytest.mark.far
@pytest.mark.parametrize(("who", "method", "path"), CALLS)
@settings(
    max_examples=examples(25, near=10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=CHANGES)
def test_an_arbitrary_body_of_an_admin_call_causes_no_internal_error(
    door: Door, who: str, method: str, path: str, changes: dict[str, Any]
) -> None:
    good = {
        "/v1/tenants": {"slug": f"new-{new_id().hex[-12:]}", "name": "New", "admin": somebody()},
        "/v1/tenants/{slug}/members": somebody() | {"roles": ["auditor"]},
        "/v1/tenants/{slug}/members/{person_id}": {"roles": ["approver"]},
        "/v1/tenants/{slug}/delegations": {"delegate": str(eligible(door)), "ends_at": "2030-01-01T00:00:00Z"},
        "/v1/tenants/{slug}/pre-approvals": pre_approval(),
        "/v1/tenants/{slug}/retention": {"days": 400},
        "/v1/tenants/{slug}/hold": {"reason": "A dispute"},
        "/v1/exclusions": {"text": "Demands by law are not covered."},
        "/v1/tenants/{slug}/exclusions": {"version": 1},
        "/v1/tenants/{slug}/recovery": somebody(),
        "/v1/vendor/members": somebody() | {"roles": ["engineer"]},
        "/v1/tenants/{slug}/endpoints": {"url": "https://hooks.contoso.example/"},
    }.get(path, {})
    address = path.format(slug=door.world.tenant.slug, person_id=id_of(door.world, "abe"), endpoint_id=endpoint(door))
    headers = {"content-type": "application/json", "if-match": "*"}

    answer = door.call(who, method, address, content=json.dumps(good | changes), headers=headers)

    good_or_refused(answer)


@pytest.mark.far
@settings(max_examples=examples(40, near=10), deadline=None)
@given(st.dictionaries(st.sampled_from(["cursor", "limit", "version", "before", "x"]), TEXTS, max_size=3))
def test_an_arbitrary_query_of_an_admin_call_causes_no_internal_error(door: Door, query: dict[str, str]) -> None:
    sendable = {name: value.encode("utf-8", "replace").decode() for name, value in query.items()}

    for path in ("/v1/tenants", f"/v1/tenants/{door.world.tenant.slug}/members", "/v1/vendor/members"):
        good_or_refused(door.get("olga" if "vendor" in path else "tara", path, **sendable))
    for tail in ("", "/versions"):
        good_or_refused(door.get("tara", f"/v1/tenants/{door.world.tenant.slug}/policy{tail}", **sendable))
