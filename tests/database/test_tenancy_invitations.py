"""Invitations to a tenant: made, withdrawn, accepted once by the recipient of the mail; and refused codes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock
from harness.people import HERE, World
from harness.stage import setting
from lockbox.admin import invitations, vendor_staff
from lockbox.database import Database, UnitOfWork
from lockbox.errors import InvitationClosed, InvitationExpired, InvitationRefused, LockboxError, NotFound, OtherSide
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.identity.models import Invitation
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications import announcements
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.postbag import address, open_notifications
from tests.database.scenes import at_once, read, write
from tests.database.tenancy import accepts, does, id_of, invites, joins, manages, on_the_database, reads
from tests.mailbox import code_of, sent_about


@pytest.mark.parametrize("who", ["tara", "ann", "aude"])
def test_open_invitations_are_listed_to_all_members(world: World, worker: Database, api: Database, who: str) -> None:
    invites(World.make(api), address="nora@fabrikam.example")
    joins(world, worker, "nina", Role.AUDITOR)
    gone = invites(world, address="gone@contoso.example")
    does(world, "tara", invitations.withdraw, gone.id)
    first, second = invites(world, address="a@contoso.example"), invites(world, address="b@contoso.example")

    listed = reads(world, who, invitations.still_open)

    assert [one.id for one in listed] == [second.id, first.id]
    assert all("secret_hash" not in vars(one) for one in listed)


def test_the_apis_database_role_can_neither_read_invitation_codes_nor_change_invitations(world: World) -> None:
    invites(world)

    for statement in (
        "SELECT secret_hash FROM invitations",
        "UPDATE invitations SET secret_hash = sha256('x')",
        "UPDATE invitations SET takes_effect_at = clock_timestamp()",
        "UPDATE invitations SET expires_at = clock_timestamp() + interval '1 year'",
        "UPDATE invitations SET email = 'evil@vendor.example'",
        "UPDATE invitations SET roles = '{tenant_admin}'",
    ):
        with pytest.raises(DBAPIError, match="permission denied"):
            on_the_database(world, "tara", statement)


def test_people_are_notified_of_a_withdrawn_invitation_and_the_pending_mail_is_not_sent(
    world: World, worker: Database
) -> None:
    invited = invites(world)

    does(world, "tara", invitations.withdraw, invited.id)

    told = last_change(world.db)
    assert (told.action, told.changes) == ("invitation_withdrawn", {"roles": "approver → none"})
    assert told.details["member"] == "Nina <nina@contoso.example>"
    assert told.told == {"Tara", "Ann", "Amir", "Abe"}
    assert sent_about(worker, invited.id) == []
    assert open_notifications(worker)


def test_an_accepted_or_withdrawn_invitation_cannot_be_withdrawn(world: World, worker: Database) -> None:
    accepted, withdrawn = invites(world), invites(world, address="gone@contoso.example")
    accepts(world, "nina", accepted.id, code_of(worker, accepted.id))
    does(world, "tara", invitations.withdraw, withdrawn.id)

    for one in (accepted, withdrawn):
        with pytest.raises(InvitationClosed):
            does(world, "tara", invitations.withdraw, one.id)


def test_an_invitation_of_another_tenant_is_not_found(world: World, api: Database) -> None:
    elsewhere = World.make(api)
    theirs = invites(elsewhere)

    with pytest.raises(NotFound):
        does(world, "tara", invitations.withdraw, theirs.id)
    with pytest.raises(NotFound):
        does(world, "tara", invitations.withdraw, theirs.id, slug=elsewhere.tenant.slug)


def test_accepting_an_invitation_creates_a_person_with_the_offered_roles(world: World, worker: Database) -> None:
    nina = joins(world, worker, "nina", Role.APPROVER, Role.AUDITOR)

    assert (nina.name, nina.side, nina.means, nina.key_id) == ("Nina", Side.CUSTOMER, AuthMethod.MAIL, None)
    assert nina.signed_in_at is not None
    assert {standing.role for standing in nina.standings} == {"approver", "auditor"}
    assert nina.tenants() == {world.tenant.id}
    (row,) = read(world.db, "SELECT name, email, side FROM people WHERE id = :id", id=nina.person_id)
    assert tuple(row) == ("Nina", "nina@contoso.example", "customer")


def test_accepting_an_invitation_writes_one_event_in_the_invitees_name(world: World, worker: Database) -> None:
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


def test_accepting_an_invitation_continues_the_transaction_as_the_new_member(world: World, worker: Database) -> None:
    invited = invites(world, Role.TENANT_ADMIN)
    code = code_of(worker, invited.id)

    with world.db.transaction() as session:
        nina = invitations.accept(session, invited.id, code)
        settings = session.execute(
            text("SELECT at_person() AS person, at_tenants() AS tenants, at_administers() AS administers")
        )
        entered = settings.one()

    assert tuple(entered) == (nina.person_id, [world.tenant.id], [world.tenant.id])


def test_a_member_who_accepts_an_invitation_keeps_existing_roles(world: World, worker: Database) -> None:
    nina = joins(world, worker, "nina", Role.AUDITOR)
    with setting(world.db).transaction() as session:
        again = _offered(session, world, nina)

    more = accepts(world, "nina", again.id, code_of(worker, again.id))

    assert more.person_id == nina.person_id
    assert {standing.role for standing in more.standings} == {"approver", "auditor"}
    assert last_change(world.db).changes == {"roles": "auditor → approver, auditor"}


def _offered(session: UnitOfWork, world: World, whom: Caller) -> Invitation:
    """Invite a person who is already a member, as when two invitations cross."""
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


def test_spaces_and_case_of_an_invitation_code_do_not_matter(world: World, worker: Database) -> None:
    invited = invites(world)
    code = code_of(worker, invited.id)

    nina = accepts(world, "nina", invited.id, f" {code.lower().replace('-', ' ')} ")

    assert nina.name == "Nina"


def test_concurrent_acceptances_of_an_invitation_create_one_person(
    world: World, worker: Database, pool: ThreadPoolExecutor
) -> None:
    invited = invites(world)
    code = code_of(worker, invited.id)

    answers = at_once(pool, *[lambda: accepts(world, "nina", invited.id, code)] * 4)

    assert sorted(type(answer).__name__ for answer in answers) == ["Caller", *["InvitationRefused"] * 3]
    (row,) = read(world.db, "SELECT count(*) AS number FROM people WHERE email = 'nina@contoso.example'")
    assert row.number == 1
    assert [told.action for told in recorded_changes(world.db)].count("member_added") == 1


def test_one_address_invited_by_two_tenants_becomes_one_person(
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


def test_an_invitee_gets_only_the_offered_roles(world: World, worker: Database) -> None:
    invited = invites(world, Role.AUDITOR)
    code = code_of(worker, invited.id)
    more = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :p, :t, 'tenant_admin')"

    with world.db.transaction() as session:
        nina = invitations.accept(session, invited.id, code)
        with pytest.raises(DBAPIError, match="row-level security"), session.orm.begin_nested():
            session.execute(text(more), {"p": nina.person_id, "t": world.tenant.id})

    assert {standing.role for standing in nina.standings} == {"auditor"}


def test_a_new_member_may_decide_in_the_next_call_after_accepting_an_invitation(
    world: World, worker: Database
) -> None:
    waiting = world.submit().id

    nina = joins(world, worker, "nina", Role.APPROVER)

    world.people["nina"] = replace(nina, means=AuthMethod.SAMPLE)
    assert world.act("nina", Action.APPROVE, waiting).state is State.ACTIVE


COUNTS = """
SELECT (SELECT count(*) FROM people) AS people, (SELECT count(*) FROM memberships) AS memberships,
    (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM invitations WHERE accepted_at IS NOT NULL) AS used
