"""The threat model is held against the tests: each row names one that exists, or says that nothing stops it."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in (ROOT / "docs" / "threat-model.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| who |")
]


def _near(path: Path) -> set[str]:
    """Return the names of a file's tests that `make test` runs: neither they nor their file are marked as far."""
    parsed = ast.parse(path.read_text())
    marks = [one.value for one in parsed.body if isinstance(one, ast.Assign) and "pytestmark" in ast.dump(one)]
    if any(FAR in ast.unparse(mark) for mark in marks):
        return set()
    tests = [one for one in parsed.body if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")]
    return {one.name for one in tests if not any(FAR in ast.unparse(mark) for mark in one.decorator_list)}


FAR = "pytest.mark.far"
ATTACKERS = {
    "a stolen mailbox",
    "a stolen token",
    "an engineer",
    "a manager",
    "an approver",
    "a tenant admin",
    "another customer",
    "an operator",
    "someone with access to Flower",
    "someone with access to Redis",
    "someone with access to the mail relay",
    "someone with the API's Postgres login",
    "someone with the core worker's Postgres login",
    "someone with the notifications worker's Postgres login",
    "the owner of the database",
    "root at the vendor",
    "a stranger on the network",
    "an identity provider",
}


@cache
def _near_tests() -> set[str]:
    return {name for path in (ROOT / "tests").rglob("test_*.py") if "far" not in path.parts for name in _near(path)}


def test_every_attacker_has_rows() -> None:
    assert {row[0] for row in ROWS} == ATTACKERS


def test_each_row_names_a_test_that_make_test_runs_or_says_not_stopped() -> None:
    tests, off = _near_tests(), []
    for who, tries, answer, proof in ROWS:
        named = set(re.findall(r"`(test_\w+)`", proof))
        if not (who and tries and answer) or named - tests or bool(named) == (proof == "not stopped"):
            off.append((who, tries, named - tests))

    assert len(ROWS) > 100
    assert off == []


def test_what_is_marked_as_far_proves_no_row() -> None:
    assert "test_every_command_does_what_it_is_for" not in _near_tests()
    assert "test_there_is_no_form_that_nobody_has_sent" not in _near_tests()
    assert "test_the_api_keeps_to_its_openapi_document" not in _near_tests()
    assert "test_what_cannot_be_reported_is_not_served" in _near_tests()
