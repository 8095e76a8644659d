"""The verifier of exports: whatever was done to a file or to the log behind it is found, named and placed."""

import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox.audit.canonical import canonical
from lockbox.audit.verifier import export_format
from lockbox.audit.verifier.export_format import Finding, FindingKind, Unreadable
from lockbox.audit.verifier.verify import BAD, CANNOT_TELL, GOOD, VerificationResult, verify
from tests.each import each
from tests.examples import examples
from tests.logs import OTHER_KEY, TENANT, Log, SealedEvent, event, line, public
from tests.verification_results import verified

LOG = Log([event(number) for number in range(600)])
EXPORT = LOG.whole()
FILTERED = LOG.filtered(lambda number: number % 50 == 0)


def found(result: VerificationResult) -> list[Finding]:
    assert result.exit_code == BAD
    return result.findings.first


def rows_of(export: bytes) -> list[bytes]:
    return export.splitlines(keepends=True)


def row_of(number: int) -> int:
    """Return the place of an event in the whole export."""
    return 1 + number + number // 256 + 1


def changed(row: bytes, **members: object) -> bytes:
    return line(json.loads(row) | members)


def test_the_verifier_accepts_whole_and_filtered_exports_of_an_honest_log() -> None:
    whole, filtered = verified(EXPORT, LOG.note(), LOG.note(257)), verified(FILTERED, LOG.note())

    assert (whole.exit_code, whole.events, whole.details, sorted(whole.seen)) == (GOOD, 600, 600, [257, 600])
    assert (filtered.exit_code, filtered.events, filtered.seen) == (GOOD, 12, [600])


