"""Exports of real audit logs: sealed events are proven page by page, and changes by the database owner are found."""

import csv
import io
import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.pool import QueuePool

from harness.people import World
from harness.stage import unbound
from lockbox.admin import audit_access
from lockbox.admin.audit_access import AuditReader
from lockbox.audit import export
from lockbox.audit import export as tables
from lockbox.audit.canonical import canonical
from lockbox.audit.event_search import EventFilter
from lockbox.audit.export import Export
from lockbox.audit.log import checkpoint, merkle
from lockbox.audit.log.merkle import leaf_hash
from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.verify import GOOD, VerificationResult, verify
from lockbox.database import Database
from lockbox.errors import NotFound, NotYours
from lockbox.facts.enumerations import Mode
from lockbox.identity import keyring
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests import second_verifier
from tests.logs import public, sealed

MEMBERS = '"at":"2026-01-01T00:00:00.000000Z","id":"%1$s","log":"%3$s","n":%2$s,"personal":{}'
BODY = '{"action":"tested",' + MEMBERS + ',"seq":null,"tenant_id":"%3$s"}'
REMOVED = (
    '{"action":"audit_events_removed",'
    + MEMBERS
    + ',"removed_from":0,"removed_to":END,"seq":null,"tenant_id":"%3$s"}'
)
DELETE = "DELETE FROM events e USING seals s WHERE s.event_id = e.id AND s.number < END"
EVENTS = """
INSERT INTO events (id, tenant_id, at, action, actor_role, body)
SELECT id, CAST(:tenant AS uuid), clock_timestamp(), split_part(:body, '"', 4), 'clock',
    convert_to(format(:body, id, n, CAST(:tenant AS uuid)), 'UTF8')
FROM (SELECT uuidv7() AS id, n FROM generate_series(1, :count) n) fresh
"""
READERS = {"tara": True, "aude": True, "vera": True, "ann": False, "erin": False, "max": False, "olga": False}


def reads(world: World, who: str = "tara", tenant: str | None = None) -> AuditReader:
    with world.db.transaction() as session:
        return audit_access.audit_reader(session, world.people[who], tenant or world.tenant.slug)


def reads_vendors(world: World) -> AuditReader:
    with world.db.transaction() as session:
        return audit_access.audit_reader(session, world.people["vera"], None)


def vendors_log(world: World) -> bytes:
    reader = reads_vendors(world)
    with world.db.transaction() as session:
        whole = audit_access.export(session, reader, EventFilter(), {})
    return b"".join(export.lines(audit_access.pages(world.db, reader), whole))


def bodies(found: bytes) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in found.splitlines()]
    return [json.loads(line["body"]) for line in lines if "body" in line]


def begun(world: World, who: str = "tara", wanted: EventFilter | None = None, since: tuple[int, ...] = ()) -> Export:
    reader = reads(world, who)
    with world.db.transaction() as session:
        return audit_access.export(session, reader, wanted or EventFilter(), {}, since)


def exported(
    world: World, who: str = "tara", wanted: EventFilter | None = None, since: tuple[int, ...] = ()
) -> bytes:
    pages = audit_access.pages(world.db, reads(world, who))
    return b"".join(export.lines(pages, begun(world, who, wanted, since)))


def verified(found: bytes, *seen: str) -> VerificationResult:
    keys = [public(), keyring.ephemeral().public]
    result = verify(found.splitlines(keepends=True), keys, seen)
    if result.exit_code == GOOD:
        assert second_verifier.check(found, [key.text for key in keys], seen) == result.events
    return result


def note(world: World) -> str:
    reader = reads(world)
    with world.db.transaction() as session:
        return audit_access.head(session, reader).note


@pytest.fixture
def story(world: World, worker: Database) -> World:
    """A world in which a request was submitted, approved and ended, all sealed."""
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id, comment="=cmd|' /C calc'!A0")
    world.act("erin", Action.COMPLETE, request.id)
    sealed(worker)
    return world


def write(world: World, count: int, body: str = BODY) -> None:
    """Write that many events of the tenant by raw SQL."""
    with unbound(world.db).begin() as connection:
        connection.execute(text(EVENTS), {"tenant": str(world.tenant.id), "count": count, "body": body})


def test_a_whole_export_satisfies_both_verifiers(story: World) -> None:
    result = verified(exported(story), note(story))

    assert (result.exit_code, result.events) == (GOOD, 3), result.findings
    assert (result.approvals, result.approvals_by_hash, result.unchecked_approvals) == (1, 0, 0)


