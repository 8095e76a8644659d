"""The call paths stay short: `make trace` counts the files, statements and rows of each trip."""

import re
import subprocess
import sys

import pytest

from cli.stack import CHECKOUT
from config.children import environment

NUMBERS = r" +│ (?P<files>\d+) +│ (?P<statements>\d+) +│ \d+ +│ (?P<rows>\d+) +│ \d+ +│ \d+ +│ [\d.]+ +│$"
LINE = re.compile(rf"^│ (?P<trip>[a-z0-9 ]+?){NUMBERS}", re.MULTILINE)
MOST = {
    "submit": (26, 5, 5),
    "approve": (27, 6, 6),
    "access check": (17, 3, 0),
    "page": (58, 8, 0),
    "inbox": (40, 6, 0),
    "approve by page": (70, 44, 9),
}


@pytest.fixture(scope="module")
def measured() -> dict[str, tuple[int, int, int]]:
    """For each trip the files, the statements and the rows that it wrote."""
    ended = subprocess.run(
        [sys.executable, "-m", "bench.trace"],
        cwd=CHECKOUT,
        env=environment({"COLUMNS": "160"}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    sys.stdout.write(ended.stdout)
    found = LINE.finditer(ended.stdout)
    return {one["trip"]: (int(one["files"]), int(one["statements"]), int(one["rows"])) for one in found}


@pytest.mark.parametrize("trip", MOST)
def test_a_trip_touches_no_more_files_statements_and_rows_than_it_has_to(
    measured: dict[str, tuple[int, int, int]], trip: str
) -> None:
    assert all(found <= most for found, most in zip(measured[trip], MOST[trip], strict=True)), measured[trip]
