"""Tenants: operators add them, suspend them and set their plan; afterwards only their own admins control them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from catalogue.service_catalogue import Plan
from harness.people import HERE, World
from harness.wait import within
from lockbox.admin import emergency_stop, tenants, vendor_staff
from lockbox.admin.emergency_stop import ModeChangeResult
from lockbox.admin.tenants import TenantInput, TenantListing, TenantOverview
from lockbox.database import Database
from lockbox.errors import LicenceRequired, NotFound, NotYours, OtherSide, TenantSuspended, UnknownPlan
from lockbox.facts.enumerations import Mode
from lockbox.identity import authentication
from lockbox.identity.roles import Role
from lockbox.requests import decide
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy, stored
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.postbag import Postbag, address
from tests.database.scenes import PATIENCE, door, read, state_of
from tests.database.tenancy import accepts, does, id_of, manages, on_the_database, reads
from tests.each import each
from tests.mailbox import code_of

PLANS = {"standard": Plan(), "basic": Plan(lockbox=False)}
FOUNDING = TenantInput("fabrikam", "Fabrikam", "standard", "Fay", "fay@fabrikam.example")
WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
EVERYBODY = {"Tara", "Ann", "Amir", "Abe"}


def add(world: World, who: str = "olga", founding: TenantInput = FOUNDING) -> TenantOverview:
    return manages(world, who, tenants.add, founding, PLANS)


def page(world: World, who: str, cursor: str | None = None, most: int = 10) -> TenantListing:
    with world.db.transaction() as session:
        return tenants.page(session, world.people[who], cursor=cursor, most=most)


@pytest.mark.parametrize(("who", "by_name_only"), [("erin", True), ("max", True), ("olga", False), ("vera", False)])
def test_each_vendor_role_sees_tenants_with_the_facts_the_role_needs(
    world: World, who: str, *, by_name_only: bool
) -> None:
    add(world)

    seen = page(world, who).overviews

    assert {one.tenant.slug for one in seen} == {"fabrikam", world.tenant.slug}
    assert {(one.is_own, one.by_name_only, one.members, one.open_windows, one.in_review) for one in seen} == {
        (False, by_name_only, None, 0 if who == "olga" else None, None)
    }
    assert reads(world, who, tenants.show) in seen


def test_a_service_account_sees_no_tenant(world: World) -> None:
    seen = page(world, "gate")

    assert (seen.overviews, seen.next_cursor) == ([], None)
    with pytest.raises(NotFound):
        reads(world, "gate", tenants.show)


@pytest.mark.parametrize(("who", "in_review"), [("tara", 2), ("ann", None), ("aude", None)])
def test_members_see_their_tenant_with_counts_and_admins_also_see_reviews(
    api: Database, who: str, in_review: int | None
) -> None:
    world, other = World.make(api, Policy()), World.make(api)
    for _ in range(2):
        world.submit()
    opened = world.submit().id
    world.act("max", Action.ENDORSE, opened)
    world.act("ann", Action.APPROVE, opened)
    other.act("ann", Action.APPROVE, other.submit().id)

    (own,) = page(world, who).overviews

    assert own == reads(world, who, tenants.show)
    assert (own.tenant.slug, own.is_own) == (world.tenant.slug, True)
    assert (own.members, own.open_windows, own.in_review) == (5, 1, in_review)


def test_a_person_without_roles_sees_no_tenant(world: World) -> None:
    world.people["nobody"] = replace(world.people["erin"], standings=frozenset())

    seen = page(world, "nobody")

    assert (seen.overviews, seen.next_cursor) == ([], None)


@each("who", ["tara", "ann", "aude"])
def test_the_tenant_of_another_customer_is_reported_as_not_found(world: World, api: Database, who: str) -> None:
    elsewhere = World.make(api)

    with pytest.raises(NotFound) as theirs:
        reads(world, who, tenants.show, slug=elsewhere.tenant.slug)
    with pytest.raises(NotFound) as nobodys:
        reads(world, who, tenants.show, slug="nobody")

    assert theirs.value.detail == nobodys.value.detail


def test_suspending_a_tenant_ends_every_window_and_resuming_reopens_no_window(world: World, post: Postbag) -> None:
    post.endpoint(world, "https://hooks.contoso.example/", tenant_id=world.tenant.id)
    opened = world.act("ann", Action.APPROVE, world.submit().id)
    foreseen = reads(world, "olga", tenants.show).open_windows

    does(world, "olga", tenants.suspend)
    shut, suspended, counted = door(world), last_change(world.db), reads(world, "ann", tenants.show).open_windows
    does(world, "olga", tenants.resume)

    assert (foreseen, shut, counted, door(world)) == (1, None, 0, None)
    assert state_of(world.db, opened.id) == "revoked"
    changes = {"suspended": "no → yes", "open windows": "1 → 0"}
    assert (suspended.action, suspended.changes, suspended.facts["closed"]) == (
        "tenant_suspended",
        changes,
        [str(opened.id)],
    )
    (event,) = read(world.db, "SELECT actor_role FROM events WHERE request_id = :id AND seq = 3", id=opened.id)
    assert event.actor_role == "operator"
    told = read(world.db, "SELECT person_id, endpoint_id FROM notifications WHERE template = 'revoked'")
    assert {id_of(world, name) for name in ("erin", "ann")} <= {row.person_id for row in told}
    assert any(row.endpoint_id for row in told)
    resumed = last_change(world.db)
    assert (resumed.action, resumed.changes) == ("tenant_resumed", {"suspended": "yes → no"})
    assert suspended.told >= resumed.told >= EVERYBODY


def test_requests_of_a_suspended_tenant_may_be_denied_but_not_opened(world: World) -> None:
    waiting, denied = world.submit(), world.submit()
    does(world, "olga", tenants.suspend)

    with pytest.raises(TenantSuspended, match="once it is resumed"):
        world.act("ann", Action.APPROVE, waiting.id)
    no = world.act("ann", Action.DENY, denied.id)
    does(world, "olga", tenants.resume)
    yes = world.act("ann", Action.APPROVE, waiting.id)

    assert (no.state, yes.state) == ("denied", "active")


def test_suspending_a_tenant_ends_a_window_that_is_about_to_open(world: World, pool: ThreadPoolExecutor) -> None:
    request_id = world.submit().id

    with world.db.transaction() as session:
        decide.act(session, world.people["ann"], HERE, request_id, DecisionInput(Action.APPROVE))
        suspending = pool.submit(lambda: does(world, "olga", tenants.suspend))
        assert within(PATIENCE, lambda: suspending.done() or read(world.db, WAITING))
    suspending.result(PATIENCE)
    does(world, "olga", tenants.resume)

    assert (state_of(world.db, request_id), door(world)) == ("revoked", None)


def test_an_operator_can_close_windows_only_by_suspending_the_tenant(world: World) -> None:
    opened = world.act("ann", Action.APPROVE, world.submit().id)

    with world.db.transaction() as session:
        authentication.enter(session, world.people["olga"])
        authentication.suspend(session, world.tenant.id)
        found = session.execute(text("SELECT FROM requests")).all()

    assert found == []
    assert state_of(world.db, opened.id) == "active"


def test_a_tenant_change_without_effect_writes_no_event(world: World) -> None:
    before = len(recorded_changes(world.db))

    does(world, "olga", tenants.resume)
    does(world, "olga", tenants.set_plan, "standard", plans=PLANS)
    does(world, "tara", tenants.rename, "Contoso")
    switched = does(world, "tara", emergency_stop.switch_mode, Mode.ENFORCE, plans=PLANS)

    assert switched == ModeChangeResult(Mode.ENFORCE)
    assert len(recorded_changes(world.db)) == before


def test_setting_the_plan_of_a_tenant_writes_an_event(world: World) -> None:
    does(world, "olga", tenants.set_plan, "basic", plans=PLANS)

    told = last_change(world.db)
    assert (told.action, told.changes, told.told) == ("plan_changed", {"plan": "standard → basic"}, EVERYBODY)
    with pytest.raises(UnknownPlan):
        does(world, "olga", tenants.set_plan, "golden", plans=PLANS)


def test_people_are_notified_of_the_old_and_new_name_when_a_tenant_is_renamed(world: World) -> None:
    does(world, "tara", tenants.rename, "Contoso AG")

    told = last_change(world.db)
    assert (told.action, told.actor, told.role) == ("tenant_renamed", "Tara", "tenant_admin")
    assert told.changes == {"name": "Contoso → Contoso AG"}


def test_an_operator_who_was_just_removed_may_change_no_tenant(world: World) -> None:
    world.add("oscar", Role.OPERATOR)
    manages(world, "oscar", vendor_staff.remove, id_of(world, "olga"))

    with pytest.raises(NotYours):
        does(world, "olga", tenants.suspend)
    with pytest.raises(NotYours):
        add(world)


@each(
    ("who", "statement"),
    [
        ("olga", "UPDATE tenants SET mode = 'off' WHERE id = :id"),
        ("olga", "UPDATE tenants SET policy_version = 2 WHERE id = :id"),
        ("tara", "UPDATE tenants SET suspended = true WHERE id = :id"),
        ("tara", "UPDATE tenants SET plan = 'golden' WHERE id = :id"),
    ],
)
def test_the_database_enforces_who_may_change_which_field_of_a_tenant(world: World, who: str, statement: str) -> None:
    with pytest.raises(DBAPIError, match=r"only (the admins|operators)"):
        on_the_database(world, who, statement, id=world.tenant.id)


def test_a_new_tenant_is_in_mode_enforce_with_the_default_policy_and_no_members(world: World) -> None:
    added = add(world).tenant

    assert (added.slug, added.mode, added.policy_version) == ("fabrikam", Mode.ENFORCE, 1)
    (policy,) = read(world.db, "SELECT body, author_id FROM policies WHERE tenant_id = :id", id=added.id)
    assert (policy.body, policy.author_id) == (stored(Policy()), None)
    assert read(world.db, "SELECT FROM memberships WHERE tenant_id = :id", id=added.id) == []


def test_the_first_admin_is_invited_and_only_the_invitation_mail_has_the_code(
    world: World, worker: Database, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    added = add(world)
    (row,) = read(world.db, "SELECT * FROM invitations WHERE tenant_id = :id", id=added.tenant.id)

    code = code_of(worker, row.id)

    assert (row.email, row.roles, row.is_recovery) == ("fay@fabrikam.example", ["tenant_admin"], False)
    assert row.secret_hash
    assert row.secret_hash not in {sha256(said.encode()).digest() for said in (code, code.replace("-", ""))}
    (stored,) = read(
        world.db,
        """
        SELECT (SELECT string_agg(i::text, ' ') FROM invitations i)
            || (SELECT string_agg(n::text, ' ') FROM notifications n)
            || (SELECT string_agg(d::text, ' ') FROM event_details d) AS text
        """,
    )
    printed = capsys.readouterr()
    everything = f"{added} {row} {stored.text} {caplog.text} {printed.out} {printed.err}"
    assert code not in everything
    assert code.replace("-", "") not in everything


def test_the_admin_who_accepts_the_first_invitation_controls_the_tenant(world: World, worker: Database) -> None:
    added = add(world)
    (row,) = read(world.db, "SELECT id FROM invitations WHERE tenant_id = :id", id=added.tenant.id)

    fay = accepts(world, "fay", row.id, code_of(worker, row.id))
    renamed = does(world, "fay", tenants.rename, "Fabrikam AG", slug="fabrikam")

    assert fay.holds(Role.TENANT_ADMIN, tenant_id=added.tenant.id)
    assert (renamed.tenant.name, renamed.members) == ("Fabrikam AG", 1)


def test_adding_a_tenant_writes_one_event_with_the_initial_state_of_the_tenant(world: World) -> None:
    add(world)

    told = last_change(world.db)

    assert (told.action, told.actor, told.role) == ("tenant_added", "Olga", "operator")
    assert told.changes == {"mode": "none → enforce", "plan": "none → standard", "roles": "none → tenant_admin"}
    assert told.details["member"] == "Fay <fay@fabrikam.example>"
    assert "fay@" not in str(told.facts)


def test_a_plan_without_lockbox_is_refused_for_a_tenant_in_mode_enforce(world: World) -> None:
    with pytest.raises(LicenceRequired, match="basic does not include"):
        add(world, founding=TenantInput("fabrikam", "Fabrikam", "basic", "Fay", "fay@fabrikam.example"))

    assert read(world.db, "SELECT FROM tenants WHERE slug = 'fabrikam'") == []


def test_a_vendor_person_cannot_be_the_first_admin(world: World) -> None:
    theirs = address(world.db, world, "erin").upper()

    with pytest.raises(OtherSide):
        add(world, founding=TenantInput("fabrikam", "Fabrikam", "standard", "Erin", theirs))
