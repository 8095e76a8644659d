"""`lockbox policy`: a policy file is shown, compared, and set in place of the version from which it was made."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lockbox.requests.policy_rules import Policy
from tests.database.tenancy import id_of
from tests.whole.conftest import RunningStack
from tests.whole.shell import Shell

PROCESSES = ("api",)


@pytest.fixture
def shell(stage: RunningStack) -> Shell:
    """A terminal of a new world with the default policy."""
    return Shell(stage, stage.world(**Policy().model_dump()))


def written(path: Path, **changes: Any) -> Path:
    """Write a policy file: the default policy with changes."""
    file = path / "policy.json"
    file.write_text(json.dumps(Policy().model_dump(mode="json") | changes), encoding="utf-8")
    return file


def test_the_cli_prints_a_policy_in_readable_words(shell: Shell) -> None:
    ann = str(id_of(shell.world, "ann"))
    changes = {
        "groups": {"legal": [ann]},
        "stages": [{"group": "legal"}],
        "rules": [{"name": "Exports", "match": {"actions": ["export"]}, "terms": {"approval_window": 900}}],
    }
    shell.does("tara", "policy", "set", shell.world.tenant.slug, "-", stdin=json.dumps(changes))

    shown = shell.does("aude", "policy", "show", shell.world.tenant.slug)
    first = shell.does("aude", "policy", "show", shell.world.tenant.slug, "--version", "1")

    facts = dict(line.split(None, 1) for line in shown.splitlines()[1:])
    assert shown.startswith("Version 2 of ")
    assert ", by Tara.\n" in shown
    assert facts["approval_window"].strip() == "12 h"
    assert facts["vendor_review"].strip() == "yes"
    assert facts["sign_in_age"].strip() == "15 min"
    assert facts["break_glass_ceiling"].strip() == "1 h"
    assert facts["rules.0.match.actions"].strip() == "export"
    assert facts["rules.0.terms.approval_window"].strip() == "15 min"
    assert facts["stages.0.group"].strip() == "legal"
    assert facts["groups.legal"].strip() == ann
    assert "by nobody: the tenant began with it" in first
    assert "groups.legal" not in first


def test_policy_set_refuses_a_printed_policy_if_a_newer_version_was_set_meanwhile(
    shell: Shell, tmp_path: Path
) -> None:
    slug = shell.world.tenant.slug
    printed = shell.reads("tara", "policy", "show", slug)
    printed["policy"]["quorum"] = 3
    shell.does("tara", "policy", "set", slug, written(tmp_path, quorum=2))

    stale = shell.is_refused("tara", "stale-version: ", "policy", "set", slug, "-", stdin=json.dumps(printed))

    assert "Read it again" in stale
    assert shell.reads("tara", "policy", "show", slug)["policy"]["quorum"] == 2
    seen = shell.does("tara", "policy", "set", slug, "-", "--version", "2", stdin=json.dumps(printed))
    assert re.search(r"^quorum +2 → 3", seen, re.MULTILINE)
