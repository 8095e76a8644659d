"""What an attacker can do with a login of a database role and none of our keys: each test tries it."""

import base64
import hashlib
import json
import secrets
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harness.authenticator import Authenticator, encoded
from lockbox.admin import what_if
from lockbox.facts.enumerations import AuthMethod, Mode
from lockbox.identity import authentication
from lockbox.identity.api_tokens import written
from lockbox.identity.keyring import Keyring
from lockbox.identity.roles import Caller, Role
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.database.scenes import as_caller, read, write
from tests.http.door import Door, OpenDoor
from tests.http.portal import SESSION, Browser, Portal
from tests.http.test_sign_in_passkeys import add, use
from tests.http.test_sign_in_sessions import is_in, signed_in
from tests.mailbox import code_of
from tests.passkey_approvals import approve, enrol

OPEN = """
INSERT INTO sessions (id, person_id, secret_hash, means, signed_in_at, last_seen_at, expires_at, mac)
VALUES (:id, :ann, :hash, 'passkey', now(), now(), now() + interval '1 hour', :mac)
"""
PENDING = """
INSERT INTO sign_ins (id, browser_hash, means, challenge, created_at, expires_at)
VALUES (:id, :hash, :means, :challenge, now(), now() + interval '1 hour')
"""
ISSUE = """
INSERT INTO tokens (id, person_id, name, is_sample, by_mail, secret_hash, scopes, services, expires_at, created_at,
    mac) VALUES (:id, :ann, 'mine', true, false, :hash, '{}', '{}', now() + interval '1 hour', now(), :mac)
"""
VOTE = """
INSERT INTO decisions (id, request_id, person_id, principals, decision, means, channel, decided_at, mac)
VALUES (:id, :request, :ann, '{}', 'approve', 'passkey', 'portal', now(), :mac)
"""
POLICY = """
INSERT INTO policies (tenant_id, version, body, author_id, created_at) VALUES (:tenant, 2, '{}', :tara, now())
"""
ANY = {"if-match": "*"}
LAXER = "UPDATE tenants SET policy_version = 2 WHERE id = :tenant"
ELIGIBLE = "INSERT INTO eligible_delegates (tenant_id, person_id) VALUES (:tenant, :who)"
STANDS_IN = """
INSERT INTO delegations (id, tenant_id, principal_id, delegate_id, starts_at, ends_at, made_by, created_at)
VALUES (:id, :tenant, :ann, :who, now() - interval '1 minute', now() + interval '1 hour', :tara, now())
"""
MAKE_TENANT_OLD = "UPDATE tenants SET mode = :mode, revision = :revision, mac = :mac WHERE id = :id"
TENANT = "SELECT mode, revision, mac FROM tenants WHERE id = :id"
SEAT = "INSERT INTO memberships (id, person_id, tenant_id, role, mac) VALUES (:id, :who, :tenant, 'approver', :mac)"


def through_the_api(db: Any, whose: Caller, statement: str, **values: Any) -> None:
    """Run a statement by the login of the API's database role, which may set any context."""
    with as_caller(db, whose) as connection:
        connection.execute(text(statement), values)


@pytest.mark.parametrize("mac", ["none", "that of what was begun"])
def test_the_signature_of_an_old_approval_signs_no_one_in(portal: Portal, mac: str) -> None:
    """A day later the begun sign-in's row is gone, and its browser's hash can be inserted with any challenge."""
    world, ann = portal.world, portal.world.people["ann"]
    request, own = world.submit(), enrol(world, "ann")
    approve(world, "ann", request.id, own)
    browser = portal.browser()
    browser.submit(browser.get("/sign-in"), "/sign-in/passkey")
    (begun,) = portal.sql("SELECT * FROM sign_ins WHERE id = :id", id=browser.begun)
    portal.sql("DELETE FROM sign_ins WHERE id = :id", id=browser.begun)
    (vote,) = portal.sql("SELECT statement, assertion FROM decisions WHERE request_id = :r", r=request.id)
    values = {"id": begun.id, "hash": begun.browser_hash, "means": "passkey"}
    values["challenge"] = hashlib.sha256(vote.statement.encode()).digest()
    through_the_api(portal.db, ann, PENDING, **values)
    if mac != "none":
        portal.sql("UPDATE sign_ins SET mac = :mac WHERE id = :id", mac=begun.mac, id=begun.id)
    through_the_api(portal.db, ann, "UPDATE passkeys SET sign_count = 0")

    page = browser.post("/sign-in/passkey/answer", {"credential": posted(own.credentials[-1].id, vote.assertion)})

    assert (page.status, browser.session) == (401, None)


