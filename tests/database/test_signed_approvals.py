"""Signed approvals: a window is open only as an approval key of the API has signed it, whatever the database says."""

import hashlib
import io
import json
import time
from base64 import b64decode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Engine, text

from harness.people import World
from harness.stage import Urls
from lockbox.admin import audit_access, erasure
from lockbox.audit import export
from lockbox.audit.canonical import signed_text
from lockbox.audit.event_search import EventFilter
from lockbox.audit.log import signing_keys
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.log.signing_keys import BadKey
from lockbox.audit.verifier import approver_keys as files
from lockbox.audit.verifier import export_format
from lockbox.audit.verifier.approver_keys import ApproverKeys
from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.signed_approvals import Approvers
from lockbox.audit.verifier.verify import BAD, VerificationResult, verify
from lockbox.database import Database, ProcessKeys
from lockbox.errors import NotYours
from lockbox.facts.enumerations import ApproveMeans, Mode
from lockbox.identity import authentication, keyring
from lockbox.identity.keyring import ApprovalKeys
from lockbox.owner_transaction import as_owner
from lockbox.requests import request_list
from lockbox.requests.approvals import statement
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from lockbox.requests.request_list import RequestFilter
from lockbox.sql import new_id
from tests.database.scenes import door, read
from tests.database.tenancy import reads
from tests.logs import public, sealed
from tests.passkey_approvals import DEMANDED, PARTY, approve, cose_bytes, enrol

OTHER = "mailbox:boss@contoso.example"
FORGED_EVENT = """
INSERT INTO events (id, tenant_id, request_id, seq, at, action, actor_id, actor_role, from_state, to_state,
    deadline_at, body)
SELECT uuidv7(), r.tenant_id, r.id, r.version, now(), 'approve', :by, 'approver', 'pending', 'active',
    r.deadline_at, CAST(:body AS bytea) FROM requests r WHERE r.id = :id
"""
FORGED_DECISION = """
INSERT INTO decisions (id, request_id, person_id, principals, means, decision, channel, decided_at)
VALUES (uuidv7(), :id, :by, '{}', 'passkey', 'approve', 'portal', now())
"""
FORGED_WINDOW = """
UPDATE requests SET state = 'active', version = version + 1, opened_at = now(), closed_at = NULL,
    deadline_at = now() + interval '1 hour', wake_at = now() + interval '1 hour' WHERE id = :id
"""


def as_owner_of_all(superuser: Engine, *statements: str, **values: object) -> None:
    """Write what Lockbox never would, as the database owner with the triggers switched off."""
    with superuser.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        for one in statements:
            connection.execute(text(one), values)


def event_of(db: Database, request_id: UUID) -> dict[str, object]:
    (row,) = read(db, "SELECT body FROM events WHERE request_id = :id ORDER BY seq DESC LIMIT 1", id=request_id)
    body: dict[str, object] = json.loads(row.body)
    return body


def opened(world: World, **changes: Any) -> AccessRequest:
    return world.act("ann", Action.APPROVE, world.submit(**changes).id)


