"""Reads and exports of the trail itself are in the trail: who looked, for what, and how much there was to see."""

import json
from collections.abc import Iterable, Mapping
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.audit import events
from lockbox.audit.events import Actor, Happening
from lockbox.database import now

TRAIL_READ = "trail_read"
TRAIL_EXPORTED = "trail_exported"

RECORD = text(f"WITH {events.APPEND} SELECT 1")


def record(
    session: Session,
    actor: Actor,
    action: str,
    *,
    logs: Iterable[UUID | None],
    wanted: Mapping[str, str],
    count: int,
) -> None:
    """Write that somebody has looked into the trail, in each log that they looked into.

    Args:
        session: the open transaction, in the context of whoever looks.
        actor: who looks.
        action: `trail_read` or `trail_exported`.
        logs: the tenants whose log it was; None is the vendor's own.
        wanted: what they looked for, by the names of the query; it may hold names, and is kept as they are.
        count: how many events they were shown.
    """
    at = now(session)
    sought = json.dumps(dict(wanted), ensure_ascii=False, sort_keys=True) if wanted else None
    happenings = [
        Happening(
            at=at, action=action, actor=actor, tenant_id=one, facts={"count": count}, personal={"wanted": sought}
        )
        for one in logs
    ]
    session.connection().execute(RECORD, events.append(happenings))
