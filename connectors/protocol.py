"""What connectors implement: opening access, closing it, and confirming that nothing is open."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


class ConnectorFailed(Exception):  # noqa: N818 - it names what was found
    """The target did not do the step, and will be called again. `reason` is a code for rows, events and pages."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotWanted(Exception):  # noqa: N818 - it names what was found
    """The window ended, or another attempt took over, before anything was opened."""


@dataclass(frozen=True)
class ConnectedWindow:
    """A window for connectors. `id` is the connection's id, by which the target recognises the window.

    `verifier` checks the engineer's credential; it is never the credential itself.
    """

    id: UUID
    request_id: UUID
    tenant: str
    service: str
    target: str
    engineer: UUID
    resources: Sequence[str]
    actions: Sequence[str]
    until: datetime
    verifier: str | None = None
    roles: Sequence[str] = ()
    connections: int = 1


class Connector(Protocol):
    """Each call may be repeated without harm, also after a crash."""

    def open(self, window: ConnectedWindow, is_wanted: Callable[[], bool]) -> None:
        """Open the access, until the window's end at the latest.

        The connector calls `is_wanted` just before it does so; from then on, a close of the same connection has to
        wait.
        """
        ...

    def close(self, connection_id: UUID, target: str) -> None:
        """End the access and all sessions that still use it."""
        ...

    def is_closed(self, connection_id: UUID, target: str) -> bool:
        """Return whether the target itself confirms that nothing is open."""
        ...
