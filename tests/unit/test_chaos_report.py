"""What the chaos report excuses: late and refused notifications, exits of processes, and incomplete exports."""

import argparse
import json
from dataclasses import dataclass, replace
from uuid import UUID

import pytest
from rich.console import Console

from chaos import __main__ as command
from chaos import dead, enough, exports, plan, report, run, sometimes
from chaos.crew import ProcessExit
from chaos.plan import AppliedFault, Fault
from tests.each import each
from tests.logs import Log, event

RELAY, HOOK = "ann@contoso.example", "http://127.0.0.1:1/chaos/"
NO = "the mail relay answered 550 nobody of that name"
LATE = "not delivered before it stopped mattering"
AT = 1_000.0


@dataclass(frozen=True)
class NotificationRow:
    """A row as Postgres returns it: a prompt that becomes obsolete after four seconds."""

    id: int = 1
    outcome: str = "dead"
    last_error: str | None = LATE
    template: str = "pending"
    to: str = RELAY
    is_prompt: bool = True
    notified_at: float = AT
    until_at: float = AT + 4
    closed_at: float = AT + 4


OUTCOME = NotificationRow(template="expired", is_prompt=False, until_at=AT + 86_400)


def struck(kind: str, target: str, began: float, lasts: float = 2.0, failed: str = "") -> AppliedFault:
    return AppliedFault(Fault(1, kind, target, lasts, 0), began, began + lasts, failed)


def said(*notifications: NotificationRow, no: int = 0, faults: tuple[AppliedFault, ...] = ()) -> list[str]:
    return list(dead.unexplained(notifications, {RELAY: no}, faults))


def test_the_chaos_report_excuses_a_dead_notification_for_each_permanent_refusal() -> None:
    refused = [NotificationRow(id=number, last_error=NO, closed_at=AT + 1) for number in (1, 2, 3)]

    assert said(*refused, no=3) == []
    assert said(*refused, no=2) == ["3 (pending) is dead by a refusal that nobody gave"]


@pytest.mark.parametrize("error", [LATE, "the endpoint answered 500", "any word"])
def test_the_chaos_report_detects_a_notification_given_up_a_day_before_it_expires(error: str) -> None:
    given_up = replace(OUTCOME, last_error=error, closed_at=AT + 60, to=HOOK)

    assert said(given_up, faults=(struck("refuse", "webhooks", AT),)) == [
        "1 (expired) was given up 86340.0 s before it stopped mattering"
    ]


def test_the_chaos_report_excuses_no_dead_notification_without_a_reason() -> None:
    assert said(NotificationRow(last_error=None), faults=(struck("refuse", "mail", AT),)) == [
        "1 (pending) is dead without a reason"
    ]


@each(
    ("to", "fault", "is_excused"),
    [
        (RELAY, struck("refuse", "mail", AT + 1), True),
        (RELAY, struck("refuse", "webhooks", AT + 1), False),
        (HOOK, struck("refuse", "webhooks", AT + 1), True),
        (HOOK, struck("refuse", "mail", AT + 1), False),
        (HOOK, struck("freeze", "notifications", AT - 10), True),
        (HOOK, struck("freeze", "notifications", AT - 60), False),
        (RELAY, struck("refuse", "redis", AT + 5), False),
        (RELAY, struck("kill", "flower", AT + 1), False),
    ],
)
def test_the_chaos_report_allows_a_late_prompt_only_during_a_fault(
    to: str, fault: AppliedFault, *, is_excused: bool
) -> None:
    late = NotificationRow(to=to)

    assert bool(said(late, faults=(fault,))) is not is_excused


def test_faults_excuse_a_few_late_prompts_but_not_a_run_in_which_nearly_all_are_late() -> None:
    faults = (struck("refuse", "mail", AT),)
    late = [NotificationRow(id=number) for number in range(40)]
    sent = [NotificationRow(id=number, outcome="sent", last_error=None) for number in range(40)]
    by_hook = [NotificationRow(id=number, outcome="sent", last_error=None, to=HOOK) for number in range(40)]

    assert said(*late, *sent, faults=faults) == []
    assert said(*late, *by_hook, faults=faults) == ["40 prompts by mail were late, and 0 were not"]


