"""A pre-approval that was altered past Lockbox opens nothing."""

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from harness.people import World
from lockbox.database import Database
from lockbox.facts.enumerations import State
from tests.database.scenes import as_caller, door, write_unchecked
from tests.database.test_invariants import looked
from tests.database.test_pre_approvals import in_force, revoke

ALTERED = {
    "another pattern": "UPDATE pre_approvals SET resource = 'mailbox:*'",
    "a later end": "UPDATE pre_approvals SET ends_at = ends_at + interval '1 day'",
    "more uses": "UPDATE pre_approvals SET max_uses = 1000",
    "a longer window": "UPDATE pre_approvals SET access_window = 604800",
    "another proposer": "UPDATE pre_approvals SET proposed_by = (SELECT person_id FROM pre_approval_votes LIMIT 1)",
    "no mark": "UPDATE pre_approvals SET mac = NULL",
    "a vote of another": "UPDATE pre_approval_votes SET person_id = (SELECT proposed_by FROM pre_approvals LIMIT 1)",
    "a vote of another one": "UPDATE pre_approval_votes SET decided_at = decided_at - interval '1 hour'",
    "a vote without a mark": "UPDATE pre_approval_votes SET mac = NULL",
}
TRIES: dict[str, tuple[str, str]] = {
    "use it less": ("ann", "UPDATE pre_approvals SET used = 0"),
    "make it wider": ("tara", "UPDATE pre_approvals SET resource = '*'"),
    "let it last": ("tara", "UPDATE pre_approvals SET ends_at = now() + interval '80 days'"),
    "remove a vote": ("ann", "DELETE FROM pre_approval_votes"),
    "revoke in another's name": ("ann", "UPDATE pre_approvals SET revoked_at = now(), revoked_by = proposed_by"),
    "vote for another": (
        "amir",
        (
            "INSERT INTO pre_approval_votes (id, pre_approval_id, person_id, principals, means, decided_at) "
            "SELECT uuidv7(), p.id, p.proposed_by, '{}', 'passkey', now() FROM pre_approvals p"
        ),
    ),
    "vote as an auditor": (
        "aude",
        (
            "INSERT INTO pre_approval_votes (id, pre_approval_id, person_id, principals, means, decided_at) "
            "SELECT uuidv7(), p.id, at_person(), '{}', 'passkey', now() FROM pre_approvals p"
        ),
    ),
    "propose as an approver": (
        "ann",
        (
            "INSERT INTO pre_approvals (id, tenant_id, service, resource, actions, reason_code, access_window, "
            "max_uses, ends_at, proposed_by, proposed_at) "
            "SELECT uuidv7(), tenant_id, service, resource, actions, reason_code, "
            "access_window, max_uses, ends_at, at_person(), proposed_at FROM pre_approvals"
        ),
    ),
}


@pytest.mark.far
@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_what_was_altered_past_lockbox_opens_nothing(world: World, superuser: Engine, change: str) -> None:
    in_force(world)

    write_unchecked(superuser, change)

    assert world.submit().state is State.PENDING


def test_what_was_revoked_is_not_revived(world: World, superuser: Engine) -> None:
    which = in_force(world)
    revoke(world, which)

    write_unchecked(superuser, "UPDATE pre_approvals SET revoked_at = NULL, revoked_by = NULL")

    assert world.submit().state is State.PENDING


def test_a_window_of_one_that_was_revoked_past_lockbox_is_shut_and_an_alarm(
    world: World, worker: Database, superuser: Engine
) -> None:
    in_force(world)
    world.submit()
    assert door(world) is not None

    write_unchecked(superuser, "UPDATE pre_approvals SET revoked_at = now(), revoked_by = proposed_by")

    assert door(world) is None
    assert [one.rule for one in looked(worker)] == ["I1"]


@pytest.mark.far
@pytest.mark.parametrize(("who", "statement"), TRIES.values(), ids=TRIES)
def test_the_login_of_the_api_can_do_none_of_this(world: World, who: str, statement: str) -> None:
    in_force(world)
    world.submit()

    with pytest.raises(DBAPIError), as_caller(world.db, world.people[who]) as connection:
        connection.exec_driver_sql(statement)
