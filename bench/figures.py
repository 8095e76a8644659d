"""Figures: quantiles, medians of runs, targets and comparisons; pure."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """One line of the table of targets; if the target is met, the ratio is at most one.

    `refused` is how many calls were turned away meanwhile: being fast by doing less meets no target.
    """

    what: str
    value: float
    target: float
    unit: str
    more_is_better: bool = False
    refused: float = 0

    @property
    def ratio(self) -> float:
        """The figure as a share of its target, or the target as a share of the figure if more is better."""
        if self.more_is_better:
            return self.target / self.value if self.value else math.inf
        return self.value / self.target

    @property
    def is_met(self) -> bool:
        """Whether the target is met; a figure that is not a number meets none."""
        return self.ratio <= 1 and not self.refused


@dataclass(frozen=True)
class Comparison:
    """One load: the figures of Lockbox, of the floor for the same work (if there is one), and of the peers."""

    what: str
    unit: str
    lockbox: float
    floor: float | None = None
    peers: Mapping[str, float] = field(default_factory=dict)
    more_is_better: bool = True

    @property
    def of_floor(self) -> float | None:
        """The share of the floor's speed that Lockbox reaches; None without a floor."""
        return None if self.floor is None else self._times(self.floor)

    @property
    def best_peer(self) -> float | None:
        """The best figure of the peers; None if none was measured."""
        choose = max if self.more_is_better else min
        return choose(self.peers.values()) if self.peers else None

    @property
    def times_best_peer(self) -> float | None:
        """How many times as good as the best peer Lockbox is; None if no peer was measured."""
        best = self.best_peer
        return None if best is None else self._times(best)

    def _times(self, other: float) -> float:
        above, below = (self.lockbox, other) if self.more_is_better else (other, self.lockbox)
        return above / below if below else math.inf


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed (nearest rank).

    Raises:
        ValueError: there are no values, or the share is not above 0 and at most 1.
    """
    if not values or not 0 < share <= 1:
        raise ValueError("a quantile is of some values, at a share above 0 and up to 1")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure over several runs, which all have the same figures."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}
