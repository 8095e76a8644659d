"""Lockbox's change stream: server-sent events whose data is JSON."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_BYTES = 64 * 1024 * 1024


class MalformedStream(Exception):  # noqa: N818 - the name says what went wrong
    """What came is not a stream of Lockbox: nothing in it can be relied on."""


@dataclass(frozen=True, slots=True)
class LockboxEvent:
    """`id` is the position from which the stream can be resumed."""

    kind: str
    data: dict[str, Any]
    id: str


class EventDecoder:
    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[bytes, list[bytes]] = {}
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[LockboxEvent]:
        """Yield the events that these bytes complete.

        Raises:
            MalformedStream: the bytes are not such events.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._size += len(chunk)
        if self._size > MOST_BYTES:
            raise MalformedStream("an event is too long")
        for line in lines:
            if (text := line.removesuffix(b"\r")) and not text.startswith(b":"):
                name, _, value = text.partition(b":")
                self._fields.setdefault(name, []).append(value.removeprefix(b" "))
            elif not text and self._fields:
                fields, self._fields = self._fields, {}
                self._size = len(self._rest)
                yield _event(fields)


def _event(fields: dict[bytes, list[bytes]]) -> LockboxEvent:
    try:
        data = json.loads(b"\n".join(fields[b"data"]))
        kind, event_id = fields[b"event"][-1].decode("ascii"), fields[b"id"][-1].decode("ascii")
    except (KeyError, ValueError) as error:
        raise MalformedStream(f"an event cannot be read: {type(error).__name__}") from None
    if not isinstance(data, dict):
        raise MalformedStream("the data of an event is no object")
    return LockboxEvent(kind, data, event_id)
