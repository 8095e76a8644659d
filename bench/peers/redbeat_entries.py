"""Celery with RedBeat: each deadline is an entry of the beat's schedule in Redis, due once."""

from datetime import UTC, datetime

from redbeat import RedBeatSchedulerEntry
from redbeat.schedules import rrule

from bench.peers import celery_eta, work

app = celery_eta.app
app.conf.update(
    redbeat_redis_url=work.REDIS_URL,
    redbeat_redis_options={},
    # After this many seconds the beat looks for new entries. The default is five minutes.
    beat_max_loop_interval=1,
    redbeat_lock_timeout=30,
)
notify = celery_eta.notify


def arm(id_: str, due: float, mails: int) -> None:
    """Have a request ended at an instant, in seconds since 1970, and this many mails sent then."""
    once = rrule("SECONDLY", dtstart=datetime.fromtimestamp(due, UTC), count=1, app=app)
    RedBeatSchedulerEntry(name=id_, task="end", schedule=once, args=(id_, mails), app=app).save()
