"""What every connector does, whatever it opens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


class ConnectorFailed(Exception):  # noqa: N818 - it names what was found
    """The target did not do it, and will be called again; `reason` is a word for rows, events and pages."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotWanted(Exception):  # noqa: N818 - it names what was found
    """The window ended, or another try took over, before anything was opened."""


@dataclass(frozen=True)
class ConnectedWindow:
    """A window for connectors; `id` is the connection's, by which a target knows it again.

    `verifier` checks the engineer's credential; it is never the credential.
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
    """Opens and closes at targets. Each call may be repeated, also after a crash, without harm."""

    def open(self, window: ConnectedWindow, is_wanted: Callable[[], bool]) -> None:
        """Open the access, until the window's end at the latest.

        `is_wanted` is asked just before, while a close of the same connection waits.
        """
        ...

    def close(self, connection_id: UUID, target: str) -> None:
        """End the access and what still uses it."""
        ...

    def is_closed(self, connection_id: UUID, target: str) -> bool:
        """Return whether the target itself confirms that nothing is open."""
        ...
