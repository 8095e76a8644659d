"""Text that approvers read: hidden characters are refused everywhere, and mixed alphabets are flagged."""

from typing import Any

import pytest

from lockbox.facts.enumerations import AuthMethod
from lockbox.requests.policy_rules import Policy
from tests.each import each
from tests.http.door import Door, OpenDoor, facts
from tests.http.portal import Browser, Portal
from tests.passkey_approvals import enrol

LOOKALIKE = "mailbox:\u0430nna@contoso.example"
WARNING = "mixed alphabets: Cyrillic and Latin; check each letter"
HIDDEN = ["\u200b", "\u202e", "\u3164", "\u2800", "\U000e0041"]


@each("mark", HIDDEN)
@each("field", ["justification", "case_ref", "resources"])
def test_a_request_with_a_hidden_character_is_refused(door: Door, field: str, mark: str) -> None:
    said: Any = [f"mailbox:an{mark}na"] if field == "resources" else f"an{mark}na"

    told = facts(door.file(**{field: said}), 422, "invalid-request")

    assert told["errors"][0]["field"].startswith(field)
    assert f"U+{ord(mark):04X}" in told["errors"][0]["message"]


@pytest.mark.parametrize("mark", HIDDEN)
def test_a_comment_or_question_with_a_hidden_character_is_refused(door: Door, mark: str) -> None:
    request_id = door.pending()

    for action in ("approve", "deny"):
        facts(door.act("ann", action, request_id, comment=f"y{mark}es"), 422, "invalid-request")
    asked = door.call("ann", "POST", f"/v1/requests/{request_id}/questions", json={"text": f"wh{mark}y"})

    facts(asked, 422, "invalid-request")


@pytest.mark.parametrize("name", ["N\u200bina", "See evil.example", "https://evil.example", "nina@evil.example"])
def test_a_misleading_person_or_tenant_name_is_refused(door: Door, name: str) -> None:
    slug = door.world.tenant.slug
    body = {"name": name, "address": "nina@contoso.example", "roles": ["auditor"]}

    told = [
        door.call("tara", "POST", f"/v1/tenants/{slug}/members", json=body),
        door.call("tara", "PUT", f"/v1/tenants/{slug}/name", json={"name": name}),
        door.call("olga", "POST", "/v1/vendor/members", json=body | {"roles": ["engineer"]}),
        door.call("tara", "POST", f"/v1/tenants/{slug}/observers", json={"name": name, "address": "w@c.example"}),
    ]

    for answer in told:
        assert [error["field"] for error in facts(answer, 422, "invalid-request")["errors"]] == ["name"]


def test_a_resource_not_in_composed_unicode_form_is_refused_with_the_reason(door: Door) -> None:
    told = facts(door.file(resources=["mailbox:rene\u0301@contoso.example"]), 422, "invalid-request")

    assert "composed form (NFC)" in told["errors"][0]["message"]


def test_a_resource_of_mixed_alphabets_is_flagged_in_the_api(door: Door) -> None:
    answer = door.file(resources=[LOOKALIKE, "mailbox:anna@contoso.example"])

    assert answer.json()["mixed_alphabets"] == [LOOKALIKE]
    assert door.get("ann", f"/v1/requests/{answer.json()['id']}").json()["mixed_alphabets"] == [LOOKALIKE]
    assert door.get("ann", f"/v1/requests/{door.pending()}").json()["mixed_alphabets"] == []


def test_a_resource_of_mixed_alphabets_is_flagged_on_every_page_that_prompts(portal: Portal) -> None:
    request = portal.world.submit(resources=["mailbox:bo@contoso.example", "mailbox:cy@contoso.example", LOOKALIKE])
    browser = Browser(portal)
    browser.enter("ann")

    for path in ("/waiting", f"/requests/{request.id}"):
        assert WARNING in browser.get(path).words


def test_a_resource_of_mixed_alphabets_is_flagged_on_the_page_that_asks_to_sign(portal: Portal) -> None:
    enrol(portal.world, "ann")
    request = portal.world.submit(resources=[LOOKALIKE])
    browser = Browser(portal)
    browser.enter("ann", AuthMethod.PASSKEY)

    signing = browser.submit(browser.get(f"/requests/{request.id}"), "/approve")

    assert "Sign your approval" in signing.words
    assert WARNING in signing.words


def test_a_manager_reviews_a_resource_of_mixed_alphabets_with_a_warning(open_portal: Any) -> None:
    portal = open_portal(Policy(review_window=600))
    portal.world.submit(resources=[LOOKALIKE])
    browser = Browser(portal)
    browser.enter("max")

    assert WARNING in browser.get("/review").words


def test_a_tenant_invites_at_most_thirty_people_a_day(open_door: OpenDoor) -> None:
    door = open_door().with_settings(invitations_a_day=3)
    tenant = door.world.tenant.id
    other = open_door().with_settings(invitations_a_day=3)

    def invite(at: Door, number: int) -> Any:
        body = {"name": "Nina", "address": f"n{number}@contoso.example", "roles": ["auditor"]}
        return at.call("tara", "POST", f"/v1/tenants/{at.world.tenant.slug}/members", json=body)

    assert [invite(door, number).status_code for number in range(3)] == [201] * 3
    refused = invite(door, 3)
    told = facts(refused, 429, "too-many")
    assert "At most 3 people can be invited within 24 hours" in told["detail"]
    assert 86_000 < int(refused.headers["retry-after"]) <= 86_400
    assert invite(other, 4).status_code == 201
    door.run_sql("UPDATE invitations SET created_at = created_at - interval '1 day' WHERE tenant_id = :t", t=tenant)
    assert invite(door, 5).status_code == 201
