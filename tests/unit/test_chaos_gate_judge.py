"""The chaos judge of gate histories: it finds each wrong answer, and nothing in an honest history."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest

from chaos import invariants
from chaos.evidence import ChaosEvidence
from chaos.gate_history import (
    DOORS,
    GATE,
    GUARD,
    ClockReading,
    GateHistory,
    GateYes,
    PostgresTime,
    ProbedCall,
    RecordedAnswer,
    StreamBeat,
    TrueWindow,
)
from chaos.gate_judge import (
    HANDED_OVER,
    IN_MEMORY,
    NO_WINDOW,
    NOT_BEGUN,
    OTHERS,
    PAST_DEADLINE,
    REVOKED,
    STREAM,
    TOLD_IN_TIME,
    YES_SAID,
    HistoryJudge,
)
from tests.each import each

AHEAD = 1_000_000.0
"""By how much Postgres' clock is ahead of the monotonic one in these histories."""
OPENED, REVOKE, DEADLINE = 100.0, 110.0, 130.0
"""When a window opened, was revoked (if it was), and ends; by the monotonic clock."""
ERIN, EVE = UUID(int=1), UUID(int=2)
WINDOW = UUID(int=10)
CALL = ProbedCall("contoso", "exchange-online", "mailbox:anna@contoso.example", "read", ERIN)
UNTIL = datetime.fromtimestamp(AHEAD + DEADLINE, UTC)
TRUE = TrueWindow(
    WINDOW,
    CALL.tenant,
    CALL.service,
    ERIN,
    frozenset({CALL.resource}),
    frozenset({"read"}),
    AHEAD + OPENED,
    UNTIL,
)
MORE, LONGER = UUID(int=11), 160.0
"""An extension, and when its window ends."""
EXTENSION = replace(
    TRUE,
    request_id=MORE,
    opened_at=AHEAD + DEADLINE,
    deadline=datetime.fromtimestamp(AHEAD + LONGER, UTC),
    extends=WINDOW,
)
FOREIGN = {
    "tenant": replace(CALL, tenant="fabrikam"),
    "service": replace(CALL, service="calendar-online"),
    "resource": replace(CALL, resource="mailbox:ceo@contoso.example"),
    "action": replace(CALL, action="change"),
    "engineer": replace(CALL, engineer=EVE),
}


def yes(began: float, door: str = GATE, call: ProbedCall = CALL, *, took: float = 0.01) -> RecordedAnswer:
    return RecordedAnswer(door, call, began, began + took, 200, yes=GateYes(WINDOW, call, UNTIL))


def no(began: float, reason: str = "no_window", door: str = GATE, call: ProbedCall = CALL) -> RecordedAnswer:
    return RecordedAnswer(door, call, began, began + 0.01, 403, reason)


def readings(first: float = 90, last: float = 140) -> list[ClockReading]:
    """Return a clock reading for each second; each takes 2 ms."""
    return [ClockReading(at, AHEAD + at + 0.001, at + 0.002) for at in range(int(first), int(last))]


def judge(
    *answers: RecordedAnswer, is_revoked: bool = False, quiet: tuple[float, float] | None = None
) -> HistoryJudge:
    ending = {WINDOW: REVOKE - 0.2} if is_revoked else {}
    ended = {WINDOW: REVOKE} if is_revoked else {}
    history = GateHistory(
        list(answers), readings(), {WINDOW: OPENED + 0.1}, ending, ended, [quiet] if quiet is not None else []
    )
    return HistoryJudge(history, [TRUE])


def wrong(*answers: RecordedAnswer, is_revoked: bool = False) -> list[str]:
    judged = judge(*answers, is_revoked=is_revoked)
    return [line.partition(": ")[2] for line in (*judged.wrong_yeses(), *judged.wrong_noes())]


