"""Rows about a tenant's data need a MAC of the API's key: the API's database role alone cannot forge them."""

from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.people import HERE, World
from harness.stage import Urls
from lockbox.admin import key_rotation, legal_holds, permissions, tenant_data
from lockbox.admin.permissions import AdminChange
from lockbox.database import Database, ProcessKeys, now
from lockbox.errors import Conflict
from lockbox.identity.keyring import Keyring
from lockbox.identity.row_macs import OF_TENANTS
from lockbox.owner_transaction import as_owner
from tests.database.scenes import read, write_unchecked
from tests.database.tenancy import does
from tests.database.test_erasure import erase
from tests.database.test_retention import denied, sealed
from tests.database.test_tenant_data import WHY, kept, retained

HOLD = """
INSERT INTO legal_holds (id, tenant_id, side, reason, set_by, set_at, mac)
VALUES (:id, :tenant, 'customer', 'x', :who, :at, :mac)
"""
RELEASE = "UPDATE legal_holds SET released_at = :at, released_by = :who"
KEEP = "INSERT INTO retentions (tenant_id, days, set_at, mac) VALUES (:tenant, 30, :at, :mac)"
KEEP_LESS = "UPDATE retentions SET days = 30, set_at = :at"
LEAVE = "INSERT INTO offboardings (tenant_id, asked_by, asked_at, mac) VALUES (:tenant, :who, :at, :mac)"
SAID = {
    HOLD: ("hold_set", "legal hold"),
    RELEASE: ("hold_released", "legal hold"),
    KEEP: ("retention_changed", "retention"),
    KEEP_LESS: ("retention_changed", "retention"),
    LEAVE: ("offboarding_asked", "off-boarding"),
}
OLD_MARKS = (
    "UPDATE retentions SET mac = ''",
    "UPDATE legal_holds SET mac = ''",
    "UPDATE offboardings SET mac = ''",
)


def forge(world: World, statement: str, action: str = "", mac: bytes | None = None) -> None:
    """Write a row as the API's database role in the admin's name, with its event but without a key."""
    caller = world.people["tara"]
    with world.db.transaction() as session:
        tenant = permissions.known(session, caller, world.tenant.slug)
        actor = permissions.acting_as(session, caller, HERE, tenant_data.ADMINS, tenant)
        at = now(session)
        values = {"id": uuid4(), "tenant": tenant.id, "who": caller.person_id, "at": at, "mac": mac}
        used = text(statement)
        session.execute(used, {name: values[name] for name in used.compile().params})
        permissions.record_change(session, actor, AdminChange(action or SAID[statement][0], at, {"forged": "yes"}))


def doubted(world: World) -> list[str]:
    """Return the kinds of the tenant's rows in which the scan finds no valid MAC."""
    with world.db.transaction() as session:
        return [one.kind for one in OF_TENANTS.unverified(session, [world.tenant.id])]


