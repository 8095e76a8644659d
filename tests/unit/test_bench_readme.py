"""The README's table of what was measured: it is the last run's, and shows what is missed as it shows what is met."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench.readme import BEGINNING, README, lines, placed, table
from bench.report import RESULTS, read
from bench.targets import BenchResults, targets
from tests.unit.measured import GOOD

NONE_MISSED = "[0 missed](bench/results/bench.md#targets)"


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


def test_a_reader_sees_lockbox_beside_the_floor_and_the_best_peer() -> None:
    rows = shown(GOOD)

    assert rows["10,000 deadlines at once: the last one ended after, s"] == [
        *("**0.5**", "0.4", "6.7 (Celery ETA)"),
        "≤ 1.4 times the floor: 1.25",
    ]
    assert rows["CPU of a whole life over HTTP, 5 mails, ms"] == [
        *("**10**", "2", "8 (Celery ETA)"),
        "≤ 6.5 times the floor: 5",
    ]
    assert rows["submitted by 8 clients, /s"] == ["**600**", "1,000", "-", "≥ 40 %: 60"]
    assert len(rows) == 7
    assert not any(" missed" in cell and cell != NONE_MISSED for cells in rows.values() for cell in cells)


def test_what_is_missed_says_so_and_all_that_is_missed_is_counted() -> None:
    worse = replace(
        GOOD,
        notified={"a_second": 40.0},
        flooded={"busy": 3.0, "p99_ms": 80.0},
        steady={"late_p99_ms": 3_000.0},
    )

    met, *_, missed = next(cells for what, cells in shown(worse).items() if what.startswith("all "))

    row = shown(worse)["submitted by 8 clients and the approver notified by mail, /s"]
    assert row[3] == "≥ 45 %: 4, missed"
    assert missed == "[3 missed](bench/results/bench.md#targets)"
    assert met == f"**{len(targets(GOOD)) - 3}**"


def test_rows_take_the_place_of_those_from_the_marker_to_the_first_empty_line() -> None:
    none, some = (f"before\n\n{BEGINNING}{rows}\nafter\n\nend\n" for rows in ("", "| old |\n| older |\n"))

    for page in (none, some):
        assert placed(page, "| new |\n") == f"before\n\n{BEGINNING}| new |\n\nafter\n\nend\n"
    for broken in ("no marker", some + some):
        with pytest.raises(ValueError, match="unpack"):
            placed(broken, "")
