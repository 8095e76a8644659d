"""The headers of a question at the gate, read once for all that look at them; pure."""

from collections import Counter
from collections.abc import Collection


class SentHeaders:
    """The headers of one question by name, in small letters, and the names that were sent more than once.

    `values` has one value of each name: look at `repeated` wherever a second one would matter.
    """

    __slots__ = ("repeated", "values")

    def __init__(self, sent: Collection[tuple[bytes, bytes]]) -> None:
        self.values = dict(sent)
        self.repeated = NONE if len(self.values) == len(sent) else _repeated(sent)

    def once(self, name: bytes) -> bytes | None:
        """Return the value of a header that was sent exactly once."""
        return None if name in self.repeated else self.values.get(name)


NONE: frozenset[bytes] = frozenset()


def _repeated(sent: Collection[tuple[bytes, bytes]]) -> frozenset[bytes]:
    return frozenset(name for name, times in Counter(name for name, _ in sent).items() if times > 1)
