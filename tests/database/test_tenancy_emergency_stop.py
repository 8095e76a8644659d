"""A tenant's admin switches the mode and stops all access: each in one call, by the rules of every move."""

from datetime import timedelta

import pytest

from catalogue.service_catalogue import Plan
from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.admin import emergency_stop, members, policies, tenants
from lockbox.admin.emergency_stop import ModeChangeResult
from lockbox.audit.events import Origin
from lockbox.database import Database, UnitOfWork
from lockbox.errors import InvalidMove, LicenceRequired, NotFound, NotYours
from lockbox.facts.enumerations import Mode
from lockbox.identity.roles import Caller, Role
from lockbox.requests import queries
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.audit_logs import last_change
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import door, read, state_of
from tests.database.tenancy import does, id_of, mode_of
from tests.database.test_extensions import extended
from tests.policy_setup import set_mode

PLANS = {"standard": Plan(), "basic": Plan(lockbox=False)}
EVERYBODY = {"Tara", "Ann", "Amir", "Abe"}


def switch(world: World, mode: Mode, who: str = "tara", db: Database | None = None) -> ModeChangeResult:
    return does(world, who, emergency_stop.switch_mode, mode, db=db, plans=PLANS)


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
def test_every_switch_of_a_tenants_mode_is_recorded_and_everyone_is_notified(
    world: World, post: Postbag, mode: Mode
) -> None:
    post.endpoint(world, "https://hooks.contoso.example/", tenant_id=world.tenant.id)

    switch(world, mode)

    told = last_change(world.db)
    assert (told.action, told.role, told.changes) == ("mode_switched", "tenant_admin", {"mode": f"enforce → {mode}"})
    assert told.told == EVERYBODY | {"https://hooks.contoso.example/"}


@pytest.mark.parametrize("plan", ["basic", "gone"])
def test_mode_enforce_is_refused_without_an_entitled_plan(api: Database, plan: str) -> None:
    world = World.make(api, mode=Mode.OBSERVE)
    does(world, "olga", tenants.set_plan, plan, plans={plan: Plan()})

    with pytest.raises(LicenceRequired) as refused:
        switch(world, Mode.ENFORCE)

    assert refused.value.code == "licence-required"
    assert mode_of(world) is Mode.OBSERVE


def test_a_lapsed_plan_changes_no_mode_and_allows_leaving_mode_enforce(world: World) -> None:
    does(world, "olga", tenants.set_plan, "basic", plans=PLANS)
    kept = mode_of(world)

    switch(world, Mode.OFF)

    assert (kept, mode_of(world)) == (Mode.ENFORCE, Mode.OFF)


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
def test_switching_to_mode_enforce_closes_only_windows_opened_by_the_vendor(api: Database, mode: Mode) -> None:
    world, elsewhere = World.make(api), World.make(api, mode=mode)
    decided = world.act("ann", Action.APPROVE, world.submit(resources=["mailbox:b@contoso.example"]).id).id
    switch(world, mode)
    alone, in_review = world.act("max", Action.ENDORSE, world.submit().id).id, world.submit().id
    theirs = elsewhere.act("max", Action.ENDORSE, elsewhere.submit().id).id
    was_open = door(world)

    switched = switch(world, Mode.ENFORCE)

    assert was_open is not None
    assert [(request.id, request.state) for request in switched.closed] == [(alone, "revoked")]
    assert door(world) is None
    assert [state_of(api, one) for one in (decided, in_review, theirs)] == ["active", "reviewing", "active"]
    told = last_change(api)
    assert (told.changes, told.facts["closed"]) == ({"mode": f"{mode} → enforce"}, [str(alone)])
    (event,) = read(api, "SELECT actor_role FROM events WHERE request_id = :id AND action = 'revoke'", id=alone)
    assert event.actor_role == "tenant_admin"


def test_a_failed_mode_switch_leaves_mode_and_windows_unchanged(api: Database) -> None:
    world = World.make(api, mode=Mode.OBSERVE)
    alone = world.act("max", Action.ENDORSE, world.submit().id).id

    with pytest.raises(ZeroDivisionError):
        does(world, "tara", _switch_and_stumble)

    assert (state_of(api, alone), mode_of(world)) == ("active", Mode.OBSERVE)


def _switch_and_stumble(session: UnitOfWork, caller: Caller, origin: Origin, slug: str) -> None:
    emergency_stop.switch_mode(session, caller, origin, slug, Mode.ENFORCE, plans=PLANS)
    raise ZeroDivisionError


def test_an_expired_window_does_not_block_the_switch_to_mode_enforce(api: Database, later: ShiftedClock) -> None:
    world = World.make(api, mode=Mode.OBSERVE)
    alone = world.act("max", Action.ENDORSE, world.submit(access_window=60).id).id
    later.shift = timedelta(seconds=61)

    switched = switch(world, Mode.ENFORCE, db=Database(api.engine, api.schedule, later))

    assert (switched.closed, mode_of(world)) == ([], Mode.ENFORCE)
    assert state_of(api, alone) == "active"


