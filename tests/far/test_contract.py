"""The API follows its OpenAPI document for every role: Schemathesis finds nothing."""

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
}


@pytest.mark.timeout(3300)
def test_the_api_matches_its_openapi_document(
    template: ServerAddresses, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with stage_of(template, tmp_path, names=("api",)) as stage:
        world = stage.world()
        tokens = {role: world.tokens[name] for role, name in ROLES.items()} | {"anonymous": ""}
        folder = Path(os.environ.get("CONTRACT_FOLDER", tmp_path))
        found = run(stage.plan.public_url, tokens, folder / "contract.txt")

    record_property(SUMMARY, found.summary)
    assert found.code == 0, found.printed