def test_an_honest_gate_history_has_no_findings() -> None:
    answers = [
        no(OPENED - 1),
        no(OPENED + 0.5),
        yes(OPENED + 0.05),
        *(yes(at, door) for at in (OPENED + 3, REVOKE - 1, REVOKE + 0.9) for door in DOORS),
        yes(REVOKE + 2.9, GUARD),
        no(REVOKE + 0.1),
        no(REVOKE + 1.1, "behind"),
        *(no(OPENED + 5, call=call) for call in FOREIGN.values()),
        RecordedAnswer(GATE, CALL, REVOKE, REVOKE + 4, 0, "ReadTimeout"),
    ]

    assert wrong(*answers, is_revoked=True) == []
    assert wrong(yes(DEADLINE - 0.01, took=1.0), no(DEADLINE + 0.01)) == []


@each(("door", "seconds"), [(GATE, 1.0), (GUARD, 3.0)])
def test_the_chaos_judge_detects_an_allow_too_long_after_a_revoke(door: str, seconds: float) -> None:
    late, in_time = yes(REVOKE + seconds + 0.001, door), yes(REVOKE + seconds - 0.001, door, took=5)

    assert wrong(late, in_time, is_revoked=True) == [
        f"yes by {WINDOW}, {seconds + 0.001:.3f} s after its revoke was answered"
    ]
    assert wrong(late) == []


@pytest.mark.parametrize("door", DOORS)
def test_the_chaos_judge_detects_an_allow_past_the_deadline(door: str) -> None:
    assert wrong(yes(DEADLINE + 0.005, door)) == [f"yes by {WINDOW}, 0.004 s past its deadline"]
    # Within the bounds of what is known of Postgres' clock it may have been in time.
    assert wrong(yes(DEADLINE + 0.0009, door)) == []


def test_the_chaos_judge_reports_an_allow_before_the_window_opened() -> None:
    assert wrong(yes(OPENED - 1)) == [f"yes by {WINDOW}, 0.989 s before it opened"]


@each("what", FOREIGN)
def test_the_chaos_judge_detects_an_allow_for_a_call_outside_the_window(what: str) -> None:
    call = FOREIGN[what]
    about_its_own = replace(yes(OPENED + 5, call=call), yes=GateYes(WINDOW, CALL, UNTIL))

    assert wrong(yes(OPENED + 5, call=call)) == [f"yes by {WINDOW}, which is no window for it"]
    assert wrong(about_its_own) == [
        f"yes about something else: {CALL}",
        f"yes by {WINDOW}, which is no window for it",
    ]


def test_the_chaos_judge_detects_an_allow_for_a_part_the_approver_omitted() -> None:
    history = GateHistory([yes(OPENED + 5)], readings(), withheld={WINDOW: CALL.resource})

    (line,) = HistoryJudge(history, [TRUE]).wrong_yeses()
    assert line.endswith(f"yes by {WINDOW}, though its approver left this resource out")


def test_the_chaos_judge_detects_an_allow_naming_no_window_or_an_unknown_window() -> None:
    nameless = replace(yes(OPENED + 5), yes=None, reason="would-deny")
    unknown = replace(yes(OPENED + 5), yes=GateYes(UUID(int=99), CALL, UNTIL))

    assert wrong(nameless, unknown) == [
        "yes without a window: would-deny",
        f"yes by {UUID(int=99)}, which never opened a window",
    ]


def test_the_chaos_judge_detects_an_allow_that_states_a_wrong_end() -> None:
    later = UNTIL + timedelta(microseconds=1)

    assert wrong(replace(yes(OPENED + 5), yes=GateYes(WINDOW, CALL, later))) == [
        f"yes until {later}, and {WINDOW} ends at {UNTIL}"
    ]


@pytest.mark.parametrize("status", [204, 302, 500, 503])
def test_the_chaos_judge_reports_an_answer_that_is_neither_allow_nor_refuse(status: int) -> None:
    assert wrong(replace(no(OPENED + 5), status=status)) == [f"answered {status}"]