@pytest.mark.far
@pytest.mark.parametrize("count", [255, 256, 257, 3_000])
def test_long_audit_logs_are_exported_whole(world: World, worker: Database, count: int) -> None:
    write(world, 100)
    sealed(worker)
    before = note(world)
    write(world, count - 100)
    sealed(worker)

    whole, proven = verified(exported(world), before), verified(exported(world, since=(100,)), before)
    filtered = verified(exported(world, wanted=EventFilter(action="tested"), since=(100,)), before)

    for result in (whole, proven, filtered):
        assert (result.exit_code, result.events, result.seen) == (GOOD, count, [100]), result.findings


@pytest.mark.far
def test_events_sealed_during_an_export_are_not_in_that_export(world: World, worker: Database) -> None:
    write(world, 1_500)
    sealed(worker)
    lines = export.lines(audit_access.pages(world.db, reads(world)), begun(world))
    first = next(lines)

    write(world, 700)
    sealed(worker)

    result = verified(first + b"".join(lines))
    assert (result.exit_code, result.events) == (GOOD, 1_500), result.findings


@pytest.mark.far
def test_no_transaction_stays_open_between_pages_of_an_export(world: World, worker: Database) -> None:
    write(world, 1_500)
    sealed(worker)
    lines = export.lines(audit_access.pages(world.db, reads(world)), begun(world))
    for _ in range(300):
        next(lines)

    with unbound(world.db).connect() as connection:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        assert connection.execute(text(busy)).scalar() == 0


def test_no_transaction_stays_open_while_an_export_line_is_read(
    world: World, worker: Database, superuser: Engine
) -> None:
    write(world, 700)
    sealed(worker)
    freely(superuser, DELETE.replace("END", "512"))
    write(world, 1, REMOVED.replace("END", "512"))
    sealed(worker)
    lines = export.lines(audit_access.pages(world.db, reads(world)), begun(world))

    pool = world.db.engine.pool
    assert isinstance(pool, QueuePool)
    open_ = [line[:20] for line in lines if pool.checkedout()]

    assert open_ == []


@pytest.mark.far
def test_a_reader_who_loses_the_right_gets_no_further_page_of_an_export(world: World, worker: Database) -> None:
    write(world, 3_000)
    sealed(worker)
    lines = export.lines(audit_access.pages(world.db, reads(world, "aude")), begun(world, "aude"))
    got = [next(lines) for _ in range(10)]
    with unbound(world.db).begin() as connection:
        connection.execute(
            text("DELETE FROM memberships WHERE person_id = :p"), {"p": world.people["aude"].person_id}
        )

    with pytest.raises(NotYours):
        got.extend(lines)

    assert verified(b"".join(got)).findings.first[0].kind is FindingKind.TRUNCATED


@pytest.mark.parametrize("who", READERS)
def test_only_admins_and_auditors_read_the_audit_log(story: World, who: str) -> None:
    if READERS[who]:
        assert verified(exported(story, who)).exit_code == GOOD
    else:
        with pytest.raises(NotYours):
            reads(story, who)


def shown(found: bytes) -> dict[str, set[str]]:
    """Return the names of the personal fields that are shown, by action."""
    rows = [json.loads(row) for row in found.splitlines()]
    return {json.loads(row["body"])["action"]: set(row["personal"]) for row in rows if "body" in row}


def test_exports_hide_ip_addresses_of_the_other_side_and_hide_free_texts_from_vendor_auditors(story: World) -> None:
    customers, vendors = shown(exported(story, "aude")), shown(exported(story, "vera"))

    assert customers["submit"] == {"name", "justification", "case_ref", "resources"}
    assert customers["approve"] == {"name", "address", "user_agent", "comment"}
    assert vendors["submit"] == {"name", "address", "user_agent", "case_ref", "resources"}
    assert vendors["approve"] == {"name"}


def test_a_customers_log_of_a_request_begins_when_the_customer_is_asked(api: Database, worker: Database) -> None:
    world = World.make(api, Policy(vendor_review=True))
    first = world.submit(justification="The mailbox does not open")
    world.submit(resources=["mailbox:bert@contoso.example"])
    sealed(worker)
    with pytest.raises(NotFound, match="This log has no sealed events"):
        exported(world, "tara")

    world.act("max", Action.ENDORSE, first.id)
    world.act("ann", Action.APPROVE, first.id)
    sealed(worker)

    own = exported(world)
    result = verified(own, note(world))
    assert (result.exit_code, result.events, result.approvals) == (GOOD, 2, 1), result.findings
    assert result.approvals_by_hash == 0
    asked, approved = bodies(own)
    assert [asked["action"], asked["seq"], approved["action"], approved["seq"]] == ["endorse", 2, "approve", 3]
    said = next(json.loads(line)["personal"] for line in own.splitlines() if b'"body"' in line)
    assert said["justification"]["value"] == "The mailbox does not open"
    assert said["engineer"]["value"] == "Erin"
    assert json.loads(said["resources"]["value"]) == first.resources


