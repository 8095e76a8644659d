"""What the verifier says about the export of a real log that began again after a back-up was restored."""

from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.verify import CANNOT_TELL, GOOD, VerificationResult, verify
from lockbox.identity import keyring
from lockbox.requests.lifecycle import Action
from tests import second_verifier
from tests.database import test_exports as exports
from tests.database import test_restore as scene
from tests.database.test_restore import SIGNER, RestorableWorld, shipped

plant = scene.plant


def verified(found: bytes, *seen: str) -> VerificationResult:
    keys = [SIGNER.public, keyring.ephemeral().public]
    result = verify(found.splitlines(keepends=True), keys, seen)
    if result.exit_code == GOOD:
        assert second_verifier.check(found, [key.text for key in keys], seen) == result.events
    return result


def test_a_checkpoint_abandoned_by_a_restore_proves_only_events_before_the_back_up(
    plant: RestorableWorld,
) -> None:
    request = plant.world.act("ann", Action.APPROVE, plant.world.submit().id)
    plant.seal()
    common = shipped(plant)
    plant.back_up()
    plant.world.act("ann", Action.REVOKE, request.id)
    plant.seal()
    given_up = shipped(plant)
    restored = plant.restore()
    restored.after_restore()
    restored.seal()

    export = exports.exported(restored.world)
    good, unsure = verified(export, common, shipped(restored)), verified(export, common, given_up)

    assert (good.exit_code, len(good.seen)) == (GOOD, 2), good.findings
    assert (unsure.exit_code, unsure.findings.kinds) == (CANNOT_TELL, {FindingKind.RESTORED}), unsure.findings
    assert "the first 2 are the same is shown" in unsure.findings.first[0].message