@each(("door", "seconds"), [(GATE, 1.0), (GUARD, 3.0)])
def test_the_chaos_judge_detects_a_refusal_of_an_open_window_unless_lockbox_was_busy_or_behind(
    door: str, seconds: float
) -> None:
    known = OPENED + 0.1 + seconds

    assert wrong(no(known + 0.01, door=door)) == [f"no, no_window, {seconds + 0.01:.3f} s after {WINDOW} opened"]
    assert wrong(no(known + 0.01, "unknown_engineer", door)) == [
        f"no, unknown_engineer, {seconds + 0.01:.3f} s after {WINDOW} opened"
    ]
    assert wrong(no(known - 0.01, door=door), no(known + 0.01, "behind", door), no(known + 0.01, "busy", door)) == []


@each(("door", "seconds"), [(GATE, 0.0), (GUARD, 3.0)])
def test_the_chaos_judge_lets_only_the_guard_refuse_calls_in_the_last_3_s_before_the_deadline(
    door: str, seconds: float
) -> None:
    over = DEADLINE - seconds

    assert wrong(no(over - 0.1, door=door)) == [f"no, no_window, {over - OPENED - 0.2:.3f} s after {WINDOW} opened"]
    assert wrong(no(over - 0.005, door=door)) == []


def test_the_chaos_judge_accepts_a_refusal_after_an_attempt_to_end_the_window() -> None:
    assert wrong(no(REVOKE - 0.1), is_revoked=True) == []
    assert wrong(no(REVOKE - 0.3), is_revoked=True) == [f"no, no_window, 9.600 s after {WINDOW} opened"]


def test_the_chaos_judge_excuses_a_refusal_by_a_process_that_was_just_frozen() -> None:
    history = GateHistory([no(OPENED + 8), no(OPENED + 12)], readings(), {WINDOW: OPENED})
    history.frozen = [(OPENED + 1, OPENED + 7.5)]

    (line,) = HistoryJudge(history, [TRUE]).wrong_noes()
    assert line.startswith("the gate, for read of mailbox:anna@contoso.example at contoso/exchange-online: no, ")


def test_the_chaos_judge_reports_a_gate_or_guard_that_admits_too_few_calls_without_faults() -> None:
    quiet = (OPENED + 5, OPENED + 20)
    let_in = [yes(OPENED + 6 + place / 10, GUARD) for place in range(10)]
    away = [no(OPENED + 6 + place / 10, "behind") for place in range(10)]

    assert list(judge(*let_in, *away, quiet=quiet).too_few_let_in()) == [
        "only 0 of 10 calls by open windows let in at the gate while all was quiet"
    ]
    assert list(judge(*let_in[:9], *(replace(one, door=GATE) for one in let_in), quiet=quiet).too_few_let_in()) == [
        "only 9 calls by open windows at the guard while all was quiet"
    ]
    assert list(judge(*away, quiet=(OPENED + 40, OPENED + 50)).too_few_let_in()) == [
        f"only 0 calls by open windows at the {door} while all was quiet" for door in DOORS
    ]


def handed_over(*answers: RecordedAnswer, opened: float = DEADLINE - 10, is_revoked: bool = False) -> HistoryJudge:
    """Return the judge of a history whose window was extended; the extension was approved at `opened`."""
    moments = dict.fromkeys((WINDOW, MORE), REVOKE) if is_revoked else {}
    approvals = {WINDOW: OPENED, MORE: opened}
    history = GateHistory(list(answers), readings(last=170), approvals, moments, moments)
    return HistoryJudge(history, [TRUE, EXTENSION])


def by_extension(began: float, door: str = GATE) -> RecordedAnswer:
    return replace(yes(began, door), yes=GateYes(MORE, CALL, EXTENSION.deadline))


