"""Sealing: each event gets its place in a tree whose root is signed, whatever happens meanwhile."""

import threading
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from catalogue.service_catalogue import Plan
from harness.clocks import ShiftedClock
from harness.people import HERE, SETTINGS, World
from harness.stage import unbound
from lockbox.admin import tenants
from lockbox.admin.tenants import TenantInput
from lockbox.audit.events import VENDORS_LOG
from lockbox.audit.log import checkpoint, merkle, rollback, sealer
from lockbox.audit.log.checkpoint_folder import WitnessFolder
from lockbox.audit.log.merkle import check_consistency, check_inclusion, consistency, inclusion, leaf_hash, root_of
from lockbox.audit.log.rollback import LatestCheckpoint
from lockbox.audit.log.sealer import RollbackDetected, Signer
from lockbox.database import Database
from lockbox.requests import submit
from lockbox.requests.lifecycle import Action
from tests.database.scenes import read, write
from tests.database.tenancy import manages
from tests.database.test_exports import freely
from tests.each import each

SIGNER = Signer("lockbox.test", [Ed25519PrivateKey.generate()])
FABRIKAM = TenantInput("fabrikam", "Fabrikam", "standard", "Fay", "fay@fabrikam.example")
KEYS = {SIGNER.public.id: SIGNER.public}
LEAVES = """
SELECT e.body FROM seals s JOIN events e ON e.id = s.event_id WHERE s.log_id = :log ORDER BY s.number
"""
NUMBERS = "SELECT log_id, count(*) AS count, max(number) + 1 AS next FROM seals GROUP BY log_id"
IN_TURN = """
SELECT e.request_id, e.at FROM seals s JOIN events e ON e.id = s.event_id WHERE s.log_id = :log ORDER BY s.number
"""
LATE = "SELECT event_id FROM unsealed"
WRITTEN = "SELECT id FROM events WHERE log_id = :log ORDER BY at, id"
IN_ORDER = "SELECT event_id AS id FROM seals WHERE log_id = :log ORDER BY number"


def sealed(db: Database, folder: WitnessFolder | None = None) -> list[LatestCheckpoint]:
    """Seal all events, ship the checkpoints if there is a folder, and return every checkpoint."""
    return [one for noted in sealer.seal(db, SIGNER, folder) for one in noted]


def leaves(db: Database, log: UUID) -> list[bytes]:
    """Return the hashes of a log's events, computed from the stored bytes."""
    return [leaf_hash(bytes(row.body)) for row in read(unbound(db), LEAVES, log=log)]


def kept_tiles(db: Database, log: UUID) -> dict[tuple[int, int], bytes]:
    rows = read(unbound(db), "SELECT level, number, hashes FROM tiles WHERE log_id = :log", log=log)
    return {(row.level, row.number): bytes(row.hashes) for row in rows}


def test_each_event_is_sealed_and_the_signed_root_matches_the_event_bytes(world: World, worker: Database) -> None:
    request = world.fresh()
    world.act("ann", Action.APPROVE, request.id)

    noted = {one.log_id: one for one in sealed(worker)}

    hashes = leaves(world.db, world.tenant.id)
    said, signer = checkpoint.verify(noted[world.tenant.id].note, KEYS)
    assert (said.size, said.root) == (len(hashes), root_of(hashes))
    assert said.origin == f"lockbox.test/audit/{world.tenant.id}"
    assert signer == SIGNER.public
    assert not read(unbound(world.db), LATE)
    assert all(row.count == row.next for row in read(unbound(world.db), NUMBERS))


@pytest.mark.parametrize("count", [1, 4, 7])
def test_events_of_a_batch_are_sealed_in_time_order(world: World, worker: Database, count: int) -> None:
    sealed(worker)
    for _ in range(count):
        world.fresh()

    grown = [one.grown for one in sealed(worker) if one.log_id == world.tenant.id and one.grown]

    written = read(unbound(world.db), WRITTEN, log=world.tenant.id)
    assert grown == [len(written)] == [count]
    assert read(unbound(world.db), IN_ORDER, log=world.tenant.id) == written
    assert not read(unbound(world.db), LATE)


def test_a_log_that_has_grown_extends_the_earlier_log_and_proves_each_event(world: World, worker: Database) -> None:
    sizes = []
    for _ in range(4):
        world.fresh()
        sealed(worker)
        sizes.append(len(leaves(world.db, world.tenant.id)))

    hashes, found = leaves(world.db, world.tenant.id), kept_tiles(world.db, world.tenant.id)

    def subtree(level: int, number: int) -> bytes:
        return merkle.subtree(found, level, number)

    size, root = len(hashes), root_of(hashes)
    for number, leaf in enumerate(hashes):
        check_inclusion(leaf, number, size, inclusion(subtree, number, size), root)
    for old in sizes:
        check_consistency(old, size, root_of(hashes[:old]), root, consistency(subtree, old, size))