def posted(credential_id: bytes, assertion: str) -> str:
    """Return what a browser would post with the assertion that a decision holds."""
    said = json.loads(assertion)
    names = {"clientDataJSON": "client_data", "authenticatorData": "authenticator_data", "signature": "signature"}
    response = {name: encoded(base64.b64decode(said[part])) for name, part in names.items()}
    one = encoded(credential_id)
    return json.dumps({"id": one, "rawId": one, "type": "public-key", "response": response})


@pytest.fixture
def at_door(open_door: OpenDoor) -> Door:
    return open_door()


@pytest.mark.parametrize("kept", ["plain", "another's key"])
def test_a_session_inserted_by_the_apis_database_role_approves_nothing(portal: Portal, kept: str) -> None:
    ann, secret = portal.world.people["ann"], secrets.token_urlsafe(32)
    request = portal.world.submit()
    others = Keyring([secrets.token_bytes(32)])
    hash_ = hashlib.sha256(secret.encode()).digest() + b"1234"
    if kept == "another's key":
        hash_ = others.secrets.mark("session", secret)
    values = {"id": new_id(), "ann": ann.person_id, "hash": hash_, "mac": others.powers.mark("session")}
    through_the_api(portal.db, ann, OPEN, **values)
    browser = portal.browser()
    browser.put(SESSION, secret)

    assert not is_in(browser)
    assert browser.call("POST", f"/v1/requests/{request.id}/approve").status_code == 401
    assert read(portal.root, "SELECT state FROM requests WHERE id = :id", id=request.id)[0].state == "pending"


def test_a_session_reassigned_in_the_database_is_void(portal: Portal) -> None:
    """The owner of the database may write every row, but has none of the keys either."""
    mine = signed_in(portal, "aude")
    values = {"ann": portal.world.people["ann"].person_id, "aude": portal.world.people["aude"].person_id}

    portal.sql("UPDATE sessions SET person_id = :ann, means = 'passkey' WHERE person_id = :aude", **values)

    assert not is_in(mine)


def test_a_token_inserted_by_the_apis_database_role_is_void(at_door: Door) -> None:
    ann, secret, token_id = at_door.world.people["ann"], secrets.token_urlsafe(32), new_id()
    hash_ = Keyring([secrets.token_bytes(32)]).secrets.mark("token", token_id, secret)
    through_the_api(at_door.db, ann, ISSUE, id=token_id, ann=ann.person_id, hash=hash_, mac=hash_)
    at_door.world.tokens["forged"] = written("test", token_id, secret)

    assert at_door.get("forged", "/v1/me").status_code == 401


def test_a_terminals_token_hash_reassigned_to_another_terminal_is_void(at_door: Door) -> None:
    """Our own key makes the hash of a terminal's secret, and the row into which it is copied has no valid MAC."""
    asked = at_door.call(None, "POST", "/v1/device-logins").json()["token"]
    token_id = UUID(hex=asked.split("_")[2])
    (row,) = read(at_door.root, "SELECT secret_hash FROM device_logins WHERE id = :id", id=token_id)
    ann = at_door.world.people["ann"]
    through_the_api(at_door.db, ann, ISSUE, id=token_id, ann=ann.person_id, hash=row.secret_hash, mac=b"")
    at_door.world.tokens["forged"] = asked

    assert at_door.get("forged", "/v1/me").status_code == 401


def test_a_role_granted_by_the_apis_database_role_does_not_count(at_door: Door) -> None:
    world = at_door.world
    tara, aude = world.people["tara"], world.people["aude"]
    request_id = at_door.pending()
    (mac,) = read(at_door.root, "SELECT mac FROM memberships WHERE person_id = :id", id=tara.person_id)
    values = {"id": new_id(), "who": aude.person_id, "tenant": world.tenant.id, "mac": mac.mac}
    through_the_api(at_door.db, tara, SEAT, **values)

    answer = at_door.act("aude", "approve", request_id)

    assert answer.status_code == 403
    assert "approver" not in at_door.get("aude", "/v1/me").text


