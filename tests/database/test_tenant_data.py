"""A tenant's data: how long the log is kept, legal holds that stop all deletion, and asking to leave."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.clocks import StoppedClock
from harness.people import HERE, World
from harness.stage import Urls
from lockbox.admin import erased_texts, legal_holds, retention, tenant_data
from lockbox.admin.retention import RemovedRange
from lockbox.admin.tenant_data import TenantData
from lockbox.database import Database
from lockbox.errors import Conflict, Invalid, NotFound, NotYours, SignInAgain
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import authentication
from lockbox.identity.roles import Side
from lockbox.monitoring import metrics, status
from lockbox.monitoring.status import Status
from lockbox.owner_transaction import as_owner
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.mentions import mentions
from tests.database.scenes import read, write_unchecked
from tests.database.tenancy import does, on_the_database, reads
from tests.database.test_erased_texts import by_hand
from tests.database.test_erasure import erase
from tests.database.test_retention import denied, left, sealed
from tests.each import each
from tests.policy_setup import signed_in

WHY = "Dispute 4711"


def kept(world: World, who: str = "tara", most: int | None = None) -> TenantData:
    return reads(world, who, tenant_data.read, most=most)


def retained(urls: Urls, most: int | None = None) -> list[RemovedRange]:
    """Run the owner's retention command; `most` is the installation's limit in days."""
    return list(retention.retain(partial(as_owner, urls.owner), timedelta(days=most) if most else None))


def test_the_log_of_a_tenant_is_kept_for_the_time_that_the_admin_set(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    request = denied(world, superuser)
    sealed(worker)
    assert retained(urls) == []
    assert retained(urls, most=200) == []

    does(world, "tara", tenant_data.keep_for, 30, most=200)

    event = last_change(world.db)
    assert (event.action, event.changes) == ("retention_changed", {"retention": "200 days → 30 days"})
    assert "Amir" in event.told
    sealed(worker)
    assert [one.log_id for one in retained(urls, most=200)] == [world.tenant.id]
    assert left(world, request) == 0
    assert kept(world, most=200).kept_days == 30
    assert kept(world, most=20).kept_days == 20


@each(("days", "most"), [(29, None), (0, None), (36_501, None), (101, 100)])
def test_a_retention_time_outside_the_limits_is_refused(world: World, days: int, most: int | None) -> None:
    with pytest.raises(Invalid):
        does(world, "tara", tenant_data.keep_for, days, most=most)
    assert kept(world).retention_days is None


def test_only_an_admin_with_a_fresh_sign_in_sets_the_retention_time(world: World) -> None:
    with pytest.raises(DBAPIError):
        on_the_database(world, "olga", "INSERT INTO retentions (tenant_id, days) VALUES (at_tenant(), 30)")
    world.people["tara"] = signed_in(world, "tara", AuthMethod.MAIL)
    with pytest.raises(SignInAgain):
        does(world, "tara", tenant_data.keep_for, 30, most=None)


@pytest.mark.parametrize("who", ["tara", "olga"])
def test_a_legal_hold_of_either_side_stops_retention_and_erasure_until_released(
    world: World, worker: Database, urls: Urls, superuser: Engine, who: str
) -> None:
    request = denied(world, superuser)
    sealed(worker)
    does(world, who, legal_holds.hold, WHY)

    assert retained(urls, most=30) == []
    with pytest.raises(Conflict, match=f"legal hold at {world.tenant.slug}"):
        erase(urls, world.people["ann"].person_id)
    with as_owner(urls.owner) as session, pytest.raises(Conflict):
        erased_texts.erase(session, request)
    with pytest.raises(Conflict):
        does(world, who, legal_holds.hold, WHY)
    assert left(world, request) > 0

    does(world, who, legal_holds.release)
    with pytest.raises(NotFound):
        does(world, who, legal_holds.release)
    assert [one.log_id for one in retained(urls, most=30)] == [world.tenant.id]


def test_a_legal_hold_is_released_even_if_the_clock_was_set_back(world: World, still: StoppedClock) -> None:
    does(world, "tara", legal_holds.hold, WHY)
    still.at -= timedelta(milliseconds=1)

    does(world, "tara", legal_holds.release)

    (held,) = read(world.db, "SELECT set_at, released_at FROM legal_holds")
    assert held.released_at == held.set_at


def test_a_legal_hold_stops_an_off_boarding_in_progress(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    """The database itself refuses the erasure, whatever the command does."""
    request = denied(world, superuser)
    sealed(worker)
    does(world, "tara", legal_holds.hold, WHY)

    write_unchecked(superuser, "UPDATE logs SET kept_from = 1 WHERE id = :t", t=world.tenant.id)

    assert retained(urls, most=30) == []
    with pytest.raises(DBAPIError, match="append-only"):
        by_hand(urls, "SELECT set_config('lockbox.owner_command', 'retain', true)", "DELETE FROM events")
    assert left(world, request) > 0


def test_the_reason_of_a_legal_hold_is_shown_only_to_the_side_that_set_the_hold(world: World) -> None:
    does(world, "tara", legal_holds.hold, WHY)
    does(world, "olga", legal_holds.hold, "A demand by law")

    ours = {one.side: one.reason for one in kept(world, "ann").holds}
    theirs = {one.side: one.reason for one in kept(world, "vera").holds}

    assert ours == {Side.CUSTOMER: WHY, Side.VENDOR: None}
    assert theirs == {Side.CUSTOMER: None, Side.VENDOR: "A demand by law"}
    by_log: dict[bool, list[str | None]] = {}
    for one in recorded_changes(world.db):
        if one.action == "hold_set":
            by_log.setdefault(one.facts["log"] == str(world.tenant.id), []).append(one.details.get("comment"))
    assert by_log == {True: [WHY, None], False: [None, "A demand by law"]}


def test_a_legal_hold_binds_the_database_owner(world: World) -> None:
    does(world, "tara", legal_holds.hold, WHY)

    for who in ("olga", "ann"):
        with pytest.raises(DBAPIError):
            on_the_database(
                world,
                who,
                "INSERT INTO legal_holds SELECT uuidv7(), at_tenant(), 'customer', 'x', at_person(), now()",
            )
    on_the_database(world, "olga", "UPDATE legal_holds SET released_at = now(), released_by = at_person()")
    with pytest.raises(DBAPIError):
        on_the_database(world, "tara", "UPDATE legal_holds SET reason = 'x'")
    assert [one.reason for one in kept(world).holds] == [WHY]


HOLD = """
INSERT INTO legal_holds (id, tenant_id, side, reason, set_by, set_at)
SELECT uuidv7(), at_tenant(), '{side}', 'x', p.id, now() FROM people p WHERE p.name = '{by}'
"""
RELEASE = "UPDATE legal_holds SET released_at = now(), released_by = at_person()"
KEEP = "INSERT INTO retentions (tenant_id, days) VALUES (at_tenant(), 30)"
KEEP_LESS = "UPDATE retentions SET days = 31"
LEAVE = "INSERT INTO offboardings (tenant_id, asked_by, asked_at) VALUES (at_tenant(), at_person(), now())"
STAY = "DELETE FROM offboardings"


@each(("who", "side", "other"), [("tara", "customer", "Ann"), ("olga", "vendor", "Erin")])
def test_a_legal_hold_in_another_persons_name_is_refused(world: World, who: str, side: str, other: str) -> None:
    with pytest.raises(DBAPIError, match="row-level security"):
        on_the_database(world, who, HOLD.format(side=side, by=other))


def test_releasing_the_legal_hold_of_one_side_keeps_the_hold_of_the_other_side(world: World) -> None:
    for who in ("tara", "olga"):
        does(world, who, legal_holds.hold, WHY)

    def releases_both() -> None:
        with world.db.transaction() as session:
            tara = world.people["tara"]
            authentication.enter(session, tara)
            legal_holds.release(session, tara, HERE, world.tenant.slug)
            authentication.turn_to(session, world.tenant.id)
            session.execute(text("SELECT set_config('lockbox.roles', '{operator}', true)"))
            session.execute(text(f"{RELEASE} WHERE released_at IS NULL"))

    with pytest.raises(DBAPIError, match="has no event"):
        releases_both()

    assert len(read(world.db, "SELECT FROM legal_holds WHERE released_at IS NULL")) == 2


@pytest.mark.parametrize(
    "statement", [HOLD.format(side="customer", by="Tara"), RELEASE, KEEP, KEEP_LESS, LEAVE, STAY]
)
def test_the_apis_database_role_changes_no_tenant_data_without_an_event(world: World, statement: str) -> None:
    if statement == RELEASE:
        does(world, "tara", legal_holds.hold, WHY)
    if statement == KEEP_LESS:
        does(world, "tara", tenant_data.keep_for, 60, most=None)
    if statement == STAY:
        does(world, "tara", tenant_data.ask_to_leave)
    before = kept(world)

    with pytest.raises(DBAPIError, match="has no event"):
        on_the_database(world, "tara", statement)

    assert kept(world) == before


def test_an_off_boarding_can_be_withdrawn_until_the_database_owner_begins(world: World, superuser: Engine) -> None:
    with pytest.raises(NotYours):
        does(world, "ann", tenant_data.ask_to_leave)
    does(world, "tara", tenant_data.ask_to_leave)
    asked = kept(world, "vera").offboarding
    assert asked is not None
    assert (asked.closed_at, asked.erased_at) == (None, None)
    does(world, "tara", tenant_data.stay)
    assert kept(world).offboarding is None
    with pytest.raises(NotFound):
        does(world, "tara", tenant_data.stay)

    does(world, "tara", tenant_data.ask_to_leave)
    write_unchecked(superuser, "UPDATE offboardings SET closed_at = now()")
    with pytest.raises(Conflict):
        does(world, "tara", tenant_data.stay)
    asked_events = [
        change.action for change in recorded_changes(world.db) if change.action.startswith("offboarding_")
    ]
    assert asked_events == [
        *("offboarding_asked", "offboarding_asked", "offboarding_withdrawn", "offboarding_withdrawn"),
        *("offboarding_asked", "offboarding_asked"),
    ]


def test_operators_see_the_number_of_legal_holds_and_off_boardings(world: World) -> None:
    does(world, "tara", tenant_data.ask_to_leave)
    does(world, "olga", legal_holds.hold, "A dispute")
    found = metrics.read(world.db)
    shown = {line.name: line.value for line in status.lines(Status("ok", "ok", "1", "1", found))}

    assert (shown["Legal holds"], shown["Customers that asked to be off-boarded"]) == ("1", "1")
    assert (shown["Off-boardings that have begun"], shown["Findings about break-glass overdue"]) == ("0", "0")


@pytest.mark.far
def test_a_tenant_with_a_legal_hold_cannot_be_off_boarded(world: World) -> None:
    does(world, "olga", legal_holds.hold, WHY)

    with pytest.raises(Conflict):
        does(world, "tara", tenant_data.ask_to_leave)
    assert mentions(world.db, "offboarding_asked") == set()


def test_a_legal_hold_protects_vendor_log_events_of_requests_the_customer_never_saw(
    api: Database, urls: Urls
) -> None:
    world = World.make(api, Policy())
    world.act("erin", Action.CANCEL, world.fresh().id)
    does(world, "tara", legal_holds.hold, WHY)

    with pytest.raises(Conflict, match=f"legal hold at {world.tenant.slug}"):
        erase(urls, world.people["erin"].person_id)


def test_a_legal_hold_waits_for_a_running_erasure(
    world: World, urls: Urls, superuser: Engine, pool: ThreadPoolExecutor
) -> None:
    """After the person who sets the hold gets an answer, nothing more is erased."""
    request = denied(world, superuser)

    with as_owner(urls.owner) as session:
        erased_texts.erase(session, request)
        held = pool.submit(does, world, "tara", legal_holds.hold, WHY)
        with pytest.raises(TimeoutError):
            held.result(timeout=0.2)

    held.result(timeout=10)
    with as_owner(urls.owner) as session, pytest.raises(Conflict):
        erased_texts.erase(session, request)
