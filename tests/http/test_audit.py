"""The audit log over HTTP: who searches it, what they find, and exports and proofs that a verifier accepts."""

import base64
import csv
import io
import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.people import World
from lockbox.audit.log import checkpoint, merkle
from lockbox.audit.log.merkle import leaf_hash, root_of
from lockbox.audit.verifier.verify import GOOD, verify
from lockbox.database import Database
from lockbox.identity import keyring
from lockbox.identity.models import Tenant
from lockbox.identity.roles import Role
from tests.examples import examples
from tests.http.audit_logs import one_event
from tests.http.door import Door, OpenDoor, facts
from tests.logs import public, sealed


@pytest.fixture(scope="module")
def audit_log(open_door: OpenDoor, worker: Database) -> Door:
    """A tenant whose audit log has an approved request, a denied one and one that waits."""
    return told(open_door(), worker)


def told(door: Door, worker: Database) -> Door:
    """Submit and decide requests, and seal all events but the last."""
    opened = door.file(justification="The Mailbox of 100% of them", service="exchange-online").json()["id"]
    door.act("ann", "approve", opened, comment="Be QUICK_please")
    denied = door.file(resources=["mailbox:bert@contoso.example"]).json()["id"]
    door.act("amir", "deny", denied)
    sealed(worker)
    door.file(resources=["mailbox:carl@contoso.example"])
    return door


def found(door: Door, who: str = "aude", **query: object) -> list[tuple[str, str]]:
    """Return what a search finds: action and name of the actor."""
    return [(one["action"], one["actor"]["name"]) for one in items_of(door, who, **query)]


def items_of(door: Door, who: str = "aude", **query: object) -> list[dict[str, Any]]:
    """Return what a search finds, without the events that searches add."""
    answer = door.get(who, "/v1/audit", **({"tenant": door.world.tenant.slug} | query))
    assert answer.status_code == 200, answer.text
    return [one for one in answer.json()["items"] if not one["action"].startswith("audit_log_")]


def test_the_audit_log_lists_events_newest_first_with_their_seals(fresh_door: Door, worker: Database) -> None:
    items = told(fresh_door, worker).get("aude", "/v1/audit").json()["items"]

    assert [(one["action"], one["actor"]["name"], one["sealed"], one["number"]) for one in items] == [
        ("submit", "Erin", False, None),
        ("deny", "Amir", True, 3),
        ("submit", "Erin", True, 2),
        ("approve", "Ann", True, 1),
        ("submit", "Erin", True, 0),
    ]
    assert items[3]["said"]["to_state"] == items[3]["to_state"] == "active"


@pytest.mark.far
def test_the_audit_log_can_be_filtered_by_person_or_action_or_request_or_service_or_time(audit_log: Door) -> None:
    items = items_of(audit_log)
    ann, denied, at = audit_log.world.people["ann"].person_id, items[1]["request_id"], items[2]["at"]

    assert found(audit_log, person=ann) == [("approve", "Ann")]
    assert found(audit_log, action="deny") == [("deny", "Amir")]
    assert found(audit_log, request=denied) == [("deny", "Amir"), ("submit", "Erin")]
    assert len(found(audit_log, service="exchange-online")) == 5
    assert found(audit_log, service="sharepoint-online") == []
    assert len(found(audit_log, after=at)) == 3
    assert len(found(audit_log, before=at)) == 2


@pytest.mark.parametrize(
    ("text", "actions"), [("mailbox of", ["submit"]), ("quick_", ["approve"]), ("0% OF", ["submit"]), ("qu%", [])]
)
def test_text_search_in_the_audit_log_ignores_case_and_wildcards(
    audit_log: Door, text: str, actions: list[str]
) -> None:
    assert [action for action, _ in found(audit_log, text=text)] == actions


def test_vendor_auditors_cannot_search_texts_they_may_not_read(audit_log: Door) -> None:
    facts(
        audit_log.get("vera", "/v1/audit", tenant=audit_log.world.tenant.slug, text="quick"), 422, "invalid-request"
    )
    facts(
        audit_log.get("vera", "/v1/audit/export", tenant=audit_log.world.tenant.slug, text="q"),
        422,
        "invalid-request",
    )


def test_the_pages_of_the_audit_log_list_every_event_once(audit_log: Door) -> None:
    ids: list[str] = []
    first: dict[str, Any] = {}
    cursor = None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = audit_log.get("tara", "/v1/audit", **query).json()
        first = first or page["items"][0]
        ids += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    earlier = {"before": first["at"]}
    assert ids[1:] == [one["id"] for one in audit_log.get("tara", "/v1/audit", **earlier).json()["items"]]
    facts(audit_log.get("tara", "/v1/audit", cursor="no"), 422, "invalid-request")


