"""Pre-approvals through the API, the portal and the command line, and the answers to bad input."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from httpx import Response
from typer.testing import CliRunner

from cli.app import app
from lockbox.admin.pre_approval_status import MUST_SIGN
from lockbox.facts.enumerations import State
from tests.http.door import Door, facts
from tests.http.places import pre_approval
from tests.http.portal import OpenPortal, Portal
from tests.http.test_portal_new_request import previewed
from tests.policy_setup import lay_down, stand_in

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no pattern": ({"resource": "mailbox"}, "kind:id"),
    "a pattern of everything": ({"resource": "mailbox:*"}, "Name at least a part of the id"),
    "another service": ({"service": "fax"}, "Choose one of the services"),
    "another action": ({"actions": ["fly"]}, "has no action fly"),
    "an end in the past": ({"ends_at": "2020-01-01T00:00:00Z"}, "in the future"),
    "an end in a year": ({"ends_at": "2099-01-01T00:00:00Z"}, "at most 90 days"),
    "a longer window than the policy allows": ({"access_window": 5 * 3600}, "at most 4 h"),
    "no use": ({"max_uses": 0}, "max_uses"),
    "no reason": ({"reason_code": "why not"}, "reason_code"),
    "no action": ({"actions": []}, "actions"),
}


def post(door: Door, who: str, tail: str = "", body: dict[str, Any] | None = None) -> Response:
    return door.call(who, "POST", door.path(f"/pre-approvals{tail}"), **({"json": body} if body else {}))


@pytest.mark.parametrize(("changes", "said"), BAD.values(), ids=BAD)
def test_a_too_wide_pre_approval_is_refused_with_advice(door: Door, changes: dict[str, Any], said: str) -> None:
    answer = post(door, "tara", "", pre_approval() | changes)

    assert answer.status_code in {400, 422}
    assert said in answer.text


def test_approving_a_pre_approval_twice_or_with_a_weak_sign_in_is_refused(fresh_door: Door) -> None:
    door = fresh_door
    one = post(door, "tara", "", pre_approval()).json()["id"]

    assert post(door, "tara", f"/{one}/approve").json()["code"] == "wrong-role"
    assert post(door, "ann", f"/{one}/approve").status_code == 200
    again = post(door, "ann", f"/{one}/approve")
    assert (again.status_code, again.json()["code"]) == (409, "already-decided")
    gone = post(door, "ann", "/0197f3a0-7c1e-7b11-9c55-3f8f0f6c9b01/revoke")
    assert gone.status_code == 404


def test_an_admin_proposes_and_an_approver_approves_a_pre_approval_on_the_page(portal: Portal) -> None:
    here = portal.here("/pre-approvals")
    tara, ann = portal.by_passkey("tara"), portal.by_passkey("ann")
    ends = f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%dT%H:%M}"
    fields = {"resource": "mailbox:anna@*", "ends": ends}

    refused = tara.submit(tara.get(here), here, **fields | {"max_uses": "many"})
    proposed = tara.submit(tara.get(here), here, **fields)
    waiting = ann.get(here)
    approved = ann.submit(waiting, "/approve")
    preview = previewed(portal.by_mail("erin"), portal, access_window="900", resources="mailbox:anna@contoso.example")
    opened = portal.world.submit(access_window=900)
    request = ann.get(f"/requests/{opened.id}")
    revoked = ann.submit(ann.get(here), "/revoke")

    assert (refused.status, "How many windows" in refused.words) == (422, True)
    assert "mailbox:anna@*" in proposed.words
    assert "waits for approval" in waiting.words
    assert "Needs 1 more approval." in waiting.words
    assert "in force" in approved.words
    assert "has approved such requests beforehand. Access opens at once" in preview.words
    assert "Approvals needed" not in preview.words
    assert opened.state is State.ACTIVE
    assert "nobody was asked" in request.words
    assert "revoked" in revoked.words
    assert portal.sql("SELECT state FROM requests WHERE id = :id", id=opened.id)[0].state == "revoked"


def test_a_delegate_is_notified_of_and_approves_a_pre_approval_on_the_page(open_portal: OpenPortal) -> None:
    portal = open_portal()
    stand_in(portal.world, "aude", "ann")
    here = portal.here("/pre-approvals")
    tara, aude = portal.by_passkey("tara"), portal.by_passkey("aude")
    ends = f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%dT%H:%M}"
    tara.submit(tara.get(here), here, resource="mailbox:anna@*", ends=ends)

    inbox, own, page = aude.get("/waiting"), tara.get("/waiting"), aude.get(here)
    told = portal.sql(
        "SELECT n.person_id FROM notifications n JOIN people p ON p.id = n.person_id"
        " WHERE n.template = 'pre_approval_proposed' AND n.tenant_id = :t AND p.id = :p",
        t=portal.world.tenant.id,
        p=portal.world.people["aude"].person_id,
    )
    approved = aude.submit(page, "/approve", comment="Only searches")
    opened = portal.world.submit(access_window=900)
    revoked = aude.submit(aude.get(here), "/revoke", comment="Enough")

    assert "1 pre-approval waits for your approval" in inbox.words
    assert "for your approval" not in own.words.replace("Waiting for your approval", "")
    assert len(told) == 1
    assert "in force" in approved.words
    assert "waits for your approval" not in aude.get("/waiting").words
    assert opened.state is State.ACTIVE
    assert "revoked" in revoked.words
    assert portal.sql("SELECT state FROM requests WHERE id = :id", id=opened.id)[0].state == "revoked"


def test_the_pre_approval_page_says_why_a_person_cannot_approve(open_portal: OpenPortal) -> None:
    portal = open_portal()
    here = portal.here("/pre-approvals")
    stand_in(portal.world, "tara", "amir")
    tara, ann = portal.by_passkey("tara"), portal.by_mail("ann")
    ends = f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%dT%H:%M}"
    own = tara.submit(tara.get(here), here, resource="mailbox:anna@*", ends=ends)
    weak, inbox = ann.get(here), ann.get("/waiting")

    assert "Somebody else has to approve it." in own.words
    assert "A code from a mail is not enough here" in weak.words
    assert f"/sign-in?next={here}" in weak.read.links
    assert not [form for page in (own, weak) for form in page.read.forms if form.action.endswith("/approve")]
    assert "1 pre-approval waits for your approval" in inbox.words


def test_api_and_cli_refuse_pre_approvals_if_approvals_need_a_passkey_signature(
    fresh_door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = fresh_door
    one = post(door, "tara", "", pre_approval()).json()["id"]
    lay_down(door.world, approve_means="passkey-signed")

    def request(method: str, url: str, **parts: Any) -> Response:
        return door.call("ann", method, urlsplit(url).path, json=parts["json"])

    monkeypatch.setattr("httpx.request", request)
    where = {"LOCKBOX_URL": "http://127.0.0.1:1", "LOCKBOX_TOKEN": "lbx_test"}
    words = ["pre-approval", "approve", door.world.tenant.slug, one]
    shown = CliRunner().invoke(app, words, env=where)

    for answer in (post(door, "tara", "", pre_approval()), post(door, "ann", f"/{one}/approve")):
        assert MUST_SIGN in facts(answer, 403, "passkey-must-sign")["detail"]
    assert door.get("ann", door.path(f"/pre-approvals/{one}")).json()["lacks"] == [MUST_SIGN]
    assert (shown.exit_code, MUST_SIGN in shown.stderr) == (1, True)


def test_where_passkeys_must_sign_the_page_offers_no_pre_approval(portal: Portal) -> None:
    here = portal.here("/pre-approvals")
    tara, ann = portal.by_passkey("tara"), portal.by_passkey("ann")
    ends = f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%dT%H:%M}"
    fields = {"resource": "mailbox:anna@*", "ends": ends}
    tara.submit(tara.get(here), here, **fields)
    before = ann.get(here)
    lay_down(portal.world, approve_means="passkey-signed")

    seen, late, proposed = ann.get(here), ann.submit(before, "/approve"), tara.submit(tara.get(here), here, **fields)

    assert [MUST_SIGN in page.words for page in (seen, late, proposed)] == [True] * 3
    assert "Needs The" not in seen.words
    assert not [form for form in seen.read.forms if form.action.endswith("/approve")]
    assert (late.status, proposed.status) == (403, 403)
