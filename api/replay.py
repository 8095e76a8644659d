"""Keep recent live updates in order, so that a page that was disconnected learns what it missed."""

import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass
from itertools import takewhile

MOST_IDS = 20_000
SETTLED_AFTER = 5.0


@dataclass(frozen=True)
class LiveEvent:
    """One update: its number, when it came (by this process' monotonic clock), ids, and its audience."""

    number: int
    at: float
    ids: frozenset[str]
    side: str | None


class Replay:
    """The latest updates that this process received: twenty thousand ids at most.

    A position is `<epoch>-<number>`. The epoch changes when something may have been missed and is unique to a
    process, so nothing is known about another process' position.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[LiveEvent] = deque()
        self._held = 0
        self._number = 0
        self._epoch = secrets.token_hex(6)

    def add(self, ids: frozenset[str], side: str | None) -> None:
        """Add an update, and drop the oldest if there are too many."""
        with self._lock:
            self._number += 1
            self._recent.append(LiveEvent(self._number, time.monotonic(), ids, side))
            self._held += len(ids)
            while self._held > MOST_IDS:
                self._held -= len(self._recent.popleft().ids)

    def begin_anew(self) -> None:
        """Drop everything: something may have been missed."""
        with self._lock:
            self._recent.clear()
            self._held = 0
            self._epoch = secrets.token_hex(6)

    @property
    def here(self) -> str:
        """The position after everything received."""
        with self._lock:
            return f"{self._epoch}-{self._number}"

    @property
    def settled(self) -> str:
        """A position from some seconds ago: a page rendered now has read everything before it."""
        before = time.monotonic() - SETTLED_AFTER
        with self._lock:
            later = sum(1 for _ in takewhile(lambda one: one.at > before, reversed(self._recent)))
            return f"{self._epoch}-{self._number - later}"

    def since(self, position: str) -> list[LiveEvent] | None:
        """Return what came after a position, or None if that is unknown."""
        epoch, _, number = position.partition("-")
        with self._lock:
            if epoch != self._epoch or not number.isascii() or not number.isdigit() or len(number) > 15:  # noqa: PLR2004
                return None
            first = self._recent[0].number if self._recent else self._number + 1
            if not first - 1 <= int(number) <= self._number:
                return None
            return [one for one in self._recent if one.number > int(number)]
