"""The API keeps to its OpenAPI document, whoever calls it: Schemathesis finds nothing, by role."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from devstack.embedded import ServerAddresses
from tests.far.conftest import SUMMARY
from tests.far.contract import run
from tests.whole.conftest import stage_of

ROLES = {
    "engineer": "erin",
    "manager": "max",
    "approver": "ann",
    "tenant_admin": "tara",
    "auditor": "aude",
    "operator": "olga",
    "system": "gate",
    "anonymous": None,
}
# Invalid input is refused before a role matters: these send each kind of it, the others some at random.
THOROUGH = {"engineer", "tenant_admin", "operator", "system"}
# Nothing is read of a call without a token; what needs none is called by all others too.
OPTIONS = {"anonymous": ("--phases", "examples,fuzzing")}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("role", ROLES)
def test_the_api_keeps_to_its_openapi_document(
    template: ServerAddresses, tmp_path: Path, role: str, record_property: Callable[[str, object], None]
) -> None:
    with stage_of(template, tmp_path, names=("api",)) as stage:
        world = stage.world()
        name = ROLES[role]
        folder = Path(os.environ.get("CONTRACT_FOLDER", tmp_path))
        found = run(
            stage.plan.public_url,
            world.tokens[name] if name else None,
            folder / f"contract-{role}.txt",
            *OPTIONS.get(role, ()),
            is_shorter=role not in THOROUGH,
        )

    record_property(SUMMARY, f"{role}: {found.summary}")
    assert found.code == 0, found.printed
