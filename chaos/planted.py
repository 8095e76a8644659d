"""`python -m chaos.planted BUG MODULE …`: run a process of ours with a bug in it, to see whether it is found."""

import runpy
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from lockbox.requests import available_moves
from lockbox.requests.available_moves import OPENING, Situation
from lockbox.requests.lifecycle import Action

NEVER = datetime(9999, 1, 1, tzinfo=UTC)


def _late_yes() -> None:
    """Let a yes count whose time has run out. Nothing but this one judgement refuses it: no trigger looks for it."""
    ends = available_moves._ends  # noqa: SLF001 - the very place where the product judges it

    def never_ends(here: Situation, action: Action) -> datetime:
        return NEVER if action in OPENING else ends(here, action)

    available_moves._ends = never_ends  # noqa: SLF001 - likewise


BUGS: dict[str, Callable[[], None]] = {"late-yes": _late_yes}
"""What plants each of them, in the process that calls it: in every check that would hide it if it stood alone."""


def main() -> None:
    """Plant it, and go on as if the module had been started by itself."""
    bug, module, *rest = sys.argv[1:]
    BUGS[bug]()
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