@pytest.mark.far
@each("size", [1, 2, 255, 256, 257, 511, 512, 513])
def test_the_verifier_accepts_logs_of_any_size_that_extend_earlier_checkpoints(size: int) -> None:
    log = Log(LOG.events[:size])
    older = sorted({0, 1, size // 2, size - 1, size})

    whole = verified(log.whole(), *map(log.note, older))
    filtered = verified(log.filtered(lambda number: number == size - 1, since=older), *map(log.note, older))

    assert (whole.exit_code, filtered.exit_code) == (GOOD, GOOD)
    assert sorted(whole.seen) == sorted(filtered.seen) == older


def edit(rows: list[bytes]) -> None:
    rows[row_of(300)] = rows[row_of(300)].replace(b'\\"submit\\"', b'\\"submIt\\"')


def edit_a_value(rows: list[bytes]) -> None:
    rows[row_of(300)] = rows[row_of(300)].replace(b"Erin 300", b"Eric 300")


def renumber(rows: list[bytes]) -> None:
    rows[row_of(300)] = changed(rows[row_of(300)], number=301)


def remove(rows: list[bytes]) -> None:
    del rows[row_of(300)]


def remove_and_number_anew(rows: list[bytes]) -> None:
    del rows[row_of(300)]
    for number in range(300, 511):
        rows[row_of(number)] = changed(rows[row_of(number)], number=number)


def swap(rows: list[bytes]) -> None:
    one, other = row_of(300), row_of(310)
    rows[one], rows[other] = rows[other], rows[one]


def swap_and_number_anew(rows: list[bytes]) -> None:
    one, other = row_of(300), row_of(310)
    rows[one], rows[other] = changed(rows[other], number=300), changed(rows[one], number=310)


def insert(rows: list[bytes]) -> None:
    body = event(9_999).body.decode()
    rows.insert(row_of(300), changed(rows[row_of(300)], body=body, personal={}))


def insert_a_second_time(rows: list[bytes]) -> None:
    rows.insert(row_of(300), rows[row_of(300)])


def cut_off(rows: list[bytes]) -> None:
    del rows[row_of(300) :]


def cut_off_and_end(rows: list[bytes]) -> None:
    del rows[row_of(512) - 1 :]
    rows.append(line({"end": {"events": 512}}))


def cut_within_a_line(rows: list[bytes]) -> None:
    rows[-1] = rows[-1][:-5]


def drop_a_tile(rows: list[bytes]) -> None:
    del rows[row_of(256) - 1 : row_of(512) - 1]


def forge_a_hash(rows: list[bytes]) -> None:
    """Replace the hash of an event by another one of the same log."""
    tile = row_of(256) - 1
    leaves = json.loads(rows[tile])["leaves"]
    leaves[44] = leaves[45]
    rows[tile] = changed(rows[tile], leaves=leaves)


def break_a_line(rows: list[bytes]) -> None:
    rows[row_of(300)] = b"}" + rows[row_of(300)][1:]


def append(rows: list[bytes]) -> None:
    rows.append(rows[row_of(300)])


def say_another_size(rows: list[bytes]) -> None:
    rows[0] = changed(rows[0], size=599)


def remove_elsewhere(rows: list[bytes]) -> None:
    rows.insert(row_of(300), line({"removed": {"from": 10, "to": 11, "hashes": []}}))


def claim_that_retention_removed(rows: list[bytes]) -> None:
    rows[row_of(300)] = line({"removed": {"from": 300, "to": 301, "hashes": []}})


def add_what_nobody_can_check(rows: list[bytes]) -> None:
    rows[row_of(300)] = changed(rows[row_of(300)], approved_by="Bill")


TAMPERINGS: list[tuple[Callable[[list[bytes]], None], FindingKind, int | None]] = [
    (edit, FindingKind.EDITED, 300),
    (edit_a_value, FindingKind.COMMITMENT, 300),
    (renumber, FindingKind.EDITED, 301),
    (remove, FindingKind.REMOVED, 300),
    (remove_and_number_anew, FindingKind.REMOVED, 300),
    (swap, FindingKind.REORDERED, 310),
    (swap_and_number_anew, FindingKind.REORDERED, 300),
    (insert, FindingKind.INSERTED, 300),
    (insert_a_second_time, FindingKind.INSERTED, 300),
    (cut_off, FindingKind.TRUNCATED, None),
    (cut_off_and_end, FindingKind.TRUNCATED, None),
    (cut_within_a_line, FindingKind.TRUNCATED, None),
    (drop_a_tile, FindingKind.REMOVED, 256),
    (forge_a_hash, FindingKind.EDITED, None),
    (break_a_line, FindingKind.DAMAGED, None),
    (append, FindingKind.INSERTED, None),
    (say_another_size, FindingKind.EDITED, None),
    (remove_elsewhere, FindingKind.DAMAGED, None),
    (claim_that_retention_removed, FindingKind.REMOVED, 300),
    (add_what_nobody_can_check, FindingKind.DAMAGED, None),
]


@pytest.mark.far
@each(("tamper", "kind", "number"), TAMPERINGS)
def test_the_verifier_names_and_locates_any_change_to_an_export(
    tamper: Callable[[list[bytes]], None], kind: FindingKind, number: int | None
) -> None:
    rows = rows_of(EXPORT)

    tamper(rows)

    first = found(verified(b"".join(rows), LOG.note()))[0]
    assert (first.kind, first.number) == (kind, number), first


def test_the_verifier_names_the_first_event_missing_from_a_truncated_export() -> None:
    rows = rows_of(EXPORT)[: row_of(300)]

    said = {finding.message for finding in found(verified(b"".join(rows)))}

    assert "the events from 300 on are missing: the file has been cut off" in said


def test_the_verifier_locates_an_edited_event_by_its_line() -> None:
    rows = rows_of(EXPORT)
    edit(rows)

    (only,) = found(verified(b"".join(rows)))

    assert only.place == f"line {row_of(300) + 1}, number 300"


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (lambda rows: rows.__setitem__(3, rows[3].replace(b"submit", b"submIt")), FindingKind.EDITED),
        (lambda rows: rows.__setitem__(3, changed(rows[3], number=101)), FindingKind.EDITED),
        (lambda rows: rows.__delitem__(3), FindingKind.REMOVED),
        (lambda rows: rows.insert(3, rows[3]), FindingKind.INSERTED),
        (lambda rows: rows.insert(3, rows.pop(5)), FindingKind.REORDERED),
        (lambda rows: rows.__delitem__(slice(5, None)), FindingKind.TRUNCATED),
    ],
)
def test_the_verifier_names_any_change_to_a_filtered_export(
    tamper: Callable[[list[bytes]], object], kind: FindingKind
) -> None:
    rows = rows_of(FILTERED)

    tamper(rows)

    assert found(verified(b"".join(rows), LOG.note()))[0].kind is kind


