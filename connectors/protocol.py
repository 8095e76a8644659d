"""Define what a connector does, whatever it opens: Postgres roles, a vendor's own system, certificates, bindings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


class ConnectorFailed(Exception):  # noqa: N818 - it names what was found
    """The target did not do it; `reason` is a short word for rows, events and pages. It is tried again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotWanted(Exception):  # noqa: N818 - it names what was found
    """The window ended, or another try took over, before anything was opened."""


@dataclass(frozen=True)
class ConnectedWindow:
    """A window as connectors know it: `id` is the connection's, by which a target knows it again.

    `verifier` is what the engineer's credential is checked by, where the target checks one; never the credential.
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
    """Opens and closes at targets. Each call may come again, also after a crash half-way, and does no harm then."""

    def open(self, window: ConnectedWindow, is_wanted: Callable[[], bool]) -> None:
        """Open the access until the window's end at the latest.

        `is_wanted` is asked last, just before the access comes to be, while a close of the same connection waits.

        Raises:
            NotWanted: it was not, and nothing is open.
            ConnectorFailed: the target did not do it.
        """
        ...

    def close(self, connection_id: UUID, target: str) -> None:
        """End the access, and what still uses it.

        Raises:
            ConnectorFailed: the target did not do all of it.
        """
        ...

    def is_closed(self, connection_id: UUID, target: str) -> bool:
        """Return whether the target itself says that nothing is open.

        Raises:
            ConnectorFailed: it does not say.
        """
        ...