def test_an_opening_event_has_a_publicly_verifiable_signature(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request = world.submit()
    first = world.act("ann", Action.APPROVE, request.id)
    before = event_of(api, request.id)
    second = world.act("amir", Action.APPROVE, request.id)

    body = event_of(api, request.id)

    assert "approval" not in before
    assert first.state != second.state
    both = sorted(str(world.people[name].person_id) for name in ("ann", "amir"))
    assert body["approved_by"] == both
    approval = body["approval"]
    assert isinstance(approval, dict)
    (listed,) = read(api, "SELECT key, purpose FROM audit_keys WHERE purpose = 'approval'")
    key = VerifierKey.read(listed.key)
    assert key.id.hex() == approval["key"]
    said = hashlib.sha256(statement(second, both)).hexdigest()
    assert approval["statement"] == said
    window = second.id, second.tenant_id, second.opened_at, second.deadline_at
    signed = signed_text(*window, by=both, statement=said)
    Ed25519PublicKey.from_public_bytes(key.public).verify(b64decode(approval["signature"]), signed)
    assert "anna@contoso.example" not in json.dumps(body)


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
def test_an_endorsement_is_signed_where_the_vendor_decides(api: Database, mode: Mode) -> None:
    world = World.make(api, Policy(vendor_review=True), mode)
    request = world.submit()

    world.act("max", Action.ENDORSE, request.id)

    assert event_of(api, request.id)["approved_by"] == [str(world.people["max"].person_id)]
    assert door(world) is not None


@pytest.mark.parametrize(
    "change",
    [
        "access_window = 7200, deadline_at = deadline_at + interval '1 microsecond'",
        "opened_at = opened_at + interval '1 second'",
        f"resources = ARRAY['mailbox:anna@contoso.example', '{OTHER}']",
        "actions = ARRAY['read', 'export']",
        "policy_version = 2",
        "requester_id = (SELECT id FROM people WHERE name = 'Eve')",
        "mode = 'off'",
        "version = version + 1",
    ],
)
def test_a_request_row_changed_after_the_approval_opens_no_window(
    world: World, superuser: Engine, change: str
) -> None:
    request = opened(world)
    before = door(world)

    as_owner_of_all(superuser, f"UPDATE requests SET {change} WHERE id = :id", id=request.id)  # noqa: S608 - ours

    assert before is not None
    assert door(world) is None
    assert door(world, "eve") is None


def test_decisions_and_events_invented_by_the_database_owner_open_no_window(world: World, superuser: Engine) -> None:
    request, by = world.submit(), world.people["ann"].person_id
    values = {"id": request.id, "by": by, "body": b'{"action":"approve"}'}

    as_owner_of_all(superuser, FORGED_DECISION, FORGED_WINDOW, FORGED_EVENT, **values)

    assert read(superuser, "SELECT is_decided(r) AS decided FROM requests r")[0].decided
    assert door(world) is None
    with world.db.transaction() as session:
        (entry,) = request_list.page(session, world.people["erin"], RequestFilter(), cursor=None, most=1).entries
    assert not entry.open


def test_an_approval_key_listed_by_the_database_owner_opens_no_window(world: World, superuser: Engine) -> None:
    request, by = world.submit(), world.people["ann"].person_id
    mine = ApprovalKeys([Ed25519PrivateKey.generate()])
    as_owner_of_all(superuser, FORGED_DECISION, FORGED_WINDOW, id=request.id, by=by)
    (row,) = read(superuser, "SELECT opened_at, deadline_at, version FROM requests")
    forged = request.model_copy(update=dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's public name for it
    said = hashlib.sha256(statement(forged, [str(by)])).hexdigest()
    window = forged.id, forged.tenant_id, forged.opened_at, forged.deadline_at
    made = mine.sign(signed_text(*window, by=[str(by)], statement=said))
    approval = {"statement": said, "key": made.key, "signature": made.signature}
    body = json.dumps({"approved_by": [str(by)], "approval": approval})

    as_owner_of_all(superuser, FORGED_EVENT, id=request.id, by=by, body=body.encode())
    list_it = "INSERT INTO audit_keys VALUES (:key, 'approval', now())"
    as_owner_of_all(superuser, list_it, key=mine.public.text)

    assert door(world) is None
    world.db = Database(world.db.engine, world.db.schedule, keys=ProcessKeys(mine))
    assert door(world) is not None


def test_the_signature_of_an_approval_is_valid_only_for_the_approved_window(world: World, superuser: Engine) -> None:
    real, other = opened(world), world.submit(resources=[OTHER])
    by = world.people["ann"].person_id
    (row,) = read(superuser, "SELECT body FROM events WHERE request_id = :id AND seq = 2", id=real.id)

    values = {"id": other.id, "by": by, "body": row.body}
    as_owner_of_all(superuser, FORGED_DECISION, FORGED_WINDOW, FORGED_EVENT, **values)

    assert door(world, resource=OTHER) is None
    assert door(world) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"null",
        b'{"approved_by":1,"approval":{}}',
        b'{"approved_by":[],"approval":{"key":"","signature":"\xff"}}',
    ],
)
def test_a_forged_approval_event_opens_no_window(world: World, superuser: Engine, body: bytes) -> None:
    request = opened(world)

    as_owner_of_all(
        superuser, "UPDATE events SET body = :body WHERE request_id = :id AND seq = 2", id=request.id, body=body
    )

    assert door(world) is None


