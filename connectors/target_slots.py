"""Limit the steps under way at each target, so that a target that hangs delays no other target. In memory only."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

MOST_AT_A_TARGET = 3
MOST_WAITING = 500
SLOW_SECONDS = 2.0
"""A step that takes longer makes its target slow, until a later step at the target takes less time."""
LONGEST_TURN = 5.0
"""For how many seconds the holder of a slot starts further waiting steps in it."""


@dataclass(eq=False)
class TargetSlot:
    target: str
    begun_at: float
    until: float


class TargetSlots:
    """The slots of one process: `most` in total, and three for each target.

    A slow target gets one slot, and all slow targets together get half of the total.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, list[TargetSlot]] = defaultdict(list)
        self._waiting: dict[str, dict[UUID, None]] = defaultdict(dict)
        self._slow: set[str] = set()

    def take(self, target: str) -> TargetSlot | None:
        with self._lock:
            if not self._has_room(target):
                return None
            slot = TargetSlot(target, self._clock(), self._clock() + LONGEST_TURN)
            self._held[target].append(slot)
            return slot

    def wait(self, target: str, connection_id: UUID) -> bool:
        """Queue a connection at its target. Return False if no slot is in use there or the queue is full."""
        with self._lock:
            waiting = self._waiting[target] if self._held.get(target) else {}
            if connection_id in waiting:
                return True
            if not self._held.get(target) or len(waiting) >= MOST_WAITING:
                return False
            waiting[connection_id] = None
            return True

    def next(self, slot: TargetSlot) -> UUID | None:
        """End a step; return the connection that has waited longest, or None if the slot must be given back."""
        with self._lock:
            now = self._clock()
            if now - slot.begun_at > SLOW_SECONDS:
                self._slow.add(slot.target)
            else:
                self._slow.discard(slot.target)
            slot.begun_at = now
            is_one_of_many = slot.target in self._slow and len(self._held[slot.target]) > 1
            waiting = self._waiting.get(slot.target)
            if not waiting or now > slot.until or is_one_of_many:
                return None
            first = next(iter(waiting))
            del waiting[first]
            return first

    def give_back(self, slot: TargetSlot) -> list[UUID]:
        """Return the connections that still wait for the target, if no other slot is in use there."""
        with self._lock:
            self._held[slot.target].remove(slot)
            if self._held[slot.target]:
                return []
            del self._held[slot.target]
            return list(self._waiting.pop(slot.target, {}))

    def _has_room(self, target: str) -> bool:
        now = self._clock()
        for held in self._held.values():
            self._slow |= {slot.target for slot in held if now - slot.begun_at > SLOW_SECONDS}
        here = len(self._held.get(target, ()))
        if sum(map(len, self._held.values())) >= self._most:
            return False
        if target not in self._slow:
            return here < MOST_AT_A_TARGET
        of_slow = sum(len(self._held.get(one, ())) for one in self._slow)
        return here == 0 and of_slow < max(self._most // 2, 1)
