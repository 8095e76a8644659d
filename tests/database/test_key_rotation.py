"""Key rotation: MACs of an older key are valid and are renewed at use; a lost key can be replaced."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Engine

from harness.people import World
from harness.stage import Urls, setting
from lockbox.admin import key_rotation
from lockbox.admin.key_rotation import RotationResult
from lockbox.database import Database, ProcessKeys, UnitOfWork, now
from lockbox.errors import NotSignedIn
from lockbox.identity import api_tokens, authentication, row_macs
from lockbox.identity.api_tokens import TokenTerms
from lockbox.identity.keyring import Keyring
from lockbox.identity.models import Tenant
from lockbox.identity.roles import Role
from lockbox.notifications import recipients
from lockbox.owner_transaction import as_owner
from lockbox.requests import policy_store
from tests.database.scenes import read, write
from tests.policy_setup import lay_down, stand_in

OLD, NEW = b"o" * 32, b"n" * 32
MARKS = """
SELECT (SELECT substr(mac, 1, 4) FROM tokens WHERE person_id = :id) AS token,
    (SELECT substr(secret_hash, 1, 4) FROM tokens WHERE person_id = :id) AS secret,
    (SELECT substr(mac, 1, 4) FROM memberships WHERE person_id = :id) AS role
"""

LAID_DOWN = 2
"""The rows that say what a new tenant has laid down: its own, and one version of its policy."""

Rekey = Callable[..., RotationResult]


@pytest.fixture
def old(api: Database, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("lockbox.identity.keyring.development", lambda: Keyring([OLD]))
    world = World.make(api)
    monkeypatch.undo()
    return world


@pytest.fixture
def rekey(urls: Urls) -> Rekey:
    """Return the owner's command, which takes the root keys."""

    def rekeyed(*roots: bytes, key_is_lost: bool = False) -> RotationResult:
        with as_owner(urls.owner, ProcessKeys(Keyring(roots))) as session:
            return key_rotation.rekey(session, key_is_lost=key_is_lost)

    return rekeyed


def at(db: Database, *roots: bytes) -> Database:
    """Return the database of an API that has these root keys."""
    return Database(db.engine, db.schedule, keys=ProcessKeys(Keyring(roots)))


def recognised(db: Database, world: World, name: str) -> set[Role]:
    """Authenticate with a person's token, and return the roles found."""
    with db.transaction() as session:
        caller = authentication.authenticate_token(session, world.tokens[name], environment="test")
    return {one.role for one in caller.standings}


def marked(world: World, name: str) -> set[bytes]:
    """Return the MACs of a person's token, its secret and the person's role."""
    (row,) = read(world.db, MARKS, id=world.people[name].person_id)
    return {bytes(row.token), bytes(row.secret), bytes(row.role)}


def test_a_row_with_a_mac_of_an_older_key_is_valid_and_gets_a_new_mac_when_used(old: World) -> None:
    both = at(old.db, NEW, OLD)
    before = marked(old, "ann")

    assert recognised(both, old, "ann") == {Role.APPROVER}
    after = marked(old, "ann")
    assert recognised(at(old.db, NEW), old, "ann") == {Role.APPROVER}
    with pytest.raises(NotSignedIn):
        recognised(at(old.db, OLD), old, "ann")

    assert len(before) == 2
    assert len(after) == 2
    assert not before & after


def test_without_the_mac_key_no_credential_is_valid(old: World) -> None:
    with pytest.raises(NotSignedIn):
        recognised(at(old.db, NEW), old, "ann")


def test_all_roles_get_a_new_mac_before_an_older_key_is_removed(old: World, rekey: Rekey) -> None:
    done = rekey(NEW, OLD)

    assert (done.marked, done.unverified, done.ended) == (len(old.people) + LAID_DOWN, [], 0)
    assert done.waiting == len(old.tokens)
    assert rekey(NEW, OLD).marked == 0
    told = read(old.db, "SELECT actor_role FROM events WHERE action = 'powers_rekeyed'")
    assert len(told) == 1


