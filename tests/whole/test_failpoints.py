"""Some of the failpoints, one on each path through the code: a process ends there, and nothing is lost."""

from collections.abc import Iterator

import pytest

from devstack.embedded import ServerAddresses
from tests.whole.failpoints.scenes import SCENES, Theatre, theatre

pytestmark = pytest.mark.far

QUICK = {
    "api pipeline.before_arm",
    "worker poller.before_send",
    "worker sealer.before_ship",
    "notifications smtp.after_data",
    "retain retention.after_step",
}
CHOSEN = {scene.title: scene for scene in SCENES if scene.title in QUICK}


@pytest.fixture(scope="module")
def stage(template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """The whole stack, whose processes end at the given failpoints."""
    with theatre(template, tmp_path_factory.mktemp("failpoints") / "logs") as found:
        yield found


@pytest.mark.parametrize("title", sorted(QUICK))
def test_a_process_killed_at_a_failpoint_causes_no_loss_duplicate_or_unapproved_window(
    stage: Theatre, title: str
) -> None:
    assert stage.play(CHOSEN[title]) == []
