"""Programs that some tests need and a machine may lack, and the line that says what was left out for want of them."""

import os
import shutil
from collections.abc import Callable
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
        """The name by which Debian installs it."""
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


def need(name: str) -> str:
    """Return where a program is; a test of one that is missing is left out, and fails in CI."""
    found = shutil.which(name)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is missing; .ci/run installs it")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def left_out(which: Callable[[str], str | None] = shutil.which) -> str:
    """Return a line that names what was not tested and how to install what is missing; empty where nothing is."""
    missing = [program for program in NEEDED if not any(which(name) for name in program.names)]
    if not missing:
        return ""
    what = " and ".join(program.leaves_out for program in missing)
    return f"Not tested here: {what}. Install it: apt-get install {' '.join(program.package for program in missing)}"
