"""Whether a window was opened for no longer and for no more than each approval that counted for it says; pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

KEPT, GRANTED = "kept_resources", "granted_resources"
RESOURCES, ACTIONS, WINDOW = "resources", "actions", "access_window"


@dataclass(frozen=True)
class Bounds:
    """For how many seconds and for what an approval or an open window is, as far as it is known.

    `is_part` is whether the resources are fewer than were asked, which stands there also where they are erased.
    """

    seconds: float | None
    actions: frozenset[str] | None
    resources: frozenset[str] | None
    is_part: bool

    @classmethod
    def approved(cls, fields: Mapping[str, Any], shown: Mapping[str, str], asked: Mapping[str, Any]) -> Self:
        """Return for what an approval is."""
        window = fields.get(WINDOW, asked[WINDOW])
        return cls(
            window if type(window) is int else None,
            _set(fields.get("kept_actions", asked[ACTIONS])),
            _resources(KEPT, fields, shown, asked),
            KEPT in fields["personal"],
        )

    @classmethod
    def opened(cls, fields: Mapping[str, Any], shown: Mapping[str, str], asked: Mapping[str, Any]) -> Self:
        """Return for what a window was opened."""
        return cls(
            _seconds(fields.get("at"), fields.get("deadline_at")),
            _set(fields.get("granted_actions", asked[ACTIONS])),
            _resources(GRANTED, fields, shown, asked),
            GRANTED in fields["personal"],
        )

    def beyond(self, approved: Self) -> str | None:
        """Return in what this window goes beyond an approval that counts for it; None where it does not."""
        if self.seconds is None or approved.seconds is None or self.seconds > approved.seconds:
            return "for longer"
        if self.actions is None or approved.actions is None or not self.actions <= approved.actions:
            return "for other actions"
        both = self.resources is not None and approved.resources is not None
        if (both and not self.resources <= approved.resources) or (approved.is_part and not self.is_part):  # type: ignore[operator]
            return "for other resources"
        return None


def _seconds(start: object, end: object) -> float | None:
    try:
        return (datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(start))).total_seconds()
    except (TypeError, ValueError):
        return None


def _set(value: object) -> frozenset[str] | None:
    return frozenset(value) if isinstance(value, list) and all(type(one) is str for one in value) else None


def _resources(
    name: str, fields: Mapping[str, Any], shown: Mapping[str, str], asked: Mapping[str, Any]
) -> frozenset[str] | None:
    if name not in fields["personal"]:
        return _set(asked[RESOURCES])
    try:
        return _set(json.loads(shown[name])) if name in shown else None
    except (ValueError, RecursionError):
        return frozenset()
