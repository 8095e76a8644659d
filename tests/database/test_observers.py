"""Observers: which copies they get, what a copy says, and that observers decide nothing and delay nothing."""

import re
from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock
from harness.people import World
from harness.stage import setting
from lockbox.admin import observers
from lockbox.admin.observers import ObserverInput, ObserverSummary
from lockbox.database import Database
from lockbox.errors import AddressTaken, Invalid, NotFound, SignInAgain, TooManyObservers
from lockbox.facts.enumerations import AuthMethod, Mode
from lockbox.identity import tenants
from lockbox.identity.roles import Side
from lockbox.notifications.models import Outcome
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, address, open_notifications
from tests.database.scenes import as_caller, read
from tests.database.tenancy import does
from tests.mailbox import told
from tests.policy_setup import lay_down, signed_in

DESK = ObserverInput("Service desk", "desk@contoso.example")
SERVICES = ("exchange-online", "sharepoint-online")
WATCH = text(
    "INSERT INTO observers (id, tenant_id, name, email, added_by, created_at) "
    "VALUES (uuidv7(), :tenant, 'x', :email, :tara, now())"
)
COPIED = "SELECT template FROM notifications WHERE observer_id IS NOT NULL ORDER BY id"


def _watched(world: World, wanted: ObserverInput = DESK, who: str = "tara") -> ObserverSummary:
    return does(world, who, observers.add, wanted, services=SERVICES)


def _copies(world: World) -> list[str]:
    return [row.template for row in read(world.db, COPIED)]


CASES: list[tuple[Mode, Sequence[tuple[str, Action]], list[str]]] = [
    (Mode.ENFORCE, [], []),
    (Mode.ENFORCE, [("max", Action.DENY)], []),
    (Mode.ENFORCE, [("max", Action.ENDORSE)], ["copied"]),
    (Mode.ENFORCE, [("max", Action.ENDORSE), ("ann", Action.DENY)], ["copied", "denied"]),
    (
        Mode.ENFORCE,
        [("max", Action.ENDORSE), ("ann", Action.APPROVE), ("erin", Action.COMPLETE)],
        ["copied", "active", "completed"],
    ),
    (Mode.OBSERVE, [("max", Action.ENDORSE), ("tara", Action.REVOKE)], ["active", "revoked"]),
    (Mode.OFF, [("max", Action.ENDORSE), ("tara", Action.REVOKE)], []),
]


@pytest.mark.parametrize(("mode", "steps", "expected"), CASES)
def test_the_mode_of_the_tenant_decides_which_mails_are_copied_to_an_observer(
    api: Database, mode: Mode, steps: Sequence[tuple[str, Action]], expected: list[str]
) -> None:
    world = World.make(api, Policy(), mode)
    _watched(world)
    request = world.submit()

    for who, action in steps:
        world.act(who, action, request.id)

    assert _copies(world) == expected


def test_an_observer_gets_copies_of_timer_moves_but_no_reminders(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    _watched(world)
    request = world.submit()
    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])
    later.shift = timedelta(hours=12, seconds=1)

    timers.run(sender, [request.id])

    assert read(world.db, "SELECT FROM notifications WHERE template = 'answer_reminder'")
    assert _copies(world) == ["copied", "timed_out"]


def test_an_observers_copy_is_labelled_as_a_copy_and_has_no_link(
    world: World, worker: Database, post: Postbag
) -> None:
    _watched(world)
    request = world.submit()
    post.deliver(worker, open_notifications(worker))
    world.act("ann", Action.APPROVE, request.id)

    post.deliver(worker, open_notifications(worker))

    copies = [mail for mail in post.mail.sent if mail.to_address == DESK.address]
    assert [re.split(r"\W", mail.subject)[0] for mail in copies] == ["Copy", "Access"]
    assert all("cannot decide" in mail.text and "https://" not in mail.text + mail.html for mail in copies)
    assert "approved by Ann" in copies[1].text
    assert {mail.to_name for mail in copies} == {"Service desk"}


def test_an_observers_copy_omits_the_justification_if_the_policy_keeps_it_out_of_mails(
    world: World, worker: Database, post: Postbag
) -> None:
    lay_down(world, mail_justification=False)
    _watched(world)
    request = world.submit()

    post.deliver(worker, open_notifications(worker))

    (copy,) = [mail for mail in post.mail.sent if mail.to_address == DESK.address]
    assert request.justification not in copy.text + copy.html


