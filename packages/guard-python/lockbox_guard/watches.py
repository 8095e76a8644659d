"""Whether calls that were allowed may continue."""

from collections.abc import Callable
from dataclasses import replace
from enum import Enum

from lockbox_guard.decisions import Allowed, NoAccess
from lockbox_guard.knowledge import Knowledge
from lockbox_guard.windows import KnownWindow

UNKNOWN_SECONDS = 3.0
"""A window that has just opened may not be in the stream yet. If it has not come after this time, its calls end."""
GONE_SECONDS = 0.6
"""Lockbox may drop a window to verify it again. If the window does not come back in this time, it has ended."""
SEAM_SECONDS = 2.0
"""How long after the end of an extended window the next window may arrive: Lockbox sends it once it has begun."""
MOST_DRAIN_SECONDS = 300.0
ENDED = NoAccess("no_window", "The access window has ended, and this call with it. Request access again.")


class CallStanding(Enum):
    """A call may continue, wait for its next window and pass nothing meanwhile, or end."""

    GOES_ON = "goes on"
    WAITS = "waits"
    IS_OVER = "is over"


class CallWatch:
    """Watches one call, for one thread or event loop: it continues while any window allows what it does.

    `on_change` is called with the new answer when a call continues under another window.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        allowed: Allowed,
        clock: Callable[[], float],
        drain_seconds: float,
        on_change: Callable[[Allowed], object] = lambda _: None,
    ) -> None:
        if not 0 <= drain_seconds <= MOST_DRAIN_SECONDS:
            raise ValueError(f"let calls go on for 0 to {MOST_DRAIN_SECONDS:.0f} seconds after their window")
        self.allowed = allowed
        self._knowledge = knowledge
        self._clock = clock
        self._drain_seconds = drain_seconds
        self._on_change = on_change
        self._began = clock()
        self._ended: float | None = None

    def may_go_on(self) -> bool:
        """Return whether the call may continue, or may soon: see `look`. This never waits."""
        return self.look() is not CallStanding.IS_OVER

    def look(self) -> CallStanding:
        """Return what the call may do now. A call that is over stays over. This never waits."""
        if self._ended is None:
            since, patience = self._without_window()
            now = self._clock()
            if now < since + patience:
                return CallStanding.GOES_ON if now < since + self._drain_seconds else CallStanding.WAITS
            self._ended = since
        is_drained = self._clock() >= self._ended + self._drain_seconds
        return CallStanding.IS_OVER if is_drained else CallStanding.GOES_ON

    @property
    def why(self) -> NoAccess:
        """Why the call may not continue."""
        return NoAccess("behind") if self._knowledge.clock.is_quiet else ENDED

    def _without_window(self) -> tuple[float, float]:
        """Return since when no window allows the call (infinity if one does), and for how long one may still come."""
        now, latest = self._clock(), self._knowledge.clock.latest()
        if self.allowed.request is None:
            return float("inf"), 0.0
        if latest is None:
            return now, 0.0
        windows = self._knowledge.windows
        window = windows.of(self.allowed.request)
        if window is not None and window.end > latest and window.covers(self.allowed.use, self.allowed.engineer):
            return float("inf"), 0.0
        if self.allowed.engineer is not None:
            other = windows.find(self.allowed.use, self.allowed.engineer, latest)
            if other is not None:
                self._go_on_under(other)
                return float("inf"), 0.0
        return self._ended_at(window, now, latest)

    def _go_on_under(self, window: KnownWindow) -> None:
        self.allowed = replace(
            self.allowed,
            request=window.request,
            until=window.until,
            is_known=True,
            break_glass=window.break_glass,
        )
        self._on_change(self.allowed)

    def _ended_at(self, window: KnownWindow | None, now: float, latest: float) -> tuple[float, float]:
        """Return since when the call's window is closed or over, and for how long a window may still come."""
        request = self.allowed.request
        closed = None if request is None else self._knowledge.closings.get(request)
        known = window or (closed and closed.window)
        if not known:
            # A window that the stream once brought, and whose close is forgotten, ended long ago.
            return (float("-inf") if self.allowed.is_known else self._began + UNKNOWN_SECONDS), 0.0
        end = now - (latest - known.end) / 1e6
        since = end if closed is None else min(closed.at, end)
        if closed is not None and closed.at < end - GONE_SECONDS:
            return since, GONE_SECONDS
        return min(since, now), SEAM_SECONDS if known.extended and end <= now else 0.0
