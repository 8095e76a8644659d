"""A tenant that was off-boarded and erased stays erased, whoever tries to change it, even by raw SQL."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from gate import enforcement
from harness.people import HERE, SETTINGS, World
from harness.stage import Urls, setting
from lockbox.admin import audit_access, erased_texts, exclusions, legal_holds, permissions, recovery, tenants
from lockbox.admin.permissions import AdminActor, AdminChange
from lockbox.audit.events import AUDIT_LOG_READ
from lockbox.database import Database, now
from lockbox.errors import TenantErased
from lockbox.identity import authentication
from lockbox.identity.roles import Role
from lockbox.owner_transaction import as_owner
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import read, write_unchecked
from tests.database.tenancy import does, id_of, is_erased_now, manages

EVENTS = "SELECT count(*) AS n FROM events WHERE log_id = :t"
SOMEBODY = {"name": "Nina", "address": "nina@contoso.example"}
PLANS = SETTINGS.catalogue.plans
CHANGES: list[tuple[Callable[..., object], dict[str, Any]]] = [
    (tenants.suspend, {}),
    (tenants.resume, {}),
    (tenants.set_plan, {"plan": "premium", "plans": PLANS}),
    (recovery.propose, SOMEBODY),
    (legal_holds.hold, {"reason": "A demand by law"}),
    (legal_holds.release, {}),
]
PAST_THE_USE_CASES = (
    "UPDATE tenants SET suspended = false WHERE id = :t",
    "UPDATE tenants SET plan = 'premium' WHERE id = :t",
    "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :p, :t, 'tenant_admin')",
    "UPDATE memberships SET tenant_id = :t WHERE tenant_id <> :t AND person_id = :p",
    """
    INSERT INTO policies (tenant_id, version, body, created_at)
    SELECT tenant_id, version + 1, body, now() FROM policies WHERE tenant_id = :t
    """,
    """
    INSERT INTO invitations (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at, takes_effect_at)
    VALUES (uuidv7(), :t, 'nina@contoso.example', 'Nina', '{tenant_admin}', true, :p, now(), now())
    """,
    """
    INSERT INTO legal_holds (id, tenant_id, side, reason, set_by, set_at)
    VALUES (uuidv7(), :t, 'vendor', 'A demand by law', :p, now())
    """,
    "INSERT INTO retentions (tenant_id, days) VALUES (:t, 30)",
    "UPDATE offboardings SET erased_at = NULL WHERE tenant_id = :t",
    "DELETE FROM offboardings WHERE tenant_id = :t",
)


@pytest.fixture
def world(world: World, superuser: Engine) -> World:
    is_erased_now(world, superuser)
    return world


@pytest.mark.parametrize(("change", "named"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_no_operator_can_change_an_erased_tenant(
    world: World, change: Callable[..., object], named: dict[str, Any]
) -> None:
    before = read(world.db, EVENTS, t=world.tenant.id)
    with pytest.raises(TenantErased, match="off-boarded and erased"):
        does(world, "olga", change, **named)

    assert read(world.db, EVENTS, t=world.tenant.id) == before


def test_no_request_can_be_submitted_to_an_erased_tenant(world: World) -> None:
    with pytest.raises(TenantErased):
        world.fresh()


@pytest.mark.parametrize("statement", PAST_THE_USE_CASES)
def test_the_database_refuses_changes_of_an_erased_tenant(
    api: Database, world: World, superuser: Engine, statement: str
) -> None:
    """Triggers bind every database role, even the owner: they allow only erasing and re-keying."""
    other = World.make(api, Policy())
    statement = statement.replace(":t", f"'{world.tenant.id}'").replace(":p", f"'{id_of(other, 'ann')}'")
    with superuser.connect() as connection, pytest.raises(DBAPIError, match="tenant that was erased"):
        connection.execute(text(statement))


def test_reads_of_an_erased_tenants_log_are_recorded_but_changes_are_refused(world: World) -> None:
    reader = partial(audit_access.audit_reader, caller=world.people["vera"], slug=world.tenant.slug)
    with world.db.transaction() as session:
        audit_access.record_read(session, reader(session), HERE, AUDIT_LOG_READ, asked={}, count=1)
    actor = AdminActor(world.people["olga"], Role.OPERATOR, HERE, world.tenant.id)
    with world.db.transaction() as session:
        authentication.enter(session, world.people["olga"])
        authentication.turn_to(session, world.tenant.id)
        change = AdminChange("plan_changed", now(session), {})
        with pytest.raises(DBAPIError, match="tenant that was erased"):
            permissions.record_change(session, actor, change)


def test_the_owner_can_still_erase_people_and_re_key_rows_of_an_erased_tenant(
    world: World, superuser: Engine, urls: Urls
) -> None:
    write_unchecked(
        superuser,
        """
        INSERT INTO invitations (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at,
            takes_effect_at)
        VALUES (uuidv7(), :t, 'nina@contoso.example', 'Nina', '{tenant_admin}', true, :p, now(), now())
        """,
        t=world.tenant.id,
        p=id_of(world, "olga"),
    )
    with as_owner(urls.owner) as session:
        session.execute(text("UPDATE tenants SET mac = NULL, revision = revision + 1"))
        session.execute(erased_texts.PURPOSE)
        session.execute(text("UPDATE invitations SET name = 'erased'"))

    assert {row.name for row in read(world.db, "SELECT name FROM invitations")} == {"erased"}


def test_no_list_of_tenants_contains_an_erased_tenant(api: Database, world: World) -> None:
    other = World.make(api, Policy())
    with world.db.transaction() as session:
        listed = tenants.page(session, world.people["olga"], cursor=None, most=50)
        known = exclusions.standings(session, world.people["olga"], cursor=None, most=50)

    assert [one.tenant.slug for one in listed.overviews] == [other.tenant.slug]
    assert [one.slug for one in known.standings] == [other.tenant.slug]


def test_an_erased_tenants_log_gets_no_announcements(api: Database, worker: Database, world: World) -> None:
    other = World.make(api, Policy())
    manages(world, "olga", exclusions.state, "Backups are not covered.")
    before = read(world.db, EVENTS, t=world.tenant.id)

    list(exclusions.announce(worker, settled=timedelta(0)))
    with setting(api).transaction() as session:
        enforcement.record(session, {"exchange-online": "report"})
    list(enforcement.announce(worker, settled=timedelta(0)))

    assert read(world.db, EVENTS, t=world.tenant.id) == before
    told = "SELECT DISTINCT action FROM events WHERE log_id = :t AND actor_role = 'clock'"
    assert len(read(world.db, told, t=other.tenant.id)) == 2
