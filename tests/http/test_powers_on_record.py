"""Each decision needs a recorded sign-in, and each power the event that granted it: otherwise an alarm is raised."""

import json
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from api import heartbeat
from api.heartbeat import HeartbeatThread
from api.metrics import exposition
from harness.authenticator import Authenticator
from harness.people import vouch
from lockbox.database import Database
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import row_macs
from lockbox.identity.row_macs import MarkScans
from lockbox.monitoring import invariants, metrics, status
from lockbox.monitoring.invariants import ScanPosition
from lockbox.requests import decision_context
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.scenes import as_caller, read, write
from tests.database.test_exports import freely
from tests.http.portal import Browser, OpenPortal, Portal
from tests.http.test_portal_invitations import Newcomer, invite
from tests.http.test_sign_in_passkeys import add
from tests.policy_setup import stand_in
from worker import alerts

VOTE = """
INSERT INTO decisions (id, request_id, person_id, principals, decision, means, channel, decided_at)
VALUES (:id, :request, :who, '{}', 'approve', 'passkey', 'api', now())
"""
SEAT = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (:id, :who, :tenant, 'approver')"
KEY = """
INSERT INTO passkeys (id, person_id, credential_id, public_key, sign_count, name, created_at, trusted_at)
VALUES (:id, :who, :credential, '', 0, 'mine', now(), now())
"""

BOUND = """
INSERT INTO identities (issuer, subject, person_id, created_at, trusted_at)
VALUES ('https://idp.example', :subject, :who, now(), now())
"""

MAPPED = """
INSERT INTO gate_identities (id, issuer, subject, person_id, added_by, created_at)
VALUES (uuidv7(), 'https://idp.example', :subject, :who, :who, now())
"""


@pytest.fixture
def nora(portal: Portal) -> Newcomer:
    """A person who was invited as an auditor and has no demo token."""
    return invite(portal, f"nora-{new_id().hex[-8:]}@contoso.example", "auditor")


def found(portal: Portal, about: UUID) -> list[str]:
    """Return what the observer finds about a request or a person."""
    rota, said = ScanPosition(), list[str]()
    while True:
        broken, rota = alerts.find_violations(portal.worker, rota)
        said += [f"{one.rule} {one.what}" for one in broken if one.id == about]
        if rota.person == invariants.NOBODY and rota.request == invariants.NOBODY:
            return sorted(set(said))


def who_is(portal: Portal, invited: Newcomer) -> UUID:
    (row,) = read(portal.root, "SELECT id FROM people WHERE email = :address", address=invited.address)
    found_: UUID = row.id
    return found_


def by_passkey(browser: Browser, authenticator: Authenticator, onto: str) -> None:
    asked = browser.submit(browser.get("/account"), "/account/passkeys/new", name="phone")
    options = json.loads(asked.form("/account/passkeys").data["options"])
    browser.submit(asked, "/account/passkeys", credential=authenticator.create(options))
    asked = browser.submit(browser.get(f"/sign-in?next={onto}"), "/sign-in/passkey")
    options = json.loads(asked.form("/answer").data["options"])
    browser.submit(asked, "/answer", credential=authenticator.get(options))


@pytest.mark.far
def test_the_passkey_and_denial_of_an_invitee_raise_no_alarm(portal: Portal, superuser: Engine) -> None:
    invited, browser = invite(portal, f"nick-{new_id().hex[-8:]}@contoso.example", "approver"), portal.browser()
    request = portal.world.submit()
    invited.accept(browser)
    by_passkey(browser, Authenticator(), f"/requests/{request.id}")
    page = browser.submit(browser.get(f"/requests/{request.id}"), "/deny", comment="Not now")
    assert "Nora (approver) denied" in page.words
    person_id = who_is(portal, invited)

    assert found(portal, request.id) == []
    assert found(portal, person_id) == []

    freely(superuser, f"DELETE FROM events WHERE actor_id = '{person_id}' AND action = 'signed_in'")  # noqa: S608 - an id
    assert found(portal, request.id) == ["I12 was decided without a sign-in on record"]


