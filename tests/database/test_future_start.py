"""Access that begins later than its approval: nobody is let in before, and it opens by itself, without a move."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from gate.reasons import GateReason
from harness.clocks import ShiftedClock, StoppedClock
from harness.people import World
from lockbox.database import Database, ProcessKeys
from lockbox.errors import Invalid, PolicyNotMet, TooLate
from lockbox.identity.keyring import Keyring
from lockbox.requests import queries, timers
from lockbox.requests.lifecycle import Action, HeldBack
from lockbox.requests.models import AccessRequest
from tests.database.scenes import MAILBOX, door, moves_of, read, write, write_unchecked
from tests.database.test_window_checks import Checked, granted
from tests.database.verified_log import check_log_of_one_window
from tests.policy_setup import lay_down

HOUR, MOMENT = timedelta(hours=1), timedelta(microseconds=1)


def scheduled(world: World, clock: StoppedClock, *, ahead: timedelta = 2 * HOUR, **kept: Any) -> AccessRequest:
    """Let ann approve access that begins so much later."""
    request = world.submit(not_before=clock.at + ahead)
    return world.act("ann", Action.APPROVE, request.id, **kept)


def test_a_window_is_open_from_its_start_to_its_end(world: World, still: StoppedClock) -> None:
    request = scheduled(world, still)

    assert (request.state, request.opened_at, request.opens_at) == ("active", still.at, still.at + 2 * HOUR)
    assert request.deadline_at == still.at + 3 * HOUR
    let_in = []
    for step in (timedelta(0), 2 * HOUR - timedelta(microseconds=1), timedelta(microseconds=1), HOUR):
        still.at += step or timedelta(0)
        let_in.append(door(world) is not None)
    assert let_in == [False, False, True, False]


def test_the_answers_are_due_before_the_start(world: World, still: StoppedClock) -> None:
    request = world.submit(not_before=still.at + HOUR)

    assert request.deadline_at == still.at + HOUR
    still.at += HOUR
    with pytest.raises(TooLate):
        world.act("ann", Action.APPROVE, request.id)


def test_the_clock_says_that_it_begins_and_makes_no_move(world: World, worker: Database, still: StoppedClock) -> None:
    request = scheduled(world, still)
    assert request.wake_at == request.opens_at
    still.at += 2 * HOUR

    assert timers.run(worker, [request.id]) == {"reminded": 1}

    assert [action for _, action, _ in moves_of(world.db, request.id)] == ["submit", "approve"]
    (begun,) = read(world.db, "SELECT * FROM events WHERE action = 'begin'")
    assert (begun.request_id, begun.seq, begun.at) == (request.id, None, still.at)
    told = read(
        world.db, "SELECT template, count(*) AS n FROM notifications WHERE event_id = :id GROUP BY 1", id=begun.id
    )
    assert {row.template for row in told} == {"begun"}
    (row,) = read(world.db, "SELECT state, wake_at FROM requests")
    assert (row.state, row.wake_at) == ("active", request.deadline_at - timedelta(seconds=600))


def told_by_the_clock(world: World) -> list[tuple[str, str | None]]:
    """Return what the clock has recorded that is no move, with why access is held back."""
    rows = read(world.db, "SELECT action, body FROM events WHERE seq IS NULL AND action <> 'notified' ORDER BY id")
    return [(row.action, json.loads(row.body).get("held_back")) for row in rows]


def test_who_would_be_told_that_it_begins_is_told_why_it_is_held_back(
    world: World, worker: Database, still: StoppedClock
) -> None:
    request = scheduled(world, still)
    lay_down(world, quorum=2)
    still.at += 2 * HOUR

    timers.run(worker, [request.id])

    assert door(world) is None
    assert told_by_the_clock(world) == [("hold_back", "stricter_policy")]
    told = read(world.db, "SELECT template, person_id FROM notifications WHERE template = 'held_back'")
    assert {world.people[name].person_id for name in ("ann", "erin")} <= {row.person_id for row in told}
    (row,) = read(world.db, "SELECT state, wake_at FROM requests")
    assert (row.state, row.wake_at) == ("active", request.deadline_at - timedelta(seconds=600))
    still.at = row.wake_at
    timers.run(worker, [request.id])
    assert len(told_by_the_clock(world)) == 1


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE tenants SET suspended = true", HeldBack.TENANT_SUSPENDED),
        ("UPDATE people SET disabled_at = clock_timestamp() WHERE name = 'Erin'", HeldBack.ENGINEER_INACTIVE),
        ("DELETE FROM memberships WHERE role = 'engineer'", HeldBack.ENGINEER_INACTIVE),
    ],
)
def test_the_check_the_page_and_the_clock_agree_why_it_is_held_back(
    world: World, worker: Database, superuser: Engine, still: StoppedClock, *, statement: str, why: HeldBack
) -> None:
    request = scheduled(world, still)
    assert held_back(world, request) is None
    write_unchecked(superuser, statement)

    assert held_back(world, request) is why
    still.at += 2 * HOUR
    assert (door(world), held_back(world, request)) == (None, why)
    timers.run(worker, [request.id])
    assert told_by_the_clock(world) == [("hold_back", why)]
    still.at += HOUR
    assert held_back(world, request) is None


def test_what_is_not_approved_any_more_is_held_back(world: World, superuser: Engine, still: StoppedClock) -> None:
    request = scheduled(world, still)

    write_unchecked(superuser, "DELETE FROM decisions")

    assert held_back(world, request) is HeldBack.APPROVAL_UNVERIFIED


def test_a_policy_whose_mark_does_not_verify_is_not_called_a_stricter_one(
    world: World, superuser: Engine, still: StoppedClock
) -> None:
    request = scheduled(world, still)
    lay_down(world, report_on_close=True)
    assert held_back(world, request) is None

    write_unchecked(superuser, "UPDATE policies SET mac = mac || '1'")

    assert held_back(world, request) is HeldBack.POLICY_UNVERIFIED


def test_what_was_changed_past_lockbox_holds_back_though_the_clock_says_that_it_is_open(
    world: World, worker: Database, superuser: Engine, still: StoppedClock
) -> None:
    request = scheduled(world, still)
    lay_down(world, report_on_close=True)
    write_unchecked(superuser, "UPDATE policies SET mac = mac || '1'")
    still.at += 2 * HOUR

    timers.run(Database(worker.engine, worker.schedule, still, keys=ProcessKeys(Keyring([]))), [request.id])

    assert told_by_the_clock(world) == [("begin", None)]
    assert (door(world), held_back(world, request)) == (None, HeldBack.POLICY_UNVERIFIED)


def held_back(world: World, request: AccessRequest) -> HeldBack | None:
    """Return why nobody is let in, as an approver sees it."""
    with world.db.transaction() as session:
        return queries.find(session, world.people["ann"], request.id).held_back


@pytest.mark.parametrize("ahead", [-HOUR, timedelta(days=7, seconds=1)])
def test_a_start_is_to_come_and_not_too_far_away(world: World, still: StoppedClock, ahead: timedelta) -> None:
    with pytest.raises(PolicyNotMet) as refused:
        world.submit(not_before=still.at + ahead)

    assert refused.value.facts["field"] == "not_before"


def test_a_policy_may_refuse_later_starts(world: World, still: StoppedClock) -> None:
    lay_down(world, start_ahead=0)

    with pytest.raises(PolicyNotMet, match="no later start"):
        world.submit(not_before=still.at + HOUR)
    with pytest.raises(Invalid, match="at once"):
        world.act("ann", Action.APPROVE, world.submit().id, opens_at=still.at + HOUR)


def test_an_approver_moves_the_start_later_and_never_earlier(world: World, still: StoppedClock) -> None:
    request = world.submit(not_before=still.at + 2 * HOUR)
    with pytest.raises(Invalid, match="later, not earlier"):
        world.act("ann", Action.APPROVE, request.id, opens_at=still.at + HOUR)

    opened = world.act("ann", Action.APPROVE, request.id, opens_at=still.at + 3 * HOUR)

    assert (opened.opens_at, opened.deadline_at) == (still.at + 3 * HOUR, still.at + 4 * HOUR)
    body = json.loads(read(world.db, "SELECT body FROM events WHERE seq = 2")[0].body)
    assert body["opens_at"] == body["kept_opens_at"] == f"{opened.opens_at:%Y-%m-%dT%H:%M:%S.%f}Z"


def test_a_start_that_has_passed_by_the_last_approval_is_at_once(
    world: World, worker: Database, still: StoppedClock
) -> None:
    lay_down(world, quorum=2)
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id, opens_at=still.at + MOMENT)
    still.at += MOMENT

    opened = world.act("amir", Action.APPROVE, request.id)

    assert (opened.opened_at, opened.opens_at, opened.deadline_at) == (still.at, None, still.at + HOUR)
    assert door(world) is not None
    check_log_of_one_window(world, worker)


def test_what_was_approved_for_later_can_be_revoked_before(world: World, still: StoppedClock) -> None:
    request = scheduled(world, still)

    world.act("ann", Action.REVOKE, request.id)

    still.at += 2 * HOUR
    assert door(world) is None


def test_two_verifiers_find_the_log_of_a_later_start_good(
    world: World, worker: Database, still: StoppedClock
) -> None:
    request = scheduled(world, still)
    still.at += 2 * HOUR
    timers.run(worker, [request.id])

    check_log_of_one_window(world, worker)


def test_a_window_that_was_made_to_begin_earlier_lets_nobody_in(
    world: World, superuser: Engine, still: StoppedClock
) -> None:
    request = scheduled(world, still)
    hour = "opens_at = opens_at - interval '1 hour', deadline_at = deadline_at - interval '1 hour'"
    at_once = "opens_at = NULL, deadline_at = deadline_at - interval '2 hours'"

    with pytest.raises(DBAPIError, match="does not go from active to active"):
        write(superuser, f"UPDATE requests SET {hour}, version = version + 1")  # noqa: S608 - ours
    with pytest.raises(DBAPIError, match="ck_requests_opens_at"):
        write_unchecked(superuser, f"UPDATE requests SET {at_once}")  # noqa: S608 - ours
    write_unchecked(superuser, f"UPDATE requests SET {hour}, not_before = NULL")  # noqa: S608 - ours

    still.at += HOUR
    assert door(world) is None
    still.at = request.deadline_at - HOUR
    assert door(world) is None


@pytest.mark.parametrize(
    ("stricter", "hours", "lets_in"),
    [
        ({"quorum": 2}, 1, False),
        ({"access_ceiling": 1800}, 1, False),
        ({"start_ahead": 3600}, 1, False),
        ({"vendor_review": True}, 1, False),
        ({"reasons": ["other"]}, 1, False),
        ({"approve_means": "passkey-signed"}, 1, False),
        ({"sign_in_age": 60}, 1, True),
        ({"quorum": 2}, 2.5, True),
    ],
)
def test_a_policy_that_became_stricter_before_the_start_holds_it_back(
    world: World, still: StoppedClock, stricter: dict[str, Any], hours: float, *, lets_in: bool
) -> None:
    scheduled(world, still)
    begun = still.at

    still.at = begun + hours * HOUR
    lay_down(world, **stricter)

    still.at = begun + 2.5 * HOUR
    assert (door(world) is not None) is lets_in


@pytest.mark.usefixtures("patient_gate")
def test_the_gate_opens_by_itself_and_not_before(world: World, later: ShiftedClock) -> None:
    world.db.clock = later
    request = world.submit(not_before=datetime.now(UTC) + HOUR)
    request = world.act("ann", Action.APPROVE, request.id)
    checked = Checked(world)

    assert checked.ask(MAILBOX) == [GateReason.NO_WINDOW]
    assert len(checked.memory) == 0
    later.shift = HOUR
    checked.settle()

    assert len(checked.memory) == 1
    assert granted(checked.ask(MAILBOX)[0]) == request.id
