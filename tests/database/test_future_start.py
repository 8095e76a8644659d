"""Access that begins later than its approval: none before the start, and then it opens without a move."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from gate.answers import GateReason
from harness.clocks import ShiftedClock, StoppedClock
from harness.people import World
from harness.stage import Urls, unbound
from lockbox.database import NO_KEYS, Database, ProcessKeys, UnitOfWork, WarnedSession, postgres_clock
from lockbox.errors import Invalid, PolicyNotMet, TooLate
from lockbox.facts.enumerations import Mode
from lockbox.identity import authentication
from lockbox.identity.keyring import Keyring
from lockbox.identity.roles import Caller, Role
from lockbox.requests import queries, timers
from lockbox.requests.lifecycle import Action, HeldBack
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import MAILBOX, as_caller, door, moves_of, read, state_of, telling, write, write_unchecked
from tests.database.test_window_checks import Checked, granted
from tests.database.verified_log import check_log_of_one_window
from tests.each import each
from tests.policy_setup import lay_down

HOUR, MOMENT = timedelta(hours=1), timedelta(microseconds=1)


def scheduled(world: World, clock: StoppedClock, *, ahead: timedelta = 2 * HOUR, **kept: Any) -> AccessRequest:
    request = world.submit(not_before=clock.at + ahead)
    return world.act("ann", Action.APPROVE, request.id, **kept)


def test_a_window_with_a_future_start_is_open_only_between_its_start_and_its_end(
    world: World, still: StoppedClock
) -> None:
    request = scheduled(world, still)

    assert (request.state, request.opened_at, request.opens_at) == ("active", still.at, still.at + 2 * HOUR)
    assert request.deadline_at == still.at + 3 * HOUR
    let_in = []
    for step in (timedelta(0), 2 * HOUR - timedelta(microseconds=1), timedelta(microseconds=1), HOUR):
        still.at += step or timedelta(0)
        let_in.append(door(world) is not None)
    assert let_in == [False, False, True, False]


def test_answers_to_a_request_with_a_future_start_are_due_before_that_start(
    world: World, still: StoppedClock
) -> None:
    request = world.submit(not_before=still.at + HOUR)

    assert request.deadline_at == still.at + HOUR
    still.at += HOUR
    with pytest.raises(TooLate):
        world.act("ann", Action.APPROVE, request.id)


def test_the_timer_announces_the_start_of_a_window_without_making_a_move(
    world: World, worker: Database, still: StoppedClock
) -> None:
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
    """Return the timer's events that are not moves, each with the reason for withholding access."""
    rows = read(world.db, "SELECT action, body FROM events WHERE seq IS NULL AND action <> 'notified' ORDER BY id")
    return [(row.action, json.loads(row.body).get("held_back")) for row in rows]


