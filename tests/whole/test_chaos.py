"""Chaos in small: the faults of two seeds strike the real stack under load, and every invariant holds afterwards."""

from pathlib import Path

import pytest

from chaos import plan, run, stage
from cli.stack import StackPlan, make_keys
from config.embedded import ServerAddresses
from tests.conftest import fresh_database
from tests.ports import own_port

SECONDS = 6
PATIENCE = 2


# The proxies are cut off in the midst of what they carry: what asyncio says of their sockets is no fault.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [3, 11])
def test_every_invariant_holds_after_the_faults_of_a_seed(
    seed: int, template: ServerAddresses, tmp_path: Path
) -> None:
    planned = plan.make(seed, SECONDS)
    first_port = own_port(100)

    with fresh_database(template) as urls:
        prepared = StackPlan(
            database_url=urls.api,
            worker_database_url=urls.worker,
            notices_database_url=urls.notices,
            owner_database_url=urls.owner,
            redis_url=urls.redis,
            smtp_url=urls.smtp,
            servers=template,
            keys=make_keys(tmp_path / "keys"),
            api_port=first_port,
            flower_port=first_port + 1,
            environment="test",
        )
        with stage.built(prepared, template, planned, tmp_path / "logs", first_port) as built:
            result = run.play(built, PATIENCE, lambda *_: None)

    assert [f"{one.name}: {line}" for one in result.findings for line in one.off] == []
    assert sum(not one.failed for one in result.struck) > len(planned.faults) / 2
    assert result.counts["acknowledged in stories"] >= SECONDS
