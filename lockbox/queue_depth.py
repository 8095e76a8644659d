"""Count what Redis holds: members of the two indexes, and unacknowledged Celery messages."""

from dataclasses import dataclass
from typing import Any

from redis import Redis

UNACKED = "unacked"
UNACKED_INDEX = "unacked_index"


@dataclass(frozen=True)
class QueueDepth:
    """Counts in Redis: clocks due in a span, notifications with leased ones, and unacknowledged Celery messages.

    `oldest_unacked_at` is when the oldest of these was handed out, in seconds since 1970 by its worker's clock; `now`
    is Redis' own clock.
    """

    clocks_in_span: int
    notifications: int
    unacked: int
    oldest_unacked_at: float | None
    now: float


def measure(client: "Redis", clock: str, notifications: tuple[str, str], span: tuple[float, float]) -> QueueDepth:
    """Count in one round trip, at a cost that does not grow with the content.

    Raises:
        redis.exceptions.RedisError: it can't be reached.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.zcount(clock, f"({span[0]:.0f}", f"{span[1]:.0f}")
        pipe.zcount(notifications[0], "-inf", "(+inf")
        pipe.zcard(notifications[1])
        pipe.hlen(UNACKED)
        pipe.zrange(UNACKED_INDEX, 0, 0, withscores=True)
        pipe.time()
        answers: list[Any] = pipe.execute()
    clocks, waiting, leased, unacked, oldest, (seconds, micros) = answers
    return QueueDepth(
        clocks_in_span=int(clocks),
        notifications=int(waiting) + int(leased),
        unacked=int(unacked),
        oldest_unacked_at=float(oldest[0][1]) if oldest else None,
        now=int(seconds) + int(micros) / 1_000_000,
    )
