"""The verifier of exports: what it says about the first line, the lines that follow, and the last line."""

import json
from collections.abc import Callable
from uuid import UUID

import pytest

from lockbox.audit.canonical import Value
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier.export_format import LONGEST_LINE, Unreadable
from lockbox.audit.verifier.verify import BAD, GOOD, VerificationResult, verify
from tests.each import each
from tests.logs import KEY, OTHER_KEY, TENANT, Log, SealedEvent, event, line, public
from tests.verification_results import told, verified

VENDORS_ID = "00000000-0000-0000-0000-000000000000"
LOG = Log([event(number) for number in range(6)])
WHOLE = LOG.whole().splitlines(keepends=True)
FILTERED = LOG.filtered(lambda number: number in {1, 3, 4}).splitlines(keepends=True)
IDENTITY = f"lockbox.test+{public().id.hex()}"
OF_ANOTHER_KEY = f"lockbox.test+{public(OTHER_KEY).id.hex()}"
FIRST_DIFFERS = "edited: line 1: the first line and its checkpoint name different logs or sizes"
CUT_OFF = "truncated: the last line is missing: the file has been cut off"
NOT_THAT_NAME = "the value shown as name is not the one that the event commits to"
NOT_SEALED_SO = "this event is not in the log as it was signed, not in this place and form"


def restored(number: int, **changes: Value) -> SealedEvent:
    facts: dict[str, Value] = {"log_id": TENANT, "size": 1, "shipped_size": 2, "shipped_root": "", "request_id": None}
    facts |= {"action": "restored", "seq": None, "shipped_origin": LOG.origin}
    return event(number, {}, **(facts | changes))


ANEW = restored(1)


def changed(row: bytes, **members: object) -> bytes:
    return line(json.loads(row) | members)


def end(events: int) -> bytes:
    return line({"end": {"events": events}})


def result_of(rows: list[bytes], *seen: str) -> VerificationResult:
    return verified(b"".join(rows), *seen)


WHOLE_FILES: list[tuple[list[bytes], list[str]]] = [
    (WHOLE, []),
    (
        [*WHOLE, WHOLE[-1], b"half"],
        [
            "inserted: line 10: nothing comes behind the last line of an export",
            "inserted: line 11: nothing comes behind the last line of an export",
        ],
    ),
    ([WHOLE[0], b"{}\n", *WHOLE[1:]], ["damaged: line 2: this is no line of an export"]),
    ([WHOLE[0], WHOLE[0], *WHOLE[1:]], ["inserted: line 2: this is a first line, and not the first"]),
    (WHOLE[:-1], [CUT_OFF]),
    ([*WHOLE[:-1], WHOLE[-1][:-1]], [CUT_OFF]),
    ([*WHOLE[:-1], end(7)], ["removed: there are 6 events, and the last line says 7"]),
    ([*WHOLE[:-1], end(5)], ["inserted: there are 6 events, and the last line says 5"]),
    (
        [*WHOLE[:3], changed(WHOLE[3], proof=[]), *WHOLE[4:]],
        [
            "damaged: line 4: an event of a whole export has no proof of its own",
            "removed: number 1: the event 1 is missing",
        ],
    ),
]


@each(("rows", "says"), WHOLE_FILES)
def test_faulty_lines_of_a_whole_export_are_reported(rows: list[bytes], says: list[str]) -> None:
    result = result_of(rows)

    assert (told(result), result.exit_code) == (says, BAD if says else GOOD)


def test_an_overlong_export_line_is_reported_as_damaged_at_its_own_line_number() -> None:
    rows = [WHOLE[0], b" " * LONGEST_LINE, *WHOLE[1:]]

    assert told(verify(rows, [public()])) == ["damaged: line 2: this is no JSON"]


def test_an_export_line_cut_off_by_the_end_of_file_is_no_separate_damage() -> None:
    assert told(result_of([*WHOLE[:-2], WHOLE[-2][:-2]])) == [
        CUT_OFF,
        "truncated: number 5: the events from 5 on are missing: the file has been cut off",
    ]


