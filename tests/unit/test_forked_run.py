"""A run in forked processes: all that they report arrives, and of one that dies it is said in which test."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
CONFTEST = """
from tests.forked_run import ForkedRun, batches

def pytest_runtestloop(session):
    ForkedRun(session, batches(session.items, lambda item: str(item.path)), lambda *_: True).run(2)
    return True
"""
LIVES = """
import os
import pytest
from pathlib import Path

PLACE = Path(__file__).parent

@pytest.fixture(scope="module")
def shared():
    with (PLACE / "made").open("a") as made:
        made.write("lives\\n")
    yield
    (PLACE / "taken down").touch()

def test_one(shared, tmp_path, capsys):
    print("said by one")
    assert capsys.readouterr().out == "said by one\\n"

@pytest.mark.parametrize("n", range(3))
def test_more(shared, n):
    print(f"said by more {n}")
    assert n != 1
"""
DIES = """
import os

def test_before(): pass

def test_that_dies(): os._exit(3)

def test_after(): pass
"""


@pytest.fixture
def tried(tmp_path: Path) -> Path:
    """A folder with tests of which one fails and one ends its process."""
    for name, source in (("conftest", CONFTEST), ("test_lives", LIVES), ("test_dies", DIES)):
        (tmp_path / f"{name}.py").write_text(source)
    return tmp_path


def run_of(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Return how a run of the tests in a folder ends."""
    plain = ["-p", "tests.forked_run", "-p", "no:cacheprovider", "-p", "no:randomly", "-c", "/dev/null"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plain, *options, "--rootdir", folder],
        cwd=CHECKOUT,
        env={"PATH": "/nowhere", "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_forked_processes_report_arrives_and_one_that_dies_costs_one_test(tried: Path) -> None:
    ran = run_of(tried, str(tried))

    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "2 failed, 5 passed" in ran.stdout.splitlines()[-1]
    assert "assert 1 != 1" in ran.stdout
    assert "ended while it ran this" in ran.stdout
    assert "test_dies.py::test_that_dies" in ran.stdout
    assert ran.stdout.count("said by more 1") == 1
    assert "said by more 0" not in ran.stdout
    assert (tried / "made").read_text() == "lives\n"
    assert (tried / "taken down").exists()


def test_a_run_that_is_to_end_with_the_first_failure_ends_with_it(tried: Path) -> None:
    (tried / "test_lives.py").write_text(LIVES.replace("n != 1", "n > 8"))

    ran = run_of(tried, "--exitfirst", str(tried / "test_lives.py"))

    assert "1 failed, 1 passed" in ran.stdout.splitlines()[-1]
    assert (tried / "taken down").exists()
