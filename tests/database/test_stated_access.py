"""Each month each tenant's log is told what can open without approval: once, whoever writes it and how often."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.people import World
from lockbox.admin import unapproved_access
from lockbox.audit.verifier.verify import GOOD
from lockbox.database import Database, ProcessKeys
from lockbox.identity.keyring import Keyring
from lockbox.monitoring.invariants import ScanPosition
from lockbox.requests.lifecycle import Action
from tests.database.scenes import at_once, read, write_unchecked
from tests.database.tenancy import is_erased_now
from tests.database.test_exports import exported, verified
from tests.database.test_pre_approvals import in_force
from tests.logs import sealed
from tests.policy_setup import lay_down, stand_in
from worker import alerts

EVENTS = """
SELECT tenant_id, actor_role, convert_from(body, 'UTF8') AS body,
    (SELECT count(*) FROM event_details d WHERE d.event_id = e.id) AS details,
    (SELECT count(*) FROM notifications n WHERE n.event_id = e.id) AS told
FROM events e WHERE action = 'unapproved_access_stated' ORDER BY id
"""
OLD = "UPDATE tenants SET created_at = created_at - interval '40 days'"


@pytest.fixture(name="core")
def _core(worker: Database) -> Database:
    """The core worker's database: it has no keys, and believes the rows."""
    return Database(worker.engine, worker.schedule, worker.clock, keys=ProcessKeys(Keyring([])))


@pytest.fixture(name="old")
def _old(world: World, core: Database, superuser: Engine) -> World:
    """A world whose tenant was there before this month, with a log."""
    world.submit(resources=["mailbox:old@elsewhere.example"])
    sealed(core)
    write_unchecked(superuser, OLD)
    return world


def stated(world: World) -> list[dict[str, Any]]:
    return [json.loads(row.body) for row in read(world.db, EVENTS)]


def test_the_log_says_in_numbers_and_services_what_can_open_and_what_was_opened(old: World, core: Database) -> None:
    lay_down(old, break_glass_services=("exchange-online",), break_glass_ceiling=900)
    stand_in(old, "aude", "ann")
    in_force(old)
    request = old.submit(break_glass=True, access_window=900)
    old.act("max", Action.BREAK_GLASS, request.id, comment="Mail is down")

    assert list(unapproved_access.state(core)) == [1]

    (said,) = stated(old)
    (row,) = read(old.db, EVENTS)
    assert (row.tenant_id, row.actor_role, row.details, row.told) == (old.tenant.id, "clock", 0, 0)
    assert said["month"] == said["at"][:7]
    assert (said["mode"], said["consent_until"], said["gates"], said["pre_approvals"]) == ("enforce", None, [], 1)
    assert (said["break_glass"], said["break_glass_ceiling"], said["break_glass_monthly"]) == (
        *(["exchange-online"], 900, 2),
    )
    assert (said["delegates"], said["opened"]["break_glass"], said["opened"]["pre_approval"]) == (1, 1, 0)


def test_it_is_told_once_a_month_whoever_sees_to_it_and_how_often(
    old: World, core: Database, superuser: Engine, pool: ThreadPoolExecutor
) -> None:
    at_once(pool, *[lambda: list(unapproved_access.state(core))] * 4)
    assert list(unapproved_access.state(core)) == []
    assert len(stated(old)) == 1

    write_unchecked(superuser, "UPDATE logs SET stated_for = stated_for - interval '1 month'")
    assert list(unapproved_access.state(core)) == [1]


def test_both_verifiers_accept_a_log_that_states_it(old: World, core: Database, worker: Database) -> None:
    list(unapproved_access.state(core))
    sealed(worker)

    found = exported(old)

    assert b"unapproved_access_stated" in found
    assert verified(found).exit_code == GOOD


def test_a_new_tenant_and_one_that_was_erased_are_told_nothing(
    world: World, core: Database, superuser: Engine
) -> None:
    world.submit()
    sealed(core)
    assert list(unapproved_access.state(core)) == []
    write_unchecked(superuser, OLD)
    is_erased_now(world, superuser)

    assert list(unapproved_access.state(core)) == []
    assert stated(world) == []


def unstated(core: Database) -> list[object]:
    return [one.tenant_id for one in alerts.find_violations(core, ScanPosition())[0] if one.rule == "unstated"]


def test_a_policy_that_nobody_can_read_stops_no_other_tenants_statement_and_is_an_alarm(
    api: Database, old: World, core: Database, superuser: Engine
) -> None:
    other = World.make(api)
    other.submit(resources=["mailbox:old@elsewhere.example"])
    sealed(core)
    write_unchecked(superuser, OLD)
    broken = min(old.tenant.id, other.tenant.id)
    bodies = "UPDATE policies SET body = jsonb_set(body, '{quorum}', :quorum) WHERE tenant_id = :id"
    write_unchecked(superuser, bodies, quorum='"x"', id=broken)

    assert list(unapproved_access.state(core)) == [2]

    assert [row.tenant_id for row in read(core, EVENTS)] == [max(old.tenant.id, other.tenant.id)]
    assert unstated(core) == [broken]
    assert list(unapproved_access.state(core)) == []

    write_unchecked(superuser, bodies, quorum="1", id=broken)
    write_unchecked(superuser, "UPDATE logs SET unstated_at = unstated_at - interval '1 hour'")
    assert list(unapproved_access.state(core)) == [1]
    assert unstated(core) == []
    assert len(read(core, EVENTS)) == 2


@pytest.mark.usefixtures("old")
def test_the_core_workers_login_says_of_no_log_that_it_was_told(core: Database) -> None:
    with pytest.raises(DBAPIError, match="was not told so"), core.transaction() as session:
        session.execute(text("UPDATE logs SET stated_for = date_trunc('month', now())"))
