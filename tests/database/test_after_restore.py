"""`lockbox operate after-restore`: what it ends, keeps and asks, and how the audit log continues."""

import pytest
from typer.testing import CliRunner

from cli.operate import app as operate
from lockbox.audit.log import checkpoint
from lockbox.requests.lifecycle import Action
from tests.database import test_restore as scene
from tests.database.audit_logs import recorded_changes
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import assert_audit_logs_are_whole, door, read, write
from tests.database.test_restore import NEW, SIGNER, RestorableWorld, asked, revoked_since, shipped, unbound_of

plant = scene.plant


@pytest.mark.far
def test_the_after_restore_command_ends_open_access_and_continues_the_audit_log(
    plant: RestorableWorld, post: Postbag
) -> None:
    revoked_since(plant)
    restored = plant.restore()
    waiting, world = restored.world.fresh(), restored.world

    done = restored.after_restore()

    assert (done.revoked, done.timed_out) == (1, 1)
    assert set(done.logs) == {world.tenant.id}
    assert {row.state for row in read(world.db, "SELECT state FROM requests")} == {"revoked", "timed_out"}
    assert_audit_logs_are_whole(world.db)
    (event,) = [change for change in recorded_changes(world.db) if change.action == "restored"]
    assert event.role == "owner"
    assert event.facts["shipped_size"] > event.facts["size"]
    assert asked(world) == "no-open-window"
    again = world.act("ann", Action.APPROVE, world.submit().id)
    restored.seal()
    assert door(world) is not None
    note = restored.folder.newest(world.tenant.id)
    assert note is not None
    assert note.origin == f"lockbox.test/audit/{world.tenant.id}{NEW}"
    assert checkpoint.verify(shipped(restored), {SIGNER.public.id: SIGNER.public})[0].size == note.size
    assert again.id != waiting.id
    post.deliver(restored.worker, open_notifications(world.db))
    told = [mail.text for mail in post.mail.sent if str(waiting.id) in mail.text]
    assert any("restored from a back-up" in text for text in told)


@pytest.mark.far
def test_the_after_restore_command_keeps_the_shipped_checkpoint_of_the_abandoned_log(plant: RestorableWorld) -> None:
    revoked_since(plant)
    before = shipped(plant)

    plant.restore().after_restore()

    (kept,) = (plant.shipped / str(plant.world.tenant.id)).glob("*.given-up.note")
    assert kept.read_text() == before


@pytest.mark.far
def test_a_second_database_restore_to_an_earlier_state_is_detected(plant: RestorableWorld) -> None:
    revoked_since(plant)
    restored = plant.restore()
    restored.after_restore()
    restored.world.fresh()
    restored.seal()

    # The first database is the back-up's state once more, and grew on: its log is the larger one, of another origin.
    for _ in range(9):
        plant.world.fresh()
    write(unbound_of(plant.urls), "UPDATE logs SET size = size + 100, root = sha256('x')")
    plant.world.act("ann", Action.APPROVE, plant.world.submit().id)

    assert asked(plant.world) == "audit-log-rolled-back"
    assert {log.hex for log in plant.after_restore().logs} == {plant.world.tenant.id.hex}
    (log,) = read(plant.worker, "SELECT origin, generation FROM logs WHERE id = :id", id=plant.world.tenant.id)
    assert (log.origin.endswith("/3"), log.generation) == (True, 3)


def test_the_after_restore_command_ends_sessions(plant: RestorableWorld) -> None:
    write(
        unbound_of(plant.urls),
        """
        INSERT INTO sessions (id, person_id, secret_hash, means, signed_in_at, last_seen_at, expires_at)
        VALUES (uuidv7(), :id, 'test'::bytea || sha256('x'), 'passkey', now(), now(), now() + interval '1 hour')
        """,
        id=plant.world.people["ann"].person_id,
    )

    plant.after_restore(anyway=True)

    (row,) = read(plant.world.db, "SELECT revoked_at FROM sessions")
    assert row.revoked_at is not None


def test_the_after_restore_command_needs_a_checkpoint_folder_or_the_option_anyway(
    plant: RestorableWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    monkeypatch.setenv("LOCKBOX_OWNER_DATABASE_URL", plant.urls.owner)

    refused = CliRunner().invoke(operate, ["after-restore", "--yes"])
    before = asked(plant.world)
    done = CliRunner().invoke(operate, ["after-restore", "--yes", "--anyway"])

    assert (refused.exit_code, refused.stdout, before) == (1, "", "open")
    assert refused.stderr == "LOCKBOX_CHECKPOINT_FOLDER is not set; name the folder that the API has\n"
    assert (done.exit_code, "1 windows were revoked" in done.stdout) == (0, True)


@pytest.mark.far
def test_the_after_restore_command_asks_for_confirmation_and_reports_what_it_did(
    plant: RestorableWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoked_since(plant)
    restored = plant.restore()
    monkeypatch.setenv("LOCKBOX_OWNER_DATABASE_URL", restored.urls.owner)
    monkeypatch.setenv("LOCKBOX_CHECKPOINT_FOLDER", str(plant.shipped))
    monkeypatch.setenv("LOCKBOX_AUDIT_PUBLIC_KEYS", f'["{SIGNER.public.text}"]')

    refused = CliRunner().invoke(operate, ["after-restore"], input="n\n")
    before = asked(restored.world)
    done = CliRunner().invoke(operate, ["after-restore", "--yes"])

    assert refused.exit_code == 1
    assert before == "audit-log-rolled-back"
    assert (done.exit_code, "1 windows were revoked, 0 requests timed out, 1 logs begun" in done.stdout) == (0, True)
    assert asked(restored.world) == "no-open-window"