def test_a_vote_written_for_a_person_who_was_not_signed_in_raises_an_alarm(portal: Portal) -> None:
    ann, request = portal.world.people["ann"], portal.world.submit()

    with as_caller(portal.db, ann) as connection:
        connection.execute(text(VOTE), {"id": new_id(), "request": request.id, "who": ann.person_id})

    assert found(portal, request.id) == ["I12 was decided without a sign-in on record"]


def test_a_vote_that_states_an_unrecorded_sign_in_method_raises_an_alarm(portal: Portal) -> None:
    ann, request, browser = portal.world.people["ann"], portal.world.submit(), portal.browser()
    browser.enter("ann", AuthMethod.OIDC)

    with as_caller(portal.db, ann) as connection:
        connection.execute(text(VOTE), {"id": new_id(), "request": request.id, "who": ann.person_id})

    assert found(portal, request.id) == ["I12 was decided without a sign-in on record"]


def test_a_member_role_written_by_the_apis_database_role_raises_an_alarm(portal: Portal, nora: Newcomer) -> None:
    nora.accept(portal.browser())
    person_id = who_is(portal, nora)
    assert found(portal, person_id) == []

    with as_caller(portal.db, portal.world.people["tara"]) as connection:
        values = {"id": new_id(), "who": person_id, "tenant": portal.world.tenant.id}
        connection.execute(text(SEAT), values)

    assert found(portal, person_id) == ["I12 somebody is approver, and no event says who gave it"]


def test_a_passkey_written_by_the_apis_database_role_raises_an_alarm(portal: Portal) -> None:
    ann = portal.world.people["ann"]
    assert found(portal, ann.person_id) == []

    with as_caller(portal.db, ann) as connection:
        values = {"id": new_id(), "who": ann.person_id, "credential": new_id().bytes}
        connection.execute(text(KEY), values)

    assert found(portal, ann.person_id) == ["I12 somebody has a passkey that no event says they added"]


MARKS = {
    "membership": "UPDATE memberships SET mac = NULL WHERE person_id = :who",
    "token": "UPDATE tokens SET is_sample = NOT is_sample WHERE person_id = :who",
    "session": "UPDATE sessions SET means = 'passkey' WHERE person_id = :who",
    "passkey": "UPDATE passkeys SET trusted_at = trusted_at - interval '3 days' WHERE person_id = :who",
    "identity": "UPDATE identities SET trusted_at = trusted_at - interval '3 days' WHERE person_id = :who",
    "gate identity": "UPDATE gate_identities SET subject = 'another' WHERE person_id = :who",
    "setting": "UPDATE tenants SET suspended = NOT suspended WHERE id = :tenant",
    "policy": "UPDATE policies SET mac = mac || '1' WHERE tenant_id = :tenant",
    "delegation": "UPDATE delegations SET ends_at = ends_at + interval '1 day' WHERE tenant_id = :tenant",
    "eligible delegate": "UPDATE eligible_delegates SET mac = NULL WHERE tenant_id = :tenant",
    "retention": "INSERT INTO retentions (tenant_id, days) VALUES (:tenant, 30)",
    "legal hold": """
    INSERT INTO legal_holds (id, tenant_id, side, reason, set_by, set_at)
    VALUES (uuidv7(), :tenant, 'customer', 'x', :who, now())
    """,
    "off-boarding": "INSERT INTO offboardings (tenant_id, asked_by, asked_at) VALUES (:tenant, :who, now())",
}
LAID_DOWN = (
    *("tenants", "policies", "delegations", "eligible_delegates"),
    *("retentions", "legal_holds", "offboardings"),
)
OF_TENANTS = {
    *("setting", "policy", "delegation", "eligible delegate"),
    *("retention", "legal hold", "off-boarding"),
}