@pytest.mark.parametrize("mac", ["none", "another decision's", "another key's"])
def test_the_first_of_two_votes_written_by_the_apis_database_role_does_not_count(
    open_door: OpenDoor, mac: str
) -> None:
    at_door = open_door(Policy(quorum=2, vendor_review=False))
    ann, request_id, other = at_door.world.people["ann"], at_door.pending(), at_door.pending(who="eve")
    assert at_door.act("ann", "approve", other).status_code == 200
    (made,) = read(at_door.root, "SELECT mac, decided_at FROM decisions WHERE request_id = :id", id=other)
    marks = {
        "none": None,
        "another decision's": made.mac,
        "another key's": Keyring([secrets.token_bytes(32)]).powers.mark("decision"),
    }
    through_the_api(at_door.db, ann, VOTE, id=new_id(), request=request_id, ann=ann.person_id, mac=marks[mac])

    shown = at_door.get("ann", f"/v1/requests/{request_id}").json()
    again = at_door.act("ann", "approve", request_id)
    second = at_door.act("amir", "approve", request_id)
    third = at_door.act("abe", "approve", request_id)

    assert shown["state"] == "pending"
    assert (again.status_code, again.json()["code"]) == (409, "already-decided")
    assert (second.status_code, second.json()["state"]) == (200, "pending")
    assert (third.status_code, third.json()["state"]) == (200, "active")


def test_the_database_refuses_to_restore_the_old_row_of_a_removed_role(at_door: Door) -> None:
    world = at_door.world
    tara, abe = world.people["tara"], world.people["abe"]
    removed = "DELETE FROM memberships WHERE person_id = :id"
    (was,) = read(at_door.root, "SELECT id, mac FROM memberships WHERE person_id = :id", id=abe.person_id)
    place = f"/v1/tenants/{world.tenant.slug}/members/{abe.person_id}"
    assert at_door.call("tara", "DELETE", place).status_code < 300
    values = {"id": was.id, "who": abe.person_id, "tenant": world.tenant.id, "mac": was.mac}

    with pytest.raises(DBAPIError, match=r"taken away|row-level security"):
        through_the_api(at_door.db, tara, SEAT, **values)
    with pytest.raises(DBAPIError, match="was taken away and does not come back"):
        write(at_door.root, SEAT, **values)
    assert not read(at_door.root, removed.replace("DELETE", "SELECT id"), id=abe.person_id)


def test_a_passkey_reassigned_in_the_database_signs_no_one_in(portal: Portal) -> None:
    own, browser = Authenticator(), portal.browser()
    browser.enter("amir")
    assert "laptop" in add(browser, own).words
    ann, amir = portal.world.people["ann"], portal.world.people["amir"]
    portal.sql("UPDATE passkeys SET person_id = :ann WHERE person_id = :amir", ann=ann.person_id, amir=amir.person_id)
    thief = portal.browser()

    page = use(thief, own)

    assert page.status == 401
    assert thief.session is None


def test_an_invitation_altered_by_the_database_owner_cannot_be_accepted(portal: Portal) -> None:
    admin = signed_in(portal, "tara")
    admin.enter("tara", AuthMethod.PASSKEY)
    slug, code = portal.world.tenant.slug, "ABCD-EFGH-IJKL-MNOP-QRST-UVWX-YZ23-4567"
    invited = _invited(admin, slug)
    plain = hashlib.sha256(code.replace("-", "").encode()).digest() + b"1234"
    write(
        portal.root,
        "UPDATE invitations SET secret_hash = :hash, expires_at = now() + interval '9 days' WHERE id = :id",
        hash=plain,
        id=invited,
    )
    known = code_of(portal.worker, invited)

    answers = [portal.browser().send(f"/invitations/{invited}", {"code": one}) for one in (code, known)]

    assert [answer.status_code for answer in answers] == [403, 403]


def test_the_workers_database_role_cannot_alter_invitations(portal: Portal) -> None:
    admin = signed_in(portal, "tara")
    admin.enter("tara", AuthMethod.PASSKEY)
    invited = _invited(admin, portal.world.tenant.slug)

    for change in ("secret_hash = sha256('mine')", "expires_at = 'infinity'", "code_nonce = ''", "mac = ''"):
        with pytest.raises(DBAPIError, match="permission denied"):
            write(portal.worker.engine, f"UPDATE invitations SET {change} WHERE id = :id", id=invited)  # noqa: S608 - our own