def rewritten(number: int) -> Log:
    """Return the log with one event changed, as the owner of database and key could rewrite it."""
    events = list(LOG.events)
    events[number] = event(number, {"name": "Somebody else"})
    return Log(events)


def test_the_verifier_reports_a_fork_if_the_root_at_a_checkpoints_size_differs() -> None:
    (only,) = found(verified(rewritten(3).whole(), LOG.note()))

    assert only.kind is FindingKind.FORKED


@pytest.mark.parametrize("since", [(), (500,)])
def test_the_verifier_reports_a_fork_if_the_log_does_not_extend_a_seen_checkpoint(since: tuple[int, ...]) -> None:
    (only,) = found(verified(rewritten(3).whole(since), LOG.note(500)))

    assert only.kind is FindingKind.FORKED


def test_a_filtered_export_proves_growth_only_with_a_proof() -> None:
    shown = verified(LOG.filtered(lambda number: number == 3, since=[500]), LOG.note(500))
    not_shown = verified(FILTERED, LOG.note(500))

    assert (shown.exit_code, shown.seen) == (GOOD, [500])
    assert (not_shown.exit_code, not_shown.findings.first[0].kind) == (CANNOT_TELL, FindingKind.UNPROVEN)


def test_the_verifier_reports_missing_events_and_unproven_events_of_an_export_separately() -> None:
    result = verified(FILTERED.replace(b'{"events":', b'{"events":9'), LOG.note(500))

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.UNPROVEN, FindingKind.REMOVED})


@pytest.mark.parametrize(
    ("at", "code", "kind"),
    [("2025-12-31T23:59:59.999999Z", CANNOT_TELL, FindingKind.NEWER_KNOWN), (LOG.at, BAD, FindingKind.OLDER)],
)
def test_checkpoints_beyond_an_exports_end_cause_equal_findings_whether_given_or_remembered(
    at: str, code: int, kind: FindingKind
) -> None:
    lines = Log(LOG.events[:400], at=at).whole()

    given, remembered = verified(lines, LOG.note(500)), verified(lines, last=LOG.note(500))

    assert given.findings == remembered.findings
    assert (given.exit_code, given.findings.kinds) == (remembered.exit_code, {kind}) == (code, {kind})


def test_the_checkpoint_of_another_log_proves_nothing_to_the_verifier() -> None:
    other = Log(LOG.events, whose="vendor")

    assert found(verified(EXPORT, other.note()))[0].kind is FindingKind.ANOTHER_LOG


def test_the_verifier_reports_an_untrusted_key_as_unknown() -> None:
    forged = Log(LOG.events, key=OTHER_KEY)

    assert found(verified(forged.whole()))[0].kind is FindingKind.UNKNOWN_KEY
    assert found(verified(EXPORT, forged.note()))[0].kind is FindingKind.UNKNOWN_KEY


def test_the_verifier_reports_a_signature_of_another_text_as_wrong() -> None:
    rows = rows_of(EXPORT)
    note = json.loads(rows[0])["checkpoint"].replace("\n600\n", "\n599\n")
    rows[0] = changed(rows[0], checkpoint=note, size=599)

    assert found(verified(b"".join(rows)))[0].kind is FindingKind.WRONG_SIGNATURE


@pytest.mark.parametrize("owner", [None, "00000000-0000-0000-0000-000000000009"])
def test_the_verifier_reports_an_event_of_another_tenant_in_the_log(owner: str | None) -> None:
    log = Log([*LOG.events[:10], event(10, tenant_id=owner)])

    (only,) = found(verified(log.whole()))

    assert (only.kind, only.number, only.event) == (FindingKind.FOREIGN, 10, "00000000-0000-0000-0000-0000000003f2")


@each(
    "spoil",
    [
        lambda body: body.replace(b'"seq":1', b'"seq": 1'),
        lambda body: body.replace(b'"seq":1', b'"seq":1.0'),
        lambda body: body.replace(b'"seq":1', b'"seq":1e0'),
        lambda body: body.replace(b'"seq":1', b'"seq":1,"seq":1'),
        lambda body: body.replace(b'"seq":1', b'"seq":9007199254740992'),
        lambda body: body.replace(b'"submit"', b'"s\\u0075bmit"'),
        lambda body: b"[" + body + b"]",
        lambda body: body.replace(b'"seq":1', b'"seq":-0'),
        lambda body: body.replace(b'{"action":"submit",', b"{").replace(b"}", b',"action":"submit"}'),
    ],
)
def test_the_verifier_names_a_non_canonical_event_body(spoil: Callable[[bytes], bytes]) -> None:
    good = event(10, {})
    log = Log([*LOG.events[:10], SealedEvent(spoil(good.body), {})])

    (only,) = found(verified(log.whole()))

    assert (only.kind, only.number) == (FindingKind.NOT_CANONICAL, 10)


