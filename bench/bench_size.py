"""How much a benchmark measures: three sizes, which take from under three minutes to as long as a million needs."""

from dataclasses import dataclass

OF_STACK = ("pending", "lone", "storms", "steady", "checks", "flooded", "submits", "lives", "notified", "mails")
PARTS = (*OF_STACK, "gate", "lists", "sorted_set", "crowd", "audit_log", "peers")
"""The parts that can be measured separately, each with its floor. Parts that need the running stack come first."""


@dataclass(frozen=True)
class Size:
    """One size. Storms are pairs: how many are due at one instant, and how often that is measured."""

    name: str
    storms: tuple[tuple[int, int], ...]
    lone_rounds: int
    steady_seconds: int
    lives: int
    notified: int
    pending: int
    closed: int
    idle_seconds: int
    http_seconds: float
    http_rounds: int
    floor_batches: tuple[int, ...]
    floor_rounds: int
    peers: tuple[str, ...] = ()
    peer_storms: tuple[tuple[int, int], ...] = ()
    peer_lives: int = 300
    peer_pending: int = 2_000
    audit_log_events: int = 300_000
    parts: tuple[str, ...] = PARTS

    def has(self, *parts: str) -> bool:
        """Whether one of these parts is measured."""
        return not set(parts).isdisjoint(self.parts)


QUICK = Size(
    name="quick",
    storms=((10_000, 1),),
    lone_rounds=5,
    steady_seconds=8,
    lives=100,
    notified=200,
    pending=20_000,
    closed=100_000,
    idle_seconds=5,
    http_seconds=2,
    http_rounds=1,
    floor_batches=(1_000,),
    floor_rounds=1,
    parts=(*OF_STACK[:-1], "gate", "lists", "sorted_set"),
)
USUAL = Size(
    name="bench",
    storms=((1_000, 1), (10_000, 3), (100_000, 1)),
    lone_rounds=20,
    steady_seconds=30,
    lives=500,
    notified=400,
    pending=100_000,
    closed=1_000_000,
    idle_seconds=15,
    http_seconds=3,
    http_rounds=2,
    floor_batches=(500, 2_000),
    floor_rounds=3,
    peers=("celery_eta", "dramatiq_delay"),
    peer_storms=((1_000, 1), (10_000, 1)),
    audit_log_events=100_000,
)
FULL = Size(
    name="full",
    storms=((1_000, 3), (10_000, 5), (100_000, 3), (1_000_000, 1)),
    lone_rounds=30,
    steady_seconds=120,
    lives=1_000,
    notified=400,
    pending=1_000_000,
    closed=10_000_000,
    idle_seconds=30,
    http_seconds=4,
    http_rounds=5,
    floor_batches=(500, 1_000, 2_000, 5_000),
    floor_rounds=3,
    peers=("celery_eta", "dramatiq_delay", "redbeat_entries", "dbos_delay"),
    peer_storms=((1_000, 3), (10_000, 1)),
    peer_lives=1_000,
    audit_log_events=1_000_000,
)
SIZES = {size.name: size for size in (QUICK, USUAL, FULL)}
