"""Approvers lower the number of uses of a window: what opens, what passkeys sign, and what the log proves."""

import json
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from harness.people import World
from lockbox.database import Database
from lockbox.errors import Invalid, NoOpenWindow, StaleVersion
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import read, write, write_unchecked
from tests.database.test_counted_uses import check
from tests.database.verified_log import check_log_of_one_window
from tests.passkey_approvals import DEMANDED, approve, asked, enrol, signed
from tests.policy_setup import lay_down


def opened(world: World, requested: int | None, kept: int | None) -> AccessRequest:
    """Let ann approve a request for `requested` uses, lowered to `kept`."""
    return world.act("ann", Action.APPROVE, world.submit(max_uses=requested).id, max_uses=kept)


def bodies(world: World, request: AccessRequest) -> list[dict[str, Any]]:
    rows = read(
        world.db, "SELECT body FROM events WHERE request_id = :id AND seq IS NOT NULL ORDER BY seq", id=request.id
    )
    return [json.loads(row.body) for row in rows]


@pytest.mark.parametrize(
    ("requested", "kept", "opens"), [(5, 2, 2), (5, 5, 5), (5, None, 5), (None, 2, 2), (None, None, None)]
)
def test_an_approver_lowers_the_number_of_uses(
    world: World, requested: int | None, kept: int | None, opens: int | None
) -> None:
    request = opened(world, requested, kept)

    assert request.max_uses == opens
    (decision,) = read(world.db, "SELECT max_uses FROM decisions")
    last = bodies(world, request)[-1]
    assert (decision.max_uses, last.get("kept_max_uses"), last.get("max_uses")) == (opens, opens, opens)
    assert check(world) == (None if opens is None else opens - 1)


def test_an_approver_cannot_raise_the_number_of_uses(world: World) -> None:
    request = world.submit(max_uses=2)

    with pytest.raises(Invalid, match="2 uses were asked") as refused:
        world.act("ann", Action.APPROVE, request.id, max_uses=3)

    assert refused.value.facts == {"field": "max_uses"}
    assert world.act("ann", Action.APPROVE, request.id).max_uses == 2


def test_the_lowest_number_of_uses_set_by_the_approvers_applies(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request = world.submit(max_uses=9)

    pending = world.act("ann", Action.APPROVE, request.id, max_uses=3)
    assert pending.max_uses == 9
    assert world.act("amir", Action.APPROVE, request.id, max_uses=5).max_uses == 3


def test_a_former_approvers_vote_does_not_lower_the_number_of_uses(api: Database, superuser: Engine) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request = world.submit(max_uses=9)
    world.act("ann", Action.APPROVE, request.id, max_uses=1)
    write(superuser, "DELETE FROM memberships WHERE person_id = :ann", ann=world.people["ann"].person_id)

    world.act("amir", Action.APPROVE, request.id, max_uses=5)

    assert world.act("abe", Action.APPROVE, request.id).max_uses == 5
    assert check(world) == 4


@pytest.mark.parametrize("number", ["null", "9"])
def test_the_database_counts_no_more_uses_than_approved(world: World, number: str) -> None:
    opened(world, 9, 2)
    more = f"SELECT is_decided(jsonb_populate_record(r, jsonb_build_object('max_uses', {number}))) AS decided"
    more = f"{more} FROM requests r"

    assert read(world.db, "SELECT is_decided(r) AS decided FROM requests r")[0].decided
    assert not read(world.db, more)[0].decided


def test_only_an_approval_sets_the_number_of_uses(world: World, superuser: Engine) -> None:
    world.act("ann", Action.DENY, world.submit(max_uses=9).id, comment="No")

    assert [row.max_uses for row in read(world.db, "SELECT max_uses FROM decisions")] == [None]
    with pytest.raises(DBAPIError, match="ck_decisions_kept"):
        write_unchecked(superuser, "UPDATE decisions SET max_uses = 1")


def test_a_passkey_signature_covers_the_number_of_uses(api: Database) -> None:
    world = World.make(api, DEMANDED)
    authenticator, request = enrol(world, "ann"), world.submit(max_uses=5)
    question = asked(world, "ann", request.id, max_uses=2)
    assert json.loads(question.statement)["max_uses"] == 2

    answered = signed(question, authenticator)
    for other in (None, 1, 5):
        with pytest.raises(StaleVersion):
            world.act("ann", Action.APPROVE, request.id, signed=answered, max_uses=other)
    again = signed(asked(world, "ann", request.id, max_uses=2), authenticator)
    world.act("ann", Action.APPROVE, request.id, signed=again, max_uses=2)

    assert check(world) == 1


def test_the_signed_number_of_uses_stays_valid_when_the_policy_lowers_it(api: Database) -> None:
    world = World.make(api, DEMANDED.model_copy(update={"quorum": 2}))
    keys = {name: enrol(world, name) for name in ("ann", "amir")}
    request = world.submit(max_uses=5)
    approve(world, "ann", request.id, keys["ann"])
    lay_down(world, quorum=2, approve_means=DEMANDED.approve_means, max_uses=3)

    assert approve(world, "amir", request.id, keys["amir"]).max_uses == 3

    assert check(world) == 2


def test_a_request_row_with_more_uses_than_signed_opens_no_window(api: Database, superuser: Engine) -> None:
    world = World.make(api, DEMANDED)
    authenticator, request = enrol(world, "ann"), world.submit(max_uses=5)
    approve(world, "ann", request.id, authenticator, max_uses=2)

    write_unchecked(superuser, "UPDATE decisions SET max_uses = 5")

    with pytest.raises(NoOpenWindow):
        check(world)


@pytest.mark.parametrize("is_signed", [False, True])
def test_both_verifiers_accept_the_audit_log_of_lowered_uses(
    api: Database,
    worker: Database,
    is_signed: bool,  # noqa: FBT001 - drawn by name
) -> None:
    world = World.make(api, DEMANDED if is_signed else Policy(vendor_review=False))
    if is_signed:
        approve(world, "ann", world.submit(max_uses=5).id, enrol(world, "ann"), max_uses=2)
    else:
        opened(world, 5, 2)
    check(world)
    check_log_of_one_window(world, worker)
