"""More time for an open window: a linked request that goes on from its end, and ends with it if that ends early."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock, StoppedClock
from harness.people import HERE, SETTINGS, World
from harness.stage import unbound
from harness.wait import within
from lockbox.admin import policies
from lockbox.database import Database
from lockbox.errors import Invalid, InvalidMove, LockboxError, NotFound, NotYours, WindowTooLong
from lockbox.facts.enumerations import Severity, State
from lockbox.requests import decide, extend, queries, timers
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.extend import AlreadyExtended, ExtensionInput
from lockbox.requests.lifecycle import Action, HeldBack
from lockbox.requests.models import AccessRequest
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import PATIENCE, at_once, door, moves_of, read, state_of, write, write_unchecked
from tests.database.tenancy import does
from tests.each import each
from tests.policy_setup import lay_down

WAITS = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
HOUR, MOMENT = timedelta(hours=1), timedelta(microseconds=1)


def extended(
    world: World, request_id: UUID, who: str = "erin", *, hours: int = 2, why: str | None = None
) -> AccessRequest:
    with world.db.transaction() as session:
        wanted = ExtensionInput(hours * 3600, why)
        services = SETTINGS.catalogue.services
        return extend.extend(session, world.people[who], HERE, request_id, wanted, services).request


def opened(world: World, **changes: Any) -> AccessRequest:
    return world.act("ann", Action.APPROVE, world.submit(**changes).id)


def test_an_extension_begins_at_the_unchanged_end_of_the_window(
    world: World, worker: Database, still: StoppedClock
) -> None:
    first = opened(world)
    still.at += timedelta(minutes=50)
    second = extended(world, first.id, why="The search takes longer")

    assert (second.extends, second.not_before, second.deadline_at) == (first.id, first.deadline_at, first.deadline_at)
    second = world.act("ann", Action.APPROVE, second.id)

    assert (second.opens_at, second.deadline_at) == (first.deadline_at, first.deadline_at + 2 * HOUR)
    let_in = []
    for step in (
        timedelta(0),
        timedelta(minutes=10),
        2 * HOUR - timedelta(microseconds=1),
        timedelta(microseconds=1),
    ):
        still.at += step
        found = door(world)
        let_in.append(found.id if found else None)
    assert let_in == [first.id, second.id, second.id, None]
    assert moves_of(world.db, first.id) == [(1, "submit", "pending"), (2, "approve", "active")]
    timers.run(worker, [first.id, second.id])
    assert (state_of(world.db, first.id), state_of(world.db, second.id)) == ("expired", "expired")
    body = json.loads(
        read(world.db, "SELECT body FROM events WHERE request_id = :id AND seq = 1", id=second.id)[0].body
    )
    assert body["extends"] == str(first.id)


def test_a_window_can_be_extended_after_the_clock_was_set_back(world: World, still: StoppedClock) -> None:
    first = opened(world)
    still.at -= MOMENT

    assert extended(world, first.id).state == State.PENDING


def test_an_unanswered_extension_times_out_at_the_end_of_the_window(
    world: World, worker: Database, still: StoppedClock
) -> None:
    first = opened(world)
    second = extended(world, first.id)
    still.at += HOUR

    timers.run(worker, [first.id, second.id])

    assert state_of(world.db, second.id) == "timed_out"
    with pytest.raises(InvalidMove):
        extended(world, first.id)


def test_the_total_length_of_consecutive_windows_is_limited(world: World, still: StoppedClock) -> None:
    lay_down(world, access_ceiling=7200, total_access_ceiling=4 * 3600)
    first = opened(world)
    second = world.act("ann", Action.APPROVE, extended(world, first.id).id)
    still.at += HOUR

    with pytest.raises(WindowTooLong, match="1 h are left") as refused:
        extended(world, second.id)

    assert refused.value.facts["limit_seconds"] == 3600
    third = world.act("ann", Action.APPROVE, extended(world, second.id, hours=1).id)
    assert third.first_opened_at == first.opened_at
    assert third.deadline_at == still.at + 3 * HOUR


def test_a_stricter_policy_shortens_or_refuses_an_extension(world: World, still: StoppedClock) -> None:
    lay_down(world)
    first, other = opened(world), opened(world, case_ref="CASE-2")
    second, none = extended(world, first.id), extended(world, other.id)
    lay_down(world, access_ceiling=3600, total_access_ceiling=5400)

    assert world.act("ann", Action.APPROVE, second.id).deadline_at == still.at + 1.5 * HOUR

    lay_down(world, access_ceiling=3600, total_access_ceiling=3600)
    with pytest.raises(LockboxError, match="they do already"):
        world.act("ann", Action.APPROVE, none.id)


@each(("who", "refusal"), [("ann", NotYours), ("max", NotYours), ("eve", NotFound), ("gate", NotFound)])
def test_only_the_requester_of_a_window_can_extend_the_window(
    world: World, who: str, refusal: type[LockboxError]
) -> None:
    with pytest.raises(refusal):
        extended(world, opened(world).id, who)


def test_only_one_extension_is_open_at_a_time(world: World, pool: ThreadPoolExecutor) -> None:
    first = opened(world)

    found = at_once(pool, *[lambda: extended(world, first.id)] * 3)

    (one,) = [each for each in found if isinstance(each, AccessRequest)]
    refused = [each for each in found if isinstance(each, AlreadyExtended)]
    assert {each.facts["request_id"] for each in refused} == {str(one.id)}
    world.act("ann", Action.DENY, one.id)
    assert extended(world, first.id).state is State.REVIEWING


def test_the_start_of_an_extension_cannot_be_moved(world: World, still: StoppedClock) -> None:
    second = extended(world, opened(world).id)

    with pytest.raises(Invalid, match="An extension begins"):
        world.act("ann", Action.APPROVE, second.id, opens_at=still.at + 5 * HOUR)


@pytest.mark.parametrize(
    ("who", "action", "approved", "becomes"),
    [
        ("ann", Action.REVOKE, True, "revoked"),
        ("max", Action.REVOKE, True, "revoked"),
        ("tara", Action.REVOKE, True, "revoked"),
        ("erin", Action.COMPLETE, True, "completed"),
        ("erin", Action.COMPLETE, False, "cancelled"),
        ("ann", Action.REVOKE, False, "pending"),
    ],
)
def test_an_extension_ends_when_the_extended_window_is_revoked(
    world: World, still: StoppedClock, who: str, action: Action, *, approved: bool, becomes: str
) -> None:
    first = opened(world)
    second = extended(world, first.id)
    if approved:
        world.act("ann", Action.APPROVE, second.id)

    world.act(who, action, first.id)

    assert state_of(world.db, second.id) == becomes
    if becomes == "pending":
        with pytest.raises(InvalidMove, match="was ended"):
            world.act("ann", Action.APPROVE, second.id)
    still.at += HOUR
    assert door(world) is None


def test_an_extension_whose_approval_was_uncommitted_is_ended_with_the_extended_window(
    world: World, pool: ThreadPoolExecutor
) -> None:
    first = opened(world)
    second = extended(world, first.id)
    with world.db.transaction() as session:
        decide.act(session, world.people["ann"], HERE, second.id, DecisionInput(Action.APPROVE))
        revoking = pool.submit(world.act, "amir", Action.REVOKE, first.id)
        assert within(PATIENCE, lambda: read(unbound(world.db), WAITS))

    assert revoking.result(PATIENCE).state is State.REVOKED
    assert state_of(world.db, second.id) == "revoked"


@pytest.mark.parametrize("how", ["revoked", "completed"])
def test_an_extension_opens_no_window_if_only_the_extended_window_was_ended(
    world: World, still: StoppedClock, superuser: Engine, how: str
) -> None:
    first = opened(world)
    second = world.act("ann", Action.APPROVE, extended(world, first.id).id)
    write_alone = "UPDATE requests SET state = :how, closed_at = now(), wake_at = NULL WHERE id = :id"
    write_unchecked(superuser, write_alone, id=first.id, how=how)

    still.at += HOUR
    assert door(world) is None
    with world.db.transaction() as session:
        shown = queries.find(session, world.people["ann"], second.id)
    assert shown.held_back is HeldBack.EXTENDED_WINDOW_ENDED


def test_the_database_refuses_an_extension_that_differs_from_the_extended_window(
    world: World, superuser: Engine
) -> None:
    first, second = opened(world), world.submit()

    with pytest.raises(DBAPIError, match="extends no window"):
        write(
            superuser,
            """
            INSERT INTO requests SELECT (jsonb_populate_record(r, jsonb_build_object('id', uuidv7(),
                'extends', CAST(:id AS uuid), 'first_opened_at', r.created_at, 'not_before', r.deadline_at))).*
            FROM requests r WHERE id = :second
            """,
            id=first.id,
            second=second.id,
        )


def test_a_break_glass_window_cannot_be_extended(world: World) -> None:
    lay_down(world, break_glass_services=["exchange-online"])
    asked = world.fresh(break_glass=True, access_window=900)
    first = world.act("max", Action.BREAK_GLASS, asked.id, comment="It is down")

    with pytest.raises(InvalidMove, match="cannot be extended"):
        extended(world, first.id)


def test_the_switch_to_mode_enforce_ends_an_extension_of_a_window_that_the_vendor_opened(
    world: World, still: StoppedClock
) -> None:
    policy = lay_down(world, consent={"mode": "observe", "until": still.at + HOUR})
    window = world.act("max", Action.ENDORSE, world.submit().id)
    further = extended(world, window.id)
    world.act("ann", Action.APPROVE, further.id)

    does(world, "tara", policies.change, policy.model_copy(update={"consent": None}))

    assert (further.mode, state_of(world.db, window.id)) == ("enforce", "revoked")
    assert state_of(world.db, further.id) == "revoked"


def test_an_extension_has_the_severity_of_the_extended_request(world: World) -> None:
    """The rules are the same, and so are the approvers."""
    lay_down(world, rules=[{"name": "S1", "match": {"severities": ["S1"]}, "terms": {"quorum": 2}}])
    first = opened(world, severity=Severity.S1)
    world.act("amir", Action.APPROVE, first.id)

    second = extended(world, first.id)

    assert (second.severity, second.quorum) == (Severity.S1, 2)


def test_an_extension_approved_in_time_counts_although_written_after_the_end_of_the_window(
    world: World, worker: Database, still: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(world)
    second = extended(world, first.id)
    still.at = first.deadline_at - MOMENT

    def ends(point: str) -> None:
        if point == "decide.after_evaluation":
            still.at += MOMENT
            timers.run(worker, [first.id])

    monkeypatch.setattr(decide, "failpoint", ends)
    world.act("ann", Action.APPROVE, second.id)

    assert state_of(world.db, first.id) == "expired"
    found = door(world)
    assert found is not None
    assert found.id == second.id


def test_no_one_is_prompted_about_an_extension_of_a_revoked_window(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    first, other = opened(world), opened(world, case_ref="CASE-2")
    second, still_wanted = extended(world, first.id), extended(world, other.id)
    world.act("ann", Action.REVOKE, first.id)

    post.deliver(sender, open_notifications(sender))
    later.shift = timedelta(minutes=35)
    timers.run(sender, [second.id, still_wanted.id])

    asks = "SELECT request_id FROM notifications WHERE template = 'pending' AND outcome = 'sent'"
    assert {row.request_id for row in read(sender, asks)} & {second.id, still_wanted.id} == {still_wanted.id}
    reminded = "SELECT request_id FROM events WHERE request_id = ANY(:ids) AND action = 'remind'"
    assert [row.request_id for row in read(sender, reminded, ids=[second.id, still_wanted.id])] == [still_wanted.id]
    later.shift = timedelta(minutes=61)
    timers.run(sender, [second.id])
    assert state_of(sender, second.id) == "timed_out"
