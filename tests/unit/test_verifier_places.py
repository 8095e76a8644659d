"""The verifier of exports: its exact words about events of a whole export that are out of place."""

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
OF_TILE, LAST_TILE = TILES[1], TILES[2]
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
    """Return the line of an event that the log never had, with this number."""
    return line({"number": number, "body": event(5_000).body.decode(), "personal": {}})


def result_of(rows: Iterable[bytes], *seen: str) -> VerificationResult:
    """Return the result of our verifier alone: the second one is slow, and has no hashes of removed events."""
    return verify(rows, [public()], seen)


def verdict_of(log: Log, *seen: str) -> VerificationResult:
    return result_of(log.whole().splitlines(keepends=True), *seen)


CUT_OFF = "truncated: the last line is missing: the file has been cut off"
OTHERWISE = "edited: line 4, number 1: this event differs from what was sealed"


def missing(*numbers: int) -> list[str]:
    return [f"removed: number {number}: the event {number} is missing" for number in numbers]


def again(*rows: int) -> list[str]:
    return [f"inserted: line {row}, number 1: this is the event 1 a second time" for row in rows]


def never_sealed(row: int, number: int) -> str:
    return f"inserted: line {row}, number {number}: this event was never sealed at this position"


def outside(row: int, number: int) -> str:
    return f"inserted: line {row}, number {number}: this event is outside of every tile"


def cut_from(number: int) -> str:
    return f"truncated: number {number}: the events from {number} on are missing: the file has been cut off"


def there_though_removed(row: int, number: int) -> str:
    return f"damaged: line {row}, number {number}: the event {number} is in the file, but reported as removed"


def unconfirmed(start: int, last: int) -> str:
    return f"removed: number {start}: the events {start} to {last} are {NOT_CONFIRMED}"


def not_the_beginning(start: int, last: int) -> str:
    return f"removed: number {start}: the events {start} to {last} are reported as removed, {ONLY_THE_BEGINNING}"


NOT_CONFIRMED = "reported as removed, but no event of the log confirms it"
ONLY_THE_BEGINNING = "but only a log's beginning can be"
RENUMBERED = [changed(TWO, number=0), changed(ONE, number=1)]
MISPLACED: list[tuple[list[bytes], list[str]]] = [
    ([ONE, TWO, THREE, FOUR, TAIL], []),
    (
        [ONE, changed(TWO, number=2), THREE, FOUR, TAIL],
        ["edited: line 4, number 2: this is the event 1, under another number"],
    ),
    ([*RENUMBERED, THREE, FOUR, TAIL], ["reordered: line 3, number 0: the event 1 stands where the event 0 belongs"]),
    ([ONE, FOUR, THREE, TWO, TAIL], ["reordered: line 4, number 3: the event 3 stands where the event 1 belongs"]),
    ([ONE, TWO, TWO, TWO, THREE, FOUR, end(6)], again(5, 6)),
    ([ONE, stranger(1), THREE, FOUR, TAIL], [OTHERWISE]),
    (
        [ONE, stranger(1), stranger(1), stranger(9), THREE, FOUR, end(6)],
        [OTHERWISE, never_sealed(5, 1), never_sealed(6, 9)],
    ),
    ([THREE, TAIL], missing(0, 1, 3)),
    ([TAIL], missing(0, 1, 2, 3)),
    ([TWO], [CUT_OFF, cut_from(2), *missing(0)]),
    ([], [CUT_OFF, cut_from(0)]),
    ([TWO, FOUR], [CUT_OFF, *missing(0, 2)]),
    (
        [gap(0, 2), ONE, TWO, THREE, FOUR, TAIL],
        [there_though_removed(4, 0), there_though_removed(5, 1), unconfirmed(0, 1)],
    ),
]


@each(
    ("rows", "says"),
    [
        *(([HEAD, TILE, *rows], says) for rows, says in MISPLACED),
        ([HEAD, ONE, TWO, TILE, THREE, FOUR, TAIL], [outside(2, 0), outside(3, 1), *missing(0, 1)]),
    ],
)
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


def misplaced_tile(row: int, tile: int) -> str:
    return f"inserted: line {row}: the tile {tile} is in the wrong place"


def no_root(row: int, first: int, last: int) -> str:
    return f"edited: line {row}: the hashes of the events {first} to {last} do not lead to the signed root"


def missing_before(row: int, number: int, first: int, last: int) -> str:
    return f"removed: line {row}, number {number}: the events {first} to {last} are missing before this"


def cut(first: int, last: int) -> str:
    return f"truncated: the events {first} to {last} are missing: the file has been cut off"


