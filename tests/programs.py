"""Programs that some tests need and a machine may lack, and the line that says what was left out for want of them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """Any of these names will do; `leaves_out` is what nobody has tested without it."""

    names: tuple[str, ...]
    leaves_out: str

    @property
    def package(self) -> str:
        """The name by which Debian installs it."""
        return self.names[0]


NEEDED = (
    Program(("chromium-headless-shell", "chromium"), "the pages in a browser"),
    Program(("redis-server",), "Redis itself beside Valkey"),
    Program(("pgbouncer",), "PgBouncer before Postgres"),
)


def left_out(which: Callable[[str], str | None] = shutil.which) -> str:
    """Return a line that names what was not tested and how to install what is missing; empty where nothing is."""
    missing = [program for program in NEEDED if not any(which(name) for name in program.names)]
    if not missing:
        return ""
    what = " and ".join(program.leaves_out for program in missing)
    return f"Not tested here: {what}. Install it: apt-get install {' '.join(program.package for program in missing)}"
