"""Codes of invitations that are good for nothing: refused in the same words, and without a trace."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.admin import invitations, vendor_staff
from lockbox.database import Database
from lockbox.errors import InvitationExpired, InvitationRefused, LockboxError, OtherSide
from lockbox.identity.models import Invitation
from lockbox.identity.roles import Role
from lockbox.sql import new_id
from tests.database.postbag import address
from tests.database.scenes import read, write
from tests.database.tenancy import accepts, does, id_of, invites, manages
from tests.mailbox import code_of

COUNTS = """
SELECT (SELECT count(*) FROM people) AS people, (SELECT count(*) FROM memberships) AS memberships,
    (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM invitations WHERE accepted_at IS NOT NULL) AS used
"""
WRONG = "-".join(["AAAA"] * 8)


def counts(world: World) -> dict[str, int]:
    """Count what accepting writes."""
    return dict(read(world.db, COUNTS)[0]._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def refused(world: World, invitation: Invitation, code: str, db: Database | None = None) -> LockboxError:
    """Accept, be refused without a trace, and return how."""
    before = counts(world)
    with pytest.raises(LockboxError) as refusal, (db or world.db).transaction() as session:
        invitations.accept(session, invitation.id, code)
    assert counts(world) == before
    return refusal.value


@pytest.mark.far
def test_unknown_wrong_used_withdrawn_and_disabled_are_refused_in_the_same_words(
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

    assert {(type(one), one.code, one.detail) for one in refusals} == {
        (InvitationRefused, "invitation-refused", invitations.REFUSED)
    }
    assert all(one.facts == {} for one in refusals)


def replace_id(invitation: Invitation) -> Invitation:
    """Return an invitation that is not there."""
    return Invitation(**(invitation.model_dump() | {"id": new_id()}))


def test_an_invitation_without_a_code_yet_cannot_be_accepted(world: World) -> None:
    assert type(refused(world, invites(world), WRONG)) is InvitationRefused


def test_after_72_hours_the_right_code_is_told_to_be_over_and_a_wrong_one_nothing(
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


def test_a_mail_that_is_sent_again_says_the_same_code(world: World, worker: Database, superuser: Engine) -> None:
    invited = invites(world)
    first = code_of(worker, invited.id)
    write(
        superuser,
        "UPDATE notifications SET closed_at = NULL, outcome = NULL, run_at = clock_timestamp() WHERE about_id = :id",
        id=invited.id,
    )

    assert code_of(worker, invited.id) == first
    assert accepts(world, "nina", invited.id, first).name == "Nina"


def test_a_new_invitation_makes_the_code_of_the_older_one_worthless(world: World, worker: Database) -> None:
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


def test_somebody_of_the_vendor_never_accepts_a_customers_invitation(
    world: World, worker: Database, superuser: Engine
) -> None:
    invited = invites(world)
    code = code_of(worker, invited.id)
    statement = "UPDATE people SET email = 'nina@contoso.example' WHERE id = :id"
    write(superuser, statement, id=id_of(world, "erin"))

    assert type(refused(world, invited, code)) is OtherSide


def test_somebody_of_a_customer_never_accepts_the_vendors_invitation(world: World, worker: Database) -> None:
    theirs = address(world.db, world, "ann")
    invited = manages(
        world, "olga", vendor_staff.invite, name="Ann", address=theirs, roles=frozenset({Role.ENGINEER})
    )

    assert type(refused(world, invited, code_of(worker, invited.id))) is OtherSide


def test_a_code_is_good_for_its_own_invitation_alone(world: World, worker: Database) -> None:
    mine, other = invites(world), invites(world, address="nora@contoso.example")
    codes = [code_of(worker, one.id) for one in (mine, other)]

    assert type(refused(world, mine, codes[1])) is InvitationRefused
    assert type(refused(world, other, codes[0])) is InvitationRefused
