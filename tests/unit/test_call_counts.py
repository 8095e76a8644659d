"""What the gate counts in memory: answers, uses of windows, and calls that it only reports."""

from uuid import UUID

import pytest

from gate import call_counts
from gate.answers import GateReason
from gate.call_counts import OTHER_CALLS, CallCounts, CountedCall, GateDecision, ReportedCall, kept
from lockbox.requests.access_check import AccessCheck

NGINX = UUID(int=1)
CALL = CountedCall(NGINX, "files")
QUESTION = AccessCheck("contoso", "files", "file:a", "read", UUID(int=9))


def test_gate_answers_are_counted_by_gateway_service_decision_and_reason() -> None:
    counts = CallCounts()
    for reason in (GateReason.NO_WINDOW, GateReason.NO_WINDOW, GateReason.UNMAPPED):
        counts.count(CALL, GateDecision.DENY, reason)
    counts.count(CountedCall(), GateDecision.DENY, GateReason.NO_CREDENTIAL)
    counts.count(CALL, GateDecision.NOT_APPLICABLE)

    assert counts.total == 5
    assert counts.take().answers == {
        (NGINX, "files", "deny", "no_window"): 2,
        (NGINX, "files", "deny", "unmapped"): 1,
        (None, "", "deny", "no_credential"): 1,
        (NGINX, "files", "not-applicable", ""): 1,
    }
    assert counts.is_empty
    assert counts.take_refused() == {(NGINX, "no_window"): 2, (NGINX, "unmapped"): 1, (None, "no_credential"): 1}
    assert not counts.take_refused()


def test_a_repeated_call_of_one_use_is_counted_as_an_answer_but_not_as_another_use() -> None:
    counts = CallCounts()
    for is_same_use in (False, True):
        counts.count_use(CALL, QUESTION, UUID(int=5), is_same_use=is_same_use)

    batch = counts.take()

    assert batch.answers == {(NGINX, "files", "allow", ""): 2}
    assert [use.count for use in batch.uses.values()] == [1]


def test_counts_keep_the_first_and_last_use_of_a_window() -> None:
    times = iter((10.0, 11.0, 12.0))
    counts = CallCounts(lambda: next(times))
    for resource in ("file:a", "file:b", "file:c"):
        counts.count_use(CALL, AccessCheck("contoso", "files", resource, "read", UUID(int=9)), UUID(int=5))

    batch = counts.take()

    use = batch.uses[UUID(int=5)]
    assert batch.answers == {(NGINX, "files", "allow", ""): 3}
    assert (use.count, use.first_at, use.last_at) == (3, 10.0, 12.0)
    assert (use.first, use.last) == ((NGINX, "read", "file:a"), (NGINX, "read", "file:c"))


def test_each_batch_of_call_counts_covers_few_windows_and_each_count_is_in_one_batch_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_counts, "MOST_A_BATCH", 2)
    counts = CallCounts()
    for number in range(5):
        counts.count_use(CALL, QUESTION, UUID(int=number))

    batches = []
    while not counts.is_empty:
        batches.append(counts.take())

    assert [len(batch.uses) for batch in batches] == [2, 2, 1]
    assert [sum(batch.answers.values()) for batch in batches] == [5, 0, 0]


def test_uses_of_windows_beyond_the_maximum_number_of_counted_windows_are_counted_as_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_counts, "MOST_WINDOWS", 2)
    counts = CallCounts()
    for number in (1, 2, 3, 1):
        counts.count_use(CALL, QUESTION, UUID(int=number))

    batch = counts.take()

    assert {one.int: use.count for one, use in batch.uses.items()} == {1: 2, 2: 1}
    assert (batch.lost, sum(batch.answers.values())) == (1, 4)


def test_only_calls_that_a_gate_in_report_mode_lets_pass_are_counted_by_kind() -> None:
    counts = CallCounts()
    kind = ReportedCall("GET /files/{name}", "contoso", "9")
    for decision in (GateDecision.WOULD_DENY, GateDecision.WOULD_DENY, GateDecision.DENY):
        counts.count(CountedCall(NGINX, "files", reported=kind), decision, GateReason.NO_WINDOW)

    assert counts.take().reported == {("files", "no_window", kind): 2}
    assert not counts.take().reported


def test_the_number_of_counted_kinds_of_call_is_bounded_in_a_flood_of_different_paths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_counts, "MOST_REPORTED", 2)
    counts = CallCounts()
    for number in [*range(5), 0]:
        kind = ReportedCall(f"GET /{number}")
        counts.count(CountedCall(NGINX, "files", reported=kind), GateDecision.WOULD_DENY, GateReason.UNMAPPED)

    assert counts.take().reported == {
        ("files", "unmapped", ReportedCall("GET /0")): 2,
        ("files", "unmapped", ReportedCall("GET /1")): 1,
        ("files", "unmapped", OTHER_CALLS): 3,
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [("abcde", "abcde"), ("abcdef", "abcd…"), ("a\0b\ud800", "a?b?"), ("a\u202eb", "a?b"), ("", "")],
)
def test_text_stored_about_a_reported_call_is_short_and_printable(text: str, shown: str) -> None:
    assert kept(text, 5) == shown