def test_the_apis_database_role_cannot_revive_revoked_credentials(portal: Portal) -> None:
    browser = signed_in(portal)
    old = browser.session
    browser.submit(browser.get("/account"), "/sign-out")
    ann = portal.world.people["ann"]

    with pytest.raises(DBAPIError, match="stays revoked"):
        through_the_api(portal.db, ann, "UPDATE sessions SET revoked_at = NULL")

    browser.put(SESSION, old or "")
    assert not is_in(browser)


def test_a_row_without_a_valid_mac_is_reported_to_operators(at_door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "lockbox.identity.row_macs.log",
        type("Log", (), {"critical": staticmethod(lambda _, **facts: said.append(facts))}),
    )
    abe = at_door.world.people["abe"]
    write(at_door.root, "UPDATE memberships SET mac = NULL WHERE person_id = :id", id=abe.person_id)

    at_door.get("abe", "/v1/me")

    assert [one["kind"] for one in said] == ["membership"]
    assert Role.APPROVER not in {one.role for one in _recognised(at_door, "abe").standings}


def test_a_mode_forged_by_the_apis_database_role_opens_no_access_and_allows_no_looser_mode(
    open_door: OpenDoor,
) -> None:
    at_door = open_door(Policy(vendor_review=True), mode=Mode.OBSERVE)
    tara, tenant = at_door.world.people["tara"], at_door.world.tenant
    request_id = at_door.pending()
    switched = at_door.call("tara", "PUT", f"/v1/tenants/{tenant.slug}/mode", json={"mode": "enforce"})
    assert switched.status_code == 200, switched.text
    through_the_api(at_door.db, tara, "UPDATE tenants SET mode = 'observe' WHERE id = :id", id=tenant.id)

    endorsed = at_door.act("max", "endorse", request_id)
    submitted = at_door.file()
    loosened = at_door.call("tara", "PUT", f"/v1/tenants/{tenant.slug}/mode", json={"mode": "off"})
    resumed = at_door.call("olga", "POST", f"/v1/tenants/{tenant.slug}/suspend", json={})
    opened = at_door.call("olga", "POST", f"/v1/tenants/{tenant.slug}/resume", json={})

    refused = [(one.status_code, one.json()["code"]) for one in (endorsed, submitted, loosened, opened)]
    assert refused == [(403, "policy-unverified")] * 4
    assert resumed.status_code == 200
    assert at_door.get("max", f"/v1/requests/{request_id}").json()["state"] == "reviewing"


def test_a_policy_forged_by_the_apis_database_role_blocks_approvals_but_not_denials(open_door: OpenDoor) -> None:
    at_door = open_door(Policy(vendor_review=False, quorum=2))
    tara, tenant = at_door.world.people["tara"], at_door.world.tenant
    request_id, other = at_door.pending(), at_door.pending(who="eve")
    values = {"tenant": tenant.id, "tara": tara.person_id}
    through_the_api(at_door.db, tara, POLICY, **values)
    through_the_api(at_door.db, tara, LAXER, **values)

    approved = at_door.act("ann", "approve", request_id)
    submitted = at_door.file()
    denied = at_door.act("ann", "deny", other, comment="not now")
    listed = at_door.get("ann", "/v1/requests")

    assert [(one.status_code, one.json()["code"]) for one in (approved, submitted)] == [
        (403, "policy-unverified")
    ] * 2
    assert (denied.status_code, listed.status_code) == (200, 200)

    said = {"vendor_review": False, "quorum": 2}
    place = f"/v1/tenants/{tenant.slug}/policy"
    with at_door.db.transaction() as session:
        weighed = what_if.preview_policy(session, tara, tenant.slug, Policy.model_validate(said))
    assert weighed.changes["quorum"] == "1 → 2"
    saved = at_door.call("tara", "PUT", place, json=said, headers={"If-Match": '"2"'})
    assert (saved.status_code, saved.json()["version"]) == (200, 3), saved.text
    assert at_door.act("ann", "approve", request_id).status_code == 200
    assert at_door.act("amir", "approve", request_id).json()["state"] == "active"