@pytest.mark.far
@pytest.mark.parametrize("kind", MARKS)
def test_a_row_without_a_valid_mac_appears_in_the_status_the_metrics_and_the_alarms(
    open_portal: OpenPortal, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    portal = open_portal()
    tara, db = portal.world.people["tara"], portal.db
    browser = portal.entered("tara", AuthMethod.OIDC)
    assert "laptop" in add(browser, Authenticator()).words
    write(portal.root, BOUND, who=tara.person_id, subject=new_id().hex)
    write(portal.root, MAPPED, who=tara.person_id, subject=new_id().hex)
    stand_in(portal.world, "aude", "ann")
    monkeypatch.setattr(heartbeat, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(decision_context, "DECIDED_FOR", timedelta(0))
    # What earlier tests have left behind, and what was said of it.
    mark_all(portal)
    write(portal.root, "DELETE FROM heartbeats")
    beating = HeartbeatThread(db)
    beating.beat()
    assert troubles(db) == []

    with portal.root.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        values = {"who": tara.person_id, "tenant": portal.world.tenant.id}
        connection.execute(text(MARKS[kind]), values)
    beating.beat()

    (said,) = troubles(db)
    whose = f"tenant {values['tenant']}" if kind in OF_TENANTS else f"person {tara.person_id}"
    assert f"(a {kind} of {whose})" in said
    assert b'lockbox_powers_unverified{role="api"} 1.0' in exposition(metrics.read(db))
    assert ("I12", said.partition("finds that ")[2]) in {
        (violation.rule, violation.what) for violation in alerts.find_violations(portal.worker, ScanPosition())[0]
    }


def test_only_a_vote_without_a_valid_mac_raises_an_alarm(portal: Portal) -> None:
    ann, amir, request = portal.world.people["ann"], portal.world.people["amir"], portal.world.submit()
    with as_caller(portal.db, ann) as connection:
        connection.execute(text(VOTE), {"id": new_id(), "request": request.id, "who": ann.person_id})
    portal.world.act("amir", Action.DENY, request.id)
    mark_all(portal)
    write(portal.root, "DELETE FROM heartbeats")

    with portal.db.transaction() as session:
        found_ = {str(one) for one in decision_context.unverified(session)}
    HeartbeatThread(portal.db).beat()

    assert f"a decision of person {ann.person_id}" in found_
    assert f"a decision of person {amir.person_id}" not in found_
    assert any("a decision of person" in one for one in troubles(portal.db))


@pytest.mark.far
def test_row_macs_are_scanned_page_by_page_and_an_invalid_mac_is_found_again_by_each_scan(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_macs, "SCAN_PAGE", 2)
    monkeypatch.setattr(row_macs, "LATELY", timedelta(0))
    mark_all(portal)
    last = max(portal.world.people.values(), key=lambda one: one.person_id).person_id
    with portal.root.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE memberships SET mac = NULL WHERE person_id = :who"), {"who": last})
    rounds, looks = MarkScans(), list[set[UUID]]()

    # Other tests have left their people in the database, thousands by the end of a run.
    for _ in range(20_000):
        with portal.db.transaction() as session:
            looks.append({one.whose for one in rounds.look(session)})
        if looks[-1]:
            break
    with portal.db.transaction() as session:
        again = {one.whose for one in rounds.look(session)}

    assert looks[0] == set()
    assert looks[-1] == again == {last}


@pytest.mark.parametrize(
    "table", ["memberships", "passkeys", "identities", "gate_identities", "sessions", "tokens", *LAID_DOWN]
)
def test_no_worker_may_read_the_rows_whose_macs_the_api_checks(portal: Portal, table: str) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        write(portal.worker.engine, f"SELECT marked_{table}('{{}}')")


def test_no_worker_may_report_that_all_macs_are_valid(portal: Portal) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        write(portal.worker.engine, "SELECT report_unverified(uuidv7(), 0, NULL)")


def troubles(db: Database) -> list[str]:
    return [one for one in status.read(db, with_redis=False).troubles if "carry no mark" in one]


def mark_all(portal: Portal) -> None:
    """Give all rows that earlier tests have left behind valid MACs, as they are."""
    with portal.root.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        of_people = ("memberships", "tokens", "sessions", "passkeys", "identities", "gate_identities")
        for table in (*of_people, "eligible_delegates"):
            connection.execute(text(f"UPDATE {table} SET mac = NULL"))  # noqa: S608 - ours
    vouch(portal.root)
