"""The lines of an export: each kind, its limits, and why a malformed line is refused."""

import io
import json
from typing import Any

import pytest

from lockbox.audit.verifier import export_format
from lockbox.audit.verifier.export_format import (
    LONGEST_LINE,
    EndLine,
    EventLine,
    ExportHeader,
    GapLine,
    Line,
    PersonalDetail,
    TileLine,
    Unreadable,
    parts,
    read,
)
from tests.each import each
from tests.logs import SALT, line, text

HASH, OTHER = bytes(range(32)), bytes(range(1, 33))
EVENT: dict[str, Any] = {
    "number": 0,
    "body": '{"name":"Zoë"}',
    "personal": {"name": {"salt": text(SALT), "value": "Änne"}, "comment": {"salt": text(SALT), "value": ""}},
}
TILE: dict[str, Any] = {"tile": 2, "leaves": [text(HASH), text(OTHER)], "proof": [text(OTHER)]}
REMOVED: dict[str, Any] = {"removed": {"from": 0, "to": 256, "hashes": [text(HASH)]}}
FIRST: dict[str, Any] = {
    "export": "lockbox-audit-export/1",
    "origin": "lockbox.test/audit/vendor/2",
    "log": "00000000-0000-0000-0000-000000000000",
    "generation": 2,
    "size": 700,
    "checkpoint": "a note",
    "whole": False,
    "asked": {"person": "Änne"},
    "consistency": [{"from": 5, "proof": [text(HASH), text(OTHER)]}, {"from": 0, "proof": []}],
}
NO_JSON, NO_WHOLE_LINE, NO_LINE = (
    "this is no JSON",
    "this is no whole line of an export",
    "this is no line of an export",
)
TWICE = "a member is there twice"


def but(members: dict[str, Any], **changes: object) -> bytes:
    """Return a line with some members changed; a lone surrogate is escaped, as JSON allows."""
    return json.dumps(members | changes).encode() + b"\n"


def without(members: dict[str, Any], name: str) -> bytes:
    return line({other: value for other, value in members.items() if other != name})


def personal(**changes: object) -> bytes:
    """Return an event's line with one personal value, changed like this."""
    return but(EVENT, personal={"name": {"salt": text(SALT), "value": "Erin"} | changes})


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            line(EVENT),
            EventLine(
                0,
                '{"name":"Zoë"}'.encode(),
                {"name": PersonalDetail(SALT, "Änne"), "comment": PersonalDetail(SALT, "")},
                None,
            ),
        ),
        (but(EVENT, proof=[text(OTHER)], personal={}), EventLine(0, EVENT["body"].encode(), {}, [OTHER])),
        (but(EVENT, proof=[], personal={}), EventLine(0, EVENT["body"].encode(), {}, [])),
        (line(TILE), TileLine(2, [HASH, OTHER], [OTHER])),
        (line(REMOVED), GapLine(0, 256, [HASH])),
        (line({"end": {"events": 0}}), EndLine(0)),
        (
            line(FIRST),
            ExportHeader(
                origin="lockbox.test/audit/vendor/2",
                log="00000000-0000-0000-0000-000000000000",
                generation=2,
                size=700,
                checkpoint="a note",
                whole=False,
                asked={"person": "Änne"},
                consistency={5: [HASH, OTHER], 0: []},
            ),
        ),
    ],
)
def test_each_kind_of_export_line_is_parsed(row: bytes, says: Line) -> None:
    assert read(row) == says