def test_an_event_committed_late_is_sealed_late_and_never_skipped(world: World, worker: Database) -> None:
    with world.db.transaction() as slow:
        submit.submit(slow, world.people["erin"], HERE, world.submission(), SETTINGS.catalogue.services)
        quick = world.fresh("eve")
        sealed(worker)
        meanwhile = len(leaves(world.db, world.tenant.id))
    sealed(worker)

    sealed_in_turn = read(unbound(world.db), IN_TURN, log=world.tenant.id)
    assert meanwhile == 1
    assert [row.request_id == quick.id for row in sealed_in_turn] == [True, False]
    assert sealed_in_turn[1].at < sealed_in_turn[0].at


@pytest.mark.far
def test_concurrent_sealers_leave_no_gap_and_seal_nothing_twice(world: World, worker: Database) -> None:
    for _ in range(20):
        world.fresh()
    begun = threading.Barrier(4)

    def work() -> None:
        begun.wait()
        turn = sealer.SealPass(worker, SIGNER)
        while turn.batch() is not None:
            assert not turn.held

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    hashes = leaves(world.db, world.tenant.id)
    note = read(unbound(world.db), "SELECT note FROM logs WHERE id = :id", id=world.tenant.id)[0].note
    said, _ = checkpoint.verify(note, KEYS)
    assert (said.size, said.root) == (len(hashes), root_of(hashes))
    assert not read(unbound(world.db), LATE)


