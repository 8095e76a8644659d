"""Programs that some tests need and a machine may lack: a run first names what it skips, and counts it at the end."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Program:
    """A program, found under any of these names; `leaves_out` is what stays untested without it.

    `package` is the Debian package; it is empty if the program comes with requirements-dev.lock. If `is_unpacked`,
    tests unpack the package by themselves.
    """

    names: tuple[str, ...]
    leaves_out: str
    package: str
    is_unpacked: bool = False


NEEDED = (
    Program(("chromium-headless-shell", "chromium"), "the pages in a browser", "chromium-headless-shell"),
    Program(("redis-server",), "Redis itself beside Valkey", "redis-server"),
    Program(("pgbouncer",), "PgBouncer before Postgres", "pgbouncer"),
    Program(("promtool",), "the rules for Prometheus", "promtool"),
    Program(("kustomize",), "the files for Kubernetes", "kustomize"),
    Program(("systemd-analyze",), "the units of systemd", "systemd"),
    Program(("systemd-sysusers",), "the units of systemd", "systemd"),
    Program(("systemd-tmpfiles",), "the units of systemd", "systemd"),
    Program(("node",), "the webhook receiver in Node", "nodejs"),
    Program(("go",), "the webhook receiver in Go", "golang-go"),
    Program(("nginx",), "nginx as gateway and proxy", "nginx", is_unpacked=True),
    Program(("haproxy",), "HAProxy as gateway", "haproxy", is_unpacked=True),
    Program(("caddy",), "Caddy as gateway", ""),
    Program(("traefik",), "Traefik as gateway", ""),
)
UNPACKED = Path(__file__).parents[1] / "var" / "programs"


def find(name: str, path: str | None = None) -> str | None:
    """Return the path of a program, or the path to which tests will unpack it."""
    path = os.environ.get("PATH", os.defpath) if path is None else path
    unpacked = UNPACKED / name / "usr" / "sbin"
    places = [path, "/usr/sbin", Path(sys.executable).parent, unpacked]
    found = shutil.which(name, path=os.pathsep.join(map(str, places)))
    is_unpacked = any(program.is_unpacked and name in program.names for program in NEEDED)
    return found or (str(unpacked / name) if is_unpacked and _can_be_fetched(name, path) else None)


def _can_be_fetched(package: str, path: str) -> bool:
    """Return whether apt can download the package; nothing is downloaded yet."""
    fetch, unpack = (shutil.which(one, path=path) for one in ("apt-get", "dpkg"))
    command = [fetch or "", "download", "--print-uris", package]
    return bool(fetch and unpack) and not subprocess.run(command, capture_output=True, check=False).returncode


ABSENT = " is not installed"
WANTED = " is needed"
NOT_ROOT = f"root{WANTED}"


def absent(name: str) -> str:
    """Return the reason for skipping a test that needs this program; skips with such a reason are counted.

    Raises ValueError if the program is not named before the run.
    """
    if not any(name in program.names for program in NEEDED):
        raise ValueError(f"NEEDED lacks {name}")
    return f"{name}{ABSENT}"


def need(name: str) -> str:
    """Return the path of a program; if it is missing, skip the test, or fail it in CI."""
    found = find(name)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is missing; .ci/run installs it")
    if found is None:
        pytest.skip(absent(name))
    return found


def need_root() -> None:
    """Without root, skip a test that becomes other users or gives them files, or fail it in CI."""
    if os.geteuid() and os.environ.get("CI"):
        pytest.fail(NOT_ROOT)
    if os.geteuid():
        pytest.skip(NOT_ROOT)


def missing(which: Callable[[str], str | None] = find) -> str:
    """Return a line that names what will not be tested and how to install it; empty if nothing is missing."""
    lacking = [program for program in NEEDED if not any(which(name) for name in program.names)]
    if not lacking:
        return ""
    what = ", ".join(dict.fromkeys(program.leaves_out for program in lacking))
    packages = " ".join(dict.fromkeys(program.package for program in lacking if program.package))
    return f"Not tested here: {what}. Install it: {f'apt-get install {packages}' if packages else 'make test'}"


def left_out(reasons: Iterable[str]) -> str:
    """Return a line that counts tests skipped because a program or root is missing; empty if there are none."""
    ends = (ABSENT, WANTED)
    wanting = [why.removeprefix("Skipped: ") for why in reasons if why.endswith(ends)]
    names = Counter(why.removesuffix(ABSENT).removesuffix(WANTED) for why in wanting)
    if not names:
        return ""
    total = f"{names.total()} tests were" if names.total() > 1 else "1 test was"
    return f"{total} left out, for want of {', '.join(f'{name} ({n})' for name, n in names.most_common())}."


def pytest_report_header() -> str:
    """Print before the run what will be skipped because a program is missing."""
    return missing()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print last how many tests were skipped because a program is missing; parallel workers print nothing."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    skipped = (skip.longrepr for skip in reporter.stats.get("skipped", ()))
    counted = left_out(why[2] for why in skipped if isinstance(why, tuple))
    if line := " ".join(filter(None, [counted, missing()])):
        sys.stdout.write(f"{line}\n")