def test_a_forged_retention_time_removes_nothing_until_an_admin_sets_it_again(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    denied(world, superuser)
    sealed(worker)

    forge(world, KEEP)

    assert (doubted(world), retained(urls), kept(world).retention_days) == (["retention"], [], None)
    assert retained(urls, most=200) == []
    does(world, "tara", tenant_data.keep_for, 30, most=None)
    sealed(worker)
    assert doubted(world) == []
    assert [one.log_id for one in retained(urls)] == [world.tenant.id]


def test_a_retention_time_shortened_by_a_database_role_falls_back_to_the_default(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    denied(world, superuser)
    sealed(worker)
    does(world, "tara", tenant_data.keep_for, 200, most=None)

    forge(world, KEEP_LESS)

    assert (doubted(world), retained(urls)) == (["retention"], [])


def test_a_legal_hold_with_a_forged_release_lasts_until_its_own_side_releases_the_hold(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    denied(world, superuser)
    sealed(worker)
    does(world, "tara", legal_holds.hold, WHY)

    forge(world, RELEASE)

    assert (doubted(world), retained(urls, most=30)) == (["legal hold"], [])
    assert [one.reason for one in kept(world).holds] == [WHY]
    with pytest.raises(Conflict, match="legal hold"):
        erase(urls, world.people["ann"].person_id)
    with pytest.raises(Conflict, match="Release it first"):
        does(world, "tara", legal_holds.hold, WHY)
    does(world, "tara", legal_holds.release)
    assert (doubted(world), kept(world).holds) == ([], [])
    assert [one.log_id for one in retained(urls, most=30)] == [world.tenant.id]


def test_a_forged_legal_hold_applies_and_is_reported_until_released(world: World, urls: Urls) -> None:
    forge(world, HOLD)

    assert doubted(world) == ["legal hold"]
    with pytest.raises(Conflict, match="legal hold"):
        erase(urls, world.people["ann"].person_id)
    does(world, "tara", legal_holds.release)
    assert doubted(world) == []
    erase(urls, world.people["ann"].person_id)


def test_a_forged_off_boarding_must_be_withdrawn_before_a_genuine_off_boarding_is_possible(world: World) -> None:
    forge(world, LEAVE)

    assert doubted(world) == ["off-boarding"]
    with pytest.raises(Conflict, match="Withdraw it first"):
        does(world, "tara", tenant_data.ask_to_leave)
    does(world, "tara", tenant_data.stay)
    does(world, "tara", tenant_data.ask_to_leave)
    assert doubted(world) == []


def test_a_replaced_retention_time_cannot_be_restored_together_with_the_old_mac(world: World) -> None:
    does(world, "tara", tenant_data.keep_for, 30, most=None)
    (was,) = read(world.db, "SELECT mac FROM retentions")
    does(world, "tara", tenant_data.keep_for, 60, most=None)

    with pytest.raises(DBAPIError, match="does not come back"):
        forge(world, "UPDATE retentions SET days = 30, mac = :mac", "retention_changed", was.mac)


def test_a_withdrawn_off_boarding_cannot_be_restored_together_with_the_old_mac(world: World) -> None:
    does(world, "tara", tenant_data.ask_to_leave)
    (was,) = read(world.db, "SELECT mac FROM offboardings")
    does(world, "tara", tenant_data.stay)

    with pytest.raises(DBAPIError, match="does not come back"):
        forge(world, LEAVE, mac=was.mac)


@pytest.mark.parametrize("statement", [HOLD, KEEP, LEAVE])
def test_no_database_role_writes_the_mac_value_reserved_for_older_rows(world: World, statement: str) -> None:
    forge(world, statement, mac=b"")

    assert doubted(world) == [SAID[statement][1]]


@pytest.mark.parametrize("statement", [KEEP_LESS, RELEASE])
def test_a_row_from_before_macs_existed_is_valid_until_a_database_role_changes_the_row(
    world: World, worker: Database, urls: Urls, superuser: Engine, statement: str
) -> None:
    denied(world, superuser)
    sealed(worker)
    does(world, "tara", tenant_data.keep_for, 90, most=None)
    does(world, "tara", legal_holds.hold, WHY)
    for older in OLD_MARKS:
        write_unchecked(superuser, older)
    assert (doubted(world), kept(world).retention_days, len(kept(world).holds)) == ([], 90, 1)

    forge(world, statement)

    assert doubted(world) == [SAID[statement][1]]
    assert retained(urls) == []


def test_a_row_from_before_macs_existed_gets_a_mac_when_it_is_rekeyed_or_next_changed(
    world: World, urls: Urls, superuser: Engine
) -> None:
    does(world, "tara", tenant_data.keep_for, 90, most=None)
    does(world, "olga", legal_holds.hold, WHY)
    does(world, "olga", legal_holds.release)
    does(world, "tara", tenant_data.ask_to_leave)
    for older in OLD_MARKS:
        write_unchecked(superuser, older)
    assert kept(world).holds == []
    does(world, "tara", legal_holds.hold, WHY)
    does(world, "tara", legal_holds.release)

    with as_owner(urls.owner) as session:
        done = key_rotation.rekey(session)

    assert (done.marked, done.unverified, doubted(world)) == (3, [], [])
    with as_owner(urls.owner, ProcessKeys(Keyring([b"n" * 32]))) as session:
        named = key_rotation.rekey(session).unverified
    of_tenant = [f"{kind}: tenant {world.tenant.id}" for kind in ("retention", "legal hold", "off-boarding")]
    assert set(of_tenant) <= set(named)
