"""Whether calls that were allowed may go on."""

from collections.abc import Callable

from lockbox_guard.decisions import Allowed, NoAccess
from lockbox_guard.knowledge import Knowledge

UNKNOWN_SECONDS = 3.0
"""A window that has just opened may not be in the stream yet. One that never comes is not watched: calls end then."""
GONE_SECONDS = 0.6
"""Lockbox drops a window also to verify it again. One that does not come back by then has ended."""
MOST_DRAIN_SECONDS = 300.0
ENDED = NoAccess("no_window", "The access window has ended, and this call with it. Request access again.")


class CallWatch:
    """Watches the window of one call; for one thread or event loop."""

    def __init__(
        self, knowledge: Knowledge, allowed: Allowed, clock: Callable[[], float], drain_seconds: float
    ) -> None:
        if not 0 <= drain_seconds <= MOST_DRAIN_SECONDS:
            raise ValueError(f"let calls go on for 0 to {MOST_DRAIN_SECONDS:.0f} seconds after their window")
        self._knowledge = knowledge
        self._allowed = allowed
        self._clock = clock
        self._drain_seconds = drain_seconds
        self._until = clock() + (GONE_SECONDS if allowed.is_known else UNKNOWN_SECONDS)
        self._drained: float | None = None

    def may_go_on(self) -> bool:
        """Return whether the call may go on: the window is open as far as is known, or it ended a moment ago.

        A window that ended does not open again for this call. This never waits.
        """
        if self._drained is None:
            if self._is_open():
                return True
            self._drained = self._clock() + self._drain_seconds
        return self._clock() < self._drained

    @property
    def why(self) -> NoAccess:
        """Why the call may not go on."""
        return NoAccess("behind") if self._knowledge.clock.is_quiet else ENDED

    def _is_open(self) -> bool:
        still = self._knowledge.still_allows(self._allowed)
        if still is None:
            return self._clock() < self._until
        self._until = self._clock() + GONE_SECONDS
        return still
