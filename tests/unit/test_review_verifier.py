"""Files that the verifier ought to refuse or survive: what a stranger, or the owner of a database, may hand over."""

import pytest

from lockbox.audit.bodies import TRAIL_REMOVED
from lockbox.audit.exported import Unreadable
from lockbox.audit.verify import GOOD, Verdict, verify
from tests.logs import Log, event, line, public


def judged(export: bytes, *seen: str) -> Verdict:
    return verify(export.splitlines(keepends=True), [public()], seen)


def log_of(count: int = 4) -> Log:
    return Log([event(number) for number in range(count)])


def rows(log: Log) -> list[bytes]:
    return log.whole().splitlines(keepends=True)


def test_a_member_that_is_there_twice_is_not_passed_over() -> None:
    found = rows(log_of())
    found[2] = found[2].replace(b'{"number":0,', b'{"number":0,"body":"{\\"action\\":\\"deny\\"}",')

    assert judged(b"".join(found)).exit_code != GOOD


def test_nothing_comes_behind_the_last_line_not_even_half_a_line() -> None:
    assert judged(log_of().whole() + b'{"number":4,"body":"approve"').exit_code != GOOD


def test_members_that_nobody_describes_are_refused_inside_of_others_too() -> None:
    found = log_of().whole().replace(b'{"end":{"events":4}}', b'{"end":{"events":4,"complete":"certified"}}')

    assert judged(found).exit_code != GOOD


def test_a_path_in_a_whole_export_is_not_passed_over() -> None:
    found = rows(log_of())
    found[2] = found[2].replace(b'{"number":0,', b'{"proof":[],"number":0,')

    assert judged(b"".join(found)).exit_code != GOOD


def test_that_events_are_older_than_the_seals_is_not_for_the_file_to_say() -> None:
    found = log_of().whole().replace(b'"unproven":0', b'"unproven":4')

    assert judged(found).exit_code != GOOD


def test_events_that_a_hand_has_cut_out_are_not_good() -> None:
    found = rows(log_of())
    found[3] = line({"withheld": {"from": 1, "to": 2}})
    found[-1] = line({"end": {"events": 3}})

    assert judged(b"".join(found)).exit_code != GOOD


def test_a_removal_says_nothing_of_what_comes_after_it() -> None:
    told = event(0, {}, action=TRAIL_REMOVED, seq=None, request_id=None, removed_from=0, removed_to=2**40)
    log = Log([told, *(event(number) for number in range(1, 5))], removed=[range(2, 5)])

    assert judged(log.whole()).exit_code != GOOD


@pytest.mark.parametrize("odd", ["1", ["1"], {"a": "b"}])
def test_a_move_whose_number_is_none_is_a_finding_and_no_crash(odd: object) -> None:
    log = Log([event(0), event(1, seq=odd), event(2)])  # type: ignore[arg-type]

    assert judged(log.whole()).exit_code != GOOD


def test_a_state_that_is_none_is_a_finding_and_no_crash() -> None:
    log = Log([event(0, to_state=["pending"])])

    judged(log.whole())


def test_half_a_character_in_a_value_is_a_finding_and_no_crash() -> None:
    found = log_of().whole().replace(b"Erin 1", b"\\ud800")

    assert judged(found).exit_code != GOOD


def test_a_log_of_the_vendors_whose_id_is_none_is_a_finding_and_no_crash() -> None:
    log = Log([event(0, tenant_id=None)], whose="vendor")

    try:
        assert judged(log.whole()).exit_code != GOOD
    except Unreadable:
        pass


def test_the_history_of_a_request_that_is_over_is_not_taken_a_second_time() -> None:
    same = "00000000-0000-0000-0000-0000000000aa"
    first = [
        event(0, request_id=same, seq=1, to_state="pending"),
        event(1, request_id=same, seq=2, action="deny", to_state="denied"),
    ]
    second = [
        event(2, request_id=same, seq=1, to_state="pending"),
        event(3, request_id=same, seq=2, action="approve", to_state="active"),
        event(4, request_id=same, seq=3, action="complete", to_state="completed"),
    ]

    assert judged(Log([*first, *second]).whole()).exit_code != GOOD
