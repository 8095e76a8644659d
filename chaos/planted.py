"""`python -m chaos.planted BUG MODULE …`: run a process of ours with a bug in it, to see whether it is found."""

import runpy
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from lockbox.requests import available_moves, deadlines
from lockbox.requests.available_moves import OPENING
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy import Terms

NEVER = datetime(9999, 1, 1, tzinfo=UTC)


def _late_yes() -> None:
    """Let a yes count whose time has run out. Nothing but this one rule refuses it: no trigger looks for it."""
    too_late_at = deadlines.too_late_at

    def never(action: Action, terms: Terms, **facts: Any) -> datetime:  # noqa: ANN401 - as the rule takes them
        return NEVER if action in OPENING else too_late_at(action, terms, **facts)

    # The one module that asks has its own name for the rule.
    vars(available_moves)["too_late_at"] = never


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