def test_policies_and_delegates_get_a_new_mac_before_an_older_key_is_removed(
    old: World, rekey: Rekey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockbox.identity.keyring.development", lambda: Keyring([OLD]))
    lay_down(old, quorum=2)
    stand_in(old, "aude", "ann")
    monkeypatch.undo()
    new = at(old.db, NEW)

    before = held(new, old)
    rekey(NEW, OLD)

    assert (before, held(new, old)) == ((None, False), (2, True))


def held(db: Database, world: World) -> tuple[int | None, bool]:
    """Return the quorum of the policy that is valid under these keys, and whether Aude is Ann's delegate."""
    with db.transaction() as session:
        authentication.enter(session, world.people["ann"])
        tenant = session.orm.get_one(Tenant, world.tenant.id)
        policy = policy_store.verified(session, tenant)
        known = recipients.look_up(session, {tenant.id}, now(session))
    return policy.quorum if policy else None, world.people["aude"].person_id in known.delegates[tenant.id]


def test_a_worker_without_keys_verifies_no_mac(old: World) -> None:
    """The worker uses policies and delegates only for reminders, never to grant rights."""
    lay_down(old, quorum=2)
    stand_in(old, "aude", "ann")
    worker = at(old.db)

    assert held(worker, old) == (2, True)
    with worker.transaction() as session:
        assert not row_macs.is_held(session, b"", row_macs.policy(old.tenant.id, 1, "{}"), old.tenant.id)
    with pytest.raises(NotSignedIn):
        recognised(worker, old, "ann")


def test_rekeying_reports_a_row_without_a_valid_mac_and_leaves_the_row_unchanged(
    old: World, rekey: Rekey, superuser: Engine
) -> None:
    ann = old.people["ann"].person_id
    write(superuser, "UPDATE memberships SET mac = NULL WHERE person_id = :id", id=ann)

    done = rekey(NEW, OLD)

    assert done.unverified == [f"approver at tenant {old.tenant.id}: person {ann}"]
    assert recognised(at(old.db, NEW, OLD), old, "ann") == set()
    assert recognised(at(old.db, NEW, OLD), old, "amir") == {Role.APPROVER}


def test_replacing_a_lost_key_restores_all_roles_and_ends_sessions_and_tokens(old: World, rekey: Rekey) -> None:
    done = rekey(NEW, key_is_lost=True)

    db = at(old.db, NEW)
    with pytest.raises(NotSignedIn):
        recognised(db, old, "ann")
    assert len(done.unverified) == done.marked == len(old.people) + LAID_DOWN
    assert done.ended == len(old.tokens)
    assert read(old.db, "SELECT count(*) AS open FROM tokens WHERE revoked_at IS NULL")[0].open == 0
    anew = Database(setting(db).engine, db.schedule, keys=ProcessKeys(Keyring([NEW])))
    with anew.transaction() as session:
        old.tokens["ann"] = _issued(session, old.people["ann"].person_id)
    assert recognised(db, old, "ann") == {Role.APPROVER}


def test_a_mac_of_the_new_key_cannot_be_replaced_by_the_older_mac(
    old: World, rekey: Rekey, superuser: Engine
) -> None:
    ann = old.people["ann"].person_id
    (was,) = read(old.db, "SELECT mac FROM memberships WHERE person_id = :id", id=ann)
    rekey(NEW, OLD)

    with pytest.raises(Exception, match="does not come back"):
        write(superuser, "UPDATE memberships SET mac = :mac WHERE person_id = :id", mac=was.mac, id=ann)


def _issued(session: UnitOfWork, person_id: UUID) -> str:
    terms = TokenTerms(environment="test", lifetime=authentication.USE_NOTED_EVERY)
    return api_tokens.issue(session, person_id, terms).text
