"""The bugs that chaos plants in processes: the prober and the checker find each bug on the real stack."""

from dataclasses import replace
from pathlib import Path

import pytest

from chaos import hunt, plan, stage
from devstack.embedded import ServerAddresses
from harness.stage import fresh_database, plan_for
from tests.whole.warm import WarmProcesses

SEED, SECONDS = 5, 150
FOUND = {
    "deaf-gate": "after its revoke was answered",
    "late-gate": "past its deadline",
    "other-mailbox": "about something else",
    "open-guard": "the guard,",
    "lost-window": "on the gate's stream",
    "slow-memory": "in the gate's memory",
    "early-gate": "before it opened",
    "any-step": "before its step",
}


CUTS = tuple(plan.Fault(float(at), "partition", plan.GUARD_LINK, 9, at) for at in range(5, SECONDS - 10, 15))
"""What brings out a guard that goes on when it is cut off: a window must end meanwhile, and a call must come."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.timeout(300)
@pytest.mark.far
@pytest.mark.parametrize("bug", FOUND)
def test_the_chaos_run_detects_a_planted_bug(bug: str, template: ServerAddresses, tmp_path: Path) -> None:
    # Other faults would only excuse: a judge says nothing about a moment at which something was struck.
    planned = replace(plan.make(SEED, SECONDS), faults=CUTS if bug == "open-guard" else ())

    with fresh_database(template) as urls:
        prepared = plan_for(urls, template, tmp_path / "keys")
        with stage.built(prepared, planned, tmp_path / "logs", bug=bug, kind=WarmProcesses) as built:
            found, _ = hunt.play(built, lambda *_: None)

    assert FOUND[bug] in found