def test_a_sealer_killed_before_its_commit_has_sealed_nothing(
    world: World, worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.fresh()
    waiting = len(read(unbound(world.db), LATE))

    with monkeypatch.context() as dying:
        dying.setattr(rollback, "note", lambda *_: (_ for _ in ()).throw(SystemExit(137)))
        with pytest.raises(SystemExit):
            sealed(worker)
    left = len(read(unbound(world.db), LATE))
    sealed(worker)

    assert left == waiting
    hashes = leaves(world.db, world.tenant.id)
    assert len(hashes) > 0
    assert all(row.count == row.next for row in read(unbound(world.db), NUMBERS))


def test_a_log_without_new_events_is_signed_hourly(world: World, sender: Database, later: ShiftedClock) -> None:
    world.fresh()
    sealed(sender)
    later.shift = timedelta(minutes=61)

    noted = [one for one in sealed(sender) if one.log_id == world.tenant.id]

    assert [one.is_kept for one in noted] == [True]
    kept = read(unbound(world.db), "SELECT note, size FROM checkpoints WHERE log_id = :id", id=world.tenant.id)
    assert len(kept) == 2
    assert {checkpoint.verify(row.note, KEYS)[0].size for row in kept} == {len(leaves(world.db, world.tenant.id))}


def test_a_tenant_without_events_has_no_log(world: World, worker: Database) -> None:
    sealed(worker)

    logs = {row.id for row in read(unbound(world.db), "SELECT id FROM logs")}

    assert world.tenant.id not in logs
    assert logs <= {VENDORS_LOG}


def test_a_rolled_back_database_is_not_sealed_further(world: World, worker: Database, tmp_path: Path) -> None:
    folder = WitnessFolder(tmp_path)
    world.fresh()
    sealed(worker, folder)
    shipped = folder.newest(world.tenant.id)
    assert shipped is not None
    ahead = SIGNER.note(shipped.origin, shipped.size + 7, b"\x07" * 32, world.tenant.created_at)
    (tmp_path / str(world.tenant.id) / "latest.note").write_text(ahead)
    world.fresh()

    with pytest.raises(RollbackDetected, match=str(world.tenant.id)):
        sealed(worker, folder)

    assert read(unbound(world.db), LATE)


def test_an_older_checkpoint_never_replaces_the_shipped_checkpoint(
    world: World, worker: Database, tmp_path: Path
) -> None:
    folder = WitnessFolder(tmp_path)
    world.fresh()
    first = sealed(worker)
    world.fresh()
    second = sealed(worker)

    folder.ship(second)
    folder.ship(first)

    newest = folder.newest(world.tenant.id)
    assert newest is not None
    assert newest.size == max(one.size for one in second if one.log_id == world.tenant.id)


@each(
    "statement",
    [
        "UPDATE seals SET number = number + 1000",
        "DELETE FROM seals",
        "UPDATE tiles SET hashes = decode(repeat('00', 32), 'hex')",
        "DELETE FROM tiles",
        "UPDATE logs SET size = 0",
        "UPDATE checkpoints SET note = ''",
        "DELETE FROM audit_keys",
    ],
)
def test_rows_of_sealed_events_cannot_be_changed(
    world: World, worker: Database, superuser: Engine, statement: str
) -> None:
    world.fresh()
    sealed(worker)

    with pytest.raises(Exception, match=r"append-only|only grow"):
        write(superuser, statement)


def test_a_new_key_is_listed_even_if_it_first_signs_a_log_without_new_events(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    world.fresh()
    sealed(sender)
    later.shift = timedelta(minutes=61)
    rotated = Signer("lockbox.test", [Ed25519PrivateKey.generate(), *SIGNER.keys])

    for _ in sealer.seal(sender, rotated):
        pass

    assert rotated.public.text in {row.key for row in read(unbound(sender), "SELECT key FROM audit_keys")}


def test_an_audit_log_continues_under_a_new_name_and_key(world: World, worker: Database) -> None:
    world.fresh()
    sealed(worker)
    world.fresh()
    renamed = Signer("lockbox.example", [Ed25519PrivateKey.generate()])

    with pytest.raises(RollbackDetected, match="which you do not trust"):
        list(sealer.seal(worker, renamed))
    going_on = [*sealer.seal(worker, Signer(renamed.name, renamed.keys, [SIGNER.public]))]

    assert {one.origin for noted in going_on for one in noted} == {f"lockbox.test/audit/{world.tenant.id}"}


@pytest.mark.parametrize("is_shipped", [True, False])
@pytest.mark.parametrize(
    "forged",
    [
        "UPDATE logs SET root = sha256('forged')",
        "UPDATE logs SET root = sha256('forged'), note = ''",
        "UPDATE tiles SET hashes = sha256('forged')",
        "UPDATE tiles SET hashes = hashes || sha256('forged')",
        "DELETE FROM tiles",
    ],
)
def test_a_log_whose_root_differs_from_the_signed_root_is_not_signed_again(
    world: World,
    sender: Database,
    later: ShiftedClock,
    superuser: Engine,
    tmp_path: Path,
    *,
    forged: str,
    is_shipped: bool,
) -> None:
    folder = WitnessFolder(tmp_path) if is_shipped else None
    world.fresh()
    sealed(sender, folder)
    freely(superuser, forged)
    before = read(unbound(sender), "SELECT note, size FROM logs")
    later.shift = timedelta(minutes=61)

    with pytest.raises(RollbackDetected, match=str(world.tenant.id)):
        sealed(sender, folder)
    world.fresh()
    with pytest.raises(RollbackDetected, match=str(world.tenant.id)):
        sealed(sender, folder)

    assert read(unbound(sender), "SELECT note, size FROM logs") == before


def test_a_checkpoint_made_by_the_database_owner_is_not_shipped(
    world: World, worker: Database, superuser: Engine, tmp_path: Path
) -> None:
    folder = WitnessFolder(tmp_path)
    world.fresh()
    sealed(worker, folder)
    before = folder.shipped(world.tenant.id)
    own = Signer("lockbox.test", [Ed25519PrivateKey.generate()])
    note = own.note(SIGNER.origin(world.tenant.id), 900, b"\x07" * 32, world.tenant.created_at)
    freely(superuser, f"UPDATE logs SET size = 900, root = decode(repeat('07', 32), 'hex'), note = '{note}'")  # noqa: S608

    with pytest.raises(RollbackDetected, match="which you do not trust"):
        sealed(worker, folder)

    assert folder.shipped(world.tenant.id) == before


def test_a_signed_but_unshipped_checkpoint_is_shipped_by_the_next_sealer(
    world: World, worker: Database, tmp_path: Path
) -> None:
    other = WitnessFolder(tmp_path)
    world.fresh()
    sealed(worker, other)
    world.fresh()
    # One that is killed between its commit and the folder.
    (signed,) = [one for one in sealed(worker) if one.log_id == world.tenant.id]

    sealed(worker, other)

    assert other.shipped(world.tenant.id) == signed.note


def test_one_unreadable_checkpoint_folder_does_not_stop_sealing_other_logs(
    world: World, worker: Database, tmp_path: Path
) -> None:
    folder = WitnessFolder(tmp_path)
    world.fresh()
    sealed(worker, folder)
    (tmp_path / str(world.tenant.id) / "latest.note").unlink()
    (tmp_path / str(world.tenant.id) / "latest.note").mkdir()
    world.fresh()
    manages(world, "olga", tenants.add, FABRIKAM, {"standard": Plan()})

    with pytest.raises(RollbackDetected, match=f"^[^;]*{world.tenant.id}[^;]*$"):
        sealed(worker, folder)

    left = read(unbound(worker), "SELECT DISTINCT e.tenant_id FROM unsealed u JOIN events e ON e.id = u.event_id")
    assert [row.tenant_id for row in left] == [world.tenant.id]
    assert len(folder.logs()) > 1


def test_an_empty_checkpoint_folder_is_not_accepted_once_a_log_was_signed(
    world: World, worker: Database, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    world.fresh()
    sealed(worker, WitnessFolder(tmp_path))

    with pytest.raises(RollbackDetected, match="lockbox-checkpoints"):
        sealed(worker, WitnessFolder(tmp_path / "new"))
    empty = WitnessFolder(tmp_path / "new").logs()
    (tmp_path / "new" / "lockbox-checkpoints").touch()
    sealed(worker, WitnessFolder(tmp_path / "new"))

    assert empty == []
    assert WitnessFolder(tmp_path / "new").shipped(world.tenant.id) == WitnessFolder(tmp_path).shipped(
        world.tenant.id
    )
