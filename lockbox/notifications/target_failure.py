"""The outcome of access at a connector's target, for events, mails and webhooks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class TargetFailure:
    """`failing` is a code, None if access at the target does not fail."""

    connection_id: str
    target: str
    failing: str | None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self | None:
        if "connection" not in said:
            return None
        return cls(str(said["connection"]), str(said.get("target", "")), said.get("reason"))
