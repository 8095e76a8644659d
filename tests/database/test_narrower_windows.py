"""Windows narrower than requested: what each approval keeps, what the check allows, what log and database say."""

import json
import re
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.people import World
from lockbox.database import Database
from lockbox.errors import Invalid, NoOpenWindow, NothingLeft
from lockbox.facts.enumerations import State
from lockbox.requests import access_check
from lockbox.requests.access_check import AccessCheck
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag
from tests.database.scenes import as_caller, read, state_of, write
from tests.database.test_signed_approvals import as_owner_of_all
from tests.database.verified_log import check_log_of_one_window
from tests.each import each

A, B, C = (f"mailbox:{name}@contoso.example" for name in ("anna", "bob", "carla"))
WIDE: dict[str, Any] = {"resources": [A, B, C], "actions": ["read", "export"]}
WINDOW = "SELECT granted_resources, granted_actions, resources, actions FROM requests WHERE id = :id"


def let_in(world: World, resource: str, action: str = "read") -> bool:
    question = AccessCheck(world.tenant.slug, "exchange-online", resource, action, world.people["erin"].person_id)
    with world.db.transaction() as session:
        try:
            return access_check.check(session, world.people["gate"], question).open
        except NoOpenWindow:
            return False


def bodies(db: Database, request_id: UUID) -> list[dict[str, Any]]:
    rows = read(db, "SELECT body FROM events WHERE request_id = :id AND seq IS NOT NULL ORDER BY seq", id=request_id)
    return [json.loads(row.body) for row in rows]


def opened(world: World, **kept: Any) -> AccessRequest:
    """Submit a wide request, and have Ann approve only the parts that she keeps."""
    return world.act("ann", Action.APPROVE, world.submit(**WIDE).id, **kept)


def test_a_window_opens_for_exactly_the_parts_the_approver_keeps(world: World) -> None:
    request = opened(world, resources=[C, A], actions=["read"])

    assert request.state is State.ACTIVE
    assert {one for one in (A, B, C) if let_in(world, one)} == {A, C}
    assert not let_in(world, A, "export")
    (row,) = read(world.db, WINDOW, id=request.id)
    assert (row.granted_resources, row.granted_actions) == ([A, C], ["read"])
    assert (row.resources, row.actions) == (WIDE["resources"], WIDE["actions"])
    (decision,) = read(world.db, "SELECT resources, actions FROM decisions")
    assert (decision.resources, decision.actions) == ([A, C], ["read"])


def test_an_approval_that_keeps_every_part_does_not_narrow_the_request(world: World) -> None:
    request = opened(world, resources=[C, B, A], actions=["export", "read"])

    (row,) = read(world.db, WINDOW, id=request.id)
    assert (row.granted_resources, row.granted_actions) == (None, None)
    assert let_in(world, B, "export")
    assert not {"kept_actions", "granted_actions"} & bodies(world.db, request.id)[1].keys()