def test_the_chaos_judge_detects_a_gate_refusal_at_the_moment_an_extension_follows_its_window() -> None:
    honest = [yes(DEADLINE - 0.02), by_extension(DEADLINE + 0.005), by_extension(DEADLINE + 0.3, GUARD)]
    judged = handed_over(*honest, no(DEADLINE + 0.005), no(DEADLINE - 0.005), no(DEADLINE + 0.005, door=GUARD))

    assert list(judged.wrong_yeses()) == []
    assert [line.partition(": ")[2].partition(" s ")[0] for line in judged.wrong_noes()] == [
        "no, no_window, 10.005",
        "no, no_window, 9.995",
    ]
    assert judged.tested()[GATE, HANDED_OVER] == judged.tested()[GUARD, HANDED_OVER] == 1


def test_an_extension_opens_at_its_start_and_calls_of_the_first_window_continue() -> None:
    late = handed_over(no(DEADLINE + 0.005), by_extension(DEADLINE - 0.1), opened=DEADLINE - 0.1)

    assert list(late.wrong_noes()) == []
    (line,) = late.wrong_yeses()
    assert line.endswith(f"yes by {MORE}, 0.089 s before it opened")


def test_the_chaos_judge_detects_that_an_extension_of_a_revoked_window_opened() -> None:
    judged = handed_over(no(DEADLINE + 0.005), by_extension(DEADLINE + 1), is_revoked=True)

    assert list(judged.wrong_noes()) == []
    (line,) = judged.wrong_yeses()
    assert line.endswith(f"yes by {MORE}, 21.000 s after its revoke was answered")


@each(("door", "seconds"), [(GATE, 1.0), (GUARD, 3.0)])
def test_a_window_with_a_later_start_counts_as_open_from_that_start(door: str, seconds: float) -> None:
    begins = OPENED + 10
    later = replace(TRUE, opened_at=AHEAD + begins)
    answers = [
        no(begins - 1, door=door),
        no(begins + seconds - 0.1, door=door),
        no(begins + seconds + 0.1, door=door),
    ]
    judged = HistoryJudge(GateHistory([yes(begins - 1, door), *answers], readings(), {WINDOW: OPENED}), [later])

    (yes_,), (no_,) = judged.wrong_yeses(), judged.wrong_noes()
    assert yes_.endswith("0.989 s before it opened")
    assert f", {10 + seconds + 0.1:.3f} s after" in no_
    assert judged.tested()[door, NOT_BEGUN] == 1


def test_the_chaos_judge_counts_gate_answers_by_cause_such_as_revoke_or_deadline() -> None:
    before, after, late = no(REVOKE + 0.5), no(REVOKE + 1.5), no(DEADLINE + 1)
    foreign, away = no(OPENED + 5, call=FOREIGN["resource"]), no(REVOKE + 1.5, "behind")

    assert dict(judge(yes(OPENED + 5), before, after, late, foreign, away, is_revoked=True).tested()) == {
        (GATE, YES_SAID): 1,
        (GATE, OTHERS): 2,
        (GATE, REVOKED): 1,
        (GATE, PAST_DEADLINE): 1,
        (GATE, NO_WINDOW): 1,
    }


def test_the_chaos_judge_bounds_database_time_by_the_nearest_clock_readings() -> None:
    set_back = [ClockReading(10, 1010, 10.002), ClockReading(20, 1015.001, 20.002), ClockReading(30, 1040, 33)]
    time = PostgresTime(set_back)

    assert time.earliest(5) == pytest.approx(1004.998)
    assert time.earliest(15) == pytest.approx(1009.999)
    assert time.latest(15) == pytest.approx(1015.0)
    assert time.earliest(40) == pytest.approx(1034.999)
    assert time.latest(40) == pytest.approx(1035.001)


def test_the_chaos_judge_reports_no_wrong_answer_if_the_database_time_is_unknown() -> None:
    blind = HistoryJudge(GateHistory([yes(DEADLINE + 9), no(OPENED + 5)], opened={WINDOW: OPENED}), [TRUE])

    assert list(blind.wrong_yeses()) == list(blind.wrong_noes()) == []


BEATS = [StreamBeat(at, AHEAD + at) for at in (OPENED - 1 + number / 2 for number in range(10))]
"""Heartbeats from a second before the window opened to some time after."""


