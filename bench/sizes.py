"""How much is measured: three sizes of a benchmark, from under three minutes to as long as a million takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """One size. Storms are pairs: how many are due at one instant, and how often that is measured.

    `has_history` is whether the audit log of many events, the crowd of tenants and the reach of notifications are
    measured too.
    """

    name: str
    storms: tuple[tuple[int, int], ...]
    lone_rounds: int
    steady_seconds: int
    lives: int
    told: int
    pending: int
    idle_seconds: int
    intake_seconds: float
    intake_rounds: int
    access_seconds: float
    floor_batches: tuple[int, ...]
    floor_rounds: int
    peers: tuple[str, ...] = ()
    peer_storms: tuple[tuple[int, int], ...] = ()
    peer_lives: int = 0
    peer_pending: int = 0
    audit_log_events: int = 0

    @property
    def has_history(self) -> bool:
        """Whether audit log, crowd and reach are measured."""
        return self.audit_log_events > 0


QUICK = Size(
    name="quick",
    storms=((2_000, 1), (10_000, 1)),
    lone_rounds=5,
    steady_seconds=8,
    lives=100,
    told=200,
    pending=20_000,
    idle_seconds=5,
    intake_seconds=2,
    intake_rounds=1,
    access_seconds=2,
    floor_batches=(1_000,),
    floor_rounds=1,
)
USUAL = Size(
    name="bench",
    storms=((1_000, 3), (2_000, 3), (10_000, 5), (100_000, 1)),
    lone_rounds=30,
    steady_seconds=120,
    lives=1_000,
    told=400,
    pending=100_000,
    idle_seconds=15,
    intake_seconds=3,
    intake_rounds=3,
    access_seconds=5,
    floor_batches=(500, 1_000, 2_000, 5_000),
    floor_rounds=3,
    peers=("celery_eta", "dramatiq_delay"),
    peer_storms=((2_000, 1), (10_000, 1)),
    peer_lives=300,
    peer_pending=2_000,
    audit_log_events=300_000,
)
FULL = Size(
    name="full",
    storms=((1_000, 3), (2_000, 3), (10_000, 5), (100_000, 3), (1_000_000, 1)),
    lone_rounds=30,
    steady_seconds=120,
    lives=1_000,
    told=400,
    pending=1_000_000,
    idle_seconds=30,
    intake_seconds=3,
    intake_rounds=5,
    access_seconds=5,
    floor_batches=(500, 1_000, 2_000, 5_000),
    floor_rounds=3,
    peers=("celery_eta", "dramatiq_delay", "redbeat_entries", "dbos_delay"),
    peer_storms=((2_000, 3), (10_000, 1)),
    peer_lives=1_000,
    peer_pending=2_000,
    audit_log_events=1_000_000,
)
SIZES = {size.name: size for size in (QUICK, USUAL, FULL)}
