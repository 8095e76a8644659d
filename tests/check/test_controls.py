"""The controls are compared with the tests: every requirement has a row, and each test that a row names exists."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.check.test_threat_model import _tests

PAGE = Path(__file__).parents[2] / "docs" / "controls.md"
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if re.match(r"\| \d", line)
]
# How many requirements of levels 1 and 2 each section of ASVS 5.0.0 has, by their highest number, without those of
# level 3 in between.
SECTIONS = {
    "1.1": 2,
    "1.2": 9,
    "1.3": 11,
    "1.4": 3,
    "1.5": 2,
    "2.1": 3,
    "2.2": 3,
    "2.3": 4,
    "2.4": 1,
    "3.2": 2,
    "3.3": 4,
    "3.4": 6,
    "3.5": 5,
    "3.7": 2,
    "4.1": 3,
    "4.2": 1,
    "4.3": 2,
    "4.4": 4,
    "5.1": 1,
    "5.2": 3,
    "5.3": 2,
    "5.4": 3,
    "6.1": 3,
    "6.2": 12,
    "6.3": 4,
    "6.4": 4,
    "6.5": 5,
    "6.6": 3,
    "6.8": 4,
    "7.1": 3,
    "7.2": 4,
    "7.3": 2,
    "7.4": 5,
    "7.5": 2,
    "7.6": 2,
    "8.1": 2,
    "8.2": 3,
    "8.3": 1,
    "8.4": 1,
    "9.1": 3,
    "9.2": 4,
    "10.1": 2,
    "10.2": 2,
    "10.3": 4,
    "10.4": 11,
    "10.5": 5,
    "10.6": 2,
    "10.7": 3,
    "11.1": 2,
    "11.2": 3,
    "11.3": 3,
    "11.4": 4,
    "11.5": 1,
    "11.6": 1,
    "12.1": 3,
    "12.2": 2,
    "12.3": 4,
    "13.1": 1,
    "13.2": 5,
    "13.3": 2,
    "13.4": 5,
    "14.1": 2,
    "14.2": 4,
    "14.3": 3,
    "15.1": 3,
    "15.2": 3,
    "15.3": 7,
    "16.1": 1,
    "16.2": 5,
    "16.3": 4,
    "16.4": 3,
    "16.5": 3,
    "17.1": 1,
    "17.2": 4,
    "17.3": 2,
}
WITHOUT_TESTS = ("not applicable: ", "not met: ", "by review: ")


def _numbers(cell: str) -> Iterator[str]:
    """Yield the requirements that a row covers: single ones, and ranges within a section."""
    for part in cell.split(", "):
        first, _, last = part.partition("-")
        section, _, start = first.rpartition(".")
        end = last.rpartition(".")[2] if last else start
        assert not last or last.rpartition(".")[0] == section, part
        yield from (f"{section}.{number}" for number in range(int(start), int(end) + 1))


def test_every_asvs_level_1_and_2_requirement_has_exactly_one_row_in_the_controls() -> None:
    named = [number for row in ROWS for number in _numbers(row[0])]

    wanted = {f"{section}.{number}" for section, most in SECTIONS.items() for number in range(1, most + 1)}
    assert sorted(named) == sorted(set(named))
    assert set(named) == wanted
    assert len(wanted) == 253


def test_each_control_refers_to_tests_of_the_default_run_or_says_why_it_has_none() -> None:
    tests, off = _tests(), []
    for number, asks, proof in ROWS:
        named = set(re.findall(r"`(test_\w+)`", proof))
        is_proven = any(tests.get(name) for name in named) and named <= tests.keys()
        if not asks or is_proven == proof.startswith(WITHOUT_TESTS) or (named and not is_proven):
            off.append((number, proof))

    assert off == []
    assert sum("`test_" in proof for _, _, proof in ROWS) > 80
