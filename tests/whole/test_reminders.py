"""Reminders, the next tier and the closing warning on the real stack, with windows of seconds."""

import pytest

from tests.policy_setup import lay_down
from tests.whole.conftest import RunningStack

pytestmark = pytest.mark.far

WINDOW = 14


def test_a_lost_redis_index_does_not_prevent_reminders(stage: RunningStack) -> None:
    stage.workers_run()
    world = stage.world()
    lay_down(world, approval_window=WINDOW, approval_reminders=[25])
    request = world.submit()
    with stage.redis() as redis:
        redis.flushdb()

    stage.ends(request.id, "timed_out")

    reminded = "SELECT 1 FROM events WHERE request_id = :id AND action = 'remind'"
    assert len(stage.rows(reminded, id=str(request.id))) == 1
