"""The lines of an export, in the format of docs/audit-format.md; pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, BinaryIO, TypeVar

from lockbox.audit.canonical import decoded
from lockbox.audit.log.merkle import HASH_BYTES, WIDTH

MOST = 50
FORMAT = "lockbox-audit-export/1"
LONGEST_LINE = 1 << 20
MOST_HASHES = 128
SALT_BYTES = 16
T = TypeVar("T", bound="Line")


class FindingKind(StrEnum):
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
    USES = "uses"
    GATE = "gate"
    STATED = "unapproved access"


UNSURE = frozenset({FindingKind.UNPROVEN, FindingKind.RESTORED, FindingKind.FUTURE, FindingKind.NEWER_KNOWN})
"""Kinds of findings that are not contradictions: something could not be proven."""


@dataclass(frozen=True)
class Finding:
    """`line` is the line of the file, `number` the event's number in the log, and `event` its id."""

    kind: FindingKind
    message: str
    line: int | None = None
    number: int | None = None
    event: str | None = None

    @property
    def place(self) -> str:
        parts = (("line", self.line), ("number", self.number), ("event", self.event))
        return ", ".join(f"{name} {value}" for name, value in parts if value is not None)


@dataclass
class Findings:
    first: list[Finding] = field(default_factory=list)
    count: int = 0
    kinds: set[FindingKind] = field(default_factory=set)

    @property
    def is_contradicted(self) -> bool:
        """Whether anything is contradicted, rather than only unproven."""
        return not self.kinds <= UNSURE

    def add(
        self,
        kind: FindingKind,
        message: str,
        *,
        line: int | None = None,
        number: int | None = None,
        event: str | None = None,
    ) -> None:
        self.count += 1
        self.kinds.add(kind)
        if len(self.first) < MOST:
            self.first.append(Finding(kind, message, line, number, event))


class Unreadable(Exception):  # noqa: N818 - it names what was found
    pass


@dataclass(frozen=True)
class ExportHeader:
    """The export's first line, with the signed checkpoint that the events must match.

    `consistency` has proofs from the older sizes that the export was asked for.
    """

    origin: str
    log: str
    generation: int
    size: int
    checkpoint: str
    whole: bool
    asked: Mapping[str, Any]
    consistency: Mapping[int, list[bytes]]


@dataclass(frozen=True)
class TileLine:
    """The hashes of up to 256 leaves, and the path from the tile's root to the log's root."""

    tile: int
    leaves: list[bytes]
    proof: list[bytes]


@dataclass(frozen=True)
class PersonalDetail:
    salt: bytes
    value: str


@dataclass(frozen=True)
class EventLine:
    """One event; `proof` is its audit path, None in a whole export."""

    number: int
    body: bytes
    personal: Mapping[str, PersonalDetail]
    proof: list[bytes] | None


@dataclass(frozen=True)
class GapLine:
    """A range of events that retention removed, and that the file therefore lacks.

    `hashes` are those of the range's complete subtrees, and empty unless whole tiles are missing.
    """

    start: int
    end: int
    hashes: list[bytes]


@dataclass(frozen=True)
class EndLine:
    """The last line; `events` is the number of lines that are events."""

    events: int


Line = ExportHeader | TileLine | EventLine | GapLine | EndLine


def parts(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the largest complete subtrees, as (level, number), of the leaves from `start` to before `end`."""
    while start < end:
        level = (end - start).bit_length() - 1
        while start & (1 << level) - 1:
            level -= 1
        yield level, start >> level
        start += 1 << level


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """A line that is too long for an export is cut, so that parsing rejects it."""
    while line := file.readline(LONGEST_LINE):
        yield line


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate members, because two readers could choose different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a member is there twice")
    return found


DECODE = json.JSONDecoder(object_pairs_hook=_once).decode


def read(line: bytes) -> Line:
    try:
        said = DECODE(line.decode())
    except (ValueError, RecursionError):
        raise Unreadable("this is no JSON") from None
    if not isinstance(said, dict) or not line.endswith(b"\n"):
        raise Unreadable("this is no whole line of an export")
    try:
        return _line(said)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Unreadable("this is no line of an export") from None


def _line(said: dict[str, Any]) -> Line:
    match said:
        case {"number": number, "body": str(body), "personal": dict(personal), **rest}:
            proof = _hashes(rest.pop("proof")) if "proof" in rest else None
            return _alone(rest, EventLine(_number(number), body.encode(), _details(personal), proof))
        case {"tile": number, "leaves": list(leaves), "proof": list(proof), **rest}:
            return _alone(rest, TileLine(_number(number), _hashes(leaves, WIDTH), _hashes(proof)))
        case {"removed": {"from": start, "to": end, "hashes": list(hashes), **more}, **rest}:
            return _alone(rest | more, _gap(start, end, _hashes(hashes)))
        case {"end": {"events": events, **more}, **rest}:
            return _alone(rest | more, EndLine(_number(events)))
        case {"export": str(), **rest}:
            return _header(said)
    raise ValueError


def _header(said: dict[str, Any]) -> ExportHeader:
    if said.pop("export") != FORMAT:
        raise Unreadable(f"this is an export of another format than {FORMAT}")
    for text in (said["origin"], said["log"], said["checkpoint"], *said["asked"], *said["asked"].values()):
        text.encode()
    if not isinstance(said["consistency"], list) or not isinstance(said["whole"], bool):
        raise TypeError
    for name in ("generation", "size"):
        _number(said[name])
    return ExportHeader(consistency=_proofs(said.pop("consistency")), **said)


def _proofs(given: list[Any]) -> dict[int, list[bytes]]:
    found = {}
    for one in given:
        match one:
            case {"from": size, "proof": list(proof), **rest} if not rest and _number(size) not in found:
                found[size] = _hashes(proof)
            case _:
                raise ValueError
    return found


def _gap(start: object, end: object, hashes: list[bytes]) -> GapLine:
    gap = GapLine(_number(start), _number(end), hashes)
    if gap.start >= gap.end:
        raise ValueError
    return gap


def _alone(rest: Mapping[Any, Any], line: T) -> T:
    """Refuse a line with unknown members, because no one could check them."""
    if rest:
        raise ValueError
    return line


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _hashes(values: list[Any], most: int = MOST_HASHES) -> list[bytes]:
    hashes = [decoded(value) for value in values]
    if len(hashes) > most or any(len(one) != HASH_BYTES for one in hashes):
        raise ValueError
    return hashes


def _details(personal: Mapping[str, Any]) -> dict[str, PersonalDetail]:
    # JSON can hold text that cannot be encoded; it can be neither hashed nor shown.
    return {name.encode().decode(): _detail(one) for name, one in personal.items()}


def _detail(given: object) -> PersonalDetail:
    match given:
        case {"salt": str(salt), "value": str(value), **rest} if not rest:
            value.encode()
            detail = PersonalDetail(decoded(salt), value)
            if len(detail.salt) == SALT_BYTES:
                return detail
    raise ValueError
