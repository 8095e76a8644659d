"""Approvers' keys in a customer's hand: exported by its admin alone, and enough to check a real log by."""

import io
import json

import pytest
from sqlalchemy import Engine, text

from cli.owner_transaction import as_owner
from harness.people import World
from harness.stage import Urls
from lockbox.admin import audit_access, erasure
from lockbox.audit import export
from lockbox.audit.event_search import EventFilter
from lockbox.audit.verifier import approver_keys as files
from lockbox.audit.verifier import export_format
from lockbox.audit.verifier.approver_keys import ApproverKeys
from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.signed_approvals import Approvers
from lockbox.audit.verifier.verify import BAD, VerificationResult, verify
from lockbox.database import Database
from lockbox.errors import NotYours
from lockbox.facts.enumerations import ApproveMeans
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.database.scenes import read
from tests.database.tenancy import reads
from tests.logs import public, sealed
from tests.passkey_approvals import DEMANDED, PARTY, approve, cose_bytes, enrol


def keys_of(world: World, who: str = "tara") -> ApproverKeys:
    """Return the keys as somebody exports them, through the file."""
    given = reads(world, who, audit_access.export_approver_keys, lambda: PARTY)
    return files.read(json.dumps(files.document(given)))


def result_of(world: World, worker: Database, *given: ApproverKeys) -> VerificationResult:
    """Return the result on a whole export of the tenant's log."""
    sealed(worker)
    with world.db.transaction() as session:
        reading = audit_access.audit_reader(session, world.people["tara"], world.tenant.slug)
    with world.db.transaction() as session:
        begun = audit_access.export(session, reading, EventFilter(), {}, ())
    pages = audit_access.pages(world.db, reading)
    file = b"".join(export.lines(pages, begun))
    return verify(export_format.lines_of(io.BytesIO(file)), [public()], approvers=Approvers(given))


@pytest.mark.parametrize("who", ["ann", "aude", "max", "olga", "erin"])
def test_only_an_admin_of_the_tenant_exports_the_keys(api: Database, who: str) -> None:
    world = World.make(api, DEMANDED)

    with pytest.raises(NotYours):
        keys_of(world, who)


def test_the_keys_are_those_of_the_approvers_and_of_nobody_else(api: Database) -> None:
    world = World.make(api, DEMANDED)
    anns = enrol(world, "ann")
    enrol(world, "aude")

    given = keys_of(world)

    assert [(one.name, one.person_id) for one in given.keys] == [("Ann", str(world.people["ann"].person_id))]
    assert given.rp_id == PARTY.domain
    assert anns.credentials[-1].id.hex() not in json.dumps(files.document(given))


def test_a_key_that_a_login_of_the_database_wrote_is_not_exported(api: Database, superuser: Engine) -> None:
    world = World.make(api, DEMANDED)
    enrol(world, "ann")
    stranger = enrol(world, "amir")
    with superuser.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        swap = "UPDATE passkeys SET public_key = :key WHERE person_id = :ann"
        values = {"key": cose_bytes(stranger), "ann": world.people["ann"].person_id}
        connection.execute(text(swap), values)

    assert [one.name for one in keys_of(world).keys] == ["Amir"]


@pytest.mark.parametrize("row", ["memberships (id, person_id, tenant_id, role)", "eligible_delegates"])
def test_nobody_is_among_the_approvers_by_a_row_that_a_login_of_the_database_wrote(
    api: Database, superuser: Engine, row: str
) -> None:
    world, other = World.make(api, DEMANDED), World.make(api, DEMANDED)
    enrol(world, "ann")
    enrol(other, "ann")
    values = ":id, :who, :tenant, 'approver'" if row.startswith("memberships") else ":tenant, :who"
    with superuser.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        named = row if row.startswith("memberships") else f"{row} (tenant_id, person_id)"
        their = {"id": new_id(), "who": other.people["ann"].person_id, "tenant": world.tenant.id}
        connection.execute(text(f"INSERT INTO {named} VALUES ({values})"), their)  # noqa: S608 - our own

    assert [one.person_id for one in keys_of(world).keys] == [str(world.people["ann"].person_id)]


def test_a_real_log_is_checked_by_the_customers_own_keys(api: Database, worker: Database) -> None:
    world = World.make(api, DEMANDED)
    request = world.submit()
    approve(world, "ann", request.id, enrol(world, "ann"), comment="For the case")

    result = result_of(world, worker, keys_of(world))

    assert FindingKind.PASSKEY not in result.findings.kinds
    assert (result.signed_approvals, result.attested) == (1, {})


def test_a_passkey_that_the_vendor_enrolled_for_an_approver_later_is_named(api: Database, worker: Database) -> None:
    world = World.make(api, DEMANDED)
    enrol(world, "ann")
    before = keys_of(world)
    forged = enrol(world, "ann")
    approve(world, "ann", world.submit().id, forged)

    result = result_of(world, worker, before)

    assert result.exit_code == BAD
    assert FindingKind.PASSKEY in result.findings.kinds


def test_the_signature_of_somebody_erased_is_checked_by_the_file_that_the_customer_kept(
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


def test_what_the_vendor_reviewed_first_is_checked_by_the_customers_log_alone(
    api: Database, worker: Database
) -> None:
    world = World.make(api, Policy(approve_means=ApproveMeans.PASSKEY_SIGNED))
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)
    approve(world, "ann", request.id, enrol(world, "ann"), actions=["read"])

    result = result_of(world, worker, keys_of(world))

    assert FindingKind.PASSKEY not in result.findings.kinds
    assert result.signed_approvals == 1