FURTHER_TILE = changed(LAST_TILE[0], tile=3)
TILED: list[tuple[list[bytes], list[str]]] = [
    ([*TILES[0], *OF_TILE, *LAST_TILE, END], []),
    ([*TILES[0], *LAST_TILE, end(444)], [missing_before(259, 256, 256, 511)]),
    ([*LAST_TILE, end(188)], [missing_before(2, 0, 0, 511)]),
    ([*TILES[0], *OF_TILE, end(512)], [cut(512, 699)]),
    ([end(0)], [cut(0, 699)]),
    ([*TILES[0], *OF_TILE, OF_TILE[0], *LAST_TILE, END], [misplaced_tile(516, 1)]),
    ([*TILES[0], *OF_TILE, *LAST_TILE, FURTHER_TILE, END], [misplaced_tile(705, 3)]),
    (
        [*TILES[0], *OF_TILE, *LAST_TILE, FURTHER_TILE, LAST_TILE[-1], end(701)],
        [misplaced_tile(705, 3), outside(706, 699)],
    ),
    ([*TILES[0], changed(OF_TILE[0], proof=[]), *OF_TILE[1:], *LAST_TILE, END], [no_root(259, 256, 511)]),
    ([*TILES[0], *OF_TILE, changed(LAST_TILE[0], proof=[]), *LAST_TILE[1:], END], [no_root(516, 512, 699)]),
]


@each(("rows", "says"), TILED)
def test_faulty_tiles_of_an_export_are_reported(rows: list[bytes], says: list[str]) -> None:
    result = result_of([FIRST, *rows])

    assert (told(result), result.exit_code) == (says, BAD if says else GOOD)


def test_the_verifier_reports_lines_after_a_full_last_tile() -> None:
    first, *rows, _ = Log(EVENTS[:256]).whole().splitlines(keepends=True)

    assert told(result_of([first, *rows, changed(rows[0], tile=1), end(256)])) == [misplaced_tile(259, 1)]


def test_the_verifier_reports_a_log_whose_last_events_are_marked_as_removed() -> None:
    assert told(verdict_of(Log(EVENTS[:512], removed=[range(256, 512)]))) == [not_the_beginning(256, 511)]


def test_a_tile_must_have_as_many_hashes_as_events() -> None:
    """Two hashes of subtrees have the same root as their four leaves, so that the root alone shows nothing."""
    leaves = SHORT.leaves
    halves = [subtree_of(leaves)(1, number) for number in range(2)]
    tile = line({"tile": 0, "leaves": [*map(text, halves)], "proof": []})

    result = result_of([HEAD, tile, TAIL.replace(b"4", b"0")])

    assert told(result)[0] == no_root(2, 0, 3)


def test_the_verifier_keeps_at_most_four_tiles_of_events() -> None:
    rows = [HEAD, TILE, *[ONE] * 1_026, *(TWO, THREE, FOUR), end(1_029)]

    result = result_of(rows)

    assert told(result)[:5] == [
        *(f"inserted: line {row}, number 0: more events than a tile has" for row in (1_027, 1_028)),
        *(f"inserted: line {1_028 + number}, number {number}: more events than a tile has" for number in range(1, 4)),
    ]
    assert told(result)[5] == "inserted: line 4, number 0: this is the event 0 a second time"
    assert result.findings.count == 5 + 1_023 + 3


def wrong_gap(row: int, first: int, last: int) -> str:
    return f"damaged: line {row}: the events {first} to {last} are reported as missing in the wrong place"


GAPS: list[tuple[list[bytes], list[str]]] = [
    ([gap(0, 1), *TILES[0], *OF_TILE, *LAST_TILE], [wrong_gap(2, 0, 0)]),
    ([*TILES[0], *OF_TILE[:-1], gap(511, 513), *LAST_TILE], [wrong_gap(515, 511, 512), *missing(511)]),
    ([*TILES[0], OF_TILE[0], gap(255, 257), *OF_TILE[2:], *LAST_TILE], [wrong_gap(260, 255, 256), *missing(256)]),
    ([*TILES[0], *OF_TILE, *LAST_TILE[:-1], gap(699, 701)], [wrong_gap(704, 699, 700), *missing(699)]),
    ([gap(256, 512, hashes_of(LOG, 256, 512)), *TILES[0], *OF_TILE, *LAST_TILE], [wrong_gap(2, 256, 511)]),
    ([*TILES[0], gap(256, 512), *LAST_TILE], [wrong_gap(259, 256, 511), missing_before(260, 256, 256, 511)]),
    (
        [*TILES[0], *OF_TILE, gap(512, 1_024, hashes_of(LOG, 0, 512))],
        [wrong_gap(516, 512, 1_023), cut(512, 699)],
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
    """Return a log from which some events were removed; its last events say which."""
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
        ([range(20)], [], [unconfirmed(0, 19)]),
        ([range(20)], [range(19)], [unconfirmed(19, 19)]),
        ([range(20)], [range(14), range(13, 20)], [unconfirmed(14, 19)]),
        ([range(300)], [range(1, 300)], [unconfirmed(0, 299)]),
        (
            [range(3), range(6, 8), range(256, 512)],
            [range(SIZE)],
            [not_the_beginning(6, 7), not_the_beginning(256, 511)],
        ),
    ],
)
def test_the_verifier_reports_removals_that_are_unconfirmed_or_not_at_the_logs_beginning(
    gone: list[range], said: list[range], says: list[str]
) -> None:
    result = verdict_of(pruned(gone, *said))

    assert told(result) == says
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
