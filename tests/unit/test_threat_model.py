"""The threat model is held against the tests: each row names one that exists, or says that nothing stops it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in (ROOT / "docs" / "threat-model.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| who |")
]
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(), flags=re.MULTILINE)
}
ATTACKERS = {
    "a stolen mailbox",
    "a stolen token",
    "an engineer",
    "a manager",
    "an approver",
    "a tenant admin",
    "another customer",
    "an operator",
    "whoever has Flower",
    "whoever has Redis",
    "whoever has the mail relay",
    "whoever has the API's login to Postgres",
    "whoever has the core worker's login to Postgres",
    "whoever has the notifications worker's login to Postgres",
    "the owner of the database",
    "root at the vendor",
    "a stranger on the network",
    "a sign-in service",
}


def test_every_attacker_has_rows() -> None:
    assert {row[0] for row in ROWS} == ATTACKERS


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_a_row_names_a_test_that_exists_or_says_not_stopped(number: int) -> None:
    who, tries, answer, proof = ROWS[number]
    named = re.findall(r"`(test_\w+)`", proof)

    assert who
    assert tries
    assert answer
    assert set(named) <= TESTS, set(named) - TESTS
    assert bool(named) != (proof == "not stopped")