@pytest.mark.parametrize("seqs", [[1, 3], [2], [1, 2, 2], [1, 1], [1, 2, 4, 6]])
def test_the_verifier_names_a_missing_or_repeated_move(seqs: list[int]) -> None:
    log = Log([event(number, seq=seq, request_id=TENANT) for number, seq in enumerate(seqs)])

    assert found(verified(log.whole()))[0].kind is FindingKind.GAP_IN_MOVES


def test_the_verifier_names_a_missing_first_move_if_another_event_names_the_request() -> None:
    told = event(1, seq=None, to_state=None, action="question", request_id=TENANT)
    begun = event(2, request_id=TENANT)

    assert found(verified(Log([event(0), told]).whole()))[0].kind is FindingKind.GAP_IN_MOVES
    assert str(TENANT) in found(verified(Log([event(0), told]).whole()))[0].message
    assert verified(Log([event(0), told, begun]).whole()).exit_code == GOOD
    assert verified(Log([event(0), told]).filtered(lambda _: True)).exit_code == GOOD


OVER = [(1, "pending"), (2, "denied")]


@pytest.mark.parametrize(
    "moves",
    [
        [*OVER, (1, "pending"), (2, "pending"), (3, "completed")],
        [*OVER, (3, "pending")],
        [*OVER, (3, "revoked")],
        [(2, "denied"), (3, "pending"), (1, "pending")],
        [(2, "denied"), (1, "cancelled")],
    ],
)
def test_the_verifier_detects_further_moves_of_a_closed_request(moves: list[tuple[int, str]]) -> None:
    log = Log([event(n, seq=seq, to_state=state, request_id=TENANT) for n, (seq, state) in enumerate(moves)])

    assert found(verified(log.whole()))[0].kind is FindingKind.GAP_IN_MOVES


def test_a_request_whose_beginning_was_removed_has_no_gap_and_no_repeat() -> None:
    later = [(4, "pending"), (3, "pending"), (5, "completed")]
    moves = [event(600 + n, seq=seq, to_state=state, request_id=TENANT) for n, (seq, state) in enumerate(later)]
    told = event(700, {}, action="audit_events_removed", seq=None, request_id=None, removed_from=0, removed_to=300)

    good = verified(Log([*LOG.events, *moves, told], removed=[range(300)]).whole())
    again = event(900, seq=3, to_state="pending", request_id=TENANT)
    twice = verified(Log([*LOG.events, *moves, again, told], removed=[range(300)]).whole())
    gap = verified(Log([*LOG.events, moves[2], moves[1], told], removed=[range(300)]).whole())

    assert good.exit_code == GOOD
    assert found(twice)[0].kind is found(gap)[0].kind is FindingKind.GAP_IN_MOVES


def test_moves_sealed_late_are_no_gap_for_the_verifier() -> None:
    moves = [(1, "reviewing"), (3, "denied"), (2, "pending")]
    log = Log([event(n, seq=seq, to_state=state, request_id=TENANT) for n, (seq, state) in enumerate(moves)])

    assert verified(log.whole()).exit_code == GOOD


def test_the_verifier_counts_omitted_details_and_reports_no_error() -> None:
    log = Log([SealedEvent(one.body, {}) for one in LOG.events[:5]])

    result = verified(log.whole())

    assert (result.exit_code, result.details, result.left_out) == (GOOD, 0, 5)


@pytest.mark.parametrize("gone", [range(100), range(256), range(512), range(300), range(1)])
def test_the_verifier_accepts_recorded_removals_of_events(gone: range) -> None:
    log = pruned(gone, gone.start, gone.stop)

    result = verified(log.whole(since=[300]), log.note(), log.note(300))

    assert (result.exit_code, result.removed) == (GOOD, [(gone.start, gone.stop)])