def test_two_narrowing_approvals_open_only_the_parts_that_both_approvals_keep(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request = world.submit(**WIDE)

    first = world.act("ann", Action.APPROVE, request.id, resources=[A, B])
    assert not let_in(world, A)
    second = world.act("amir", Action.APPROVE, request.id, resources=[B, C], actions=["read"])

    assert (first.state, second.state) == (State.PENDING, State.ACTIVE)
    assert {one for one in (A, B, C) if let_in(world, one)} == {B}
    assert not let_in(world, B, "export")
    _, one, other = bodies(world.db, request.id)
    assert "granted_actions" not in one
    assert (other["kept_actions"], other["granted_actions"]) == (["read"], ["read"])
    details = "SELECT d.fields FROM event_details d JOIN events e ON e.id = d.event_id WHERE e.seq = 3"
    ((fields,),) = read(world.db, details)
    told = {name: value for name, (_, value) in fields.items()}
    assert (json.loads(told["kept_resources"]), json.loads(told["granted_resources"])) == ([B, C], [B])
    assert B not in json.dumps([one, other])


def test_an_approval_that_would_leave_no_part_is_refused_and_earlier_approvals_stay(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request = world.submit(**WIDE)
    world.act("ann", Action.APPROVE, request.id, resources=[A])

    with pytest.raises(NothingLeft, match="none of the resources in common"):
        world.act("amir", Action.APPROVE, request.id, resources=[B])

    assert state_of(api, request.id) == "pending"
    assert world.act("amir", Action.APPROVE, request.id).state is State.ACTIVE
    assert [let_in(world, one) for one in (A, B)] == [True, False]


def test_an_approval_that_no_longer_counts_does_not_narrow_the_request(api: Database, superuser: Engine) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request = world.submit(**WIDE)
    world.act("ann", Action.APPROVE, request.id, resources=[A])
    write(superuser, "DELETE FROM memberships WHERE person_id = :id", id=world.people["ann"].person_id)

    world.act("amir", Action.APPROVE, request.id, resources=[B, C])
    world.act("abe", Action.APPROVE, request.id, resources=[B])

    assert {one for one in (A, B, C) if let_in(world, one)} == {B}


@each(
    "kept",
    [{"resources": ["mailbox:boss@contoso.example"]}, {"actions": ["delete"]}, {"resources": []}, {"actions": []}],
)
def test_an_approval_can_add_no_part_and_must_keep_at_least_one_part(world: World, kept: dict[str, Any]) -> None:
    request = world.submit(**WIDE)

    with pytest.raises(Invalid):
        world.act("ann", Action.APPROVE, request.id, **kept)

    assert state_of(world.db, request.id) == "pending"
    assert not read(world.db, "SELECT FROM decisions")


def test_a_request_row_widened_after_the_approval_opens_no_window(world: World, superuser: Engine) -> None:
    request = opened(world, resources=[A])
    before = let_in(world, A)

    as_owner_of_all(superuser, "UPDATE requests SET granted_resources = NULL WHERE id = :id", id=request.id)

    assert before
    assert [let_in(world, one) for one in (A, B)] == [False, False]


@each("change", ["granted_resources = NULL", f"granted_resources = ARRAY['{A}', '{B}']", "granted_actions = NULL"])
def test_the_database_refuses_to_widen_a_window(world: World, superuser: Engine, change: str) -> None:
    request = opened(world, resources=[A], actions=["read"])

    with pytest.raises(DBAPIError, match="stays as it is"):
        write(
            superuser,
            f"UPDATE requests SET {change}, state = 'revoked', version = version + 1, wake_at = NULL, "  # noqa: S608 - ours
            "closed_at = now() WHERE id = :id",
            id=request.id,
        )


@each(
    ("change", "constraint"),
    [
        ("granted_resources = ARRAY['mailbox:boss@contoso.example']", "ck_requests_granted_resources"),
        ("granted_resources = '{}'", "ck_requests_granted_resources"),
        ("granted_actions = ARRAY['delete']", "ck_requests_granted_actions"),
    ],
)
def test_the_database_refuses_to_grant_what_was_not_requested(
    world: World, superuser: Engine, change: str, constraint: str
) -> None:
    request = opened(world)

    with pytest.raises(DBAPIError, match=constraint):
        as_owner_of_all(superuser, f"UPDATE requests SET {change} WHERE id = :id", id=request.id)  # noqa: S608 - ours


def test_nothing_is_granted_before_a_window_opens(world: World, superuser: Engine) -> None:
    request = world.submit(**WIDE)

    with pytest.raises(DBAPIError, match="ck_requests_granted"):
        as_owner_of_all(superuser, "UPDATE requests SET granted_actions = actions WHERE id = :id", id=request.id)


def test_the_database_treats_a_window_wider_than_its_approvals_as_not_approved(world: World) -> None:
    opened(world, resources=[A])
    wider = "SELECT is_decided(jsonb_populate_record(r, '{\"granted_resources\": null}')) AS decided FROM requests r"

    assert read(world.db, "SELECT is_decided(r) AS decided FROM requests r")[0].decided
    assert not read(world.db, wider)[0].decided


def test_triggers_and_queries_use_the_same_sql_rule_for_whether_a_window_was_approved(superuser: Engine) -> None:
    bodies = "SELECT proname, prosrc FROM pg_proc WHERE proname IN ('is_decided', 'is_founded')"
    asked = {row.proname: " ".join(row.prosrc.split()) for row in read(superuser, bodies)}
    demanded = re.compile(r" OR EXISTS \(SELECT FROM policies p .*? ->> 'approve_means' = 'passkey-signed'\)")

    assert demanded.search(asked["is_founded"])
    assert demanded.sub("", asked["is_founded"]) == asked["is_decided"]


def test_both_verifiers_accept_the_audit_log_of_a_narrowed_window(api: Database, worker: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request = world.submit(**WIDE)
    world.act("ann", Action.APPROVE, request.id, resources=[A, B], actions=["read"])
    world.act("amir", Action.APPROVE, request.id, resources=[B])
    world.submit()
    check_log_of_one_window(world, worker)


def test_mails_about_an_open_window_name_only_the_granted_part(world: World, worker: Database) -> None:
    request = opened(world, resources=[A])
    post = Postbag()
    ids = [
        row.id for row in read(worker, "SELECT id FROM notifications WHERE closed_at IS NULL AND template = 'active'")
    ]

    post.deliver(worker, ids)

    assert request.state is State.ACTIVE
    assert post.mail.sent
    for mail in post.mail.sent:
        assert A in mail.text
        assert B not in mail.text


def test_a_resource_omitted_by_an_approver_counts_as_not_yet_allowed(world: World) -> None:
    world.act("ann", Action.DENY, world.submit(**WIDE).id)
    reviewed = world.submit(**WIDE)
    world.act("max", Action.ENDORSE, reviewed.id)
    world.act("ann", Action.APPROVE, reviewed.id, resources=[A])

    again, other = world.submit(resources=[A]), world.submit(resources=[B])

    assert (again.state, other.state) == (State.PENDING, State.REVIEWING)


def test_only_deciders_of_the_tenant_can_write_the_granted_parts_of_a_request(world: World) -> None:
    request = world.submit(**WIDE)

    for who in ("erin", "aude", "olga"):
        with suppress(DBAPIError), as_caller(world.db, world.people[who]) as connection:
            connection.execute(
                text("UPDATE requests SET granted_resources = ARRAY[:one], version = version + 1 WHERE id = :id"),
                {"one": A, "id": request.id},
            )

    assert read(world.db, WINDOW, id=request.id)[0].granted_resources is None
