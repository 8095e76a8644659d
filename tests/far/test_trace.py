"""The call paths stay short: `make trace` counts what each traced action touches, and lists its files."""

import re
import subprocess
import sys

import pytest

from config.children import environment
from devstack.stack import CHECKOUT

COLUMN = r" +│ (?P<{}>[\d.]+)"
COUNTED = ("files", "statements", "with_context", "written", "buffers", "read", "ms")
LINE = re.compile(
    r"^│ (?P<trip>[a-z0-9 ]+?)" + "".join(COLUMN.format(name) for name in COUNTED) + r" +│$", re.MULTILINE
)
HELD = ("files", "statements", "written", "buffers", "read", "ms")
MOST = {
    "submit": (34, 5, 5, 110, 50, 500),
    "approve": (31, 6, 6, 150, 50, 500),
    "access check": (20, 3, 0, 80, 30, 500),
    "page": (60, 8, 0, 220, 110, 500),
    "inbox": (40, 6, 0, 110, 45, 500),
    "approve by page": (68, 22, 9, 420, 180, 500),
}
"""What each trip touches at most; buffers and rows read have a quarter to spare, and milliseconds a busy machine."""


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, float]]:
    """What each traced action touched, by the columns of the table."""
    ended = subprocess.run(
        [sys.executable, "-m", "bench.trace", "--files"],
        cwd=CHECKOUT,
        env=environment({"COLUMNS": "160"}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    sys.stdout.write(ended.stdout)
    return {line["trip"]: {name: float(line[name]) for name in COUNTED} for line in LINE.finditer(ended.stdout)}


@pytest.mark.parametrize("trip", MOST)
def test_each_traced_action_stays_within_its_limits_on_sql_statements_and_files_and_buffers(
    measured: dict[str, dict[str, float]], trip: str
) -> None:
    held = {name: measured[trip][name] for name in HELD}

    assert all(held[name] <= most for name, most in zip(HELD, MOST[trip], strict=True)), held
