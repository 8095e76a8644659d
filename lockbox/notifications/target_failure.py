"""What became of access at a target, as events, mails and webhooks say it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class TargetFailure:
    """What became of access at a target: of which connection, and the word for why it failed, while it does."""

    connection_id: str
    target: str
    failing: str | None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self | None:
        """Return what the body of an event says of it; None where that is about something else."""
        if "connection" not in said:
            return None
        return cls(str(said["connection"]), str(said.get("target", "")), said.get("reason"))
