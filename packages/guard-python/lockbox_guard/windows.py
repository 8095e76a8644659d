"""The open windows that a guard knows."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from lockbox_guard.database_clock import microseconds, read_instant
from lockbox_guard.decisions import Use

WindowKey = tuple[str, str, int, str]


@dataclass(frozen=True, slots=True)
class KnownWindow:
    """A window that Lockbox has verified; `end` is `until` in microseconds since 1970.

    `break_glass`: it was opened in an emergency, without the customer; `extended`: an approved extension follows it.
    """

    request: UUID
    tenant: str
    service: str
    engineer: UUID
    resources: tuple[str, ...]
    actions: frozenset[str]
    until: datetime
    end: int
    break_glass: bool = False
    extended: bool = False

    @property
    def keys(self) -> list[WindowKey]:
        return [(self.tenant, self.service, self.engineer.int, resource) for resource in self.resources]

    def covers(self, use: Use, engineer: UUID | None) -> bool:
        """Whether the window lets this engineer do this, as long as it is open."""
        return (
            (self.tenant, self.service, self.engineer) == (use.tenant, use.service, engineer)
            and use.resource in self.resources
            and use.action in self.actions
        )


def read_window(said: Mapping[str, Any]) -> KnownWindow:
    """Parse the window of an event.

    Raises:
        ValueError, KeyError, TypeError: the event describes no window.
    """
    resources, actions = said["resources"], said["actions"]
    texts = [said["tenant"], said["service"], *resources, *actions]
    if not isinstance(resources, list) or not isinstance(actions, list):
        raise TypeError("resources and actions are lists")
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("tenant, service, resources and actions are texts")
    until = read_instant(said["until"])
    return KnownWindow(
        request=UUID(said["request"]),
        tenant=sys.intern(said["tenant"]),
        service=sys.intern(said["service"]),
        engineer=UUID(said["engineer"]),
        resources=tuple(dict.fromkeys(resources)),
        actions=frozenset(sys.intern(action) for action in actions),
        until=until,
        end=microseconds(until),
        break_glass=said.get("break_glass") is True,
        extended=said.get("extended") is True,
    )


class WindowSet:
    """The open windows by what they allow. One thread writes, any number read: a change sets dictionary entries."""

    def __init__(self, windows: Iterable[KnownWindow] = ()) -> None:
        self._by_key: dict[WindowKey, tuple[KnownWindow, ...]] = {}
        self._by_request: dict[UUID, KnownWindow] = {}
        for window in windows:
            self.open(window)

    def __iter__(self) -> Iterator[KnownWindow]:
        return iter(self._by_request.values())

    def __len__(self) -> int:
        return len(self._by_request)

    def find(self, use: Use, engineer: UUID, latest: float) -> KnownWindow | None:
        """Of several windows that allow this, return the one that lasts longest."""
        best = None
        for window in self._by_key.get((use.tenant, use.service, engineer.int, use.resource), ()):
            if window.end > latest and use.action in window.actions and (best is None or window.end > best.end):
                best = window
        return best

    def of(self, request: UUID) -> KnownWindow | None:
        return self._by_request.get(request)

    def open(self, window: KnownWindow) -> None:
        """Add a window, and drop an earlier window of its request."""
        self.close(window.request)
        self._by_request[window.request] = window
        for key in window.keys:
            self._by_key[key] = (*self._by_key.get(key, ()), window)

    def close(self, request: UUID) -> KnownWindow | None:
        """Remove and return the window of a request."""
        window = self._by_request.pop(request, None)
        if window is None:
            return None
        for key in window.keys:
            left = tuple(one for one in self._by_key[key] if one is not window)
            if left:
                self._by_key[key] = left
            else:
                del self._by_key[key]
        return window
