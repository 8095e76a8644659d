"""What the audit log says about changes at a tenant and to the vendor's people."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lockbox.database import Database
from tests.database.scenes import read


@dataclass(frozen=True)
class LoggedChange:
    """One event: the actor and their role, the facts and personal details, and who is notified of it."""

    action: str
    actor: str
    role: str
    facts: dict[str, Any]
    details: dict[str, str]
    told: set[str]

    @property
    def changes(self) -> dict[str, str]:
        changes: dict[str, str] = self.facts["changes"]
        return changes


def recorded_changes(db: Database) -> Sequence[LoggedChange]:
    """Return every event that is neither a move nor about sent notifications, oldest first."""
    rows = read(
        db,
        """
        SELECT e.action, e.actor_role, e.body,
            (SELECT jsonb_object_agg(f.key, f.value ->> 1) FROM event_details d, jsonb_each(d.fields) f
                WHERE d.event_id = e.id) AS details,
            (SELECT array_agg(coalesce(p.name, h.url)) FROM notifications n LEFT JOIN people p ON p.id = n.person_id
                LEFT JOIN endpoints h ON h.id = n.endpoint_id
                WHERE n.event_id = e.id AND n.about_id IS NULL) AS told
        FROM events e WHERE e.seq IS NULL AND e.action NOT IN ('notified', 'notifications_sent') ORDER BY e.id
        """,
    )
    return [
        LoggedChange(
            row.action,
            (row.details or {}).get("name", row.actor_role),
            row.actor_role,
            json.loads(row.body),
            row.details or {},
            set(row.told or ()),
        )
        for row in rows
    ]


def last_change(db: Database) -> LoggedChange:
    return recorded_changes(db)[-1]
