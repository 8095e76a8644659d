"""Keep in Redis which reviewers are looking at which request; marks expire by themselves."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis

LASTS = timedelta(minutes=5)


def _key(of: str, person: str) -> str:
    return f"{{lockbox}}:look:{of}:{person}"


def mark(client: "Redis", of: str, person: str, since: datetime) -> bool:
    """Mark that the person is looking, for five minutes; return whether that is new.

    Raises:
        redis.exceptions.RedisError: it can't be reached.
    """
    key = _key(of, person)
    with client.pipeline(transaction=False) as pipe:
        pipe.set(key, since.isoformat(), ex=LASTS, nx=True)
        pipe.expire(key, LASTS)
        is_new, _ = pipe.execute()
    return bool(is_new)


def unmark(client: "Redis", of: str, person: str) -> bool:
    """Remove the mark; return whether there was one.

    Raises:
        redis.exceptions.RedisError: it can't be reached.
    """
    return bool(client.delete(_key(of, person)))


def marked(client: "Redis", of: str, people: Sequence[str]) -> Mapping[str, tuple[datetime, timedelta]]:
    """Return which of these people are looking: since when, and until when the mark lasts.

    Raises:
        redis.exceptions.RedisError: it can't be reached.
    """
    with client.pipeline(transaction=False) as pipe:
        for one in people:
            pipe.get(_key(of, one))
            pipe.pttl(_key(of, one))
        answers: list[Any] = pipe.execute() if people else []
    found = {}
    for person, since, left in zip(people, answers[::2], answers[1::2], strict=True):
        at = _instant(since) if since is not None and left > 0 else None
        if at is not None:
            # Ignore a mark without an expiry.
            found[person] = at, timedelta(milliseconds=min(left, LASTS.total_seconds() * 1000))
    return found


def _instant(said: bytes) -> datetime | None:
    """Parse a mark; None if it is not ours."""
    try:
        return datetime.fromisoformat(said.decode()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
