"""Invitations: good once, for who has the mail, on one side; refused, they leave nothing behind."""

import pytest
from sqlalchemy.exc import DBAPIError

from harness.people import World
from lockbox.admin import invitations
from lockbox.database import Database
from lockbox.errors import InvitationClosed, NotFound
from lockbox.identity.roles import Role
from tests.database.audit_logs import last_change
from tests.database.postbag import open_notifications
from tests.database.tenancy import accepts, does, invites, joins, on_the_database, reads
from tests.mailbox import code_of, sent_about


@pytest.mark.parametrize("who", ["tara", "ann", "aude"])
def test_open_invitations_are_listed_to_all_of_the_tenant(
    world: World, worker: Database, api: Database, who: str
) -> None:
    invites(World.make(api), address="nora@fabrikam.example")
    joins(world, worker, "nina", Role.AUDITOR)
    gone = invites(world, address="gone@contoso.example")
    does(world, "tara", invitations.withdraw, gone.id)
    first, second = invites(world, address="a@contoso.example"), invites(world, address="b@contoso.example")

    listed = reads(world, who, invitations.still_open)

    assert [one.id for one in listed] == [second.id, first.id]
    assert all("secret_hash" not in vars(one) for one in listed)


def test_the_api_cannot_read_a_hash_or_set_one_or_hurry_anything(world: World) -> None:
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


def test_withdrawing_is_told_and_the_mail_that_waits_is_never_sent(world: World, worker: Database) -> None:
    invited = invites(world)

    does(world, "tara", invitations.withdraw, invited.id)

    told = last_change(world.db)
    assert (told.action, told.changes) == ("invitation_withdrawn", {"roles": "approver → none"})
    assert told.details["member"] == "Nina <nina@contoso.example>"
    assert told.told == {"Tara", "Ann", "Amir", "Abe"}
    assert sent_about(worker, invited.id) == []
    assert open_notifications(worker)


def test_what_was_accepted_or_withdrawn_cannot_be_withdrawn(world: World, worker: Database) -> None:
    accepted, withdrawn = invites(world), invites(world, address="gone@contoso.example")
    accepts(world, "nina", accepted.id, code_of(worker, accepted.id))
    does(world, "tara", invitations.withdraw, withdrawn.id)

    for one in (accepted, withdrawn):
        with pytest.raises(InvitationClosed):
            does(world, "tara", invitations.withdraw, one.id)


def test_an_invitation_of_another_tenant_is_not_there(world: World, api: Database) -> None:
    elsewhere = World.make(api)
    theirs = invites(elsewhere)

    with pytest.raises(NotFound):
        does(world, "tara", invitations.withdraw, theirs.id)
    with pytest.raises(NotFound):
        does(world, "tara", invitations.withdraw, theirs.id, slug=elsewhere.tenant.slug)
