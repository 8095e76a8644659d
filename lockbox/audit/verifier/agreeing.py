"""Holding what stands beside a body against it: the columns of its row, and the personal values it commits to."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from lockbox.audit.canonical import commitment, decoded, instant

SERVICE, RESOURCES = "service", "resources"
SUBMISSION = "submission"
ASKING = ("submit", "endorse")
"""The moves by which the customer may first be asked: they say what a request is about."""
MEMBERS = ("id", "tenant_id", "request_id", "seq", "at", "action", "actor_id", "actor_role", "from_state", "to_state")
"""What stands in the body and in columns of its row, by which events are looked for."""
IDS = frozenset({"id", "tenant_id", "request_id", "actor_id"})
NEEDED = frozenset({"id", "at", "action", "actor_role"})


def said(body: bytes) -> dict[str, Any]:
    """Return what a body says; nothing where it is no object of JSON."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def held_against(
    body: bytes, columns: Mapping[str, Any], details: Mapping[str, tuple[str, str]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what a body says of an event, and the names of the columns and the values that say something else.

    The id is that of the row, by which others know it; and so is what an event cannot be without, where a body lacks
    it.
    """
    found = said(body)
    other = [name for name in MEMBERS if found.get(name) != _written(columns[name])]
    members = dict(columns) | {name: _read(name, found.get(name), columns[name]) for name in other}
    return members, (*other, *_foreign(found, details))


def submitted(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a first move in a log says that was asked for: the submission itself, or what was kept of it."""
    asked = found.get(SUBMISSION)
    return asked if isinstance(asked, dict) else found


def item(body: bytes, details: Mapping[str, tuple[str, str]]) -> str | None:
    """Return what a request is about by its first move: the service, and the resources unless they are gone."""
    found = said(body)
    asked = submitted(found)
    if not isinstance(asked.get(SERVICE), str):
        return None
    is_there = RESOURCES in details and RESOURCES not in _foreign(found, details)
    named = json.loads(details[RESOURCES][1]) if is_there else []
    return f"{asked[SERVICE]} {', '.join(map(str, named))}".strip()


def _foreign(found: Mapping[str, Any], details: Mapping[str, tuple[str, str]]) -> Iterable[str]:
    committed = found.get("personal")
    commitments = committed if isinstance(committed, dict) else {}
    return [name for name, (salt, value) in details.items() if commitments.get(name) != _commitment(salt, value)]


def _commitment(salt: str, value: str) -> str | None:
    try:
        return commitment(decoded(salt), value)
    except ValueError:
        return None


def _written(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    return instant(value) if isinstance(value, datetime) else value


def _read(name: str, value: object, column: object) -> object:
    """Return a member of a body as its column would hold it."""
    parsed: object = None
    try:
        if name in IDS:
            parsed = UUID(value) if isinstance(value, str) else None
        elif name == "at":
            parsed = datetime.fromisoformat(value) if isinstance(value, str) else None
        else:
            parsed = value if isinstance(value, str) else None
    except ValueError:
        parsed = None
    return column if name == "id" or (name in NEEDED and parsed is None) else parsed
