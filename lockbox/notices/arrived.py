"""Notices that have left the house: one event for each thing that was told, channel and batch, with their number."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlmodel import Session

from lockbox.audit.events import THE_CLOCK, Happening
from lockbox.notices import announcing
from lockbox.notices.dead import UNTOLD

NOTICES_SENT = "notices_sent"


def tell(session: Session, rows: Sequence[Row[Any]], at: datetime) -> None:
    """Write the events of these notices, which were taken by their server: of what, by which channel, how many."""
    told = Counter(
        (row.tenant_id, row.request_id, row.event_id, row.template, row.channel)
        for row in rows
        if row.template not in UNTOLD
    )
    happenings = [
        Happening(
            at=at,
            action=NOTICES_SENT,
            actor=THE_CLOCK,
            tenant_id=tenant_id,
            request_id=request_id,
            facts={"of_event": event_id, "template": template, "channel": channel, "count": count},
        )
        for (tenant_id, request_id, event_id, template, channel), count in told.items()
    ]
    if happenings:
        announcing.record(session, *happenings)
