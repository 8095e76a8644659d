"""Notices that have left the house: one event for each thing that was told, channel and batch, with their number."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlmodel import Session

from lockbox.audit.events import THE_CLOCK, Happening
from lockbox.notifications import announcements
from lockbox.notifications.account_mail import CHECKPOINT, DIGEST
from lockbox.notifications.undelivered import UNTOLD

NOTICES_SENT = "notices_sent"
SILENT = (*UNTOLD, CHECKPOINT, DIGEST)
"""The templates of which nothing is said once they are sent: to say that the log has not grown must not grow it."""


def tell(session: Session, rows: Sequence[Row[Any]], at: datetime) -> None:
    """Write the events of these notices, which were taken by their server: of what, by which channel, how many."""
    told = Counter(
        (row.tenant_id, row.request_id, row.event_id, row.template, row.channel, row.is_internal)
        for row in rows
        if row.template not in SILENT
    )
    happenings = [
        Happening(
            at=at,
            action=NOTICES_SENT,
            actor=replace(THE_CLOCK, channel=channel),
            tenant_id=tenant_id,
            request_id=request_id,
            stays_inside=is_internal,
            facts={"of_event": event_id, "template": template, "count": count},
        )
        for (tenant_id, request_id, event_id, template, channel, is_internal), count in told.items()
    ]
    if happenings:
        announcements.record(session, *happenings)