@pytest.mark.parametrize(("service", "copied"), [("sharepoint-online", False), ("exchange-online", True)])
def test_an_observer_of_one_service_gets_no_copies_about_other_services(
    world: World, service: str, *, copied: bool
) -> None:
    _watched(world, ObserverInput("Desk", "desk@contoso.example", service))

    world.submit()

    assert bool(_copies(world)) is copied


def test_a_queued_copy_is_dropped_if_the_request_is_decided_or_the_observer_removed(
    world: World, worker: Database, post: Postbag
) -> None:
    desk = _watched(world)
    request = world.submit()
    (asks,) = read(world.db, "SELECT id FROM notifications WHERE template = 'copied'")
    world.act("ann", Action.DENY, request.id)
    (denied,) = read(world.db, "SELECT id FROM notifications WHERE template = 'denied' AND observer_id IS NOT NULL")
    does(world, "tara", observers.remove, desk.observer.id)

    tries = post.deliver(worker, [asks.id, denied.id])

    assert [one.outcome for one in tries] == [Outcome.MOOT, Outcome.MOOT]
    assert post.mail.sent == []


def test_adding_or_removing_an_observer_writes_an_event_and_notifies_people(
    world: World, worker: Database, post: Postbag
) -> None:
    post.endpoint(world, "https://hooks.contoso.example/", tenant_id=world.tenant.id)
    desk = _watched(world, ObserverInput(DESK.name, DESK.address, "exchange-online"))
    does(world, "tara", observers.remove, desk.observer.id)

    post.deliver(worker, open_notifications(worker))

    everybody = {"Tara", "Ann", "Amir", "Abe", "https://hooks.contoso.example/"}
    assert list(told(world.db, "observer_added").values()) == [everybody]
    assert list(told(world.db, "observer_removed").values()) == [everybody]
    anns = {mail.subject: mail.text for mail in post.mail.sent if mail.to_name == "Ann"}
    assert "none → exchange-online" in anns["An observer of requests to Contoso was added"]
    assert "Service desk <desk@contoso.example>" in anns["An observer of requests to Contoso was added"]
    assert "exchange-online → none" in anns["An observer of requests to Contoso was removed"]
    assert not [hook for hook in post.hooks.sent if b"desk@" in hook.body or b"Service desk" in hook.body]


def test_adding_an_observer_needs_a_fresh_strong_sign_in(world: World) -> None:
    world.people["tara"] = signed_in(world, "tara", AuthMethod.TOKEN, minutes_ago=0)

    with pytest.raises(SignInAgain):
        _watched(world)


def test_no_vendor_person_can_be_an_observer_even_by_raw_sql(world: World, api: Database) -> None:
    erins = address(world.db, world, "erin")

    with pytest.raises(AddressTaken):
        _watched(world, ObserverInput("Erin", erins.upper()))

    values = {"tenant": world.tenant.id, "email": erins, "tara": world.people["tara"].person_id}
    with (
        pytest.raises(DBAPIError, match="row-level security"),
        as_caller(api, world.people["tara"]) as connection,
    ):
        connection.execute(WATCH, values)


def test_an_observer_who_signs_in_for_the_vendor_is_removed(world: World) -> None:
    _watched(world)

    with setting(world.db).transaction() as session:
        tenants.add_person(session, "Desk", DESK.address, Side.VENDOR)
    world.submit()

    assert _copies(world) == []


@pytest.mark.far
def test_an_address_gets_one_copy_and_a_tenant_has_at_most_fifty_observers(world: World) -> None:
    _watched(world)
    with pytest.raises(AddressTaken, match="already"):
        _watched(world, ObserverInput("Again", DESK.address.upper()))
    _watched(world, ObserverInput("Of one", DESK.address, "exchange-online"))
    for number in range(48):
        _watched(world, ObserverInput("Desk", f"{number}@contoso.example"))

    with pytest.raises(TooManyObservers):
        _watched(world, ObserverInput("Desk", "more@contoso.example"))


def test_unknown_services_and_unknown_observers_are_refused(world: World) -> None:
    desk = _watched(world)
    does(world, "tara", observers.remove, desk.observer.id)

    with pytest.raises(Invalid):
        _watched(world, ObserverInput("Desk", DESK.address, "no-such-service"))
    with pytest.raises(NotFound):
        does(world, "tara", observers.remove, desk.observer.id)


def test_requests_of_another_tenant_are_not_copied_to_an_observer(world: World, api: Database) -> None:
    _watched(World.make(api))

    world.submit()

    assert _copies(world) == []
