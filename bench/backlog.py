"""Mark unsent notifications as sent or given up, so that they do not disturb the next measurement."""

import time

from sqlalchemy import Engine, text

from harness.outbox import fan_out_all, settle_all
from lockbox.database import Database

PAUSE_SECONDS = 0.002
REST_SECONDS = 3
NOTHING_MORE = text("""
WITH reports AS (DELETE FROM reports_due), unsaid AS (DELETE FROM unsettled) DELETE FROM outbox
""")
GIVE_UP = text("""
UPDATE notifications SET closed_at = now(), outcome = :outcome
WHERE id IN (SELECT id FROM notifications WHERE closed_at IS NULL FOR UPDATE SKIP LOCKED)
""")


def give_up(engine: Engine, rest_seconds: float = REST_SECONDS) -> None:
    """Give up unsent notifications, and let the workers come to rest."""
    with engine.connect() as connection:
        connection.execute(NOTHING_MORE)
        while connection.execute(GIVE_UP, {"outcome": "moot"}).rowcount:
            time.sleep(PAUSE_SECONDS)
        # Mails that ended meanwhile may have left rows that promise to report their outcome: remove these rows too.
        connection.execute(NOTHING_MORE)
    time.sleep(rest_seconds)


def mark_sent(engine: Engine, sender: Database) -> None:
    """Leave the rows that sending the whole outbox would leave, including events, in a database without a worker."""
    fan_out_all(sender)
    with engine.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(GIVE_UP, {"outcome": "sent"})
    settle_all(sender)