@pytest.mark.parametrize(("start", "stop"), [(0, 511), (1, 512), (600, 700)])
def test_the_verifier_reports_removed_events_that_no_event_records(start: int, stop: int) -> None:
    (only,) = found(verified(pruned(range(512), start, stop).whole()))

    assert only.kind is FindingKind.REMOVED


@pytest.mark.parametrize("gone", [range(250, 520), range(10, 20), range(300, 301), range(256, 512)])
def test_the_verifier_accepts_removals_only_at_the_beginning_of_a_log(gone: range) -> None:
    for start in (0, gone.start):
        (only,) = found(verified(pruned(gone, start, gone.stop).whole()))

        assert (only.kind, only.number) == (FindingKind.REMOVED, gone.start)


def test_a_removal_event_covers_only_earlier_events() -> None:
    told = event(0, {}, action="audit_events_removed", seq=None, request_id=None, removed_from=0, removed_to=2**40)
    log = Log([told, *(event(number) for number in range(1, 5))], removed=[range(2, 5)])

    assert found(verified(log.whole()))[0].kind is FindingKind.REMOVED


def test_the_hashes_of_removed_events_must_lead_to_the_root() -> None:
    rows = rows_of(pruned(range(512), 0, 512).whole())
    rows[1] = line({"removed": {"from": 0, "to": 512, "hashes": ["A" * 43 + "="]}})

    result = verify(rows, [public()])

    assert found(result)[0].kind is FindingKind.EDITED


def pruned(gone: range, start: int, stop: int) -> Log:
    """Return a log that lacks some events, and whose last event says which were removed."""
    said = event(
        600, {}, action="audit_events_removed", seq=None, request_id=None, removed_from=start, removed_to=stop
    )
    return Log([*LOG.events, said], removed=[gone])


@pytest.mark.parametrize("first", [b"", b"\n", b"{}\n", b"[1]\n", b'{"export":"other/1"}\n', rows_of(EXPORT)[1]])
def test_the_verifier_does_not_read_a_file_that_does_not_begin_as_an_export(first: bytes) -> None:
    with pytest.raises(Unreadable):
        verify([first], [public()])


def test_the_verifier_does_not_read_an_invalid_checkpoint() -> None:
    with pytest.raises(Unreadable):
        verify(rows_of(EXPORT), [public()], ["no checkpoint"])


def test_the_verifiers_memory_use_is_bounded_for_faulty_files() -> None:
    garbage = [rows_of(EXPORT)[0], *[b"garbage\n"] * 1_000]

    result = verify(garbage, [public()])

    assert (len(result.findings.first), result.findings.count) == (50, 1_002)


histories = st.lists(
    st.tuples(st.integers(0, 5), st.dictionaries(st.sampled_from(["name", "comment"]), st.text(max_size=8))),
    min_size=1,
    max_size=40,
)


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Draw the log of a random history: some requests, each with its moves, in whatever order they interleave."""
    moves: dict[int, int] = {}
    events = []
    for number, (request, personal) in enumerate(draw(histories)):
        moves[request] = moves.get(request, 0) + 1
        events.append(event(number, personal, request_id=str(request), seq=moves[request]))
    return Log(events)


@settings(max_examples=examples(60), deadline=None)
@given(logs(), st.data())
def test_the_verifier_accepts_any_history_and_detects_any_flipped_byte(log: Log, data: st.DataObject) -> None:
    export = log.whole()
    before = data.draw(st.integers(0, len(log.events)))
    assert verified(export, log.note(before)).exit_code == GOOD

    place = data.draw(st.integers(len(rows_of(export)[0]), len(export) - 1))
    flipped = bytearray(export)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))

    if said(bytes(flipped)) != said(export):
        result = verify(export_format.lines_of(io.BytesIO(bytes(flipped))), [public()], [log.note(before)])
        assert result.exit_code == BAD


def said(export: bytes) -> object:
    """Return the values in a file, so that a flipped bit that changes no JSON value does not count."""
    try:
        return [json.loads(row) for row in export.split(b"\n") if row]
    except ValueError:
        return None


def test_server_and_verifier_use_the_same_canonical_form_of_events() -> None:
    body = canonical({"text": '\u007f\u2028é\U0001f512"\\\n', "number": -(2**53 - 1), "list": ["a"], "none": None})

    assert verified(Log([SealedEvent(event(0, {}, said=body.decode()).body, {})]).whole()).exit_code == GOOD