def test_a_revoked_window_stays_closed_when_the_state_is_reset_in_the_database(
    world: World, superuser: Engine
) -> None:
    request = opened(world)
    world.act("ann", Action.REVOKE, request.id)

    as_owner_of_all(
        superuser,
        "UPDATE requests SET state = 'active', closed_at = NULL, wake_at = deadline_at WHERE id = :id",
        id=request.id,
    )

    assert door(world) is None


def test_an_older_approval_key_is_trusted_while_it_is_listed(world: World) -> None:
    old, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    db = world.db

    def with_keys(*signing: Ed25519PrivateKey) -> World:
        world.db = Database(db.engine, db.schedule, keys=ProcessKeys(ApprovalKeys(signing)))
        return world

    first = opened(with_keys(old))
    assert door(with_keys(new, old)) is not None
    assert door(with_keys(new)) is None
    opened(with_keys(new, old), resources=[OTHER])

    assert door(with_keys(old)) is not None
    assert door(with_keys(old), resource=OTHER) is None
    assert event_of(db, first.id)["approval"] != {}
    assert len(read(db, "SELECT FROM audit_keys WHERE purpose = 'approval'")) == 2


def test_checking_an_approval_signature_takes_far_less_than_ten_milliseconds(world: World) -> None:
    opened(world)
    took = []
    with world.db.transaction() as session:
        authentication.enter(session, world.people["gate"])
        for _ in range(200):
            began = time.perf_counter()
            assert keyring.approval_keys(session).has_signed(b"x", keyring.approval_keys(session).sign(b"x"))
            took.append(time.perf_counter() - began)

    assert timedelta(seconds=sorted(took)[100]) < timedelta(milliseconds=5)


def _nothing(file: Path) -> None:
    """Leave no file."""


def _not_a_key(file: Path) -> None:
    file.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


