"""Read YAML as plain values, each with its line. Refuse anything that is easily misread or unbounded."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

MOST_DEPTH = 16
MOST_NODES = 50_000
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
LOOKALIKES = re.compile(r"(?i:yes|no|on|off|y|n|true|false|null)|[-+]?(?:0[0-9]|0[xob]|\.?[0-9])[0-9a-fA-F_.:+e-]*")
"""Plain words that some YAML programs read as another type than text."""

Place = tuple[int | str, ...]
"""The keys and indices that lead from the top of the document to a value."""


@dataclass(frozen=True)
class CatalogueProblem:
    place: Place
    message: str


class UnreadableYaml(ValueError):  # noqa: N818 - the name says what went wrong
    def __init__(self, line: int, place: Place, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.place = place
        self.message = message


@dataclass(frozen=True)
class MarkedDocument:
    """Lists are tuples. `lines` has the line of each place, counted from 1."""

    value: Any
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """Return the line of a place, or of the nearest place above it."""
        while place not in self.lines and place:
            place = place[:-1]
        return self.lines.get(place, 1)


def read_yaml(text: str) -> MarkedDocument:
    """Return one document of maps with text keys, lists, texts, whole numbers, true, false and null.

    Refused are unquoted words that look like numbers or booleans, repeated keys, anchors, aliases, tags, directives,
    and files with several documents.
    """
    try:
        return _Reader(yaml.parse(text, Loader=yaml.CSafeLoader)).document()
    except yaml.reader.ReaderError as error:
        line = text.encode().count(b"\n", 0, error.position) + 1
        raise UnreadableYaml(line, (), f"remove the character U+{error.character:04X}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UnreadableYaml(mark.line + 1 if mark else 1, (), f"mend the YAML: {error.problem}") from None


class _Reader:
    """Builds values from the parser's events, so that aliases are detected before they are followed."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._lines: dict[Place, int] = {}

    def document(self) -> MarkedDocument:
        self._expect(yaml.StreamStartEvent)
        started = next(self._events)
        if isinstance(started, yaml.StreamEndEvent):
            raise UnreadableYaml(1, (), "the file is empty; write `services:` and `plans:`")
        if started.version or started.tags:
            raise _refused(started, (), "remove the line that begins with %")
        value = self._value(next(self._events), ())
        self._expect(yaml.DocumentEndEvent)
        more = next(self._events)
        if not isinstance(more, yaml.StreamEndEvent):
            raise _refused(more, (), "write one document: remove this `---` and what follows")
        return MarkedDocument(value, self._lines)

    def _expect(self, kind: type) -> None:
        event = next(self._events)
        assert isinstance(event, kind)  # noqa: S101 - a YAML parser yields events in this order

    def _value(self, event: Any, place: Place) -> Any:  # noqa: ANN401 - a value of YAML
        self._lines.setdefault(place, event.start_mark.line + 1)
        if isinstance(event, yaml.AliasEvent):
            raise _refused(event, place, f"write the value out: *{event.anchor} is an alias")
        if event.anchor is not None:
            raise _refused(event, place, f"remove &{event.anchor}: anchors are not taken")
        if event.tag is not None:
            raise _refused(event, place, f"remove the tag {event.tag}")
        if len(place) > MOST_DEPTH or len(self._lines) > MOST_NODES:
            raise _refused(event, place, f"nest at most {MOST_DEPTH} levels and {MOST_NODES:,} values")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event, place)
        if isinstance(event, yaml.SequenceStartEvent):
            return tuple(self._items(place))
        return self._map(place)

    def _items(self, place: Place) -> Iterator[Any]:
        number = 0
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._value(event, (*place, number))
            number += 1

    def _map(self, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, place)
            at = (*place, key)
            if key in found:
                raise _refused(event, at, f"this key is also on line {self._lines[at]}; keep one of them")
            self._lines[at] = event.start_mark.line + 1
            found[key] = self._value(next(self._events), at)
        return found

    def _key(self, event: Any, place: Place) -> str:  # noqa: ANN401 - an event of PyYAML
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None or event.tag is not None:
            raise _refused(event, place, "write this key as plain text, without *, & or !")
        if not isinstance(event, yaml.ScalarEvent):
            raise _refused(event, place, "write this key as text, not as a list or a map")
        if event.value == "<<" and event.implicit[0]:
            raise _refused(event, place, "write the values out: merging by << is not taken")
        return str(event.value)


def _scalar(event: Any, place: Place) -> str | int | bool | None:  # noqa: ANN401 - an event of PyYAML
    text = str(event.value)
    if not event.implicit[0]:
        return text
    if text in WORDS:
        return WORDS[text]
    if WHOLE.fullmatch(text):
        return int(text)
    if LOOKALIKES.fullmatch(text):
        raise _refused(
            event, place, f'write "{text}" in quotes if it is text, or true, false, null or a whole number'
        )
    return text


def _refused(event: Any, place: Place, message: str) -> UnreadableYaml:  # noqa: ANN401 - an event of PyYAML
    return UnreadableYaml(event.start_mark.line + 1, place, message)