@pytest.mark.far
def test_an_emergency_stop_revokes_all_windows_and_denies_all_pending_requests(api: Database) -> None:
    world, elsewhere = World.make(api, Policy()), World.make(api)
    first, second, waiting, in_review = (world.submit().id for _ in range(4))
    for one in (first, second, waiting):
        world.act("max", Action.ENDORSE, one)
    for one in (first, second):
        world.act("ann", Action.APPROVE, one)
    theirs = elsewhere.act("ann", Action.APPROVE, elsewhere.submit().id).id

    done = does(world, "tara", emergency_stop.stop_all, "We are under attack")

    assert [request.id for request in done.revoked] == [first, second]
    assert [request.id for request in done.denied] == [waiting]
    assert done.denied_in_review == 1
    states = [state_of(api, one) for one in (first, second, waiting, in_review, theirs)]
    assert states == ["revoked", "revoked", "denied", "denied", "active"]
    (decision,) = read(api, "SELECT comment FROM decisions WHERE request_id = :id AND decision = 'deny'", id=waiting)
    assert decision.comment == "We are under attack"


@pytest.mark.parametrize("mode", list(Mode))
def test_an_emergency_stop_denies_requests_in_review(
    api: Database, worker: Database, post: Postbag, mode: Mode
) -> None:
    world = World.make(api, Policy(), mode)
    in_review = world.submit().id
    post.deliver(worker, open_notifications(worker))
    post.mail.sent.clear()

    done = does(world, "tara", emergency_stop.stop_all, "We are under attack")
    post.deliver(worker, open_notifications(worker))

    assert (done.revoked, done.denied, done.denied_in_review) == ([], [], 1)
    with pytest.raises(InvalidMove):
        world.act("max", Action.ENDORSE, in_review)
    assert (state_of(api, in_review), door(world)) == ("denied", None)
    told = {mail.to_name: mail.text for mail in post.mail.sent if "mailbox:anna" in mail.text}
    assert set(told) == {"Erin", "Max", "Mia"}
    with pytest.raises(NotFound), api.transaction() as session:
        queries.find(session, world.people["tara"], in_review)


def test_the_event_of_an_emergency_stop_states_how_many_requests_the_stop_ended(api: Database) -> None:
    world = World.make(api, Policy())
    opened, waiting, _ = (world.submit().id for _ in range(3))
    for one in (opened, waiting):
        world.act("max", Action.ENDORSE, one)
    world.act("ann", Action.APPROVE, opened)

    does(world, "tara", emergency_stop.stop_all)

    told = last_change(api)
    assert (told.action, told.role, told.told) == ("emergency_stop", "tenant_admin", EVERYBODY)
    assert told.changes.pop("break-glass") == "as the policy says → barred"
    assert set(told.changes.values()) == {"1 → 0"}
    assert len(told.changes) == 3


def test_an_admin_cannot_deny_a_request_in_review(api: Database) -> None:
    world = World.make(api, Policy())
    in_review = world.submit().id

    with pytest.raises(NotFound):
        world.act("tara", Action.DENY, in_review)

    assert state_of(api, in_review) == "reviewing"


def test_an_emergency_stop_without_any_open_request_ends_and_denies_nothing(world: World) -> None:
    done = does(world, "tara", emergency_stop.stop_all)

    assert (done.revoked, done.denied, done.denied_in_review) == ([], [], 0)


def test_an_admin_who_was_just_removed_may_not_switch_modes_or_stop_access(world: World) -> None:
    world.add("tom", Role.TENANT_ADMIN, world.tenant.id)
    does(world, "tom", members.remove, id_of(world, "tara"))

    with pytest.raises(NotYours):
        switch(world, Mode.OFF)
    with pytest.raises(NotYours):
        does(world, "tara", policies.change, Policy())
    with pytest.raises(NotYours):
        does(world, "tara", emergency_stop.stop_all)


def test_a_switch_to_mode_enforce_spares_an_approved_extension_of_an_expired_window(
    api: Database, later: ShiftedClock
) -> None:
    world = World.make(api, mode=Mode.OBSERVE)
    window = world.act("max", Action.ENDORSE, world.submit(access_window=3600).id)
    set_mode(world, Mode.ENFORCE)
    further = world.act("ann", Action.APPROVE, extended(world, window.id).id)
    set_mode(world, Mode.OBSERVE)
    world.db.clock = later
    later.shift = timedelta(hours=1, seconds=1)

    assert switch(world, Mode.ENFORCE).closed == []
    assert state_of(api, further.id) == "active"
