"""An emergency stop bars break-glass until an admin ends the stop; a policy decides what an overdue finding does."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from harness.people import HERE, World
from harness.stage import unbound
from harness.wait import within
from lockbox.admin import emergency_stop, tenants
from lockbox.audit.verifier.verify import BAD, GOOD
from lockbox.database import Database
from lockbox.errors import InvalidMove, NotFound, NotYours, PolicyNotMet, SignInAgain
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.requests import decide
from lockbox.requests.break_glass import IN_TURN
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_parts import OverdueFinding
from tests.database.audit_logs import last_change
from tests.database.postbag import Postbag, address, open_notifications
from tests.database.scenes import PATIENCE, at_once, read, write_unchecked
from tests.database.tenancy import does, id_of, on_the_database
from tests.database.test_break_glass import ON, WHY, asked, ended, find, opened, overdue
from tests.database.test_exports import exported, verified
from tests.database.test_extensions import WAITS
from tests.each import each
from tests.logs import sealed
from tests.policy_setup import signed_in


@pytest.fixture(name="world")
def _world(api: Database) -> World:
    return World.make(api, ON.model_copy(update={"break_glass_monthly": 20}))


def stop(world: World, db: Database | None = None) -> None:
    does(world, "tara", emergency_stop.stop_all, "Something is wrong", db=db)


def test_break_glass_is_blocked_from_an_emergency_stop_until_an_admin_ends_the_stop(world: World) -> None:
    first = opened(world)
    stop(world)

    assert read(world.db, "SELECT state FROM requests WHERE id = :id", id=first.id)[0].state == State.REVOKED
    with pytest.raises(PolicyNotMet, match="emergency stop bars break-glass"):
        asked(world, resources=["mailbox:other@contoso.example"])
    does(world, "tara", emergency_stop.end_stop)

    event = last_change(world.db)
    assert (event.action, event.changes) == ("emergency_stop_ended", {"break-glass": "barred → as the policy says"})
    find(world, "ann", first)
    assert opened(world, resources=["mailbox:other@contoso.example"]).state is State.ACTIVE


def test_a_second_emergency_stop_does_not_block_break_glass_a_second_time(world: World) -> None:
    stop(world)
    stop(world)
    does(world, "tara", emergency_stop.end_stop)

    with pytest.raises(NotFound, match="no emergency stop"):
        does(world, "tara", emergency_stop.end_stop)
    assert len(read(world.db, "SELECT FROM emergency_stops")) == 1


@each("who", ["ann", "aude", "olga", "max"])
def test_only_an_admin_can_end_an_emergency_stop(world: World, who: str) -> None:
    stop(world)
    with pytest.raises((NotYours, NotFound)):
        does(world, who, emergency_stop.end_stop)


def test_ending_an_emergency_stop_needs_a_sign_in_as_strong_as_for_an_approval(world: World) -> None:
    stop(world)
    world.people["tara"] = signed_in(world, "tara", AuthMethod.MAIL)
    with pytest.raises(SignInAgain):
        does(world, "tara", emergency_stop.end_stop)


def test_members_but_not_the_vendor_see_that_an_emergency_stop_blocks_break_glass(world: World) -> None:
    stop(world)
    with world.db.transaction() as session:
        own = tenants.show(session, world.people["ann"], world.tenant.slug)
    with world.db.transaction() as session:
        theirs = tenants.show(session, world.people["olga"], world.tenant.slug)

    assert own.stopped_since is not None
    assert theirs.stopped_since is None


def test_the_database_refuses_break_glass_that_was_checked_before_an_emergency_stop(
    world: World, superuser: Engine
) -> None:
    request = asked(world)
    said = DecisionInput(Action.BREAK_GLASS, WHY)
    stopped = "INSERT INTO emergency_stops (id, tenant_id, stopped_by, stopped_at) VALUES (uuidv7(), :t, :by, now())"

    def breaks_the_glass() -> None:
        with world.db.transaction() as session:
            decide.act(session, world.people["max"], HERE, request.id, said)
            write_unchecked(superuser, stopped, t=world.tenant.id, by=id_of(world, "tara"))

    with pytest.raises(DBAPIError, match="does not allow break-glass"):
        breaks_the_glass()


def test_an_emergency_stop_and_concurrent_break_glass_leave_no_window_open(world: World) -> None:
    with ThreadPoolExecutor(3) as pool:
        for number in range(4):
            request = asked(world, resources=[f"mailbox:box{number}@contoso.example"])
            moves = partial(world.act, "max", Action.BREAK_GLASS, request.id, comment=WHY), partial(stop, world)
            at_once(pool, *moves)
            assert read(world.db, "SELECT FROM requests WHERE state = 'active'") == []
            does(world, "tara", emergency_stop.end_stop)


def test_an_emergency_stop_waits_for_uncommitted_break_glass_and_revokes_its_window(
    world: World, pool: ThreadPoolExecutor
) -> None:
    request = asked(world)
    with world.db.transaction() as session:
        said = DecisionInput(Action.BREAK_GLASS, WHY)
        assert decide.act(session, world.people["max"], HERE, request.id, said).state is State.ACTIVE
        stopping = pool.submit(stop, world)
        assert within(PATIENCE, lambda: read(unbound(world.db), WAITS))

    stopping.result(PATIENCE)

    assert read(world.db, "SELECT state FROM requests WHERE id = :id", id=request.id)[0].state == State.REVOKED


def test_break_glass_waits_for_an_uncommitted_emergency_stop_and_is_then_refused(
    world: World, pool: ThreadPoolExecutor
) -> None:
    before = asked(world)
    slug, tara = world.tenant.slug, world.people["tara"]
    with world.db.transaction() as session:
        emergency_stop.stop_all(session, tara, HERE, slug, "Something is wrong")
        since = asked(world, resources=["mailbox:since@contoso.example"])
        opening = [pool.submit(world.act, "max", Action.BREAK_GLASS, one.id, comment=WHY) for one in (before, since)]
        assert within(PATIENCE, lambda: len(read(unbound(world.db), WAITS)) == len(opening))

    with pytest.raises(InvalidMove):
        opening[0].result(PATIENCE)
    with pytest.raises(PolicyNotMet, match="emergency stop bars break-glass"):
        opening[1].result(PATIENCE)

    assert read(world.db, "SELECT FROM requests WHERE state = 'active'") == []


def test_break_glass_that_waited_until_an_emergency_stop_ended_opens_a_window(
    world: World, pool: ThreadPoolExecutor
) -> None:
    slug, tara = world.tenant.slug, world.people["tara"]
    with world.db.transaction() as session:
        emergency_stop.stop_all(session, tara, HERE, slug, "Something is wrong")
        since = asked(world)
    with unbound(world.db).connect() as turn:
        turn.execute(IN_TURN, {"tenant_id": world.tenant.id})
        opening = pool.submit(world.act, "max", Action.BREAK_GLASS, since.id, comment=WHY)
        assert within(PATIENCE, lambda: read(unbound(world.db), WAITS))
        does(world, "tara", emergency_stop.end_stop)

    opened_at = opening.result(PATIENCE).opened_at
    (stop_,) = read(world.db, "SELECT ended_at FROM emergency_stops")
    assert opened_at is not None
    assert opened_at > stop_.ended_at


def test_the_apis_database_role_ends_no_emergency_stop_without_an_event(world: World) -> None:
    stop(world)
    ends = """
    UPDATE emergency_stops SET ended_by = :by, ended_at = clock_timestamp(), ended_event = uuidv7()
    """
    with pytest.raises(DBAPIError, match="has no event"):
        on_the_database(world, "tara", ends, by=id_of(world, "tara"))
    with pytest.raises(DBAPIError, match="permission denied"):
        on_the_database(world, "tara", "DELETE FROM emergency_stops")


def test_an_earlier_end_event_does_not_end_a_later_emergency_stop(world: World) -> None:
    stop(world)
    does(world, "tara", emergency_stop.end_stop)
    stop(world)
    ends = """
    UPDATE emergency_stops SET ended_by = :by, ended_at = clock_timestamp(),
        ended_event = (SELECT id FROM events WHERE action = 'emergency_stop_ended') WHERE ended_at IS NULL
    """

    with pytest.raises(DBAPIError, match="has no event"):
        on_the_database(world, "tara", ends, by=id_of(world, "tara"))


@pytest.mark.parametrize("term", OverdueFinding)
def test_the_policy_decides_whether_an_overdue_finding_blocks_break_glass_or_raises_an_alarm(
    api: Database, worker: Database, superuser: Engine, post: Postbag, term: OverdueFinding
) -> None:
    world = World.make(api, ON.model_copy(update={"overdue_finding": term}))
    ended(world)
    overdue(superuser)

    if term is OverdueFinding.BLOCK:
        with pytest.raises(PolicyNotMet, match="is overdue"):
            asked(world)
        return
    request = opened(world)
    post.deliver(worker, open_notifications(worker))

    told = "SELECT body FROM events WHERE action = 'break_glass' AND request_id = :id"
    (event,) = read(world.db, told, id=request.id)
    assert b'"overdue_findings":1' in event.body
    alarm = "1 finding about earlier break-glass was overdue at that time."
    mails = [
        one
        for one in post.mail.sent
        if "without the customer's approval" in one.subject and str(request.id) in one.text
    ]
    alarmed = [mail.to_address for mail in mails if alarm in " ".join(mail.text.split()) and alarm in mail.html]
    assert sorted(alarmed) == sorted(address(worker, world, who) for who in ("abe", "amir", "ann", "tara"))
    assert address(worker, world, "erin") in {mail.to_address for mail in mails if alarm not in mail.html}


def test_the_verifier_reports_break_glass_during_an_emergency_stop(
    world: World, worker: Database, superuser: Engine
) -> None:
    """Open it as root at the vendor could, without use cases and triggers."""
    stop(world)
    write_unchecked(superuser, "DELETE FROM emergency_stops")
    opened(world)
    sealed(worker)

    result = verified(exported(world))

    assert result.exit_code == BAD
    assert "during an emergency stop" in str(result.findings)


def test_the_verifier_accepts_break_glass_after_an_emergency_stop_was_ended(world: World, worker: Database) -> None:
    stop(world)
    does(world, "tara", emergency_stop.end_stop)
    opened(world)
    sealed(worker)

    assert verified(exported(world)).exit_code == GOOD
