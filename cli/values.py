"""Values of the API, in one form for people in a terminal and in another form for CSV files."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from rich.text import Text

NOTHING = "-"
LOOK_ALIKES = "Your name or mailbox"
"""The label of people with the reader's name or mailbox: two approvals may come from one person."""
SHORTEST_ID = 13
"""Ids begin with their time: this many characters distinguish ids that were made in different milliseconds."""
UNITS = {"d": 86400, "h": 3600, "min": 60}


class ApiValue(ABC):
    @property
    @abstractmethod
    def in_file(self) -> str: ...


@dataclass(frozen=True)
class Instant(ApiValue):
    """Local time in a terminal, and UTC in a file."""

    utc: str

    def __str__(self) -> str:
        return f"{self._local:%Y-%m-%d %H:%M:%S}"

    @property
    def in_file(self) -> str:
        return self.utc

    @property
    def brief(self) -> str:
        year = "" if self._local.year == time.localtime().tm_year else f" {self._local.year}"
        return f"{self._local.day:>2} {self._local:%b}{year} {self._local:%H:%M}"

    @property
    def _local(self) -> datetime:
        return datetime.fromisoformat(self.utc).astimezone()


@dataclass(frozen=True)
class Duration(ApiValue):
    """Shown in the largest unit that is exact."""

    seconds: int

    def __str__(self) -> str:
        for unit, size in UNITS.items():
            if self.seconds >= size and self.seconds % size == 0:
                return f"{self.seconds // size} {unit}"
        return f"{self.seconds} s"

    @property
    def in_file(self) -> str:
        return str(self.seconds)


@dataclass(frozen=True)
class Word(ApiValue):
    """A word of the API, such as tenant_admin, shown with spaces."""

    name: str

    def __str__(self) -> str:
        return words(self.name)

    @property
    def in_file(self) -> str:
        return self.name


@dataclass(frozen=True)
class Identifier(ApiValue):
    """A narrow table shows the id's beginning, which commands accept too."""

    whole: str

    def __str__(self) -> str:
        return self.whole

    @property
    def in_file(self) -> str:
        return self.whole


@dataclass(frozen=True)
class Phrase(ApiValue):
    parts: tuple[object, ...]
    style: str = ""

    def __str__(self) -> str:
        return "".join(map(str, self.parts))

    @property
    def in_file(self) -> str:
        return "".join(map(exact, self.parts))


def phrase(*parts: object, style: str = "") -> Phrase:
    return Phrase(parts, style)


def moment(instant: str | None) -> Instant | None:
    return Instant(instant) if instant else None


def words(value: object) -> str:
    return str(value).replace("_", " ")


def shown(value: object) -> Text:
    match value:
        case Text():
            return value
        case None | "":
            return Text(NOTHING)
        case bool():
            return Text("yes" if value else "no")
        case list() | tuple():
            return Text(", ".join(map(words, value)) or NOTHING)
        case Phrase():
            return Text.assemble((str(value), value.style))
        case _:
            return Text(str(value))


def exact(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case ApiValue():
            return value.in_file
        case list() | tuple():
            return ", ".join(map(exact, value))
        case dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def instants(value: object) -> Iterator[Instant]:
    match value:
        case Instant():
            yield value
        case Phrase():
            for part in value.parts:
                yield from instants(part)


def shortened(ids: set[str]) -> int:
    lengths = (SHORTEST_ID, 18, 23, 36)
    return next((length for length in lengths if len({one[:length] for one in ids}) == len(ids)), lengths[-1])
