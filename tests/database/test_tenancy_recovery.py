"""Recovery: the vendor can only propose an admin; the tenant has 72 hours to object."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from catalogue.service_catalogue import Plan
from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.admin import invitations, members, recovery, tenants
from lockbox.admin.tenants import TenantInput
from lockbox.database import Database
from lockbox.errors import InvitationClosed, InvitationRefused, NotFound, OtherSide, RecoveryOpen
from lockbox.identity.models import Invitation
from lockbox.identity.roles import Role
from lockbox.schedule import NOTIFICATIONS
from lockbox.sql import new_id
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.postbag import Postbag, address, open_notifications
from tests.database.scenes import at_once, milliseconds, read, write
from tests.database.tenancy import accepts, does, id_of, manages, on_the_database, reads
from tests.each import each
from tests.mailbox import CODE, code_of, sent_about

WHO: dict[str, Any] = {"name": "Rita", "address": "rita@contoso.example"}


@pytest.fixture
def late(api: Database, later: ShiftedClock) -> Database:
    return Database(api.engine, api.schedule, later)


def propose(world: World, who: str = "olga", **changes: Any) -> Invitation:
    return does(world, who, recovery.propose, **(WHO | changes))


def test_a_recovery_proposal_grants_nothing_before_72_hours(world: World) -> None:
    proposed = propose(world)

    assert (proposed.roles, proposed.is_recovery) == (["tenant_admin"], True)
    assert proposed.takes_effect_at - proposed.created_at == timedelta(hours=72)
    (notification,) = read(world.db, "SELECT run_at FROM notifications WHERE about_id = :id", id=proposed.id)
    assert notification.run_at == proposed.takes_effect_at


def test_admins_approvers_and_endpoints_are_notified_of_a_recovery_proposal_at_once(
    world: World, worker: Database, post: Postbag
) -> None:
    post.endpoint(world, "https://hooks.contoso.example/", tenant_id=world.tenant.id)
    proposed = propose(world)

    post.deliver(worker, open_notifications(worker))

    told = last_change(world.db)
    assert (told.action, told.actor, told.role) == ("recovery_proposed", "Olga", "operator")
    assert told.changes == {"roles": "none → tenant_admin"}
    assert told.told == {"Tara", "Ann", "Amir", "Abe", "https://hooks.contoso.example/"}
    assert {mail.to_name for mail in post.mail.sent} == {"Tara", "Ann", "Amir", "Abe"}
    effect = f"{proposed.takes_effect_at.day} {proposed.takes_effect_at:%B %Y, %H:%M}"
    assert all(effect in mail.text and "Rita <rita@contoso.example>" in mail.text for mail in post.mail.sent)
    assert all("/proposals and sign in" in mail.text and "/proposals" in mail.html for mail in post.mail.sent)
    assert len(post.hooks.sent) == 1


def test_every_endpoint_is_called_for_a_recovery_despite_its_event_filter(world: World, post: Postbag) -> None:
    hook = "https://hooks.contoso.example/"
    post.endpoint(world, hook, tenant_id=world.tenant.id, event_types=["request.submitted"])

    proposed = propose(world)
    does(world, "ann", recovery.object_to, proposed.id)
    again = propose(world)
    does(world, "tara", invitations.withdraw, again.id)
    does(world, "tara", tenants.rename, "Contoso Ltd")

    heard = [(change.action, hook in change.told) for change in recorded_changes(world.db)]
    assert heard == [
        ("recovery_proposed", True),
        ("recovery_objected", True),
        ("recovery_proposed", True),
        ("recovery_objected", True),
        ("tenant_renamed", False),
    ]


@pytest.mark.parametrize("objects", [(), ("ann",)])
def test_a_recovery_takes_effect_after_72_hours_without_objection(
    world: World, sender: Database, late: Database, later: ShiftedClock, objects: tuple[str, ...]
) -> None:
    proposed = propose(world)
    later.shift = timedelta(hours=71, minutes=59)
    early = sent_about(sender, proposed.id)
    for who in objects:
        does(world, who, recovery.object_to, proposed.id)
    later.shift = timedelta(hours=72, minutes=1)

    mails = sent_about(sender, proposed.id)

    assert early == []
    assert len(mails) == (0 if objects else 1)
    for mail in mails:
        (code,) = CODE.findall(mail.text)
        with late.transaction() as session:
            rita = invitations.accept(session, proposed.id, code)
        assert rita.holds(Role.TENANT_ADMIN, tenant_id=world.tenant.id)
        assert last_change(world.db).told == {"Tara", "Ann", "Amir", "Abe", "Rita"}


def test_the_invitation_mail_of_a_recovery_is_scheduled_for_72_hours_later(world: World) -> None:
    proposed = propose(world)

    (notification,) = read(world.db, "SELECT id FROM notifications WHERE about_id = :id", id=proposed.id)
    held = world.db.schedule.members(NOTIFICATIONS)

    assert abs(held[f"notify:{notification.id}"] - milliseconds(proposed.takes_effect_at)) <= 1


def test_an_invitation_code_made_before_the_recovery_takes_effect_is_refused(
    world: World, worker: Database, superuser: Engine, late: Database, later: ShiftedClock
) -> None:
    proposed = propose(world)
    write(superuser, "UPDATE notifications SET run_at = clock_timestamp() WHERE about_id = :id", id=proposed.id)
    code = code_of(worker, proposed.id)

    with pytest.raises(InvitationRefused):
        accepts(world, "rita", proposed.id, code)
    later.shift = timedelta(hours=71, minutes=59)
    with pytest.raises(InvitationRefused), late.transaction() as session:
        invitations.accept(session, proposed.id, code)


def test_a_recovery_cannot_be_hastened_even_in_the_database(world: World) -> None:
    propose(world)

    for statement in (
        "UPDATE invitations SET takes_effect_at = clock_timestamp()",
        "UPDATE invitations SET is_recovery = false",
        "UPDATE notifications SET run_at = clock_timestamp()",
        "UPDATE invitations SET secret_hash = sha256('mine')",
    ):
        with pytest.raises(DBAPIError, match="permission denied"):
            on_the_database(world, "olga", statement)


@pytest.mark.parametrize(("who", "role"), [("tara", "tenant_admin"), ("ann", "approver")])
def test_one_objection_stops_a_recovery_permanently(  # noqa: PLR0917 - fixtures
    world: World, sender: Database, late: Database, later: ShiftedClock, who: str, role: str
) -> None:
    proposed = propose(world)
    later.shift = timedelta(hours=72, minutes=1)
    code = code_of(sender, proposed.id)

    does(world, who, recovery.object_to, proposed.id, db=late)

    told = last_change(world.db)
    assert (told.action, told.role, told.told) == ("recovery_objected", role, {"Tara", "Ann", "Amir", "Abe"})
    assert told.changes == {"roles": "tenant_admin → none"}
    with pytest.raises(InvitationRefused), late.transaction() as session:
        invitations.accept(session, proposed.id, code)


def test_a_recovery_proposal_withdrawn_by_an_admin_counts_as_an_objection(world: World) -> None:
    proposed = propose(world)

    does(world, "tara", invitations.withdraw, proposed.id)

    assert last_change(world.db).action == "recovery_objected"


def test_a_recovery_proposal_can_be_objected_to_once(world: World) -> None:
    proposed = propose(world)
    does(world, "ann", recovery.object_to, proposed.id)

    with pytest.raises(InvitationClosed):
        does(world, "tara", recovery.object_to, proposed.id)


def test_another_tenants_recovery_proposal_is_not_found(world: World, api: Database) -> None:
    elsewhere = World.make(api)
    theirs = propose(elsewhere)
    invited = does(world, "tara", members.invite, **WHO, roles=frozenset({Role.AUDITOR}))

    for one in (theirs.id, invited.id, new_id()):
        with pytest.raises(NotFound):
            does(world, "ann", recovery.object_to, one)
    with pytest.raises(NotFound):
        does(world, "ann", recovery.object_to, theirs.id, slug=elsewhere.tenant.slug)


@pytest.mark.parametrize("who", ["olga", "oscar"])
def test_an_operator_withdraws_a_mistyped_recovery_proposal_and_everyone_is_notified(  # noqa: PLR0917 - fixtures
    world: World, worker: Database, sender: Database, late: Database, later: ShiftedClock, post: Postbag, who: str
) -> None:
    world.add("oscar", Role.OPERATOR)
    post.endpoint(world, "https://hooks.contoso.example/", tenant_id=world.tenant.id)
    proposed = propose(world)
    later.shift = timedelta(hours=72, minutes=1)
    code = code_of(sender, proposed.id)
    later.shift = timedelta(0)

    does(world, who, recovery.withdraw, proposed.id)
    post.deliver(worker, open_notifications(worker))

    told = last_change(world.db)
    assert (told.action, told.actor, told.role) == ("recovery_withdrawn", who.capitalize(), "operator")
    assert told.changes == {"roles": "tenant_admin → none"}
    assert told.details["member"] == "Rita <rita@contoso.example>"
    assert told.told == {"Tara", "Ann", "Amir", "Abe", "https://hooks.contoso.example/"}
    assert "The vendor withdrew the proposed admin for Contoso" in {mail.subject for mail in post.mail.sent}
    later.shift = timedelta(hours=72, minutes=1)
    with pytest.raises(InvitationRefused), late.transaction() as session:
        invitations.accept(session, proposed.id, code)
    assert propose(world).id != proposed.id


def test_an_operator_cannot_withdraw_an_invitation_of_a_tenant_or_an_ended_proposal(
    world: World,
) -> None:
    invited = does(world, "tara", members.invite, **WHO, roles=frozenset({Role.AUDITOR}))
    proposed = propose(world)
    does(world, "ann", recovery.object_to, proposed.id)

    with pytest.raises(NotFound):
        does(world, "olga", recovery.withdraw, invited.id)
    with pytest.raises(InvitationClosed):
        does(world, "olga", recovery.withdraw, proposed.id)
    on_the_database(world, "olga", "UPDATE invitations SET withdrawn_at = now() WHERE id = :id", id=invited.id)
    assert [one.id for one in reads(world, "tara", invitations.still_open)] == [invited.id]


def test_a_second_recovery_proposal_waits_for_the_first_to_end(world: World, api: Database) -> None:
    elsewhere = World.make(api)
    proposed = propose(world)

    with pytest.raises(RecoveryOpen):
        propose(world, address="other@contoso.example")
    elsewhere.people["olga"] = world.people["olga"]
    propose(elsewhere)
    does(world, "ann", recovery.object_to, proposed.id)
    again = propose(world, address="other@contoso.example")

    assert again.id != proposed.id


def test_of_concurrent_recovery_proposals_only_one_is_accepted(world: World, pool: ThreadPoolExecutor) -> None:
    world.add("oscar", Role.OPERATOR)

    answers = at_once(pool, lambda: propose(world), lambda: propose(world, "oscar", address="o@contoso.example"))

    assert sorted(type(answer).__name__ for answer in answers) == ["Invitation", "RecoveryOpen"]


def test_operators_cannot_propose_a_vendor_person_for_a_recovery(world: World) -> None:
    with pytest.raises(OtherSide):
        propose(world, address=address(world.db, world, "max"))


def test_a_recovery_waits_72_hours_even_if_the_tenant_has_no_one_who_could_object(
    world: World, worker: Database
) -> None:
    founding = TenantInput("fabrikam", "Fabrikam", "standard", "Fay", "fay@fabrikam.example")
    manages(world, "olga", tenants.add, founding, {"standard": Plan()})

    proposed = does(world, "olga", recovery.propose, slug="fabrikam", **WHO)

    assert proposed.takes_effect_at - proposed.created_at == timedelta(hours=72)
    assert sent_about(worker, proposed.id) == []


def test_a_recovery_proposal_is_listed_for_people_who_may_object(world: World) -> None:
    proposed = propose(world)

    for who in ("tara", "ann"):
        (listed,) = reads(world, who, invitations.still_open)
        assert (listed.id, listed.is_recovery) == (proposed.id, True)


@each("role", ["tenant_admin", "approver", "auditor"])
def test_the_database_refuses_members_added_by_operators(world: World, role: str) -> None:
    statement = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :p, :t, :r)"

    with pytest.raises(DBAPIError, match="row-level security"):
        on_the_database(world, "olga", statement, p=id_of(world, "ann"), t=world.tenant.id, r=role)
