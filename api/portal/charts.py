"""Draw charts as SVG, with the same numbers in words."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from api.portal import phrases

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 52, 4, 14, 20
"""The margins, in the drawing's units, which are pixels on a small screen."""
LEAST = 2.0
"""The smallest height of a bar for a value above zero."""
GAP = 2.0
WORD = 30
"""The width of a time's label."""


@dataclass(frozen=True)
class TimeAxis:
    """Each `every`th time has a label; `unknown` replaces a missing value."""

    unit: str
    heading: str
    label: str
    named: str
    every: int
    unknown: str = phrases.NOT_KNOWN

    def is_labelled(self, moment: datetime) -> bool:
        number = moment.hour if self.unit == phrases.HOUR else moment.month
        return number % self.every == 0

    def within(self, moment: datetime) -> str:
        return self.named.format(moment)

    def name(self, moment: datetime) -> str:
        return self.label.format(moment)


HOURS = TimeAxis(phrases.HOUR, phrases.HOUR_HEADING, "{:%H:%M}", phrases.IN_HOUR, 6)
MONTHS = TimeAxis(phrases.MONTH, phrases.MONTH_HEADING, "{:%b %Y}", phrases.IN_MONTH, 1, phrases.NO_ANSWER)


@dataclass(frozen=True)
class Series:
    """Numbers by time, None where unknown. `kind` is the CSS class of the bars."""

    name: str
    kind: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Bar:
    """All numbers are in the drawing's units."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Tick:
    x: float
    words: str


@dataclass(frozen=True)
class Chart:
    """`say` formats a number with its unit."""

    id: str
    title: str
    times: Sequence[datetime]
    series: Sequence[Series]
    say: Callable[[float], str]
    axis: TimeAxis = HOURS

    @property
    def top(self) -> float:
        """The largest value of the scale; never zero."""
        return max((value for one in self.series for value in one.values if value), default=1.0)

    @property
    def nothing(self) -> str:
        if any(value for one in self.series for value in one.values):
            return ""
        known = any(value is not None for one in self.series for value in one.values)
        return phrases.THROUGHOUT.format(what=self.say(0)) if known else phrases.YET.format(what=self.axis.unknown)

    @property
    def bars(self) -> Iterator[Bar]:
        width = (self.slot - GAP) / len(self.series)
        for place, one in enumerate(self.series):
            for number, value in enumerate(one.values):
                if value:
                    height = max(LEAST, value / self.top * (HEIGHT - TOP - BOTTOM))
                    x = LEFT + number * self.slot + GAP / 2 + place * width
                    yield Bar(
                        one.kind, round(x, 2), round(HEIGHT - BOTTOM - height, 2), round(width, 2), round(height, 2)
                    )

    @property
    def ticks(self) -> Iterator[Tick]:
        for number, moment in enumerate(self.times):
            if self.axis.is_labelled(moment):
                x = min(LEFT + number * self.slot, WIDTH - RIGHT - WORD)
                yield Tick(round(x, 2), self.axis.name(moment).split()[0])

    @property
    def slot(self) -> float:
        return (WIDTH - LEFT - RIGHT) / len(self.times)

    @property
    def rows(self) -> Iterator[tuple[datetime, Sequence[str]]]:
        for number in reversed(range(len(self.times))):
            yield self.times[number], [self._written(one.values[number]) for one in self.series]

    @property
    def words(self) -> str:
        return " ".join(self._sentence(one) for one in self.series)

    def _sentence(self, one: Series) -> str:
        known = [(value, moment) for value, moment in zip(one.values, self.times, strict=True) if value is not None]
        if not known:
            return phrases.UNKNOWN.format(name=one.name, what=self.axis.unknown)
        most, when = max(known, key=lambda pair: pair[0])
        if not most:
            return phrases.IN_ALL.format(name=one.name, value=self.say(0))
        return phrases.AT_MOST.format(name=one.name, value=self.say(most), when=self.axis.within(when))

    def _written(self, value: float | None) -> str:
        return self.axis.unknown if value is None else self.say(value)


def count(value: float) -> str:
    return f"{value:,.0f}"
