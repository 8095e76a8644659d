"""Whether calls that were allowed may go on."""

from collections.abc import Callable

from lockbox_guard.decisions import Allowed
from lockbox_guard.knowledge import Knowledge

UNKNOWN_SECONDS = 3.0
"""A window that has just opened may not be in the stream yet. One that never comes is not watched: calls end then."""


class CallWatch:
    """Watches the window of one call."""

    def __init__(self, knowledge: Knowledge, allowed: Allowed, clock: Callable[[], float]) -> None:
        self._knowledge = knowledge
        self._allowed = allowed
        self._clock = clock
        self._until = clock() + UNKNOWN_SECONDS
        self._is_known = allowed.is_known

    def may_go_on(self) -> bool:
        """Return whether the window is still open, as far as is known; this never waits."""
        still = self._knowledge.still_allows(self._allowed)
        if still is None:
            return not self._is_known and self._clock() < self._until
        self._is_known = True
        return still