"""
WRONG = "-".join(["AAAA"] * 8)


def counts(world: World) -> dict[str, int]:
    return dict(read(world.db, COUNTS)[0]._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def refused(world: World, invitation: Invitation, code: str, db: Database | None = None) -> LockboxError:
    """Check that accepting is refused and changes nothing; return the refusal."""
    before = counts(world)
    with pytest.raises(LockboxError) as refusal, (db or world.db).transaction() as session:
        invitations.accept(session, invitation.id, code)
    assert counts(world) == before
    return refusal.value


@pytest.mark.far
def test_all_invalid_invitation_codes_are_refused_in_the_same_words(
    world: World, worker: Database, superuser: Engine
) -> None:
    used, withdrawn, good, disabled = (
        invites(world, name=name, address=f"{name}@contoso.example") for name in ("used", "gone", "good", "out")
    )
    codes = {one.id: code_of(worker, one.id) for one in (used, withdrawn, good, disabled)}
    accepts(world, "used", used.id, codes[used.id])
    does(world, "tara", invitations.withdraw, withdrawn.id)
    write(
        superuser,
        "INSERT INTO people (id, name, email, side, disabled_at, created_at) "
        "VALUES (uuidv7(), 'Out', 'out@contoso.example', 'customer', now(), now())",
    )
    unknown = replace_id(good)

    refusals = [
        refused(world, unknown, codes[good.id]),
        refused(world, good, WRONG),
        refused(world, good, ""),
        refused(world, good, codes[used.id]),
        refused(world, used, codes[used.id]),
        refused(world, withdrawn, codes[withdrawn.id]),
        refused(world, disabled, codes[disabled.id]),
    ]

    assert {(type(refusal), refusal.code, refusal.detail) for refusal in refusals} == {
        (InvitationRefused, "invitation-refused", invitations.REFUSED)
    }
    assert all(refusal.facts == {} for refusal in refusals)


def replace_id(invitation: Invitation) -> Invitation:
    return Invitation(**(invitation.model_dump() | {"id": new_id()}))


def test_an_invitation_without_a_code_cannot_be_accepted(world: World) -> None:
    assert type(refused(world, invites(world), WRONG)) is InvitationRefused


def test_after_72_hours_only_the_right_invitation_code_is_reported_as_expired(
    world: World, worker: Database, later: ShiftedClock
) -> None:
    invited = invites(world)
    code = code_of(worker, invited.id)
    late = Database(world.db.engine, world.db.schedule, later)

    later.shift = timedelta(hours=72)
    over, wrong = refused(world, invited, code, late), refused(world, invited, WRONG, late)
    later.shift = timedelta(hours=71, minutes=59)
    with late.transaction() as session:
        nina = invitations.accept(session, invited.id, code)

    assert (type(over), over.code) == (InvitationExpired, "invitation-expired")
    assert type(wrong) is InvitationRefused
    assert nina.name == "Nina"


def test_a_resent_invitation_has_the_same_code(world: World, worker: Database, superuser: Engine) -> None:
    invited = invites(world)
    first = code_of(worker, invited.id)
    write(
        superuser,
        "UPDATE notifications SET closed_at = NULL, outcome = NULL, run_at = clock_timestamp() WHERE about_id = :id",
        id=invited.id,
    )

    assert code_of(worker, invited.id) == first
    assert accepts(world, "nina", invited.id, first).name == "Nina"


def test_a_new_invitation_voids_the_code_of_the_older_invitation(world: World, worker: Database) -> None:
    older = invites(world)
    first = code_of(worker, older.id)
    does(world, "tara", invitations.withdraw, older.id)
    newer = invites(world)
    second = code_of(worker, newer.id)

    assert first != second
    assert type(refused(world, older, first)) is InvitationRefused
    assert type(refused(world, newer, first)) is InvitationRefused
    assert type(refused(world, older, second)) is InvitationRefused
    assert accepts(world, "nina", newer.id, second).name == "Nina"


def test_a_vendor_person_cannot_accept_a_customers_invitation(
    world: World, worker: Database, superuser: Engine
) -> None:
    invited = invites(world)
    code = code_of(worker, invited.id)
    statement = "UPDATE people SET email = 'nina@contoso.example' WHERE id = :id"
    write(superuser, statement, id=id_of(world, "erin"))

    assert type(refused(world, invited, code)) is OtherSide


def test_a_customer_cannot_accept_the_vendors_invitation(world: World, worker: Database) -> None:
    theirs = address(world.db, world, "ann")
    invited = manages(
        world, "olga", vendor_staff.invite, name="Ann", address=theirs, roles=frozenset({Role.ENGINEER})
    )

    assert type(refused(world, invited, code_of(worker, invited.id))) is OtherSide


def test_an_invitation_code_is_valid_only_for_its_own_invitation(world: World, worker: Database) -> None:
    mine, other = invites(world), invites(world, address="nora@contoso.example")
    codes = [code_of(worker, one.id) for one in (mine, other)]

    assert type(refused(world, mine, codes[1])) is InvitationRefused
    assert type(refused(world, other, codes[0])) is InvitationRefused