def test_an_earlier_tenant_mode_cannot_be_restored_with_its_mac(at_door: Door) -> None:
    tara, tenant = at_door.world.people["tara"], at_door.world.tenant
    place = f"/v1/tenants/{tenant.slug}/mode"
    assert at_door.call("tara", "PUT", place, json={"mode": "off"}).status_code == 200
    (was,) = read(at_door.root, TENANT, id=tenant.id)
    assert at_door.call("tara", "PUT", place, json={"mode": "enforce"}).status_code == 200
    values = {"mode": was.mode, "revision": was.revision, "mac": was.mac, "id": tenant.id}

    with pytest.raises(DBAPIError, match="does not come back"):
        through_the_api(at_door.db, tara, MAKE_TENANT_OLD, **values)

    assert at_door.call("tara", "PUT", place, json={"mode": "off"}).status_code == 200
    assert at_door.call("tara", "PUT", place, json={"mode": "enforce"}).status_code == 200


@pytest.mark.parametrize("kind", ["who is eligible", "who stands in"])
def test_a_delegate_written_by_the_apis_database_role_decides_nothing(at_door: Door, kind: str) -> None:
    world = at_door.world
    tara, ann, aude = (world.people[name] for name in ("tara", "ann", "aude"))
    request_id = at_door.pending()
    values = {"id": new_id(), "tenant": world.tenant.id, "who": aude.person_id}
    values |= {"tara": tara.person_id, "ann": ann.person_id}
    members = f"/v1/tenants/{world.tenant.slug}/members/{aude.person_id}"
    if kind == "who is eligible":
        through_the_api(at_door.db, tara, ELIGIBLE, **values)
        named = {"delegate": str(aude.person_id), "ends_at": "2099-01-01T00:00:00Z"}
        refused = at_door.call("ann", "POST", f"/v1/tenants/{world.tenant.slug}/delegations", json=named)
        assert (refused.status_code, refused.json()["field"]) == (422, "delegate")
    else:
        assert (
            at_door.call(
                "tara", "PUT", members, json={"roles": ["auditor"], "eligible": True}, headers=ANY
            ).status_code
            == 200
        )
    through_the_api(at_door.db, tara, STANDS_IN, **values)

    answer = at_door.act("aude", "approve", request_id)

    assert answer.status_code == 403
    assert at_door.get("ann", f"/v1/requests/{request_id}").json()["state"] == "pending"


def test_withdrawn_eligibility_of_a_delegate_cannot_be_restored_with_its_mac(at_door: Door) -> None:
    world = at_door.world
    tara, aude = world.people["tara"], world.people["aude"]
    members = f"/v1/tenants/{world.tenant.slug}/members/{aude.person_id}"
    assert (
        at_door.call("tara", "PUT", members, json={"roles": ["auditor"], "eligible": True}, headers=ANY).status_code
        == 200
    )
    (was,) = read(at_door.root, "SELECT id, mac FROM eligible_delegates WHERE person_id = :id", id=aude.person_id)
    assert (
        at_door.call("tara", "PUT", members, json={"roles": ["auditor"], "eligible": False}, headers=ANY).status_code
        == 200
    )
    again = "INSERT INTO eligible_delegates (tenant_id, person_id, id, mac) VALUES (:tenant, :who, :id, :mac)"

    with pytest.raises(DBAPIError, match="does not come back"):
        through_the_api(at_door.db, tara, again, tenant=world.tenant.id, who=aude.person_id, id=was.id, mac=was.mac)


def _recognised(door: Door, name: str) -> authentication.CredentialLookup:
    from_text = door.world.tokens[name]
    token_id = UUID(hex=from_text.split("_")[2])
    with door.db.transaction() as session:
        (row,) = read(door.root, "SELECT secret_hash FROM tokens WHERE id = :id", id=token_id)
        found = authentication.look_up_credential(
            session, authentication.CredentialKind.TOKEN, str(token_id), [row.secret_hash]
        )
    assert found is not None
    return found


def _invited(admin: Browser, slug: str) -> UUID:
    csrf = admin.get("/account").form("/sign-out").fields["csrf"]
    answer = admin.call(
        "POST",
        f"/v1/tenants/{slug}/members",
        json={"name": "Nina", "address": f"nina-{new_id().hex[-8:]}@contoso.example", "roles": ["approver"]},
        headers={"x-csrf-token": csrf, "origin": admin.portal.settings.origin, "sec-fetch-site": "same-origin"},
    )
    assert answer.status_code == 201, answer.text
    return UUID(answer.json()["id"])