def test_approvers_and_requester_are_notified_why_an_approved_window_does_not_start(
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
def test_the_request_page_and_the_timers_event_state_the_same_reason_for_withholding_access(
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


def test_a_window_that_is_no_longer_approved_at_its_start_grants_no_access(
    world: World, superuser: Engine, still: StoppedClock
) -> None:
    request = scheduled(world, still)

    write_unchecked(superuser, "DELETE FROM decisions")

    assert held_back(world, request) is HeldBack.APPROVAL_UNVERIFIED


def test_an_unverified_policy_is_stated_as_the_reason_for_withholding_access(
    world: World, superuser: Engine, still: StoppedClock
) -> None:
    request = scheduled(world, still)
    lay_down(world, report_on_close=True)
    assert held_back(world, request) is None

    write_unchecked(superuser, "UPDATE policies SET mac = mac || '1'")

    assert held_back(world, request) is HeldBack.POLICY_UNVERIFIED


def test_a_window_altered_in_the_database_grants_no_access_though_the_timer_announces_it(
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
    """Return the reason for withholding access, as an approver sees it."""
    with world.db.transaction() as session:
        return queries.find(session, world.people["ann"], request.id).held_back


@each("ahead", [-HOUR, timedelta(days=7, seconds=1)])
def test_a_requested_start_must_be_in_the_future_and_within_the_limit(
    world: World, still: StoppedClock, ahead: timedelta
) -> None:
    with pytest.raises(PolicyNotMet) as refused:
        world.submit(not_before=still.at + ahead)

    assert refused.value.facts["field"] == "not_before"


def test_a_policy_may_forbid_windows_with_a_future_start(world: World, still: StoppedClock) -> None:
    lay_down(world, start_ahead=0)

    with pytest.raises(PolicyNotMet, match="no later start"):
        world.submit(not_before=still.at + HOUR)
    with pytest.raises(Invalid, match="at once"):
        world.act("ann", Action.APPROVE, world.submit().id, opens_at=still.at + HOUR)


def test_an_approver_may_move_the_start_of_a_window_only_to_a_later_time(world: World, still: StoppedClock) -> None:
    request = world.submit(not_before=still.at + 2 * HOUR)
    with pytest.raises(Invalid, match="later, not earlier"):
        world.act("ann", Action.APPROVE, request.id, opens_at=still.at + HOUR)

    opened = world.act("ann", Action.APPROVE, request.id, opens_at=still.at + 3 * HOUR)

    assert (opened.opens_at, opened.deadline_at) == (still.at + 3 * HOUR, still.at + 4 * HOUR)
    body = json.loads(read(world.db, "SELECT body FROM events WHERE seq = 2")[0].body)
    assert body["opens_at"] == body["kept_opens_at"] == f"{opened.opens_at:%Y-%m-%dT%H:%M:%S.%f}Z"


def test_a_window_whose_start_passed_before_the_last_approval_opens_at_once(
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


def test_a_window_approved_for_a_future_start_can_be_revoked_before_that_start(
    world: World, still: StoppedClock
) -> None:
    request = scheduled(world, still)

    world.act("ann", Action.REVOKE, request.id)

    still.at += 2 * HOUR
    assert door(world) is None


def test_both_verifiers_accept_the_log_of_a_window_with_a_future_start(
    world: World, worker: Database, still: StoppedClock
) -> None:
    request = scheduled(world, still)
    still.at += 2 * HOUR
    timers.run(worker, [request.id])

    check_log_of_one_window(world, worker)


def test_a_window_altered_to_begin_earlier_grants_no_access(
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
def test_a_policy_made_stricter_before_the_start_of_a_window_withholds_access(
    world: World, still: StoppedClock, stricter: dict[str, Any], hours: float, *, lets_in: bool
) -> None:
    scheduled(world, still)
    begun = still.at

    still.at = begun + hours * HOUR
    lay_down(world, **stricter)

    still.at = begun + 2.5 * HOUR
    assert (door(world) is not None) is lets_in


@pytest.mark.usefixtures("patient_gate")
def test_the_gate_opens_an_approved_window_at_its_start_without_a_worker(world: World, later: ShiftedClock) -> None:
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


DECIDE = """
INSERT INTO decisions (id, request_id, person_id, principals, means, decision, channel, decided_at)
SELECT uuidv7(), id, :person, '{}', 'oidc', :decision, 'api', now() FROM requests
"""
TOLD = telling(
    "uuidv7(), tenant_id, id, version + 1, now(), 'open', CAST(:opener AS uuid), 'opener', state, 'active' "
    "FROM requests"
)
OPEN = f"""
WITH told AS ({TOLD})
UPDATE requests SET state = 'active', opened_at = now(), asked_at = coalesce(asked_at, now()), version = version + 1,
    deadline_at = now() + interval '1 minute', wake_at = now() + interval '1 minute'
"""  # noqa: S608 - our own SQL
Decision = tuple[str, str]


def _decide(world: World, connection: Connection, decision: Decision) -> None:
    who, action = decision
    decided = connection.execute(text(DECIDE), {"person": world.people[who].person_id, "decision": action})
    assert decided.rowcount == 1


def _waiting(api: Database, mode: Mode, quorum: int) -> tuple[World, UUID]:
    """Make a world with one request that waits for the decision of that mode."""
    world = World.make(api, Policy(vendor_review=False, quorum=quorum), mode)
    world.add("abby", Role.APPROVER, world.tenant.id)
    return world, world.submit().id


def _opener(world: World) -> Caller:
    """Return a person who may open the request and has not decided about it."""
    return world.people["abby" if world.tenant.mode is Mode.ENFORCE else "mia"]


def _open(world: World, connection: Connection) -> None:
    opened = connection.execute(text(OPEN), {"opener": _opener(world).person_id})
    assert opened.rowcount == 1


def _open_with(world: World, engine: Engine, decisions: Sequence[Decision]) -> None:
    """Write exactly these decisions on the only request, without checks, and open it as that database role."""
    with unbound(world.db).begin() as connection:
        for decision in decisions:
            _decide(world, connection, decision)
    with as_caller(engine, _opener(world), at=world.tenant.id) as connection:
        _open(world, connection)


@pytest.mark.parametrize(
    ("mode", "quorum", "decisions"),
    [
        (Mode.ENFORCE, 1, []),
        (Mode.ENFORCE, 1, [("max", "endorse")]),
        (Mode.ENFORCE, 1, [("erin", "approve")]),
        (Mode.ENFORCE, 1, [("max", "endorse"), ("max", "approve")]),
        (Mode.ENFORCE, 1, [("ann", "approve"), ("amir", "deny")]),
        (Mode.ENFORCE, 1, [("ann", "approve"), ("ann", "deny")]),
        (Mode.ENFORCE, 2, [("ann", "approve")]),
        (Mode.ENFORCE, 2, [("ann", "approve"), ("erin", "approve")]),
        (Mode.ENFORCE, 2, [("ann", "approve"), ("max", "endorse"), ("max", "approve")]),
        (Mode.ENFORCE, 3, [("ann", "approve"), ("amir", "approve"), ("abe", "deny")]),
        (Mode.OBSERVE, 1, []),
        (Mode.OBSERVE, 1, [("ann", "approve")]),
        (Mode.OBSERVE, 1, [("erin", "endorse")]),
        (Mode.OFF, 1, []),
        (Mode.OFF, 1, [("erin", "endorse")]),
    ],
)
def test_the_database_refuses_to_open_a_window_without_recorded_decisions(
    api: Database, mode: Mode, quorum: int, decisions: list[Decision]
) -> None:
    world, request_id = _waiting(api, mode, quorum)
    before = state_of(api, request_id)

    with pytest.raises(DBAPIError, match="active without the decisions for it"):
        _open_with(world, api.engine, decisions)

    assert state_of(api, request_id) == before != "active"
    assert len(read(api, "SELECT FROM decisions")) == len(decisions)
    assert len(read(api, "SELECT FROM events")) == 1


@pytest.mark.parametrize("login", ["superuser", "owner", "api"])
def test_no_database_role_can_open_a_window_without_recorded_decisions(urls: Urls, api: Database, login: str) -> None:
    world, request_id = _waiting(api, Mode.ENFORCE, quorum=1)
    engine = create_engine(getattr(urls, login), poolclass=NullPool)

    with pytest.raises(DBAPIError, match="active without the decisions for it"):
        _open_with(world, engine, [("max", "endorse")])

    assert state_of(api, request_id) == "pending"


def test_in_mode_enforce_the_database_refuses_a_window_without_the_customers_decision(
    urls: Urls, api: Database
) -> None:
    world, request_id = _waiting(api, Mode.OBSERVE, quorum=1)
    write(unbound(api), "UPDATE tenants SET mode = 'enforce'")

    for login in ("superuser", "owner", "api"):
        engine = create_engine(getattr(urls, login), poolclass=NullPool)
        with pytest.raises(DBAPIError, match="the customer decides about request"):
            _open_with(world, engine, [("max", "endorse")] if login == "superuser" else [])

    assert state_of(api, request_id) == "reviewing"


@each(("mode", "looser"), [(Mode.ENFORCE, "observe"), (Mode.OBSERVE, "off")])
def test_no_database_role_can_loosen_the_mode_of_a_request(
    urls: Urls, api: Database, mode: Mode, looser: str
) -> None:
    world = World.make(api, Policy(), mode)
    request_id = world.submit().id

    for login in ("superuser", "owner", "api"):
        engine = create_engine(getattr(urls, login), poolclass=NullPool)
        with (
            pytest.raises(DBAPIError, match="only gets stricter"),
            as_caller(engine, world.people["max"]) as connection,
        ):
            connection.execute(
                text("UPDATE requests SET mode = :mode, version = version + 1, state = 'pending'"), {"mode": looser}
            )

    assert read(api, "SELECT mode FROM requests WHERE id = :id", id=request_id)[0].mode == mode


ENOUGH: list[tuple[Mode, int, list[Decision]]] = [
    (Mode.ENFORCE, 1, [("ann", "approve")]),
    (Mode.ENFORCE, 2, [("ann", "approve"), ("amir", "approve")]),
    (Mode.OBSERVE, 1, [("max", "endorse")]),
    (Mode.OFF, 1, [("max", "endorse")]),
]


@pytest.mark.parametrize(("mode", "quorum", "decisions"), ENOUGH)
def test_the_api_opens_a_window_with_one_decision_from_each_eligible_person(
    api: Database, mode: Mode, quorum: int, decisions: list[Decision]
) -> None:
    world, request_id = _waiting(api, mode, quorum)

    with WarnedSession(api.engine) as orm, orm.begin():
        session = UnitOfWork(orm, postgres_clock, NO_KEYS)
        for decision in decisions:
            authentication.enter(session, world.people[decision[0]])
            _decide(world, session.connection(), decision)
        authentication.enter(session, _opener(world))
        authentication.turn_to(session, world.tenant.id)
        _open(world, session.connection())

    assert state_of(api, request_id) == "active"


@pytest.mark.parametrize(("mode", "quorum", "decisions"), ENOUGH)
def test_the_decisions_of_a_window_may_be_written_in_any_order(
    api: Database, mode: Mode, quorum: int, decisions: list[Decision]
) -> None:
    world, request_id = _waiting(api, mode, quorum)

    with unbound(api).begin() as connection:
        _open(world, connection)
        for decision in decisions:
            _decide(world, connection, decision)

    assert state_of(api, request_id) == "active"


@pytest.mark.parametrize(
    ("login", "refusal"),
    [
        ("api", 'new row violates row-level security policy for table "requests"'),
        ("owner", "active without the decisions for it"),
        ("superuser", "active without the decisions for it"),
    ],
)
def test_a_request_cannot_be_inserted_as_active(
    urls: Urls, world: World, api: Database, login: str, refusal: str
) -> None:
    engine = create_engine(getattr(urls, login), poolclass=NullPool)
    world.submit()
    born = text("""
        INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification,
            mode, policy_version, quorum, approval_window, access_window, state, version, deadline_at, wake_at,
            created_at, opened_at)
        SELECT uuidv7(), tenant_id, requester_id, service, resources, actions, reason_code, justification,
            mode, policy_version, quorum, approval_window, access_window, 'active', 1, now() + interval '1 minute',
            now() + interval '1 minute', created_at, now()
        FROM requests
    """)

    with (
        pytest.raises(DBAPIError, match=refusal),
        as_caller(engine, world.people["erin"], at=world.tenant.id) as connection,
    ):
        assert connection.execute(born).rowcount == 1

    assert [row.state for row in read(api, "SELECT state FROM requests")] == ["pending"]


def test_a_workers_database_role_cannot_open_a_window(world: World, worker: Database) -> None:
    request = world.submit()

    with (
        pytest.raises(DBAPIError, match="ck_requests_opened_at"),
        worker.engine.begin() as connection,
    ):
        connection.execute(text("UPDATE requests SET state = 'active', version = version + 1"))

    assert state_of(worker, request.id) == "pending"


def test_a_denial_after_earlier_approvals_ends_the_request(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=3))
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    world.act("amir", Action.APPROVE, request.id)

    denied = world.act("ann", Action.DENY, request.id)

    assert denied.state == "denied"
    assert state_of(api, request.id) == "denied"
