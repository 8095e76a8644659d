"""What has to happen sometimes is counted where it happened, and nowhere else."""

from collections import Counter
from dataclasses import replace
from itertools import chain
from uuid import UUID

from chaos import enough, sometimes
from chaos.gate_judge import HANDED_OVER, YES_SAID
from chaos.invariants import late_and_counted
from chaos.journal import AttemptedAct, ClosedAnswer, Journal, OpenAnswer, Sight
from tests.each import each

END = 1000.0
ONE = UUID(int=1)
DOOR = "mailbox:a"


def act(action: str, sent: float = END, *, who: str = "ann", status: int = 200, late: bool = False) -> AttemptedAct:
    return AttemptedAct(ONE, action, who, status, sent, sent + 0.01, END, late)


def lost(action: str, sent: float = END) -> AttemptedAct:
    return act(action, sent, status=409, late=True)


def happened(
    *acts: AttemptedAct, opened: tuple[OpenAnswer, ...] = (), closed: tuple[ClosedAnswer, ...] = ()
) -> dict[str, int]:
    journal = Journal(acts=list(acts), opened=list(opened), closed=list(closed))
    return {name: count for name, count in sometimes.counted(journal, {ONE: END}).items() if count}


CASES = {
    **{
        f"{action} in the last 100 ms counted": (act(action, END - 0.09),)
        for action in ("approve", "endorse", "deny", "cancel")
    },
    **{f"late {action} lost": (lost(action, END + 0.09),) for action in ("approve", "endorse", "deny", "cancel")},
    **{f"{action} beat expire": (act(action, END - 0.05),) for action in ("revoke", "complete")},
    **{f"{action} met expire": (lost(action),) for action in ("revoke", "complete")},
    **{
        f"{one} and {other} met, one counted": (act(other, END - 3, status=409), act(one, END - 3.05))
        for one, other in (
            ("approve", "deny"),
            ("approve", "cancel"),
            ("cancel", "deny"),
            ("cancel", "endorse"),
            ("complete", "revoke"),
        )
    },
    "two yeses met, both counted": (act("approve", END - 3), act("approve", END - 3, who="amir")),
    "one yes sent twice, counted once": (act("approve", END - 3), act("approve", END - 3, status=409)),
    "filings by one key met, one request": (act("submit", END - 3, status=201), act("submit", END - 3)),
}
OPEN = OpenAnswer(DOOR, ONE, END - 0.09, END - 0.08)


@each("name", CASES)
def test_what_happens_is_counted_under_its_name_alone(name: str) -> None:
    assert happened(*CASES[name]) == {name: 1}


def test_each_name_is_counted_by_some_case() -> None:
    assert {*CASES, *sometimes.CHECKS} == {*sometimes.NAMES}
    assert len(sometimes.NAMES) >= 20


def test_what_is_seen_of_further_ways_is_counted_by_whoever_sees_it() -> None:
    journal = Journal(seen=Counter({Sight.LATER: 2}))

    seen = sometimes.further(journal, {("gate", HANDED_OVER): 3, ("gate", YES_SAID): 9})

    assert seen.keys() == {*sometimes.FURTHER}
    assert {name: count for name, count in seen.items() if count} == {
        "access approved that begins later": 2,
        "gate: as one window follows another": 3,
    }


@each("name", CASES)
def test_what_is_far_from_a_deadline_and_from_each_other_is_not_counted(name: str) -> None:
    apart = [replace(one, sent=END - 9 * place, answered=END - 9 * place) for place, one in enumerate(CASES[name], 1)]

    assert happened(*apart) == {}


def test_a_door_is_seen_open_to_the_end_and_closed_behind_it() -> None:
    behind = ClosedAnswer(DOOR, END + 0.09, END + 0.1)

    assert happened(opened=(OPEN,), closed=(behind,)) == dict.fromkeys(sometimes.CHECKS[:2], 1)


def test_a_door_is_seen_closed_behind_a_revoke() -> None:
    revoked = act("revoke", END - 3)
    early = replace(OPEN, sent=END - 3.1, answered=END - 3.05)

    assert happened(revoked, opened=(early,), closed=(ClosedAnswer(DOOR, END - 2.95, END - 2.9),)) == {
        sometimes.CHECKS[2]: 1
    }


def test_a_refusal_for_another_reason_than_time_is_not_late() -> None:
    assert happened(act("approve", status=409)) == {}


def test_stories_are_close_by_a_deadline_or_by_two_acts() -> None:
    def story(number: int, *acts: AttemptedAct) -> list[AttemptedAct]:
        return [replace(one, request_id=UUID(int=number)) for one in (act("submit", END - 4, status=201), *acts)]

    far = [story(number, act("approve", END - 3)) for number in range(3, 9)]
    at_the_end = story(10, act("cancel"))
    together = story(11, act("approve", END - 3), act("deny", END - 3))
    nobody_could = [story(12), story(13, act("approve", status=0))]

    assert sometimes.close(chain(*far, at_the_end, together, *nobody_could)) == (2, 8)


def test_a_third_of_the_stories_has_to_be_close_where_there_are_enough() -> None:
    assert list(enough.too_far(7, 21)) == []
    assert list(enough.too_far(6, 21)) == ["only 6 of 21 stories acted within 100 ms of a deadline or of each other"]
    assert list(enough.too_far(0, 19)) == []


def test_a_yes_that_was_sent_too_late_and_counted_is_found() -> None:
    acts = [act("approve", END - 0.001), act("deny", END + 1), lost("approve", END + 1), act("approve", END + 0.25)]

    assert list(late_and_counted(Journal(acts=acts))) == [
        f"approve of {ONE} counted, sent 0.250 s after its deadline"
    ]
