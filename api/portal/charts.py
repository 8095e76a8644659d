"""Draw charts as SVG without script or style, with the same numbers in words."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 52, 4, 14, 20
"""The margins, in the drawing's units, which are pixels on a small screen."""
LEAST = 2.0
"""The least height of a bar above zero."""
GAP = 2.0
WORD = 30
"""The width of an hour's label."""
EVERY = 6
"""Every sixth hour has a label."""


@dataclass(frozen=True)
class Series:
    """Hourly numbers of one kind, None where unknown; `kind` is the class of its bars."""

    name: str
    kind: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Bar:
    """One bar, in the units of the drawing."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Tick:
    """A labelled hour."""

    x: float
    words: str


@dataclass(frozen=True)
class Chart:
    """Some series over the same hours; `say` formats a number with its unit."""

    id: str
    title: str
    hours: Sequence[datetime]
    series: Sequence[Series]
    say: Callable[[float], str]

    @property
    def top(self) -> float:
        """The largest value of the scale, never zero."""
        return max((value for one in self.series for value in one.values if value), default=1.0)

    @property
    def nothing(self) -> str:
        """The text in place of bars if there are none."""
        if any(value for one in self.series for value in one.values):
            return ""
        known = any(value is not None for one in self.series for value in one.values)
        return f"{self.say(0)} throughout" if known else "not known yet"

    @property
    def bars(self) -> Iterator[Bar]:
        """All bars, hour by hour side by side; none if everything is zero."""
        width = (self.slot - GAP) / len(self.series)
        for place, one in enumerate(self.series):
            for hour, value in enumerate(one.values):
                if value:
                    height = max(LEAST, value / self.top * (HEIGHT - TOP - BOTTOM))
                    x = LEFT + hour * self.slot + GAP / 2 + place * width
                    yield Bar(
                        one.kind, round(x, 2), round(HEIGHT - BOTTOM - height, 2), round(width, 2), round(height, 2)
                    )

    @property
    def ticks(self) -> Iterator[Tick]:
        """The labelled hours."""
        for number, hour in enumerate(self.hours):
            if hour.hour % EVERY == 0:
                x = min(LEFT + number * self.slot, WIDTH - RIGHT - WORD)
                yield Tick(round(x, 2), f"{hour:%H:%M}")

    @property
    def slot(self) -> float:
        """The width of an hour."""
        return (WIDTH - LEFT - RIGHT) / len(self.hours)

    @property
    def rows(self) -> Iterator[tuple[datetime, Sequence[str]]]:
        """The same numbers as a table, the newest hour first."""
        for number in reversed(range(len(self.hours))):
            yield self.hours[number], [self._written(one.values[number]) for one in self.series]

    @property
    def words(self) -> str:
        """The chart in sentences."""
        return " ".join(self._sentence(one) for one in self.series)

    def _sentence(self, one: Series) -> str:
        known = [(value, hour) for value, hour in zip(one.values, self.hours, strict=True) if value is not None]
        if not known:
            return f"{one.name}: not known."
        most, when = max(known, key=lambda pair: pair[0])
        if not most:
            return f"{one.name}: {self.say(0)} throughout."
        return f"{one.name}: at most {self.say(most)}, in the hour from {when:%H:%M} UTC."

    def _written(self, value: float | None) -> str:
        return "not known" if value is None else self.say(value)


def count(value: float) -> str:
    """Format a count."""
    return f"{value:,.0f}"
