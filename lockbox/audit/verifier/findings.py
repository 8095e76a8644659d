"""What a verifier may find: each kind has a name, a place and a sentence; pure."""

from dataclasses import dataclass, field
from enum import StrEnum

MOST = 50


class Kind(StrEnum):
    """What is wrong with an export."""

    EDITED = "edited"
    REMOVED = "removed"
    REORDERED = "reordered"
    INSERTED = "inserted"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    FORKED = "forked"
    OLDER = "older"
    ANOTHER_LOG = "another log"
    UNKNOWN_KEY = "unknown key"
    WRONG_SIGNATURE = "wrong signature"
    UNPROVEN = "not proven"
    RESTORED = "restored"
    FUTURE = "from the future"
    NEWER_KNOWN = "newer known"
    COMMITMENT = "commitment"
    NOT_CANONICAL = "not canonical"
    MALFORMED = "malformed"
    GAP_IN_MOVES = "gap in moves"
    DOUBLED = "doubled id"
    FOREIGN = "foreign event"
    APPROVAL = "approval"
    PASSKEY = "signature by passkey"


UNSURE = frozenset({Kind.UNPROVEN, Kind.RESTORED, Kind.FUTURE, Kind.NEWER_KNOWN})
"""What is no contradiction: something could not be shown."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and where: the line of the file, the number in the log, the event's id."""

    kind: Kind
    message: str
    line: int | None = None
    number: int | None = None
    event: str | None = None

    @property
    def place(self) -> str:
        """Where it is, in words; empty where it concerns the whole."""
        parts = (("line", self.line), ("number", self.number), ("event", self.event))
        return ", ".join(f"{name} {value}" for name, value in parts if value is not None)


@dataclass
class Findings:
    """What was found so far: the first of them, how many there are, and of which kinds."""

    first: list[Finding] = field(default_factory=list)
    count: int = 0
    kinds: set[Kind] = field(default_factory=set)

    @property
    def is_contradicted(self) -> bool:
        """Whether something is wrong, beside what could not be shown."""
        return not self.kinds <= UNSURE

    def add(
        self,
        kind: Kind,
        message: str,
        *,
        line: int | None = None,
        number: int | None = None,
        event: str | None = None,
    ) -> None:
        """Note one more."""
        self.count += 1
        self.kinds.add(kind)
        if len(self.first) < MOST:
            self.first.append(Finding(kind, message, line, number, event))
