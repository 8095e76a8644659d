"""The threat model is compared with the tests: each row names an existing test, or says that nothing stops it."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.check.sources import HOME, files, tree

PAGE = HOME / "docs" / "threat-model.md"


def _rows() -> list[list[str]]:
    """Return the rows of the page, each after the attacker in whose section it is."""
    rows, attacker = [], ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            attacker = line[3].lower() + line[4:]
        elif line.startswith("| ") and not line.startswith("| tries to |"):
            rows.append([attacker, *(cell.strip() for cell in line.strip().strip("|").split("|"))])
    return rows


ROWS = _rows()


def _of_file(path: Path) -> dict[str, bool]:
    """Return the names of a file's tests, and whether `make test` runs each: neither the test nor its file is far."""
    parsed = tree(path)
    marks = [one.value for one in parsed.body if isinstance(one, ast.Assign) and "pytestmark" in ast.dump(one)]
    is_near = "far" not in path.parts and not any(FAR in ast.unparse(mark) for mark in marks)
    tests = [one for one in parsed.body if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")]
    return {
        test.name: is_near and not any(FAR in ast.unparse(mark) for mark in test.decorator_list) for test in tests
    }


FAR = "pytest.mark.far"
ATTACKERS = {
    "a stolen mailbox",
    "a stolen token",
    "a stolen session",
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
    "someone with the files of the notifications process",
    "the owner of the database",
    "root at the vendor",
    "a stranger on the network",
    "an identity provider",
}


@cache
def _tests() -> dict[str, bool]:
    """Return the names of all tests, and whether `make test` runs each."""
    found = [one for path in files("tests") if path.name.startswith("test_") for one in _of_file(path).items()]
    return dict(sorted(found, key=lambda one: one[1]))


def test_every_attacker_in_the_threat_model_has_rows() -> None:
    assert {row[0] for row in ROWS} == ATTACKERS


def test_each_threat_row_refers_to_tests_of_the_default_run_or_is_marked_not_stopped() -> None:
    tests, off = _tests(), []
    for who, tries, answer, proof in ROWS:
        named = set(re.findall(r"`(test_\w+)`", proof))
        is_proven = any(tests.get(name) for name in named) and named <= tests.keys()
        if not (who and tries and answer) or is_proven == (proof == "not stopped") or (named and not is_proven):
            off.append((who, tries, named))

    assert len(ROWS) > 100
    assert off == []


def test_a_test_marked_far_does_not_count_as_proof_in_the_threat_model() -> None:
    assert not _tests()["test_every_command_of_the_operating_guide_works"]
    assert not _tests()["test_no_portal_form_is_left_out_of_the_browser_test"]
    assert not _tests()["test_the_api_matches_its_openapi_document"]
    assert _tests()["test_the_sample_service_refuses_a_call_whose_activity_it_cannot_report"]