def test_customer_and_vendor_can_compare_events_from_before_the_customer_was_asked(
    api: Database, worker: Database
) -> None:
    world = World.make(api, Policy(vendor_review=True))
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)
    sealed(worker)

    (asked,) = bodies(exported(world))
    theirs = vendors_log(world)

    result = verified(theirs)
    assert result.exit_code == GOOD, result.findings
    (submitted,) = [body for body in bodies(theirs) if body["request_id"] == str(request.id)]
    leaf = leaf_hash(canonical(submitted)).hex()
    assert asked["earlier"] == {submitted["id"]: leaf}
    said = asked["submission"]
    assert said["event"] == submitted["id"]
    assert said["at"] == submitted["at"]
    assert said["engineer"] == said["submitted_by"] == submitted["actor_id"]
    for name in ("service", "actions", "mode", "reason_code", "quorum", "access_window", "policy_version"):
        assert said[name] == submitted[name]
    for name in ("justification", "case_ref", "resources"):
        assert asked["personal"].get(name) == submitted["personal"].get(name)


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
def test_the_customers_log_of_a_request_begins_when_the_vendor_opens_the_window_by_itself(
    api: Database, worker: Database, mode: Mode
) -> None:
    world = World.make(api, Policy(vendor_review=True), mode)
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)
    world.act("erin", Action.COMPLETE, request.id)
    sealed(worker)

    result = verified(exported(world))

    assert (result.exit_code, result.events, result.approvals) == (GOOD, 2, 1), result.findings


@pytest.mark.parametrize("action", [Action.DENY, Action.CANCEL])
def test_a_request_that_ends_before_the_customer_is_asked_is_only_in_the_vendors_log(
    api: Database, worker: Database, action: Action
) -> None:
    world = World.make(api, Policy(vendor_review=True))
    request = world.submit()
    world.act("max" if action is Action.DENY else "erin", action, request.id)
    sealed(worker)

    theirs = vendors_log(world)

    assert verified(theirs).exit_code == GOOD
    ours = [body for body in bodies(theirs) if body["request_id"] == str(request.id)]
    assert [one["action"] for one in ours] == ["submit", action.value]
    assert {one["tenant_id"] for one in ours} == {str(world.tenant.id)}
    with pytest.raises(NotFound):
        exported(world, "tara")


def test_vendor_auditors_read_no_justification(api: Database, worker: Database) -> None:
    world = World.make(api, Policy(vendor_review=True))
    request = world.submit(justification="The mailbox does not open")
    sealed(worker)

    theirs = vendors_log(world)

    assert b"does not open" not in theirs
    assert str(request.id).encode() in theirs
    reader = reads_vendors(world)
    with world.db.transaction() as session:
        found = audit_access.search(session, reader, EventFilter(words="does not open"), before=None, most=10)
    assert not found.events


def test_no_export_contains_events_of_another_tenant(story: World, api: Database, worker: Database) -> None:
    other = World.make(api)
    other.submit()
    sealed(worker)

    assert verified(exported(story)).events == 3
    assert verified(exported(other)).events == 1


def test_an_export_omits_erased_values_and_the_proofs_are_still_valid(story: World) -> None:
    with unbound(story.db).begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE event_details SET fields = fields - 'name'"))

    result = verified(exported(story), note(story))

    assert result.exit_code == GOOD
    assert result.left_out > 3