FILTERED_FILES: list[tuple[list[bytes], list[str]]] = [
    (FILTERED, []),
    ([FILTERED[0], end(0)], []),
    ([*FILTERED[:2], *FILTERED[3:]], ["removed: there are 2 events, and the last line says 3"]),
    ([*FILTERED[:3], *FILTERED[2:]], ["inserted: line 4, number 3: the event 3 comes behind the event 3"]),
    (
        [*FILTERED[:2], FILTERED[3], FILTERED[2], FILTERED[2], *FILTERED[4:]],
        [
            "reordered: line 4, number 3: the event 3 comes behind the event 4",
            "reordered: line 5, number 3: the event 3 comes behind the event 4",
        ],
    ),
    ([*FILTERED[:2], WHOLE[4], *FILTERED[3:]], ["damaged: line 3: this is no event with its proof"]),
    ([*FILTERED[:2], WHOLE[1], *FILTERED[2:]], ["damaged: line 3: this is no event with its proof"]),
    (
        [FILTERED[0], WHOLE[3], FILTERED[3], FILTERED[2], *FILTERED[3:]],
        [
            "damaged: line 2: this is no event with its proof",
            "reordered: line 4, number 3: the event 3 comes behind the event 4",
            "inserted: line 5, number 4: the event 4 comes behind the event 4",
        ],
    ),
    (
        [*FILTERED[:2], changed(FILTERED[2], number=2), *FILTERED[3:]],
        [f"edited: line 3, number 2: {NOT_SEALED_SO}"],
    ),
    (
        [FILTERED[0], changed(FILTERED[1], body="{}"), *FILTERED[2:]],
        [f"edited: line 2, number 1: {NOT_SEALED_SO}"],
    ),
    (
        [FILTERED[0], FILTERED[1].replace(b"Erin", b"Eric"), *FILTERED[2:]],
        [
            f"commitment: line 2, number 1, event {UUID(int=1_001)}: {NOT_THAT_NAME}",
        ],
    ),
]


@each(("rows", "says"), FILTERED_FILES)
def test_faulty_lines_of_a_filtered_export_are_reported(rows: list[bytes], says: list[str]) -> None:
    result = result_of(rows)

    assert (told(result), result.exit_code) == (says, BAD if says else GOOD)


def test_a_filtered_export_may_start_with_the_first_event() -> None:
    result = verified(LOG.filtered(lambda number: number == 0))

    assert (told(result), result.events, result.said, result.details) == ([], 1, 1, 1)


@pytest.mark.parametrize(
    "spoil",
    [
        {"size": 5},
        {"generation": 2},
        {"origin": f"lockbox.test/audit/{TENANT}/1"},
        {"origin": f"another.test/audit/{TENANT}"},
        {"log": VENDORS_ID},
    ],
)
def test_a_first_line_contradicting_its_checkpoint_counts_as_edited(spoil: dict[str, object]) -> None:
    result = result_of([changed(WHOLE[0], **spoil), *WHOLE[1:]])

    assert told(result) == [FIRST_DIFFERS]


@pytest.mark.parametrize(
    ("log", "says"),
    [
        (Log([event(0), ANEW], generation=2), []),
        (Log([event(0), ANEW], generation=12), []),
        (Log([event(0)], whose=f"{TENANT}/1"), [FIRST_DIFFERS]),
        (Log([event(0)], whose=f"{TENANT}/02"), [FIRST_DIFFERS]),
    ],
)
def test_a_log_has_exactly_one_valid_spelling_of_its_checkpoint_origin(log: Log, says: list[str]) -> None:
    header, *rest = log.whole().splitlines(keepends=True)
    named = changed(header, log=str(TENANT), generation=2 if log.whose.endswith("/02") else log.generation)

    assert told(result_of([named, *rest])) == says


def test_a_new_log_generation_without_an_event_about_a_restore_is_a_fork() -> None:
    silent = verified(Log([event(0)], generation=2).whole())
    of_another = verified(Log([event(0), restored(1, log_id=VENDORS_ID)], generation=2).whole())
    filtered = verified(Log([event(0)], generation=2).filtered(lambda _: True))

    message = f"forked: the log began anew, as {LOG.origin}/2, but no event of it records a restored back-up"
    assert told(silent) == told(of_another) == [message]
    assert (silent.exit_code, filtered.exit_code) == (BAD, GOOD)


def test_the_verifier_reports_a_log_generation_of_0() -> None:
    result = verify([changed(WHOLE[0], generation=0), *WHOLE[1:]], [public()])

    assert told(result) == [FIRST_DIFFERS]