@each(
    ("row", "why"),
    [
        (b"", NO_JSON),
        (b"{", NO_JSON),
        (b"\xff\n", NO_JSON),
        (b"[" * 200_000, NO_JSON),
        (b"[]\n", NO_WHOLE_LINE),
        (b'"end"\n', NO_WHOLE_LINE),
        (line(EVENT).removesuffix(b"\n"), NO_WHOLE_LINE),
        (b"{}\n", NO_LINE),
        (b'{"end":{"events":1,"events":1}}\n', TWICE),
        (
            but(FIRST, export="lockbox-audit-export/2"),
            "this is an export of another format than lockbox-audit-export/1",
        ),
    ],
)
def test_a_malformed_export_line_is_refused_with_the_reason(row: bytes, why: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(row)

    assert str(caught.value) == why


def varied(members: dict[str, Any], name: str, *odd: object) -> list[bytes]:
    """Return copies of the line, each with one of these values for the named member."""
    return [but(members, **{name: one}) for one in odd]


def within(why: str, members: dict[str, Any], *changes: dict[str, Any]) -> list[bytes]:
    """Return copies of the line whose only member is `why`, each with one of these changes inside."""
    return [line({why: members | change}) for change in changes]


OF_ANOTHER_FORM: list[bytes] = [
    *(without(EVENT, name) for name in EVENT),
    *(without(TILE, name) for name in TILE),
    *(without(FIRST, name) for name in FIRST),
    *(but(members, more=1) for members in (EVENT, TILE, REMOVED, {"end": {"events": 1}}, FIRST)),
    *varied(EVENT, "number", -1, True, 1.0, "1", None),
    *varied(EVENT, "body", None, 1, {}, "\ud800"),
    *varied(EVENT, "personal", [], None, {"name": "Erin"}, {"name": None}),
    *varied(EVENT, "proof", None, 1, [1], [""], ["no base64"], [f"{text(HASH)}\n"]),
    *(personal(salt=odd) for odd in (None, "", text(SALT[1:]), text(SALT + b"x"), f"{text(SALT)}\n")),
    *(personal(value=odd) for odd in (None, 1, "\ud800")),
    personal(more="x"),
    *varied(TILE, "tile", -1, True, 1.0, "1"),
    *varied(TILE, "leaves", None, {}, [text(HASH), text(HASH[1:])], [text(HASH + b"x"), text(HASH)]),
    *varied(TILE, "proof", None, {}, [text(HASH[1:])]),
    *within("removed", REMOVED["removed"], {"from": 256}, {"from": 257}, {"to": -1}, {"from": True}),
    *within("removed", REMOVED["removed"], {"hashes": None}, {"hashes": ["x"]}, {"more": 1}),
    *within("removed", {"from": 3, "to": 4}, {}),
    *within("withheld", {"from": 3, "to": 4}, {}),
    *within("withheld", REMOVED["removed"], {}),
    *within("end", {"events": 1}, {"events": -1}, {"events": True}, {"events": 1.0}, {"events": None}, {"more": 1}),
    *(row for name in ("generation", "size") for row in varied(FIRST, name, -1, True, 1.0, "1")),
    *(row for name in ("origin", "log", "checkpoint") for row in varied(FIRST, name, None, 1, "\ud800")),
    *varied(FIRST, "asked", None, [], "person", {"person": 1}, {"person": "\ud800"}, {"\ud800": "x"}),
    *varied(FIRST, "whole", None, 1, "true"),
    *varied(FIRST, "consistency", None, {}, [1], [{"from": 5}], [{"proof": []}], ["from"]),
    *varied(FIRST, "consistency", *([{"from": 5, "proof": []} | odd] for odd in ({"more": 1}, {"from": -1}))),
    *varied(FIRST, "consistency", [{"from": 5, "proof": None}]),
    *varied(FIRST, "consistency", [{"from": 5, "proof": []}, {"from": 5, "proof": [text(HASH)]}]),
    but(FIRST, export=1),
]


@each("row", OF_ANOTHER_FORM)
def test_an_export_line_with_missing_or_surplus_or_mistyped_members_is_refused(row: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        read(row)

    assert str(caught.value) == NO_LINE


@pytest.mark.parametrize(
    ("members", "name", "most"),
    [
        (TILE, "leaves", 256),
        (TILE, "proof", 128),
        (EVENT, "proof", 128),
        (REMOVED["removed"], "hashes", 128),
        (FIRST["consistency"][0], "proof", 128),
    ],
)
def test_an_export_line_may_have_up_to_the_maximum_number_of_hashes(
    members: dict[str, Any], name: str, most: int
) -> None:
    def row(count: int) -> bytes:
        long = members | {name: [text(HASH)] * count}
        if members is REMOVED["removed"]:
            return line({"removed": long})
        return but(FIRST, consistency=[long]) if members is FIRST["consistency"][0] else line(long)

    read(row(most))

    with pytest.raises(Unreadable, match=NO_LINE):
        read(row(most + 1))


@each(
    ("start", "end", "subtrees"),
    [
        (0, 0, []),
        (3, 3, []),
        (0, 1, [(0, 0)]),
        (0, 7, [(2, 0), (1, 2), (0, 6)]),
        (1, 8, [(0, 1), (1, 1), (2, 1)]),
        (5, 13, [(0, 5), (1, 3), (2, 2), (0, 12)]),
        (0, 256, [(8, 0)]),
        (256, 1024, [(8, 1), (9, 1)]),
        (256, 1280, [(8, 1), (9, 1), (8, 4)]),
        (0, 768, [(9, 0), (8, 2)]),
        (2**40, 2**40 + 2**39 + 1, [(39, 2), (0, 2**40 + 2**39)]),
    ],
)
def test_a_range_of_events_splits_into_its_largest_complete_subtrees(
    start: int, end: int, subtrees: list[tuple[int, int]]
) -> None:
    assert list(parts(start, end)) == subtrees


def test_an_overlong_export_line_is_cut_off_and_refused() -> None:
    longest = b" " * (LONGEST_LINE - 1) + b"\n"
    file = io.BytesIO(longest + b" " + longest + b"last")

    assert [len(row) for row in export_format.lines_of(file)] == [LONGEST_LINE, LONGEST_LINE, 1, 4]


def test_an_export_line_of_the_maximum_length_is_read() -> None:
    bare = line({"end": {"events": 1}})
    longest = b" " * (LONGEST_LINE - len(bare)) + bare

    (row,) = export_format.lines_of(io.BytesIO(longest))

    assert read(row) == EndLine(1)
