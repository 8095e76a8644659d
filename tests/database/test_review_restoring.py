"""A rolled-back database must not talk its way past what was shipped: by a sealer, or by a row of its own."""

import pytest
from sqlalchemy import text

from lockbox.audit import sealing
from lockbox.requests.lifecycle import Action
from tests.database.scenes import read, write
from tests.database.test_restoring import SIGNER, Plant, asked, plant, revoked_since, unbound_of

__all__ = ["plant"]


def starts_sealing(plant: Plant) -> None:
    """Do what a worker's sealer does when it starts: ship the newest checkpoint of each log, then seal."""
    for noted in sealing.newest(plant.worker):
        plant.folder.ship(noted)


def test_a_sealer_that_starts_on_a_restored_database_of_an_earlier_generation_opens_nothing(plant: Plant) -> None:
    request = plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    plant.seal()
    plant.back_up()
    # Later the log began anew once, as it does after a restore, and the window was revoked.
    write(
        unbound_of(plant.urls),
        "UPDATE logs SET generation = 2, origin = origin || '/2', note = '' WHERE tenant_id IS NOT NULL",
    )
    for log in plant.folder.logs():
        plant.folder.set_aside(log)
    plant.world.act("ann", Action.REVOKE, request.id)
    plant.seal()
    restored = plant.restore()
    assert asked(restored.world) == "trail-behind"

    starts_sealing(restored)

    assert asked(restored.world) == "trail-behind"


def test_a_restored_log_that_says_that_it_is_longer_opens_nothing(plant: Plant) -> None:
    revoked_since(plant)
    restored = plant.restore()
    assert asked(restored.world) == "trail-behind"

    write(unbound_of(restored.urls), "UPDATE logs SET size = size + 5 WHERE tenant_id IS NOT NULL")

    assert asked(restored.world) == "trail-behind"


def test_a_restored_log_that_its_owner_gives_another_generation_opens_nothing(plant: Plant) -> None:
    revoked_since(plant)
    restored = plant.restore()
    assert asked(restored.world) == "trail-behind"

    write(unbound_of(restored.urls), "UPDATE logs SET generation = 2, origin = origin || '/2'")
    restored.world.fresh()
    restored.seal()

    assert asked(restored.world) == "trail-behind"


def test_nothing_is_signed_for_a_log_that_was_rolled_back_not_even_silence(plant: Plant) -> None:
    revoked_since(plant)
    restored = plant.restore()
    write(unbound_of(restored.urls), "UPDATE logs SET kept_at = '-infinity'")
    write(unbound_of(restored.urls), "DELETE FROM unsealed")
    (before,) = read(restored.worker, "SELECT note FROM logs WHERE tenant_id IS NOT NULL")

    with pytest.raises(sealing.RolledBack):
        restored.seal()

    (after,) = read(restored.worker, "SELECT note FROM logs WHERE tenant_id IS NOT NULL")
    assert after.note == before.note


def test_a_root_that_the_owner_wrote_is_not_signed(plant: Plant) -> None:
    plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    plant.seal()
    with unbound_of(plant.urls).begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE logs SET root = sha256('forged'), kept_at = '-infinity'"))

    with pytest.raises(sealing.RolledBack):
        plant.seal()


def test_what_a_sealer_signed_and_never_shipped_is_shipped_by_the_next_one(plant: Plant) -> None:
    plant.world.fresh()
    next(sealing.seal(plant.worker, SIGNER, plant.folder.is_ahead))

    # Another worker, which shipped all there was when it started, takes over.
    write(unbound_of(plant.urls), "UPDATE logs SET kept_at = now()")
    plant.seal()

    assert plant.folder.newest(plant.world.tenant.id) is not None


def test_one_tenant_that_is_behind_keeps_no_other_from_being_sealed(plant: Plant) -> None:
    revoked_since(plant)
    restored = plant.restore()
    restored.world.fresh()
    write(
        unbound_of(restored.urls),
        "WITH e AS (INSERT INTO events (id, at, action, actor_role, body) VALUES (uuidv7(), now(), 'tested', 'clock', "
        "'x') RETURNING id) INSERT INTO unsealed SELECT id FROM e",
    )

    with pytest.raises(sealing.RolledBack):
        restored.seal()

    assert read(restored.worker, "SELECT FROM seals s JOIN events e ON e.id = s.event_id WHERE e.tenant_id IS NULL")


def test_a_mount_that_is_away_shuts_all(plant: Plant) -> None:
    revoked_since(plant)
    restored = plant.restore()
    for log in plant.folder.logs():
        (plant.shipped / str(log)).rename(plant.shipped.parent / str(log))

    assert asked(restored.world) == "trail-behind"
