"""Asking again with one call: the same once more, after nobody answered, and one at a time."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock
from harness.people import HERE, SETTINGS, World
from lockbox.database import Database
from lockbox.errors import NobodyCanApprove, NotFound, NotYours, PolicyNotMet, TooMany
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role, Scope
from lockbox.requests import resubmission, submit, timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.resubmission import AlreadyAskedAgain, NotTimedOut
from lockbox.requests.submit import SubmissionLimits, SubmittedRequest
from tests.database.scenes import as_caller, assert_audit_logs_are_whole, at_once, read, set_back, write
from tests.policy_setup import lay_down

SAME = ("service", "resources", "actions", "reason_code", "justification", "case_ref", "access_window", "tenant_id")
FORGED = """
INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification, mode,
    policy_version, quorum, approval_window, access_window, state, version, deadline_at, wake_at, created_at,
    asked_at, follows)
SELECT uuidv7(), tenant_id, CAST(:who AS uuid), service, resources, actions, reason_code, 'x', mode, policy_version,
    quorum, approval_window, access_window, 'pending', 1, now() + interval '1 hour', now() + interval '1 hour', now(),
    now(), id
FROM requests WHERE id = :id
"""


def timed_out(world: World, superuser: Engine, worker: Database, who: str = "erin") -> AccessRequest:
    """Let a request run out of time."""
    request = world.submit(who)
    set_back(superuser, [request.id], 1)
    timers.run(worker, [request.id])
    return request


def asks_again(
    world: World, who: str | Caller, request_id: UUID, limits: SubmissionLimits | None = None
) -> SubmittedRequest:
    """Ask again as somebody."""
    caller = world.people[who] if isinstance(who, str) else who
    with world.db.transaction() as session:
        return resubmission.resubmit(session, caller, HERE, request_id, SETTINGS.catalogue.services, limits=limits)


def test_the_same_is_submitted_anew_and_follows_the_first(world: World, superuser: Engine, worker: Database) -> None:
    first = timed_out(world, superuser, worker)

    submitted = asks_again(world, "erin", first.id)

    second = submitted.request
    assert submitted.asked == 3
    assert {name: getattr(second, name) for name in SAME} == {name: getattr(first, name) for name in SAME}
    assert (second.follows, second.state, second.version) == (first.id, "pending", 1)
    assert second.id != first.id
    (event,) = read(worker, "SELECT body FROM events WHERE request_id = :id", id=second.id)
    assert json.loads(event.body)["follows"] == str(first.id)
    assert_audit_logs_are_whole(worker)


def test_it_is_checked_by_todays_policy(world: World, superuser: Engine, worker: Database) -> None:
    first = timed_out(world, superuser, worker)
    lay_down(world, vendor_review=True, quorum=2)
    second = asks_again(world, "erin", first.id).request
    other = timed_out(world, superuser, worker)
    lay_down(world, reasons=["vendor_alert"])

    with pytest.raises(PolicyNotMet):
        asks_again(world, "erin", other.id)

    assert (second.state, second.quorum) == ("reviewing", 2)


def test_limits_on_submission_hold(world: World, superuser: Engine, worker: Database) -> None:
    first = timed_out(world, superuser, worker)

    with pytest.raises(TooMany):
        asks_again(world, "erin", first.id, SubmissionLimits(1, 1))


def test_it_is_refused_where_nobody_could_approve_any_more(world: World, superuser: Engine, worker: Database) -> None:
    first = timed_out(world, superuser, worker)
    write(superuser, "UPDATE people SET disabled_at = now() WHERE name IN ('Abe', 'Ann', 'Amir')")

    with pytest.raises(NobodyCanApprove):
        asks_again(world, "erin", first.id)


@pytest.mark.parametrize("ending", [None, Action.DENY, Action.CANCEL, Action.APPROVE])
def test_what_did_not_time_out_is_not_asked_again_so(world: World, ending: Action | None) -> None:
    request = world.submit()
    if ending:
        world.act("erin" if ending is Action.CANCEL else "ann", ending, request.id)

    with pytest.raises(NotTimedOut) as refused:
        asks_again(world, "erin", request.id)

    assert refused.value.facts["current_state"] in {"pending", "denied", "cancelled", "active"}


@pytest.mark.parametrize(
    ("who", "refusal"),
    [("ann", NotYours), ("max", NotYours), ("tara", NotYours), ("eve", NotFound), ("gate", NotFound)],
)
def test_nobody_else_asks_again(
    world: World, superuser: Engine, worker: Database, who: str, refusal: type[Exception]
) -> None:
    first = timed_out(world, superuser, worker)

    with pytest.raises(refusal):
        asks_again(world, who, first.id)


def test_the_database_shows_what_is_asked_again_to_who_asked_alone(
    world: World, superuser: Engine, worker: Database
) -> None:
    first = timed_out(world, superuser, worker)

    def seen(who: str) -> int:
        with as_caller(world.db, world.people[who], world.tenant.id) as connection:
            return len(connection.execute(text("SELECT * FROM lock_earlier_request(:id)"), {"id": first.id}).all())

    assert {who: seen(who) for who in world.people} == dict.fromkeys(world.people, 0) | {"erin": 1}


def test_while_the_second_is_open_a_third_is_refused_with_its_id_and_not_after(
    world: World, superuser: Engine, worker: Database
) -> None:
    first = timed_out(world, superuser, worker)
    second = asks_again(world, "erin", first.id).request

    with pytest.raises(AlreadyAskedAgain) as refused:
        asks_again(world, "erin", first.id)
    set_back(superuser, [second.id], 1)
    timers.run(worker, [second.id])
    third = asks_again(world, "erin", second.id).request

    assert refused.value.facts["request_id"] == str(second.id)
    assert third.follows == second.id


@pytest.mark.far
def test_of_many_who_ask_again_at_once_one_files(
    world: World, superuser: Engine, worker: Database, pool: ThreadPoolExecutor
) -> None:
    for _ in range(4):
        first = timed_out(world, superuser, worker)

        results = at_once(pool, *[lambda one=first: asks_again(world, "erin", one.id) for _ in range(6)])

        submitted = [one for one in results if isinstance(one, SubmittedRequest)]
        refused = [one for one in results if isinstance(one, AlreadyAskedAgain)]
        assert (len(submitted), len(refused)) == (1, 5)
        assert {one.facts["request_id"] for one in refused} == {str(submitted[0].request.id)}


def test_a_system_asks_again_for_what_it_has_submitted_itself_and_for_nothing_else(
    world: World, superuser: Engine, worker: Database
) -> None:
    submitters = [
        world.add(name, Role.SYSTEM, scopes={Scope.REQUESTS_FILE}, services={"exchange-online"})
        for name in ("filer", "other")
    ]
    erin = world.people["erin"].person_id
    with world.db.transaction() as session:
        wanted = world.submission(engineer=erin)
        first = submit.submit(session, submitters[0], HERE, wanted, SETTINGS.catalogue.services).request
    set_back(superuser, [first.id], 1)
    timers.run(worker, [first.id])

    with pytest.raises(NotFound):
        asks_again(world, submitters[1], first.id)
    second = asks_again(world, submitters[0], first.id).request

    assert (second.requester_id, second.follows) == (erin, first.id)


def test_the_customer_and_the_requester_find_what_followed_and_others_do_not(
    world: World, superuser: Engine, worker: Database
) -> None:
    lay_down(world, vendor_review=True)
    first = world.submit()
    world.act("max", Action.ENDORSE, first.id)
    set_back(superuser, [first.id], 1)
    timers.run(worker, [first.id])
    second = asks_again(world, "erin", first.id).request

    def found(who: str) -> UUID | None:
        with world.db.transaction() as session:
            authentication.enter(session, world.people[who])
            return resubmission.follower(session, world.people[who], first.id)

    assert {who: found(who) for who in ("erin", "max", "ann", "eve")} == {
        "erin": second.id,
        "max": second.id,
        "ann": None,
        "eve": None,
    }


def test_the_database_refuses_a_follower_of_what_is_not_over_or_not_the_own_and_a_second_open_one(
    world: World, superuser: Engine, worker: Database
) -> None:
    first, waiting = timed_out(world, superuser, worker), world.submit()
    eve, erin = (world.people[name].person_id for name in ("eve", "erin"))

    for who, request in ((eve, first), (erin, waiting)):
        with pytest.raises(DBAPIError, match="follows none that it could follow"):
            write(superuser, FORGED, who=who, id=request.id)
    asks_again(world, "erin", first.id)
    with pytest.raises(DBAPIError, match="uq_requests_follows_open"):
        write(superuser, FORGED, who=erin, id=first.id)


def test_a_request_follows_what_it_followed_for_good(world: World, superuser: Engine, worker: Database) -> None:
    first = timed_out(world, superuser, worker)
    second = asks_again(world, "erin", first.id).request

    for db in (world.db, worker):
        with pytest.raises(DBAPIError, match="permission denied"), db.transaction() as session:
            session.execute(text("UPDATE requests SET follows = NULL"))

    assert read(worker, "SELECT follows FROM requests WHERE id = :id", id=second.id)[0].follows == first.id


def test_asking_again_after_the_time_of_the_first_starts_a_clock_of_its_own(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    first = world.submit()
    later.shift = timedelta(hours=12)
    timers.run(sender, [first.id])

    second = asks_again(world, "erin", first.id).request

    assert second.wake_at is not None
    assert second.asked_at is not None
    assert second.wake_at == second.asked_at + timedelta(hours=6)
