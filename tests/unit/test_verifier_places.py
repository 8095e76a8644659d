"""The verifier of exports: what it says where an event of a whole export is not in its place, word for word."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from lockbox.audit.verifier.export_format import FindingKind, parts
from lockbox.audit.verifier.verify import BAD, GOOD, VerificationResult, verify
from tests.each import each
from tests.logs import Log, SealedEvent, event, line, public, subtree_of, text
from tests.verification_results import told, verified

SIZE = 700
EVENTS = [event(number) for number in range(SIZE)]
LOG = Log(EVENTS)
FORGED = Log([event(9_999), *EVENTS[1:]])
ROWS = LOG.whole().splitlines(keepends=True)
FIRST, END = ROWS[0], ROWS[-1]
TILES = [ROWS[1:258], ROWS[258:515], ROWS[515:704]]
BEFORE, OF_TILE, LAST_TILE = [FIRST, *TILES[0]], TILES[1], TILES[2]
SHORT = Log(EVENTS[:4])
HEAD, TILE, ONE, TWO, THREE, FOUR, TAIL = SHORT.whole().splitlines(keepends=True)


def changed(row: bytes, **members: object) -> bytes:
    return line(json.loads(row) | members)


def end(events: int) -> bytes:
    return line({"end": {"events": events}})


def gap(start: int, stop: int, hashes: Iterable[str] = ()) -> bytes:
    return line({"removed": {"from": start, "to": stop, "hashes": [*hashes]}})


def hashes_of(log: Log, start: int, stop: int) -> list[str]:
    return [text(subtree_of(log.leaves)(*part)) for part in parts(start, stop)]


def stranger(number: int) -> bytes:
    """Return the line of an event under a number, though the log never had it."""
    return line({"number": number, "body": event(5_000).body.decode(), "personal": {}})


def result_of(rows: Iterable[bytes], *seen: str) -> VerificationResult:
    """Return the result of our verifier alone: the second one is slow, and holds no hashes of what was removed."""
    return verify(rows, [public()], seen)


def verdict_of(log: Log, *seen: str) -> VerificationResult:
    return result_of(log.whole().splitlines(keepends=True), *seen)


MISPLACED: list[tuple[list[bytes], list[str]]] = [
    ([HEAD, TILE, ONE, TWO, THREE, FOUR, TAIL], []),
    (
        [HEAD, TILE, ONE, changed(TWO, number=2), THREE, FOUR, TAIL],
        ["edited: line 4, number 2: this is the event 1, under another number"],
    ),
    (
        [HEAD, TILE, changed(TWO, number=0), changed(ONE, number=1), THREE, FOUR, TAIL],
        ["reordered: line 3, number 0: the event 1 stands where the event 0 belongs"],
    ),
    (
        [HEAD, TILE, ONE, FOUR, THREE, TWO, TAIL],
        ["reordered: line 4, number 3: the event 3 stands where the event 1 belongs"],
    ),
    (
        [HEAD, TILE, ONE, TWO, TWO, TWO, THREE, FOUR, end(6)],
        [
            "inserted: line 5, number 1: this is the event 1 a second time",
            "inserted: line 6, number 1: this is the event 1 a second time",
        ],
    ),
    (
        [HEAD, TILE, ONE, stranger(1), THREE, FOUR, TAIL],
        ["edited: line 4, number 1: this event differs from what was sealed"],
    ),
    (
        [HEAD, TILE, ONE, stranger(1), stranger(1), stranger(9), THREE, FOUR, end(6)],
        [
            "edited: line 4, number 1: this event differs from what was sealed",
            "inserted: line 5, number 1: this event was never sealed at this position",
            "inserted: line 6, number 9: this event was never sealed at this position",
        ],
    ),
    (
        [HEAD, TILE, THREE, TAIL],
        [
            "removed: number 0: the event 0 is missing",
            "removed: number 1: the event 1 is missing",
            "removed: number 3: the event 3 is missing",
        ],
    ),
    (
        [HEAD, TILE, TAIL],
        [f"removed: number {number}: the event {number} is missing" for number in range(4)],
    ),
    (
        [HEAD, TILE, TWO],
        [
            "truncated: the last line is missing: the file has been cut off",
            "truncated: number 2: the events from 2 on are missing: the file has been cut off",
            "removed: number 0: the event 0 is missing",
        ],
    ),
    (
        [HEAD, TILE],
        [
            "truncated: the last line is missing: the file has been cut off",
            "truncated: number 0: the events from 0 on are missing: the file has been cut off",
        ],
    ),
    (
        [HEAD, TILE, TWO, FOUR],
        [
            "truncated: the last line is missing: the file has been cut off",
            "removed: number 0: the event 0 is missing",
            "removed: number 2: the event 2 is missing",
        ],
    ),
    (
        [HEAD, TILE, gap(0, 2), ONE, TWO, THREE, FOUR, TAIL],
        [
            "damaged: line 4, number 0: the event 0 is in the file, but reported as removed",
            "damaged: line 5, number 1: the event 1 is in the file, but reported as removed",
            "removed: number 0: the events 0 to 1 are reported as removed, but no event of the log confirms it",
        ],
    ),
    (
        [HEAD, ONE, TWO, TILE, THREE, FOUR, TAIL],
        [
            "inserted: line 2, number 0: this event is outside of every tile",
            "inserted: line 3, number 1: this event is outside of every tile",
            "removed: number 0: the event 0 is missing",
            "removed: number 1: the event 1 is missing",
        ],
    ),
]


@each(("rows", "says"), MISPLACED)
def test_a_misplaced_event_in_a_tile_is_reported(rows: list[bytes], says: list[str]) -> None:
    result = verified(b"".join(rows))

    assert (told(result), result.exit_code) == (says, BAD if says else GOOD)


def test_valid_events_next_to_invalid_events_are_verified() -> None:
    foreign = Log([event(0), event(1, tenant_id=None), event(2)])
    head, tile, _, there, *rest = foreign.whole().splitlines(keepends=True)

    assert told(result_of([head, tile, there, *rest])) == [
        "removed: number 0: the event 0 is missing",
        "foreign event: line 3, number 1, event 00000000-0000-0000-0000-0000000003e9: this event is of the vendor",
    ]


TILED: list[tuple[list[bytes], list[str]]] = [
    ([*BEFORE, *OF_TILE, *LAST_TILE, END], []),
    (
        [*BEFORE, *LAST_TILE, end(444)],
        ["removed: line 259, number 256: the events 256 to 511 are missing before this"],
    ),
    ([FIRST, *LAST_TILE, end(188)], ["removed: line 2, number 0: the events 0 to 511 are missing before this"]),
    ([*BEFORE, *OF_TILE, end(512)], ["truncated: the events 512 to 699 are missing: the file has been cut off"]),
    ([FIRST, end(0)], ["truncated: the events 0 to 699 are missing: the file has been cut off"]),
    (
        [*BEFORE, *OF_TILE, OF_TILE[0], *LAST_TILE, END],
        ["inserted: line 516: the tile 1 is in the wrong place"],
    ),
    (
        [*BEFORE, *OF_TILE, *LAST_TILE, changed(LAST_TILE[0], tile=3), END],
        ["inserted: line 705: the tile 3 is in the wrong place"],
    ),
    (
        [*BEFORE, *OF_TILE, *LAST_TILE, changed(LAST_TILE[0], tile=3), LAST_TILE[-1], end(701)],
        [
            "inserted: line 705: the tile 3 is in the wrong place",
            "inserted: line 706, number 699: this event is outside of every tile",
        ],
    ),
    (
        [*BEFORE, changed(OF_TILE[0], proof=[]), *OF_TILE[1:], *LAST_TILE, END],
        ["edited: line 259: the hashes of the events 256 to 511 do not lead to the signed root"],
    ),
    (
        [*BEFORE, *OF_TILE, changed(LAST_TILE[0], proof=[]), *LAST_TILE[1:], END],
        ["edited: line 516: the hashes of the events 512 to 699 do not lead to the signed root"],
    ),
]


@each(("rows", "says"), TILED)
def test_faulty_tiles_of_an_export_are_reported(rows: list[bytes], says: list[str]) -> None:
    result = result_of(rows)

    assert (told(result), result.exit_code) == (says, BAD if says else GOOD)


def test_the_verifier_reports_lines_after_a_full_last_tile() -> None:
    first, *rows, _ = Log(EVENTS[:256]).whole().splitlines(keepends=True)
    another = changed(rows[0], tile=1)

    assert told(result_of([first, *rows, another, end(256)])) == [
        "inserted: line 259: the tile 1 is in the wrong place"
    ]


def test_the_verifier_reports_a_log_whose_last_events_are_marked_as_removed() -> None:
    result = verdict_of(Log(EVENTS[:512], removed=[range(256, 512)]))

    assert told(result) == [
        "removed: number 256: the events 256 to 511 are reported as removed, but only a log's beginning can be"
    ]


def test_a_tile_must_have_as_many_hashes_as_events() -> None:
    """The root of three leaves is that of two and the root of the other, so that the root alone shows nothing."""
    leaves = SHORT.leaves
    halves = [subtree_of(leaves)(1, number) for number in range(2)]
    tile = line({"tile": 0, "leaves": [*map(text, halves)], "proof": []})

    result = result_of([HEAD, tile, TAIL.replace(b"4", b"0")])

    assert told(result)[0] == "edited: line 2: the hashes of the events 0 to 3 do not lead to the signed root"


def test_the_verifier_keeps_at_most_four_tiles_of_events() -> None:
    rows = [HEAD, TILE, *[ONE] * 1_026, *(TWO, THREE, FOUR), end(1_029)]

    result = result_of(rows)

    assert told(result)[:5] == [
        *(f"inserted: line {row}, number 0: more events than a tile has" for row in (1_027, 1_028)),
        *(f"inserted: line {1_028 + number}, number {number}: more events than a tile has" for number in range(1, 4)),
    ]
    assert told(result)[5] == "inserted: line 4, number 0: this is the event 0 a second time"
    assert result.findings.count == 5 + 1_023 + 3


MISSING = "are reported as missing in the wrong place"
GAPS: list[tuple[list[bytes], list[str]]] = [
    (
        [gap(0, 1), *TILES[0], *OF_TILE, *LAST_TILE],
        [f"damaged: line 2: the events 0 to 0 {MISSING}"],
    ),
    (
        [*TILES[0], *OF_TILE[:-1], gap(511, 513), *LAST_TILE],
        [
            f"damaged: line 515: the events 511 to 512 {MISSING}",
            "removed: number 511: the event 511 is missing",
        ],
    ),
    (
        [*TILES[0], OF_TILE[0], gap(255, 257), *OF_TILE[2:], *LAST_TILE],
        [
            f"damaged: line 260: the events 255 to 256 {MISSING}",
            "removed: number 256: the event 256 is missing",
        ],
    ),
    (
        [*TILES[0], *OF_TILE, *LAST_TILE[:-1], gap(699, 701)],
        [
            f"damaged: line 704: the events 699 to 700 {MISSING}",
            "removed: number 699: the event 699 is missing",
        ],
    ),
    (
        [gap(256, 512, hashes_of(LOG, 256, 512)), *TILES[0], *OF_TILE, *LAST_TILE],
        [f"damaged: line 2: the events 256 to 511 {MISSING}"],
    ),
    (
        [*TILES[0], gap(256, 512), *LAST_TILE],
        [
            f"damaged: line 259: the events 256 to 511 {MISSING}",
            "removed: line 260, number 256: the events 256 to 511 are missing before this",
        ],
    ),
    (
        [*TILES[0], *OF_TILE, gap(512, 1_024, hashes_of(LOG, 0, 512))],
        [
            f"damaged: line 516: the events 512 to 1023 {MISSING}",
            "truncated: the events 512 to 699 are missing: the file has been cut off",
        ],
    ),
]


@pytest.mark.parametrize(("rows", "says"), GAPS)
def test_a_misplaced_gap_line_of_an_export_is_reported(rows: list[bytes], says: list[str]) -> None:
    count = sum(row.startswith(b'{"number"') for row in rows)

    assert told(result_of([FIRST, *rows, end(count)])) == says


@pytest.mark.parametrize(
    "rows",
    [
        [ONE, gap(2, 4), gap(1, 2)],
        [ONE, gap(1, 4), gap(1, 4)],
        [ONE, gap(1, 3), gap(2, 4)],
        [ONE, TWO, FOUR, gap(2, 3)],
        [gap(1, 3), ONE, FOUR],
    ],
)
def test_missing_event_numbers_are_reported_in_order_once(rows: list[bytes]) -> None:
    events = sum(b'"number"' in row for row in rows)

    assert verified(b"".join([HEAD, TILE, *rows, end(events)])).exit_code == BAD


def pruned(removed: list[range], *said: range, size: int = SIZE) -> Log:
    """Return a log from which some events were removed, as its last ones say of some."""
    return Log([*EVENTS[:size], *(_removal(size + n, one) for n, one in enumerate(said))], removed=removed)


def _removal(number: int, gone: range) -> SealedEvent:
    facts: dict[str, Any] = {"removed_from": gone.start, "removed_to": gone.stop, "request_id": None, "seq": None}
    return event(number, {}, action="audit_events_removed", **facts)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ([range(512)], [range(512)]),
        ([range(300)], [range(300)]),
        ([range(1)], [range(1)]),
        ([range(256)], [range(700)]),
        ([range(600)], [range(600), range(100)]),
        ([range(600)], [range(100), range(600)]),
    ],
)
def test_events_of_recorded_removals_may_be_missing(gone: list[range], said: list[range]) -> None:
    result = verdict_of(pruned(gone, *said))

    assert (told(result), result.removed) == ([], [(one.start, one.stop) for one in gone])


@pytest.mark.parametrize(
    ("gone", "said", "says"),
    [
        (
            [range(20)],
            [],
            ["number 0: the events 0 to 19 are reported as removed, but no event of the log confirms it"],
        ),
        (
            [range(20)],
            [range(19)],
            ["number 19: the events 19 to 19 are reported as removed, but no event of the log confirms it"],
        ),
        (
            [range(20)],
            [range(14), range(13, 20)],
            ["number 14: the events 14 to 19 are reported as removed, but no event of the log confirms it"],
        ),
        (
            [range(300)],
            [range(1, 300)],
            ["number 0: the events 0 to 299 are reported as removed, but no event of the log confirms it"],
        ),
        (
            [range(3), range(6, 8), range(256, 512)],
            [range(SIZE)],
            [
                "number 6: the events 6 to 7 are reported as removed, but only a log's beginning can be",
                "number 256: the events 256 to 511 are reported as removed, but only a log's beginning can be",
            ],
        ),
    ],
)
def test_the_verifier_reports_removals_that_are_unconfirmed_or_not_at_the_logs_beginning(
    gone: list[range], said: list[range], says: list[str]
) -> None:
    result = verdict_of(pruned(gone, *said))

    assert told(result) == [f"removed: {one}" for one in says]
    assert result.removed == [(one.start, one.stop) for one in gone]


GONE = range(768)
LONG = Log([*(event(number) for number in range(900)), _removal(900, GONE)], removed=[GONE])


def test_hashes_of_removed_tiles_must_be_complete_and_ordered() -> None:
    first, _, *rest = LONG.whole().splitlines(keepends=True)
    nine, eight = hashes_of(LONG, 0, 768)
    not_those = "damaged: line 2: these hashes do not match the removed events"
    no_root = "edited: the hashes of what was removed do not lead to the signed root"

    for hashes, says in (
        ([nine, eight], []),
        ([nine], [not_those]),
        ([nine, eight, eight], [not_those]),
        ([eight, nine], [no_root]),
    ):
        assert told(result_of([first, gap(0, 768, hashes), *rest])) == says


def test_the_verifier_accepts_a_log_with_only_its_removal_event_left() -> None:
    log = Log([*EVENTS[:256], _removal(256, range(256))], removed=[range(256)])

    result = verdict_of(log, log.note(256))

    assert (told(result), result.removed, result.seen, result.events) == ([], [(0, 256)], [256], 1)


@pytest.mark.far
@each("size", [0, 1, 255, 256, 257, 511, 512, 513, 640, 699, 700])
def test_older_log_sizes_are_proven_at_every_place_of_a_tile(size: int) -> None:
    assert result_of(ROWS, LOG.note(size)).seen == [size]
    if size:
        assert result_of(ROWS, FORGED.note(size)).findings.kinds == {FindingKind.FORKED}


def test_several_older_log_sizes_within_a_tile_are_proven() -> None:
    result = result_of(ROWS, *map(LOG.note, (20, 10, 300, 600, 599)))

    assert (told(result), result.seen) == ([], [20, 10, 300, 600, 599])


def test_older_log_sizes_are_proven_only_at_ends_of_removed_subtrees() -> None:
    shown = verdict_of(LONG, *map(LONG.note, (512, 768, 800)))
    not_shown = verdict_of(LONG, *map(LONG.note, (256, 600)))

    assert (told(shown), shown.seen) == ([], [512, 768, 800])
    assert (not_shown.findings.kinds, not_shown.findings.count, not_shown.seen) == ({FindingKind.UNPROVEN}, 2, [])