def watched(told: float | None, **changes: object) -> HistoryJudge:
    """Return the judge of a guard stream that had the window from this moment on."""
    facts = {"opened": {WINDOW: OPENED}, "told": {} if told is None else {WINDOW: told}, "beats": [BEATS]}
    readings = [ClockReading(at, AHEAD + at, at) for at in (OPENED - 5, DEADLINE + 5)]
    return HistoryJudge(GateHistory(readings=readings, **(facts | changes)), [TRUE])  # type: ignore[arg-type]


@pytest.mark.parametrize("told", [OPENED - 0.1, OPENED + 1.9])
def test_the_chaos_judge_counts_a_window_that_was_streamed_in_time(told: float) -> None:
    judge = watched(told)

    assert list(judge.not_told()) == []
    assert judge.tested()[STREAM, TOLD_IN_TIME] == 1


@pytest.mark.parametrize(("told", "is_soon"), [(OPENED - 0.1, 1), (OPENED + 0.9, 1), (OPENED + 1.4, 0)])
def test_a_window_streamed_to_a_guard_within_a_second_was_in_memory(told: float, is_soon: int) -> None:
    judge = watched(told)

    assert list(judge.not_remembered()) == []
    assert judge.tested()[STREAM, IN_MEMORY] == is_soon


@pytest.mark.parametrize("told", [None, OPENED + 1.9])
def test_a_window_streamed_after_two_later_heartbeats_was_not_in_memory(told: float | None) -> None:
    judge = watched(told)

    (line,) = judge.not_remembered()
    assert line == f"{WINDOW} was open, and not in the gate's memory at 2 heartbeats past a second"
    assert judge.tested()[STREAM, IN_MEMORY] == 0


def test_a_late_guard_stream_proves_nothing_about_the_window_memory() -> None:
    delayed = [StreamBeat(one.heard + 0.9, one.at) for one in BEATS]

    assert list(watched(OPENED + 1.9, beats=[delayed]).not_remembered()) == []


def test_heartbeats_of_a_later_guard_stream_prove_nothing_about_the_earlier_window_memory() -> None:
    again = [StreamBeat(OPENED + 3 + number / 2, AHEAD + OPENED + 3 + number / 2) for number in range(6)]

    assert list(watched(OPENED + 6, beats=[BEATS[:7], again]).not_remembered()) == [
        f"{WINDOW} was open, and not in the gate's memory at 2 heartbeats past a second"
    ]
    assert list(watched(OPENED + 6, beats=[BEATS[:6], again]).not_remembered()) == []


@each(
    "excuse",
    (
        {"ending": {WINDOW: OPENED + 1}},
        {"frozen": [(OPENED + 0.5, OPENED + 1)]},
        {"beats": []},
        {"beats": [BEATS[:4], BEATS[5:]]},
        {"beats": [[*BEATS[:3], *BEATS[5:]]]},
        {"opened": {WINDOW: OPENED - 20}, "beats": [[StreamBeat(OPENED - 30 + one / 2, 0) for one in range(60)]]},
    ),
)
def test_a_window_need_not_be_on_a_partly_read_guard_stream(excuse: dict[str, object]) -> None:
    judge = watched(None, **excuse)

    assert list(judge.not_told()) == list(judge.not_remembered()) == []
    assert judge.tested()[STREAM, TOLD_IN_TIME] == 0


def test_the_chaos_check_of_gates_reports_each_finding_of_the_judge() -> None:
    judge = watched(None, answers=[yes(DEADLINE + 9), no(OPENED + 5)])
    (check,) = [one for _, _, one in invariants.INVARIANTS if one is invariants.gates_hold]

    _, found = check(cast("ChaosEvidence", SimpleNamespace(gates=judge, history=GateHistory())))

    kinds = [*map(list, (judge.wrong_yeses(), judge.wrong_noes(), judge.not_told(), judge.not_remembered()))]
    assert [len(kind) for kind in kinds] == [1, 1, 1, 1]
    assert list(found) == [line for kind in kinds for line in kind]
