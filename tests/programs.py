"""Programs that some tests need and a machine may lack: what they leave out, said before a run, counted after it."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Program:
    """Any of these names will do; `leaves_out` is what nobody has tested without it."""

    names: tuple[str, ...]
    leaves_out: str
    of_package: str = ""

    @property
    def package(self) -> str:
        return self.of_package or self.names[0]


NEEDED = (
    Program(("chromium-headless-shell", "chromium"), "the pages in a browser"),
    Program(("redis-server",), "Redis itself beside Valkey"),
    Program(("pgbouncer",), "PgBouncer before Postgres"),
    Program(("promtool",), "the rules for Prometheus"),
    Program(("kustomize",), "the files for Kubernetes"),
    Program(("systemd-analyze",), "the units of systemd", "systemd"),
    Program(("node",), "the webhook receiver in Node", "nodejs"),
)


ABSENT = " is not installed"
WANTED = " is needed"
NOT_ROOT = f"root{WANTED}"


def absent(name: str) -> str:
    """Return why a test is skipped that needs this program; what is skipped for such a reason is counted."""
    return f"{name}{ABSENT}"


def need(name: str) -> str:
    """Return where a program is; a test of one that is missing is left out, and fails in CI."""
    found = shutil.which(name)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is missing; .ci/run installs it")
    if found is None:
        pytest.skip(absent(name))
    return found


def need_root() -> None:
    """Leave out a test that becomes other users or gives them files, and fail it in CI."""
    if os.geteuid() and os.environ.get("CI"):
        pytest.fail(NOT_ROOT)
    if os.geteuid():
        pytest.skip(NOT_ROOT)


def missing(which: Callable[[str], str | None] = shutil.which) -> str:
    """Return a line that names what will not be tested and how to install what is missing; empty where nothing is."""
    lacking = [program for program in NEEDED if not any(which(name) for name in program.names)]
    if not lacking:
        return ""
    what = " and ".join(program.leaves_out for program in lacking)
    return f"Not tested here: {what}. Install it: apt-get install {' '.join(program.package for program in lacking)}"


def left_out(reasons: Iterable[str]) -> str:
    """Return a line that counts what was skipped for want of programs or of root; empty where nothing was."""
    ends = (ABSENT, WANTED)
    wanting = [why.removeprefix("Skipped: ") for why in reasons if why.endswith(ends)]
    names = Counter(why.removesuffix(ABSENT).removesuffix(WANTED) for why in wanting)
    if not names:
        return ""
    total = f"{names.total()} tests were" if names.total() > 1 else "1 test was"
    return f"{total} left out, for want of {', '.join(f'{name} ({n})' for name, n in names.most_common())}."


def pytest_report_header() -> str:
    """Say before the run what will be left out for want of a program."""
    return missing()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say in the last line how many tests were left out for want of a program; a process of several has no say."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    skipped = (skip.longrepr for skip in reporter.stats.get("skipped", ()))
    counted = left_out(why[2] for why in skipped if isinstance(why, tuple))
    if line := " ".join(filter(None, [counted, missing()])):
        sys.stdout.write(f"{line}\n")
