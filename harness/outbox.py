"""Do what the notifications worker does before and after it sends, but send nothing: fan out and settle."""

from sqlalchemy import text

from lockbox.database import Database
from lockbox.notifications import fan_out, settlement

QUEUED = text("SELECT event_id FROM outbox")
UNSETTLED = text("SELECT id FROM unsettled")


def fan_out_all(db: Database) -> None:
    """Write the notifications of everything in the outbox, and claim none. The database login must have the right."""
    with db.transaction() as session:
        fan_out.fan_out(session, session.execute(QUEUED).scalars().all(), lambda *_: ([], {}))


def settle_all(db: Database) -> None:
    """Write the events of settled mails. The database login must have the right."""
    with db.transaction() as session:
        settlement.settle_due(session, session.execute(UNSETTLED).scalars().all())