def test_each_chaos_kill_excuses_a_single_exit_of_the_killed_process() -> None:
    child = struck("kill_child", "worker", AT)
    ends = [ProcessExit("worker", 1, AT + 3), ProcessExit("worker", 1, AT + 9)]

    assert list(enough.unasked(ends[:1], [child])) == []
    assert list(enough.unasked(ends, [child])) == ["worker ended by itself with 1"]
    assert list(enough.unasked(ends[:1], [struck("refuse", "redis", AT)])) == ["worker ended by itself with 1"]
    assert list(enough.unasked([ProcessExit("notifications", 1, AT + 3)], [child])) == [
        "notifications ended by itself with 1"
    ]
    assert list(enough.unasked([ProcessExit("worker", 1, AT + 60)], [child])) == ["worker ended by itself with 1"]


def test_a_process_may_refuse_to_start_repeatedly_while_postgres_lacks_connections() -> None:
    few = [struck("few_connections", "postgres", AT)]
    refused = [ProcessExit("notifications", 1, AT + later) for later in (0.5, 1)]

    assert list(enough.unasked(refused, few)) == []
    assert list(enough.unasked([ProcessExit("notifications", -9, AT + 1)], few)) == [
        "notifications ended by itself with -9"
    ]
    assert len(list(enough.unasked([ProcessExit("notifications", 1, AT + 60)], few))) == 1


def test_the_chaos_report_demands_that_most_planned_faults_happen() -> None:
    done = [struck("kill", "worker", AT)] * 6
    missed = [struck("forge", "messages", AT, failed="ConnectionError")] * 4

    assert list(enough.too_calm(10, [*done, *missed])) == []
    assert list(enough.too_calm(10, [*done[:5], *missed])) == ["only 5 of 10 faults were done"]
    assert list(enough.too_calm(0, [])) == ["only 0 of 0 faults were done"]


def test_the_minimum_counts_of_a_chaos_run_depend_on_the_seconds_of_load() -> None:
    happened = dict.fromkeys(enough.LEAST_A_SECOND, 100)

    assert list(enough.too_little(happened, 40)) == []
    assert list(enough.too_little(happened | {"windows opened": 0}, 6)) == ["only 0 windows opened, of at least 1"]
    assert list(enough.too_little(happened, 75)) == [
        "only 100 doors found closed, of at least 150",
        "only 100 notifications arrived, of at least 150",
    ]


@dataclass(frozen=True)
class EventExample:
    """A row as Postgres returns it."""

    id: UUID


def test_the_chaos_report_detects_an_event_missing_from_the_export_although_sizes_agree() -> None:
    log = Log([event(0), event(1)])
    first, second = (EventExample(UUID(json.loads(one.body)["id"])) for one in log.events)
    never_sealed = EventExample(UUID(int=9))

    assert list(exports.missed([first, second], log.whole())) == []
    assert list(exports.missed([first, second, never_sealed], log.whole())) == [
        f"it lacks the event {never_sealed.id}"
    ]
    assert list(exports.missed([first], b"no line of an export\n")) == [f"it lacks the event {first.id}"]


def test_the_command_to_repeat_a_chaos_run_has_the_same_patience_option() -> None:
    planned = plan.make(7, 40)

    assert report.again(planned, None) == "again: make chaos SEED=7 SECONDS=40"
    assert report.again(planned, 12.5) == "again: make chaos SEED=7 SECONDS=40 PATIENCE=12.5"


@pytest.mark.parametrize("word", ["-1", "601", "nan", "inf", "long"])
def test_a_chaos_run_refuses_a_patience_option_outside_0_to_600_seconds(word: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no number of seconds from 0 to 600"):
        command.patience(word)


def test_the_patience_of_a_chaos_run_is_given_in_seconds() -> None:
    assert [command.patience(word) for word in ("0", "12.5", "600")] == [0, 12.5, 600]


@pytest.mark.parametrize(("seeds", "code"), [(1, 0), (2, 1)])
def test_a_chaos_run_of_one_seed_may_lack_situations_that_a_run_of_several_seeds_must_produce(
    seeds: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {**dict.fromkeys((*sometimes.NAMES, *sometimes.FURTHER), 1), "two yeses met, both counted": 0}
    result = run.Result(plan.make(1, 5), [], (), {}, counts, (), 5.0)

    assert command._checked([result] * seeds, Console()) == code  # noqa: SLF001 - what the exit code is made of
    assert "never happened: two yeses met, both counted" in capsys.readouterr().out
