"""Samples of how late an installation is: one a minute, kept for a little more than a day."""

from datetime import timedelta

from sqlalchemy import text

from lockbox.database import Database

KEPT = timedelta(hours=25)

# How late the clock came, on average, to what it has ended since the last sample; or for how long the oldest waits,
# if that is more.
SAMPLE = text("""
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at),
so_far AS MATERIALIZED (
    SELECT coalesce(sum(count), 0) AS ended, coalesce(sum(total), 0) AS late FROM tallies
    WHERE name = 'deadline_lag'),
before AS MATERIALIZED (SELECT ended, late FROM lag_samples ORDER BY at DESC LIMIT 1),
oldest AS MATERIALIZED (SELECT wake_at FROM requests WHERE wake_at IS NOT NULL ORDER BY wake_at LIMIT 1),
unproven AS MATERIALIZED (SELECT e.at FROM events e
    WHERE e.id = (SELECT event_id FROM unsealed ORDER BY event_id LIMIT 1))
INSERT INTO lag_samples (at, schedule_lag, seal_lag, ended, late)
SELECT c.at,
    greatest(0, extract(epoch FROM c.at - (SELECT wake_at FROM oldest)),
        (s.late - b.late) / nullif(s.ended - b.ended, 0)),
    greatest(0, extract(epoch FROM c.at - (SELECT at FROM unproven))),
    s.ended, s.late
FROM clock c CROSS JOIN so_far s LEFT JOIN before b ON true
""")
PRUNE = text("DELETE FROM lag_samples WHERE at < clock_timestamp() - CAST(:kept AS interval)")


def sample(database: Database) -> None:
    """Note how late the schedule and the sealer are, and forget what is older than a day and an hour."""
    with database.transaction() as session:
        connection = session.connection()
        connection.execute(PRUNE, {"kept": KEPT})
        connection.execute(SAMPLE)