@pytest.mark.parametrize("prepare", [_nothing, _not_a_key])
def test_a_key_file_without_a_key_is_reported(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    file = tmp_path / "key.pem"
    prepare(file)

    with pytest.raises(BadKey, match=r"key\.pem"):
        signing_keys.read([file])


def test_an_approval_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"

    made = signing_keys.make(file)

    assert file.stat().st_mode & 0o777 == 0o600
    assert signing_keys.read([file])[0].private_bytes_raw() == made.private_bytes_raw()
    with pytest.raises(BadKey, match="never written over"):
        signing_keys.make(file)


def keys_of(world: World, who: str = "tara") -> ApproverKeys:
    """Return the keys that a person exports, read back from the file."""
    given = reads(world, who, audit_access.export_approver_keys, lambda: PARTY)
    return files.read(json.dumps(files.document(given)))


def result_of(world: World, worker: Database, *given: ApproverKeys) -> VerificationResult:
    """Verify a whole export of the tenant's log with these keys, and return the result."""
    sealed(worker)
    with world.db.transaction() as session:
        reading = audit_access.audit_reader(session, world.people["tara"], world.tenant.slug)
    with world.db.transaction() as session:
        begun = audit_access.export(session, reading, EventFilter(), {}, ())
    pages = audit_access.pages(world.db, reading)
    file = b"".join(export.lines(pages, begun))
    return verify(export_format.lines_of(io.BytesIO(file)), [public()], approvers=Approvers(given))


@pytest.mark.parametrize("who", ["ann", "aude", "max", "olga", "erin"])
def test_only_a_tenants_admin_exports_the_approvers_keys(api: Database, who: str) -> None:
    world = World.make(api, DEMANDED)

    with pytest.raises(NotYours):
        keys_of(world, who)


def test_the_exported_keys_are_the_passkeys_of_the_approvers(api: Database) -> None:
    world = World.make(api, DEMANDED)
    anns = enrol(world, "ann")
    enrol(world, "aude")

    given = keys_of(world)

    assert [(key.name, key.person_id) for key in given.keys] == [("Ann", str(world.people["ann"].person_id))]
    assert given.rp_id == PARTY.domain
    assert anns.credentials[-1].id.hex() not in json.dumps(files.document(given))


def test_a_passkey_row_written_by_a_database_role_is_not_exported(api: Database, superuser: Engine) -> None:
    world = World.make(api, DEMANDED)
    enrol(world, "ann")
    stranger = enrol(world, "amir")
    with superuser.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        swap = "UPDATE passkeys SET public_key = :key WHERE person_id = :ann"
        values = {"key": cose_bytes(stranger), "ann": world.people["ann"].person_id}
        connection.execute(text(swap), values)

    assert [key.name for key in keys_of(world).keys] == ["Amir"]


@pytest.mark.parametrize("row", ["memberships (id, person_id, tenant_id, role)", "eligible_delegates"])
def test_a_role_row_written_by_a_database_role_makes_no_approver(api: Database, superuser: Engine, row: str) -> None:
    world, other = World.make(api, DEMANDED), World.make(api, DEMANDED)
    enrol(world, "ann")
    enrol(other, "ann")
    values = ":id, :who, :tenant, 'approver'" if row.startswith("memberships") else ":tenant, :who"
    with superuser.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        named = row if row.startswith("memberships") else f"{row} (tenant_id, person_id)"
        their = {"id": new_id(), "who": other.people["ann"].person_id, "tenant": world.tenant.id}
        connection.execute(text(f"INSERT INTO {named} VALUES ({values})"), their)  # noqa: S608 - our own

    assert [key.person_id for key in keys_of(world).keys] == [str(world.people["ann"].person_id)]


def test_an_export_of_a_real_log_is_verified_with_the_customers_keys(api: Database, worker: Database) -> None:
    world = World.make(api, DEMANDED)
    request = world.submit()
    approve(world, "ann", request.id, enrol(world, "ann"), comment="For the case")

    result = result_of(world, worker, keys_of(world))

    assert FindingKind.PASSKEY not in result.findings.kinds
    assert (result.signed_approvals, result.attested) == (1, {})


def test_a_passkey_that_the_vendor_enrolled_later_is_named_by_the_verifier(api: Database, worker: Database) -> None:
    world = World.make(api, DEMANDED)
    enrol(world, "ann")
    before = keys_of(world)
    forged = enrol(world, "ann")
    approve(world, "ann", world.submit().id, forged)

    result = result_of(world, worker, before)

    assert result.exit_code == BAD
    assert FindingKind.PASSKEY in result.findings.kinds


def test_an_erased_persons_signature_is_verified_with_the_kept_key_file(
    api: Database, worker: Database, urls: Urls
) -> None:
    world = World.make(api, DEMANDED)
    approve(world, "ann", world.submit().id, enrol(world, "ann"))
    kept = keys_of(world)
    with as_owner(urls.owner) as session:
        erasure.erase(session, world.people["ann"].person_id)

    result = result_of(world, worker, kept)

    assert FindingKind.PASSKEY not in result.findings.kinds
    assert result.signed_approvals == 1
    assert keys_of(world).keys == ()
    assert not read(api, "SELECT FROM event_details WHERE fields ? 'credential'")


def test_a_vendor_reviewed_request_can_be_verified_with_only_the_customers_log(
    api: Database, worker: Database
) -> None:
    world = World.make(api, Policy(approve_means=ApproveMeans.PASSKEY_SIGNED))
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)
    approve(world, "ann", request.id, enrol(world, "ann"), actions=["read"])

    result = result_of(world, worker, keys_of(world))

    assert FindingKind.PASSKEY not in result.findings.kinds
    assert result.signed_approvals == 1
