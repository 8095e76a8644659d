"""The plan of one run: which fault strikes what, when and for how long; a pure function of the seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

CORE = ("worker", "worker-2")
PROCESSES = ("api", *CORE, "notifications", "flower", "guard")
SERVERS = ("redis", "postgres")
SINKS = ("mail", "webhooks")
GUARD_LINK = "guard_link"
"""The network between the guard and Lockbox."""
BEGINS = 1.0
SHORTEST_GAP, LONGEST_GAP = 0.8, 2.4
SHIFT = 300


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault: its targets and the range of its duration in seconds; (0, 0) is over once it has struck.

    `cards` is how often the kind is in a deck.
    """

    name: str
    targets: tuple[str, ...]
    lasts: tuple[float, float] = (0, 0)
    cards: int = 1


KINDS = (
    FaultKind("kill", PROCESSES),
    FaultKind("kill_child", CORE),
    FaultKind("freeze", (*PROCESSES, *SERVERS), (2, 12)),
    FaultKind("flush", ("redis",)),
    FaultKind("lose_key", ("redis",)),
    FaultKind("restart", SERVERS),
    FaultKind("restart_empty", ("redis",)),
    FaultKind("cut_log", ("redis",)),
    FaultKind("out_of_memory", ("redis",), (2, 6)),
    FaultKind("stall", ("redis",), (1, 4)),
    FaultKind("wrong_password", ("redis",), (2, 6)),
    FaultKind("read_only", ("redis",), (2, 6)),
    FaultKind("cut_off", ("postgres",)),
    FaultKind("few_connections", ("postgres",), (2, 5)),
    FaultKind("lock", ("postgres",), (5, 5)),
    FaultKind("refuse", (*SERVERS, *SINKS), (2, 6)),
    FaultKind("black_hole", (*SERVERS, *SINKS), (2, 8)),
    FaultKind("reset", (*SERVERS, GUARD_LINK)),
    FaultKind("slow", (*SERVERS, GUARD_LINK), (2, 6)),
    FaultKind("partition", (GUARD_LINK,), (5, 9), cards=3),
    FaultKind("busy", SINKS, (2, 6)),
    FaultKind("cut", SINKS, (2, 5)),
    FaultKind("no", ("mail",), (1, 3)),
    FaultKind("triple", ("messages",), (3, 8)),
    FaultKind("shuffle", ("messages",), (2, 6)),
    FaultKind("drop", ("messages",), (2, 6)),
    FaultKind("forge", ("messages",)),
    FaultKind("replay", ("messages",)),
    FaultKind("control", ("flower",)),
)


@dataclass(frozen=True)
class Fault:
    """One fault: it begins `at` seconds into the run and `lasts` seconds; `dice` decides what is left to chance."""

    at: float
    kind: str
    target: str
    lasts: float
    dice: int

    @property
    def ends(self) -> float:
        """When it is over."""
        return self.at + self.lasts

    def __str__(self) -> str:
        lasts = f" for {self.lasts:.1f} s" if self.lasts else ""
        return f"{self.at:6.1f} s  {self.kind} {self.target}{lasts}"


@dataclass(frozen=True)
class AppliedFault:
    """A fault that was carried out, from when to when by the wall clock; `failed` says why if it could not be."""

    fault: Fault
    began: float
    ended: float
    failed: str = ""


@dataclass(frozen=True)
class FaultPlan:
    """All faults of one run, in order, and the core worker whose clock is off by `shift` seconds throughout."""

    seed: int
    seconds: float
    shifted: str
    shift: int
    faults: tuple[Fault, ...]

    def lines(self) -> Iterator[str]:
        """Yield the plan, line by line."""
        yield f"seed {self.seed}, {self.seconds:g} s of load, {len(self.faults)} faults"
        yield f"   0.0 s  the clock of {self.shifted} is {self.shift:+} s off all along"
        yield from map(str, self.faults)


def make(seed: int, seconds: float) -> FaultPlan:
    """Return the plan of a seed: no two faults strike a target at once, and each deck is played before the next."""
    chance = random.Random(seed)  # noqa: S311 - a seed must replay
    shifted, shift = chance.choice(CORE), chance.choice((-SHIFT, SHIFT))
    deck: list[tuple[FaultKind, str]] = []
    busy: dict[str, float] = {}
    faults: list[Fault] = []
    at = BEGINS
    while at < seconds - BEGINS:
        deck = deck or _shuffled(chance)
        drawn = next((card for card in deck if busy.get(card[1], 0) <= at), None)
        if drawn:
            deck.remove(drawn)
            fault = _struck(chance, at, drawn, seconds)
            busy[fault.target] = fault.ends + SHORTEST_GAP
            faults.append(fault)
        at += chance.uniform(SHORTEST_GAP, LONGEST_GAP)
    return FaultPlan(seed, seconds, shifted, shift, tuple(faults))


def _shuffled(chance: random.Random) -> list[tuple[FaultKind, str]]:
    cards = [(kind, target) for kind in KINDS for target in kind.targets for _ in range(kind.cards)]
    chance.shuffle(cards)
    return cards


def _struck(chance: random.Random, at: float, drawn: tuple[FaultKind, str], seconds: float) -> Fault:
    kind, target = drawn
    lasts = chance.uniform(*kind.lasts)
    return Fault(round(at, 2), kind.name, target, round(min(lasts, seconds - at), 2), chance.getrandbits(32))