def test_the_audit_log_shows_ip_address_and_browser_of_people_to_their_own_side_only(audit_log: Door) -> None:
    theirs = audit_log.get("vera", "/v1/audit", tenant=audit_log.world.tenant.slug).json()["items"]
    ours = audit_log.get("aude", "/v1/audit").json()["items"]

    by_action = {one["action"]: one["personal"].keys() for one in theirs}
    assert by_action["submit"] >= {"address", "user_agent", "name"}
    assert not by_action["approve"] & {"address", "user_agent", "comment"}
    assert not by_action["submit"] & {"justification"}
    by_action = {one["action"]: one["personal"].keys() for one in ours}
    assert by_action["approve"] >= {"address", "user_agent", "comment"}
    assert not by_action["submit"] & {"address", "user_agent"}
    assert by_action["submit"] >= {"justification"}


def test_the_contacts_of_a_tenant_are_hidden_from_the_vendor(fresh_door: Door) -> None:
    new = {"name": "Nina", "address": "nina@contoso.example", "roles": ["auditor"]}
    assert fresh_door.call("tara", "POST", f"/v1/tenants/{fresh_door.world.tenant.slug}/members", json=new).is_success

    (theirs,) = items_of(fresh_door, "vera")
    (ours,) = items_of(fresh_door)

    assert "nina" in str(ours["personal"])
    assert set(theirs["personal"]) == {"name"}


def test_a_downloaded_export_verifies_and_equals_the_csv_export(audit_log: Door) -> None:
    answer = audit_log.get("aude", "/v1/audit/export", since=[1, 3])
    table = audit_log.get("aude", "/v1/audit/export", format="csv", action="deny")

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["cache-control"] == "no-store"
    assert "attachment" in answer.headers["content-disposition"]
    result = verify(answer.content.splitlines(keepends=True), [public(), keyring.ephemeral().public])
    assert (result.exit_code, result.header.size) == (GOOD, result.events)
    assert set(result.header.consistency) == {1, 3}
    assert [row["User"] for row in csv.DictReader(io.StringIO(table.text))] == ["Amir"]


def test_a_filtered_export_states_its_filter_and_each_line_can_be_verified(audit_log: Door) -> None:
    answer = audit_log.get("vera", "/v1/audit/export", tenant=audit_log.world.tenant.slug, action="deny")

    result = verify(answer.content.splitlines(keepends=True), [public()])

    assert (result.exit_code, result.events, result.header.whole) == (GOOD, 1, False)
    assert result.header.asked == {"action": "deny"}


def test_a_signed_checkpoint_and_an_inclusion_proof_prove_an_event(audit_log: Door) -> None:
    shown = audit_log.get("aude", "/v1/audit/checkpoint").json()
    event = audit_log.get("aude", "/v1/audit", action="approve").json()["items"][0]["id"]
    proven = audit_log.get("aude", "/v1/audit/proof/inclusion", event=event).json()

    said, _ = checkpoint.verify(shown["note"], {public().id: public()})
    assert (said.size, base64.b64encode(said.root).decode()) == (shown["size"], shown["root"])
    assert proven["number"] == 1
    body = next(one for one in export(audit_log) if f'"id\\":\\"{event}' in one)
    leaf = leaf_hash(body_of(body))
    path = [base64.b64decode(one) for one in proven["proof"]]
    merkle.check_inclusion(leaf, proven["number"], proven["size"], path, checkpoint.read(proven["note"]).root)


def test_the_consistency_of_two_log_sizes_is_proven(audit_log: Door) -> None:
    leaves = [leaf_hash(body_of(line)) for line in export(audit_log) if line.startswith('{"number"')]

    proven = audit_log.get("aude", "/v1/audit/proof/consistency", **{"from": 1, "to": 3}).json()

    path = [base64.b64decode(one) for one in proven["proof"]]
    merkle.check_consistency(1, 3, root_of(leaves[:1]), root_of(leaves[:3]), path)


@pytest.mark.parametrize("query", [{"from": 2, "to": 1}, {"from": 0, "to": 10**9}, {"from": -1}, {"from": "x"}, {}])
def test_a_consistency_proof_of_sizes_the_log_never_had_is_refused(audit_log: Door, query: dict[str, object]) -> None:
    facts(audit_log.get("aude", "/v1/audit/proof/consistency", **query), 422, "invalid-request")


@pytest.mark.parametrize("since", [[10**9], [-1], ["x"], [1, 1, 1, 1, 1]])
def test_an_export_since_an_unknown_log_size_is_refused(audit_log: Door, since: list[object]) -> None:
    facts(audit_log.get("aude", "/v1/audit/export", since=since), 422, "invalid-request")


def test_the_proof_of_an_event_that_is_unsealed_or_in_another_log_is_not_found(
    audit_log: Door, open_door: OpenDoor, worker: Database
) -> None:
    elsewhere = open_door()
    elsewhere.pending()
    sealed(worker)
    not_sealed = elsewhere.pending() and elsewhere.get("tara", "/v1/audit").json()["items"][0]["id"]

    theirs = audit_log.get("aude", "/v1/audit/proof/inclusion", event=one_event(elsewhere))
    nobodys = audit_log.get("aude", "/v1/audit/proof/inclusion", event=UUID(int=1))
    waiting = elsewhere.get("aude", "/v1/audit/proof/inclusion", event=not_sealed)

    facts(theirs, 404, "not-found")
    assert theirs.content == nobodys.content == waiting.content


