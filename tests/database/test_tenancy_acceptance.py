"""Accepting an invitation: once, by who has the mail, on one side; refused, it leaves nothing behind."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harness.people import HERE, World
from harness.stage import setting
from lockbox.admin import invitations
from lockbox.database import Database, UnitOfWork
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.identity.models import Invitation
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications import announcements
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.scenes import at_once, read
from tests.database.tenancy import accepts, id_of, invites, joins
from tests.mailbox import code_of


def test_who_accepts_becomes_a_person_of_the_customer_with_the_roles_offered(world: World, worker: Database) -> None:
    nina = joins(world, worker, "nina", Role.APPROVER, Role.AUDITOR)

    assert (nina.name, nina.side, nina.means, nina.key_id) == ("Nina", Side.CUSTOMER, AuthMethod.MAIL, None)
    assert nina.signed_in_at is not None
    assert {standing.role for standing in nina.standings} == {"approver", "auditor"}
    assert nina.tenants() == {world.tenant.id}
    (row,) = read(world.db, "SELECT name, email, side FROM people WHERE id = :id", id=nina.person_id)
    assert tuple(row) == ("Nina", "nina@contoso.example", "customer")


def test_accepting_is_one_event_in_the_own_name_from_where_it_was_done(world: World, worker: Database) -> None:
    invited = invites(world)
    code = code_of(worker, invited.id)
    with world.db.transaction() as session:
        nina = invitations.accept(session, invited.id, code, origin=HERE)

    told = last_change(world.db)

    assert (told.action, told.actor, told.role) == ("member_added", "Nina", "invited")
    assert (told.changes, told.told) == ({"roles": "none → approver"}, {"Tara", "Ann", "Amir", "Abe", "Nina"})
    assert (told.facts["person_id"], told.facts["invitation_id"]) == (str(nina.person_id), str(invited.id))
    assert told.details["member"] == "Nina <nina@contoso.example>"
    assert told.details["user_agent"] == "pytest"


def test_the_transaction_is_that_of_who_accepted_with_the_new_roles(world: World, worker: Database) -> None:
    invited = invites(world, Role.TENANT_ADMIN)
    code = code_of(worker, invited.id)

    with world.db.transaction() as session:
        nina = invitations.accept(session, invited.id, code)
        settings = session.execute(
            text("SELECT at_person() AS person, at_tenants() AS tenants, at_administers() AS administers")
        )
        entered = settings.one()

    assert tuple(entered) == (nina.person_id, [world.tenant.id], [world.tenant.id])


def test_a_member_who_accepts_keeps_what_they_have(world: World, worker: Database) -> None:
    nina = joins(world, worker, "nina", Role.AUDITOR)
    with setting(world.db).transaction() as session:
        again = _offered(session, world, nina)

    more = accepts(world, "nina", again.id, code_of(worker, again.id))

    assert more.person_id == nina.person_id
    assert {standing.role for standing in more.standings} == {"approver", "auditor"}
    assert last_change(world.db).changes == {"roles": "auditor → approver, auditor"}


def _offered(session: UnitOfWork, world: World, whom: Caller) -> Invitation:
    """Offer a place to a member, as could be when two invitations crossed."""
    at = read(world.db, "SELECT clock_timestamp() AS at")[0].at
    invitation = Invitation(
        id=new_id(),
        tenant_id=world.tenant.id,
        email="nina@contoso.example",
        name=whom.name,
        roles=["approver", "auditor"],
        is_recovery=False,
        invited_by=id_of(world, "tara"),
        created_at=at,
        takes_effect_at=at,
    )
    until = at + timedelta(hours=1)
    invitations.sealed(session, invitation, until)
    session.orm.add(invitation)
    session.orm.flush()
    announcements.write_to(
        session,
        invitation.id,
        template="invitation",
        tenant_id=world.tenant.id,
        event_id=None,
        at=at,
        until=until,
    )
    return invitation


def test_however_the_code_is_spaced_and_cased_it_is_the_code(world: World, worker: Database) -> None:
    invited = invites(world)
    code = code_of(worker, invited.id)

    nina = accepts(world, "nina", invited.id, f" {code.lower().replace('-', ' ')} ")

    assert nina.name == "Nina"


def test_two_who_accept_at_once_are_one(world: World, worker: Database, pool: ThreadPoolExecutor) -> None:
    invited = invites(world)
    code = code_of(worker, invited.id)

    answers = at_once(pool, *[lambda: accepts(world, "nina", invited.id, code)] * 4)

    assert sorted(type(answer).__name__ for answer in answers) == ["Caller", *["InvitationRefused"] * 3]
    (row,) = read(world.db, "SELECT count(*) AS number FROM people WHERE email = 'nina@contoso.example'")
    assert row.number == 1
    assert [told.action for told in recorded_changes(world.db)].count("member_added") == 1


def test_one_new_address_that_two_tenants_invite_becomes_one_person(
    world: World, worker: Database, api: Database, pool: ThreadPoolExecutor
) -> None:
    elsewhere = World.make(api)
    here, there = invites(world), invites(elsewhere, address="Nina@Contoso.example")
    codes = [code_of(worker, here.id), code_of(worker, there.id)]

    answers = at_once(
        pool,
        lambda: accepts(world, "nina", here.id, codes[0]),
        lambda: accepts(elsewhere, "nina", there.id, codes[1]),
    )

    assert {type(answer) for answer in answers} == {Caller}
    assert world.people["nina"].person_id == elsewhere.people["nina"].person_id


def test_who_accepts_gets_the_roles_offered_and_cannot_give_themselves_more(world: World, worker: Database) -> None:
    invited = invites(world, Role.AUDITOR)
    code = code_of(worker, invited.id)
    more = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :p, :t, 'tenant_admin')"

    with world.db.transaction() as session:
        nina = invitations.accept(session, invited.id, code)
        with pytest.raises(DBAPIError, match="row-level security"), session.orm.begin_nested():
            session.execute(text(more), {"p": nina.person_id, "t": world.tenant.id})

    assert {standing.role for standing in nina.standings} == {"auditor"}


def test_whoever_was_added_may_decide_in_the_next_call(world: World, worker: Database) -> None:
    waiting = world.submit().id

    nina = joins(world, worker, "nina", Role.APPROVER)

    world.people["nina"] = replace(nina, means=AuthMethod.SAMPLE)
    assert world.act("nina", Action.APPROVE, waiting).state is State.ACTIVE