@pytest.mark.parametrize(("id_", "says"), [(VENDORS_ID, []), (str(TENANT), [FIRST_DIFFERS])])
def test_the_vendors_log_has_no_tenant_id(id_: str, says: list[str]) -> None:
    first, *rest = Log([event(0, tenant_id=None, log=VENDORS_ID)], whose="vendor").whole().splitlines(keepends=True)

    assert told(result_of([changed(first, log=id_), *rest])) == says


def test_the_name_of_an_installation_may_look_like_a_log_name() -> None:
    log = Log([event(0)], name="house/audit/east")
    key = VerifierKey("house/audit/east", public().public)

    assert told(verify(log.whole().splitlines(keepends=True), [key])) == []


def test_the_verifier_rejects_a_checkpoint_whose_origin_lacks_the_audit_path() -> None:
    first, *rest = Log([event(0)]).whole().splitlines(keepends=True)
    strange = Log([event(0)])
    note = strange.note().replace("/audit/", "/log/")

    result = verify(
        [changed(first, origin=strange.origin.replace("/audit/", "/log/"), checkpoint=note), *rest], [public()]
    )

    assert f"wrong signature: the export's checkpoint: the signature by {IDENTITY} is wrong" in told(result)
    assert FIRST_DIFFERS in told(result)


def test_the_verifier_names_an_untrusted_checkpoint_with_its_signer() -> None:
    forged = Log(LOG.events, key=OTHER_KEY)
    by = f"signed by {OF_ANOTHER_KEY}, which you do not trust"

    assert told(verified(forged.whole())) == [f"unknown key: the export's checkpoint is {by}"]
    assert told(verified(LOG.whole(), forged.note(2))) == [f"unknown key: a checkpoint that you gave is {by}"]


def test_the_verifier_names_an_altered_checkpoint_with_its_signer() -> None:
    note = LOG.note(3).replace("\n3\n", "\n2\n")
    said = f"the signature by {IDENTITY} is wrong"

    given = verified(LOG.whole(), note)
    own = result_of([changed(WHOLE[0], checkpoint=note, size=2), *WHOLE[1:]])

    assert told(given) == [f"wrong signature: a checkpoint that you gave: {said}"]
    assert told(own)[0] == f"wrong signature: the export's checkpoint: {said}"


def test_the_verifier_checks_checkpoints_after_an_invalid_checkpoint() -> None:
    result = verified(LOG.whole(), Log(LOG.events, key=OTHER_KEY).note(2), LOG.note(3))

    assert (len(told(result)), result.seen) == (1, [3])


@pytest.mark.parametrize(
    ("rows", "seen", "why"),
    [
        ([], [], "this is no JSON"),
        ([WHOLE[1]], [], "the file is no export: its first line does not say what it is"),
        (
            [changed(WHOLE[0], checkpoint="none")],
            [],
            "what the export has for a checkpoint is none",
        ),
        (
            WHOLE,
            ["none"],
            "a checkpoint that you gave: this is no signed note: a blank line stands between text and signatures",
        ),
    ],
)
def test_the_verifier_says_why_a_file_cannot_be_read(rows: list[bytes], seen: list[str], why: str) -> None:
    with pytest.raises(Unreadable) as caught:
        verify(rows, [public()], seen)

    assert str(caught.value) == why


def test_the_verifiers_result_counts_events_details_and_checkpoints() -> None:
    result = verified(LOG.whole(), LOG.note(2), keys=[public(OTHER_KEY)])

    assert (result.exit_code, result.at, result.signer) == (GOOD, "2026-01-01T00:00:00.000000Z", public(KEY))
    assert (result.seen, result.events, result.said, result.details, result.left_out) == ([2], 6, 6, 6, 0)
    assert (result.removed, result.approvals, result.unchecked_approvals) == ([], 0, 0)


def test_the_verifier_states_no_count_for_an_export_without_its_end() -> None:
    assert result_of(WHOLE[:-1]).said is None


Spoil = Callable[[list[bytes]], object]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows.__setitem__(2, rows[2].replace(b"Erin", b"Eric")),
        lambda rows: rows.__delitem__(2),
    ],
)
def test_the_verifier_reports_a_faulty_event_once(spoil: Spoil) -> None:
    rows = [*WHOLE[:-1], end(60)]

    spoil(rows)

    assert len(told(result_of(rows))) == 1