@pytest.mark.parametrize("count", [700, pytest.param(70_000, marks=pytest.mark.far)])
def test_a_few_hash_tiles_prove_that_a_single_event_is_in_the_log(
    world: World, worker: Database, superuser: Engine, count: int
) -> None:
    write(world, count)
    sealed(worker)
    with superuser.connect() as connection:
        ids = connection.execute(text("SELECT event_id, body FROM seals JOIN events ON id = event_id")).all()
    reader = reads(world)

    for event_id, body in (ids[0], ids[count // 2], ids[-1]):
        with world.db.transaction() as session:
            log, number, path = audit_access.inclusion(session, reader, event_id)

        merkle.check_inclusion(leaf_hash(bytes(body)), number, log.size, path, log.root)
        assert checkpoint.read(log.note).root == log.root


def test_the_csv_export_has_the_documented_columns_and_no_formula(story: World) -> None:
    pages = audit_access.pages(story.db, reads(story))

    rows = list(csv.DictReader(io.StringIO(b"".join(tables.table(pages, begun(story))).decode())))

    assert [row["Activity"] for row in rows] == ["submit", "approve", "complete"]
    approved = rows[1]
    assert (approved["User"], approved["Role"], approved["ApprovalDecision"]) == ("Ann", "approver", "Approved")
    assert (approved["IP address"], rows[0]["IP address"]) == ("127.0.0.1", "")
    assert approved["Item"] == "exchange-online mailbox:anna@contoso.example"
    assert UUID(approved["Request"]) == UUID(rows[0]["Request"])


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_csv_cell_that_would_be_a_formula_is_neutralised(world: World, worker: Database, start: str) -> None:
    caller = world.add("mallory", Role.APPROVER, world.tenant.id)
    world.people["mallory"] = replace(caller, name=f"{start}1+1")
    request = world.submit()
    world.act("mallory", Action.DENY, request.id)
    sealed(worker)

    found = b"".join(tables.table(audit_access.pages(world.db, reads(world)), begun(world))).decode()

    assert list(csv.DictReader(io.StringIO(found, newline="")))[1]["User"] == f"'{start}1+1"


EDIT = "UPDATE events SET body = convert_to(replace(convert_from(body, 'UTF8'), 'approve', 'deny'), 'UTF8') {}"
TAMPERINGS = {
    "edits an event": (EDIT.format("WHERE id = second()"), FindingKind.EDITED),
    "edits a value": (
        "UPDATE event_details SET fields = jsonb_set(fields, '{name,1}', '\"Bill\"') WHERE event_id = second()",
        FindingKind.COMMITMENT,
    ),
    "deletes an event": ("DELETE FROM events WHERE id = second()", FindingKind.REMOVED),
    "deletes a seal": ("DELETE FROM seals WHERE event_id = second()", FindingKind.REMOVED),
    "gives an event away": ("UPDATE events SET tenant_id = NULL WHERE id = second()", FindingKind.REMOVED),
    "rewrites the tree": (
        "UPDATE tiles SET hashes = set_byte(hashes, 0, get_byte(hashes, 0) # 1)",
        FindingKind.EDITED,
    ),
    "says another size": ("UPDATE logs SET size = 2", FindingKind.EDITED),
}
SECOND = "(SELECT event_id FROM seals WHERE number = 1)"


@pytest.mark.parametrize("name", TAMPERINGS)
def test_the_verifier_names_any_change_made_by_the_database_owner(story: World, superuser: Engine, name: str) -> None:
    statement, kind = TAMPERINGS[name]
    seen = note(story)
    assert verified(exported(story), seen).exit_code == GOOD

    freely(superuser, statement.replace("second()", SECOND))

    result = verified(exported(story), seen)
    assert result.findings.first[0].kind is kind, result.findings


def test_the_verifier_names_swapped_events(story: World, superuser: Engine) -> None:
    freely(superuser, "UPDATE seals SET number = number + 10 WHERE number > 0")
    freely(superuser, "UPDATE seals SET number = 13 - number WHERE number > 0")

    assert verified(exported(story)).findings.first[0].kind is FindingKind.REORDERED


def test_a_restored_database_is_reported_as_older_than_the_shipped_checkpoint(story: World, worker: Database) -> None:
    dump = exported(story)
    story.submit()
    sealed(worker)

    assert verified(dump, note(story)).findings.first[0].kind is FindingKind.NEWER_KNOWN


@pytest.mark.far
@pytest.mark.parametrize("end", [20, 256, 300, 512, 700])
def test_the_verifier_distinguishes_removed_from_missing_events(
    world: World, worker: Database, superuser: Engine, end: int
) -> None:
    write(world, 700)
    sealed(worker)
    before = note(world)
    freely(superuser, DELETE.replace("END", str(end)))
    silent = verified(exported(world), before)

    write(world, 1, REMOVED.replace("END", str(end)))
    sealed(worker)

    said = verified(exported(world, since=(700,)), before)
    assert silent.findings.first[0].kind is FindingKind.REMOVED
    assert (said.exit_code, said.removed, said.events) == (GOOD, [(0, end)], 701 - end), said.findings


def freely(root: Engine, statement: str) -> None:
    """Run SQL as a database owner who has switched the triggers off."""
    with root.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(text(statement))
