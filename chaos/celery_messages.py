"""The messages between Lockbox and Redis: seen as they are published, and tripled, held back or lost on the way."""

import json
import random
import re
import secrets
from collections import deque
from collections.abc import Iterable, Sequence
from enum import StrEnum

from redis import Redis

from harness.network import Filter

QUEUES = ("core", "notify", "notify\x06\x166", "maintenance")
"""The lists of messages in Redis. Messages with a lower priority have a list of their own."""
REMEMBERED = 300
REPLAYED = 40
PUBLISH = b"LPUSH"
SIGN_IN = (b"AUTH", b"HELLO")
END = b"\r\n"


class MessageFate(StrEnum):
    """What becomes of a message."""

    PASS = "pass"  # noqa: S105 - not a password
    TRIPLE = "triple"
    HOLD = "hold"
    LOSE = "lose"


class MessageLog:
    """All messages of one run. `leaks` are the Redis commands with something that Redis must never be told."""

    def __init__(self) -> None:
        self.fate = MessageFate.PASS
        self.published = 0
        self.leaks: list[str] = []
        self._recent: deque[tuple[bytes, bytes]] = deque(maxlen=REMEMBERED)
        self._forbidden: re.Pattern[bytes] | None = None

    def forbid(self, words: Iterable[str]) -> None:
        """Watch for these words in everything that is sent to Redis."""
        self._forbidden = re.compile(b"|".join(re.escape(word.encode()) for word in words))

    def line(self) -> "tuple[CommandParser, Filter]":
        """Return the filters of a new connection: commands are read, answers are not."""
        return CommandParser(self), bytes

    def pass_on(self, words: list[bytes]) -> bytes:
        """Return the command that is sent to Redis instead."""
        name = words[0].upper()
        if name in SIGN_IN:
            return written(words)
        if self._forbidden and any(self._forbidden.search(word) for word in words):
            self.leaks.append(name.decode(errors="replace"))
        if name == PUBLISH and words[1].decode(errors="replace") in QUEUES:
            self.published += 1
            return written(self._fated(words))
        return written(words)

    def _fated(self, words: list[bytes]) -> list[bytes]:
        command, queue, *messages = words
        self._recent += [(queue, message) for message in messages]
        if self.fate is MessageFate.TRIPLE:
            return [
                command,
                queue,
                *(copy for message in messages for copy in (message, _again(message), _again(message))),
            ]
        if self.fate is MessageFate.PASS:
            return words
        return [command, _key(self.fate, queue.decode()).encode(), *messages]

    def release(self, redis: Redis, dice: int) -> int:
        """Deliver held-back messages in any order, drop lost messages, and return how many were delivered."""
        chance = random.Random(dice)  # noqa: S311 - a seed must replay
        count = 0
        for queue in QUEUES:
            held = _key(MessageFate.HOLD, queue)
            messages: list[bytes] = redis.lrange(held, 0, -1)  # type: ignore[assignment]
            chance.shuffle(messages)
            for message in messages:
                redis.lpush(queue, message)
            count += len(messages)
            redis.delete(held, _key(MessageFate.LOSE, queue))
        return count

    def replay(self, redis: Redis, dice: int) -> int:
        """Send some earlier messages once more, and return how many."""
        chance = random.Random(dice)  # noqa: S311 - a seed must replay
        known: Sequence[tuple[bytes, bytes]] = list(self._recent)
        for queue, message in chance.sample(known, min(REPLAYED, len(known))):
            redis.lpush(queue.decode(), _again(message))
        return min(REPLAYED, len(known))


class CommandParser:
    """One connection's requests, cut into commands (RESP, arrays of bulk strings)."""

    def __init__(self, messages: MessageLog) -> None:
        self._messages = messages
        self._rest = b""

    def __call__(self, data: bytes) -> bytes:
        """Take bytes as they come, and return the bytes of complete commands."""
        self._rest += data
        out = []
        while (taken := _command(self._rest)) is not None:
            words, length = taken
            out.append(self._messages.pass_on(words) if words else b"")
            self._rest = self._rest[length:]
        return b"".join(out)


def written(words: Sequence[bytes]) -> bytes:
    """Return a command as Redis reads it."""
    parts = [b"*%d" % len(words)]
    for word in words:
        parts += [b"$%d" % len(word), word]
    return END.join([*parts, b""])


def _command(data: bytes) -> tuple[list[bytes], int] | None:
    """Return the first command and its length, or None if it is not complete yet."""
    count = _number(data, 0, b"*")
    if count is None:
        return None
    words, (many, at) = [], count
    for _ in range(many):
        size = _number(data, at, b"$")
        if size is None or len(data) < size[1] + size[0] + len(END):
            return None
        words.append(data[size[1] : size[1] + size[0]])
        at = size[1] + size[0] + len(END)
    return words, at


def _number(data: bytes, at: int, mark: bytes) -> tuple[int, int] | None:
    end = data.find(END, at)
    if end < 0:
        return None
    if data[at : at + 1] != mark:
        raise ValueError("a client of Redis did not send an array of bulk strings")
    return int(data[at + 1 : end]), end + len(END)


def _again(raw: bytes) -> bytes:
    """Return a copy of a message that is a delivery of its own."""
    message = json.loads(raw)
    message["properties"]["delivery_tag"] = secrets.token_hex(16)
    return json.dumps(message).encode()


def _key(fate: MessageFate, queue: str) -> str:
    return f"chaos:{fate}:{queue}"