@pytest.mark.parametrize("path", ["", "/export", "/checkpoint", "/proof/consistency"])
def test_another_tenants_log_is_not_found(audit_log: Door, open_door: OpenDoor, path: str) -> None:
    elsewhere = open_door()
    query = {"from": 0} if "proof" in path else {}

    theirs = audit_log.get("aude", f"/v1/audit{path}", tenant=elsewhere.world.tenant.slug, **query)
    nobodys = audit_log.get("aude", f"/v1/audit{path}", tenant="nobodys", **query)

    facts(theirs, 404, "not-found")
    assert theirs.content == nobodys.content


def test_an_unsealed_log_has_no_checkpoint(fresh_door: Door) -> None:
    for path in ("export", "checkpoint"):
        assert "sealed" in facts(fresh_door.get("aude", f"/v1/audit/{path}"), 404, "not-found")["detail"]


def test_vendor_auditors_read_the_vendors_log(open_door: OpenDoor, worker: Database) -> None:
    door = open_door()
    new = {"name": "Nils", "address": f"nils@{door.world.tenant.slug}.example", "roles": ["engineer"]}
    assert door.call("olga", "POST", "/v1/vendor/members", json=new).is_success
    sealed(worker)

    items = door.get("vera", "/v1/audit").json()["items"]
    answer = door.get("vera", "/v1/audit/export")

    assert items[0]["actor"]["name"] == "Olga"
    result = verify(answer.content.splitlines(keepends=True), [public()])
    assert (result.exit_code, result.header.origin) == (GOOD, "lockbox.test/audit/vendor")


def test_an_auditor_of_two_tenants_must_name_the_tenant_whose_log_they_read(
    fresh_door: Door, open_door: OpenDoor
) -> None:
    elsewhere = open_door().world.tenant
    also(fresh_door.world, "aude", Role.AUDITOR, elsewhere)

    facts(fresh_door.get("aude", "/v1/audit"), 422, "invalid-request")
    assert fresh_door.get("aude", "/v1/audit", tenant=elsewhere.slug).status_code == 200


def test_public_audit_keys_are_readable_by_everyone(audit_log: Door) -> None:
    answer = audit_log.get(None, "/.well-known/lockbox-audit-keys")

    approval, key = sorted(answer.json()["items"], key=lambda one: one["purpose"])
    assert (key["key"], key["fingerprint"], key["purpose"]) == (public().text, public().fingerprint, "log")
    assert (approval["key"].partition("+")[0], approval["purpose"]) == ("lockbox/approvals", "approval")


@settings(max_examples=examples(30, near=10), deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["person", "action", "service", "after", "before", "text", "cursor", "tenant", "format"]),
        st.text(max_size=12),
    )
)
def test_an_arbitrary_audit_log_query_causes_no_internal_error(audit_log: Door, query: dict[str, str]) -> None:
    sendable = {name: value.encode(errors="replace") for name, value in query.items()}

    for path in ("/v1/audit", "/v1/audit/export"):
        assert audit_log.call("aude", "GET", path, params=sendable).status_code in {200, 404, 422}


def also(world: World, who: str, role: Role, tenant: Tenant) -> None:
    world.put_on_both_sides(who, role, tenant.id)


def export(door: Door) -> list[str]:
    lines = door.get("aude", "/v1/audit/export").text.splitlines()
    assert datetime.fromisoformat(door.get("aude", "/v1/audit/checkpoint").json()["at"]).utcoffset() == timedelta(0)
    return lines


def body_of(line: str) -> bytes:
    body: str = json.loads(line)["body"]
    return body.encode()


@pytest.mark.far
def test_reads_and_exports_of_an_audit_log_are_recorded_in_that_log(fresh_door: Door, worker: Database) -> None:
    told(fresh_door, worker)
    theirs = {"tenant": fresh_door.world.tenant.slug}
    fresh_door.get("vera", "/v1/audit", **theirs, action="deny")
    fresh_door.get("aude", "/v1/audit/export", format="csv", text="quick")
    request = items_of(fresh_door)[0]["request_id"]
    fresh_door.get("tara", "/v1/audit/report", request=request)

    read = fresh_door.get("aude", "/v1/audit").json()["items"]

    assert [
        (one["action"], one["actor"]["name"], one["said"]["count"], one["personal"].get("wanted"))
        for one in read
        if one["action"].startswith("audit_log_")
    ] == [
        ("audit_log_read", "Tara", 1, f'{{"request": "{request}"}}'),
        ("audit_log_read", "Aude", 7, None),
        ("audit_log_exported", "Aude", 1, '{"format": "csv", "text": "quick"}'),
        ("audit_log_read", "Vera", 1, '{"action": "deny"}'),
    ]
    assert not [one for one in items_of(fresh_door, "vera") if "quick" in str(one)]
