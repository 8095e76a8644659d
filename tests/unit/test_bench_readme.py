"""The README's table of what was measured: it is the last run's, and shows what is missed as it shows what is met."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench.readme import BEGINNING, README, lines, placed, table
from bench.report import RESULTS, read
from bench.targets import BenchResults
from tests.unit.measured import GOOD


def shown(found: BenchResults) -> dict[str, list[str]]:
    """Return the cells of each row by what it is about."""
    return {what: cells for what, *cells in lines(found)}


def test_the_readme_shows_the_run_that_was_written_down() -> None:
    page = README.read_text()

    assert placed(page, table(read(RESULTS / "bench.json"))) == page


def test_a_run_that_was_written_down_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"measured": asdict(GOOD)}))

    assert read(path) == GOOD


def test_every_load_that_others_were_put_to_is_shown_with_theirs() -> None:
    rows = shown(GOOD)

    assert rows["10,000 deadlines at one instant: ended, /s"] == [
        *("**20,000**", "30,000", "1,500", "1,500"),
        "≥ 10 times the best: 13.3 times",
    ]
    assert rows["the last of them late by, s"] == ["**0.5**", "0.333", "6.7", "6.7", "≤ 0.6 s"]
    assert rows["filed by 8 clients and told of by mail, /s"][:4] == ["**500**", "1,000", "400", "400"]
    assert rows["filed by 8 clients and told of by mail, /s"][4] == "more than the best: 1.25 times as good"
    assert rows["CPU of a whole life, 5 mails included (theirs: 2), ms"] == ["**4**", "2", "8", "16", "≤ 5 ms"]
    assert rows["filed over HTTP by 8 clients, /s"][4] == "≥ 60 % of the floor: 70 %"
    assert not any("missed" in cell for cells in rows.values() for cell in cells)


def test_what_is_missed_says_so() -> None:
    worse = replace(
        GOOD,
        told={"a_second": 40.0},
        bare={**GOOD.bare, 8: {**GOOD.bare[8], "a_second": 7_000.0}},
        access={"busy": 3.0, "p99_ms": 8.0},
        steady={"late_p99_ms": 3_000.0},
    )

    rows = shown(worse)

    assert rows["filed by 8 clients and told of by mail, /s"][4] == "more than the best: missed, 0.1 times as good"
    assert rows["filed over HTTP by 8 clients, /s"][4] == "≥ 60 % of the floor: missed, 10 %"
    assert rows["access check from 16 clients, p99, ms"][4] == "≤ 10 ms: missed, 3 turned away"
    assert rows["200 deadlines a second: late by, p99, ms"] == ["**3,000**", "-", "-", "-", "≤ 50 ms: missed"]


def test_rows_take_the_place_of_those_from_the_marker_to_the_first_empty_line() -> None:
    none, some = (f"before\n\n{BEGINNING}{rows}\nafter\n\nend\n" for rows in ("", "| old |\n| older |\n"))

    for page in (none, some):
        assert placed(page, "| new |\n") == f"before\n\n{BEGINNING}| new |\n\nafter\n\nend\n"
    for broken in ("no marker", some + some):
        with pytest.raises(ValueError, match="unpack"):
            placed(broken, "")
