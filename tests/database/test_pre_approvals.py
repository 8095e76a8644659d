"""Pre-approvals: what they open, when they do not, how often they can, and what ends with them."""

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock, StoppedClock
from harness.people import HERE, SETTINGS, World
from lockbox.admin import emergency_stop, pre_approvals, tenants
from lockbox.admin.pre_approval_status import PreApprovalStatus, PreApprovalSummary
from lockbox.admin.pre_approvals import PreApprovalInput
from lockbox.database import Database
from lockbox.errors import NobodyCanApprove, OwnRequest, PasskeyMustSign, SignInAgain, TooLate
from lockbox.facts.enumerations import AuthMethod, Mode, State
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from tests.database.scenes import (
    MAILBOX,
    PATIENCE,
    as_caller,
    at_once,
    door,
    moves_of,
    read,
    state_of,
    write,
    write_unchecked,
)
from tests.database.tenancy import does
from tests.database.test_emergency_stop_races import beside, uncommitted
from tests.database.test_extensions import extended
from tests.database.test_invariants import looked
from tests.database.test_outcome_recipients import told
from tests.database.verified_log import check_log_of_one_window
from tests.policy_setup import group, lay_down, signed_in, stand_in

HOUR = 3600
ALSO_APPROVER = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :p, :t, 'approver')"
RULE: dict[str, Any] = {
    "service": "exchange-online",
    "resource": "mailbox:*@contoso.example",
    "actions": ["read"],
    "reason_code": "support_case",
    "access_window": HOUR,
    "max_uses": 3,
}


def proposal(**changes: Any) -> PreApprovalInput:
    return PreApprovalInput(**{**RULE, "ends_at": datetime.now(UTC) + timedelta(days=7), **changes})


def propose(world: World, who: str = "tara", **changes: Any) -> UUID:
    with world.db.transaction() as session:
        services = SETTINGS.catalogue.services
        slug = world.tenant.slug
        return pre_approvals.propose(session, world.people[who], HERE, slug, proposal(**changes), services).row.id


def approve(world: World, which: UUID, *people: str) -> PreApprovalSummary:
    """Let these people approve a pre-approval, and return its state afterwards."""
    for who in people:
        with world.db.transaction() as session:
            found = pre_approvals.approve(session, world.people[who], HERE, world.tenant.slug, which)
    return found


def revoke(world: World, which: UUID, who: str = "amir") -> PreApprovalSummary:
    with world.db.transaction() as session:
        return pre_approvals.revoke(session, world.people[who], HERE, world.tenant.slug, which)


def in_force(world: World, **changes: Any) -> UUID:
    which = propose(world, **changes)
    assert approve(world, which, "ann").status is PreApprovalStatus.IN_FORCE
    return which


def status(world: World, which: UUID) -> PreApprovalStatus:
    with world.db.transaction() as session:
        return pre_approvals.find(session, world.people["ann"], world.tenant.slug, which).status


def events(world: World, action: str) -> list[dict[str, Any]]:
    """Return the bodies of the tenant's events with an action."""
    rows = read(world.db, "SELECT body FROM events WHERE action = :action ORDER BY id", action=action)
    return [json.loads(row.body) for row in rows]


def test_a_pre_approved_request_opens_at_once_and_names_the_approvers(world: World) -> None:
    which = in_force(world)

    request = world.submit()

    assert (request.state, request.pre_approval_id) == (State.ACTIVE, which)
    assert door(world) is not None
    (opened,) = events(world, "submit")
    assert opened["pre_approval_id"] == str(which)
    assert opened["approved_by"] == [str(world.people["ann"].person_id)]
    assert moves_of(world.db, request.id) == [(1, "submit", "active")]
    assert events(world, "pre_approval_approved")[0]["in_force"] is True


NOT_COVERED: dict[str, dict[str, Any]] = {
    "another resource": {"resources": ["mailbox:anna@fabrikam.example"]},
    "one resource more": {"resources": [MAILBOX, "mailbox:anna@fabrikam.example"]},
    "another action": {"actions": ["read", "export"]},
    "another reason": {"reason_code": "vendor_alert"},
    "another service": {"service": "sharepoint-online", "resources": [MAILBOX]},
    "a longer window": {"access_window": HOUR + 1},
}


@pytest.mark.parametrize("changes", NOT_COVERED.values(), ids=NOT_COVERED)
def test_a_request_only_partly_covered_by_a_pre_approval_goes_to_the_customer(
    world: World, changes: dict[str, Any]
) -> None:
    which = in_force(world)

    request = world.submit(**changes)

    assert (request.state, request.pre_approval_id) == (State.PENDING, None)
    assert read(world.db, "SELECT used FROM pre_approvals WHERE id = :id", id=which)[0].used == 0


def test_a_pre_approved_request_that_the_vendor_reviews_opens_when_it_is_endorsed(
    world: World, worker: Database
) -> None:
    lay_down(world, vendor_review=True)
    which = in_force(world)

    request = world.submit()
    opened = world.act("max", Action.ENDORSE, request.id)

    assert request.state is State.REVIEWING
    assert (opened.state, opened.pre_approval_id) == (State.ACTIVE, which)
    assert door(world) is not None
    assert looked(worker) == set()
    check_log_of_one_window(world, worker)


def test_verifiers_and_monitor_accept_a_pre_approved_window(world: World, worker: Database) -> None:
    in_force(world)
    world.submit()

    assert looked(worker) == set()
    check_log_of_one_window(world, worker)


def test_a_window_opened_by_pre_approval_notifies_the_requester_and_admins_and_approvers(world: World) -> None:
    in_force(world)

    request = world.submit()

    assert told(world, request.id, "active") == dict.fromkeys(("erin", "ann", "amir", "abe", "tara"), 1)


def test_a_delegate_cannot_vote_in_place_of_the_proposer_of_a_pre_approval(world: World, superuser: Engine) -> None:
    write(superuser, ALSO_APPROVER, p=world.people["tara"].person_id, t=world.tenant.id)
    stand_in(world, "aude", "tara")
    which = propose(world)

    with pytest.raises(OwnRequest, match="stand in for whoever has proposed"):
        approve(world, which, "aude")

    stand_in(world, "aude", "amir")
    lay_down(world, groups={"admins": group(world, "tara")}, stages=[{"group": "admins"}])
    assert "1 more approval of the group admins" in approve(world, which, "aude").lacks


def test_an_api_token_cannot_propose_a_pre_approval(world: World) -> None:
    world.people["tara"] = signed_in(world, "tara", AuthMethod.TOKEN)

    with pytest.raises(SignInAgain):
        propose(world)


def test_an_extension_of_a_pre_approved_window_ends_with_the_pre_approval(world: World) -> None:
    which = in_force(world)
    window = world.submit()
    further = world.act("ann", Action.APPROVE, extended(world, window.id).id)

    revoke(world, which)

    assert [state_of(world.db, one.id) for one in (window, further)] == ["revoked", "revoked"]
    assert events(world, "pre_approval_revoked")[0]["closed"] == [str(window.id), str(further.id)]


def test_revoking_a_pre_approval_after_its_window_expired_spares_an_approved_extension(
    world: World, later: ShiftedClock
) -> None:
    which = in_force(world)
    window = world.submit()
    further = world.act("ann", Action.APPROVE, extended(world, window.id).id)
    world.db.clock = later
    later.shift = timedelta(hours=1, seconds=1)

    revoke(world, which)

    assert [state_of(world.db, one.id) for one in (window, further)] == ["active", "active"]
    assert events(world, "pre_approval_revoked")[0]["closed"] == []


def test_a_window_opened_by_the_vendor_without_the_customer_clears_no_denial(world: World) -> None:
    in_force(world)
    world.act("ann", Action.DENY, world.submit(access_window=2 * HOUR).id)
    switch = partial(does, world, "tara", emergency_stop.switch_mode, plans=SETTINGS.catalogue.plans)

    switch(Mode.OBSERVE)
    assert world.act("max", Action.ENDORSE, world.submit().id).state is State.ACTIVE
    switch(Mode.ENFORCE)

    assert world.submit().state is State.REVIEWING


def test_of_concurrent_submits_for_the_last_use_of_a_pre_approval_only_one_opens(
    world: World, pool: ThreadPoolExecutor
) -> None:
    which = in_force(world, max_uses=1)

    found = at_once(pool, *[world.submit] * 6)

    states = sorted(str(one.state) for one in found if isinstance(one, AccessRequest))
    assert states == ["active", *["pending"] * 5]
    assert status(world, which) is PreApprovalStatus.USED_UP
    assert len(events(world, "pre_approval_used_up")) == 1


def test_no_window_outlasts_the_pre_approval_that_opened_it(world: World) -> None:
    in_force(world, ends_at=datetime.now(UTC) + timedelta(minutes=5))

    request = world.submit()

    assert request.state is State.ACTIVE
    assert request.deadline_at <= datetime.now(UTC) + timedelta(minutes=5)


@pytest.mark.parametrize("who", ["amir", "tara"])
def test_revoking_a_pre_approval_revokes_only_windows_opened_by_that_pre_approval(world: World, who: str) -> None:
    which = in_force(world)
    by_it, asked = world.submit(), world.submit(actions=["export"])
    other = world.act("ann", Action.APPROVE, asked.id)

    assert revoke(world, which, who).status is PreApprovalStatus.REVOKED

    assert (state_of(world.db, by_it.id), state_of(world.db, other.id)) == ("revoked", "active")
    assert world.submit().state is State.PENDING
    assert events(world, "pre_approval_revoked")[0]["closed"] == [str(by_it.id)]
    assert revoke(world, which, who).status is PreApprovalStatus.REVOKED


RULES = [{"name": "the board", "match": {"resources": ["mailbox:ceo@*"]}, "terms": {"quorum": 2}}]


def test_a_pre_approval_needs_the_quorum_of_the_strictest_request_it_covers(world: World) -> None:
    lay_down(world, rules=RULES)
    which = propose(world)

    one = approve(world, which, "ann")
    first = world.submit()
    both = approve(world, which, "amir")

    assert (one.status, one.lacks) == (PreApprovalStatus.PENDING, ("1 more approval",))
    assert first.state is State.PENDING
    assert both.status is PreApprovalStatus.IN_FORCE
    assert world.submit().state is State.ACTIVE
    elsewhere = propose(world, resource="mailbox:anna@*")
    assert approve(world, elsewhere, "ann").status is PreApprovalStatus.IN_FORCE


def test_a_stricter_policy_suspends_a_pre_approval_until_more_people_have_approved(world: World) -> None:
    which = in_force(world)
    lay_down(world, quorum=2)

    suspended = world.submit()
    approve(world, which, "amir")

    assert (suspended.state, world.submit().state) == (State.PENDING, State.ACTIVE)
    lay_down(world, approve_means="passkey-signed")
    assert (status(world, which), world.submit().state) == (PreApprovalStatus.PENDING, State.PENDING)


def test_an_approval_dated_in_the_future_counts_from_that_time_on(world: World, still: StoppedClock) -> None:
    in_force(world)
    still.at -= timedelta(milliseconds=1)

    before = world.fresh()
    still.at += timedelta(milliseconds=1)

    assert (before.state, world.fresh().state) == (State.PENDING, State.ACTIVE)


def test_a_pre_approval_is_revoked_with_its_windows_even_if_the_clock_was_set_back(
    world: World, worker: Database, still: StoppedClock
) -> None:
    which = in_force(world)
    world.submit()
    still.at -= timedelta(milliseconds=1)

    revoke(world, which)

    check_log_of_one_window(world, worker)


def test_extensions_end_with_their_pre_approval_even_if_the_clock_was_set_back(
    world: World, still: StoppedClock
) -> None:
    which = in_force(world)
    first = world.fresh()
    further = world.act("ann", Action.APPROVE, extended(world, first.id).id)
    still.at = first.deadline_at
    second = world.fresh()
    still.at -= timedelta(milliseconds=1)

    revoke(world, which)

    assert {state_of(world.db, one.id) for one in (first, further, second)} == {"revoked"}


def test_a_former_approvers_approval_no_longer_counts_for_a_pre_approval(world: World, superuser: Engine) -> None:
    which = in_force(world)
    write_unchecked(
        superuser,
        "DELETE FROM memberships WHERE person_id = :ann AND role = 'approver'",
        ann=world.people["ann"].person_id,
    )

    assert world.submit().state is State.PENDING
    assert approve(world, which, "abe").status is PreApprovalStatus.IN_FORCE


def test_a_delegate_approves_a_pre_approval_for_an_approver_within_the_period(
    world: World, superuser: Engine
) -> None:
    stand_in(world, "aude", "ann")
    which = propose(world)

    assert approve(world, which, "aude").status is PreApprovalStatus.IN_FORCE
    opened = world.submit()
    write_unchecked(superuser, "UPDATE delegations SET ended_at = now()")

    assert (opened.state, world.submit().state) == (State.ACTIVE, State.PENDING)


def test_proposers_cannot_approve_a_pre_approval_and_unapprovable_proposals_are_refused(
    world: World, superuser: Engine
) -> None:
    own = world.add("tim", Role.TENANT_ADMIN, world.tenant.id)
    write(superuser, ALSO_APPROVER, p=own.person_id, t=world.tenant.id)
    which = propose(world, "tim")

    with pytest.raises(OwnRequest):
        approve(world, which, "tim")
    lay_down(world, quorum=5)
    with pytest.raises(NobodyCanApprove):
        propose(world)
    lay_down(world, approve_means="passkey-signed")
    with pytest.raises(PasskeyMustSign):
        propose(world)
    with pytest.raises(PasskeyMustSign):
        approve(world, which, "ann")


def test_a_pre_approved_request_that_was_denied_needs_a_manager_and_the_customer(world: World) -> None:
    world.act("ann", Action.DENY, world.submit().id)
    in_force(world)

    request = world.submit()

    assert request.state is State.REVIEWING
    assert world.act("max", Action.ENDORSE, request.id).state is State.PENDING


def test_an_emergency_stop_revokes_pre_approvals(world: World) -> None:
    which = in_force(world)
    request = world.submit()
    with world.db.transaction() as session:
        emergency_stop.stop_all(session, world.people["tara"], HERE, world.tenant.slug)

    assert status(world, which) is PreApprovalStatus.REVOKED
    assert moves_of(world.db, request.id)[-1] == (2, "revoke", "revoked")


@pytest.mark.far
def test_a_suspension_during_pre_approved_submits_leaves_no_window_open(
    world: World, pool: ThreadPoolExecutor
) -> None:
    in_force(world, max_uses=100)

    def suspend() -> None:
        with world.db.transaction() as session:
            tenants.suspend(session, world.people["olga"], HERE, world.tenant.slug)

    at_once(pool, *[world.submit] * 3, suspend, *[world.submit] * 3)

    assert not read(world.db, "SELECT FROM requests WHERE state = 'active'")


def test_the_end_of_a_pre_approval_writes_one_event(world: World, worker: Database, superuser: Engine) -> None:
    which = in_force(world)
    over = in_force(world)
    revoke(world, over)
    write_unchecked(
        superuser, "UPDATE pre_approvals SET proposed_at = proposed_at - interval '8 days', ends_at = now()"
    )

    assert [list(pre_approvals.record_ended(worker)), list(pre_approvals.record_ended(worker))] == [[2], []]

    assert [event["pre_approval_id"] for event in events(world, "pre_approval_ended")] == [str(which)]
    assert status(world, which) is PreApprovalStatus.ENDED
    assert world.submit().state is State.PENDING


Call = Callable[[], object]


def test_an_extension_whose_approval_was_uncommitted_is_ended_with_its_pre_approval(
    world: World, pool: ThreadPoolExecutor
) -> None:
    which = in_force(world)
    window = world.submit()
    further = extended(world, window.id)

    with uncommitted(world, "ann", Action.APPROVE, further.id):
        revoking = beside(world, pool, partial(revoke, world, which))
    revoking.result(PATIENCE)

    assert [state_of(world.db, one.id) for one in (window, further)] == ["revoked", "revoked"]


def held_until_its_end(world: World, pool: ThreadPoolExecutor, later: ShiftedClock, call: Call) -> Future[object]:
    """Let a call wait for the row lock of a pre-approval until the pre-approval has ended."""
    world.db.clock = later
    with as_caller(world.db, world.people["ann"]) as connection:
        connection.execute(text("SELECT FROM pre_approvals FOR UPDATE"))
        running = beside(world, pool, call)
        later.shift = timedelta(days=8)
    return running


def test_an_approval_that_waits_for_the_row_lock_until_the_pre_approval_has_ended_is_too_late(
    world: World, pool: ThreadPoolExecutor, later: ShiftedClock
) -> None:
    which = propose(world)

    with pytest.raises(TooLate):
        held_until_its_end(world, pool, later, partial(approve, world, which, "ann")).result(PATIENCE)


def test_an_emergency_stop_that_waits_for_the_row_lock_leaves_an_ended_pre_approval_unchanged(
    world: World, pool: ThreadPoolExecutor, later: ShiftedClock
) -> None:
    which = in_force(world)

    held_until_its_end(world, pool, later, partial(does, world, "tara", emergency_stop.stop_all)).result(PATIENCE)

    assert (status(world, which), revoke(world, which).status) == (PreApprovalStatus.ENDED, PreApprovalStatus.ENDED)
    assert events(world, "pre_approval_revoked") == []


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
def test_a_pre_approval_altered_in_the_database_opens_no_window(world: World, superuser: Engine, change: str) -> None:
    in_force(world)

    write_unchecked(superuser, change)

    assert world.submit().state is State.PENDING


def test_a_revoked_pre_approval_cannot_be_revived(world: World, superuser: Engine) -> None:
    which = in_force(world)
    revoke(world, which)

    write_unchecked(superuser, "UPDATE pre_approvals SET revoked_at = NULL, revoked_by = NULL")

    assert world.submit().state is State.PENDING


def test_if_a_pre_approval_is_revoked_in_the_database_its_window_closes_with_an_alarm(
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
def test_the_apis_database_role_cannot_forge_pre_approvals(world: World, who: str, statement: str) -> None:
    in_force(world)
    world.submit()

    with pytest.raises(DBAPIError), as_caller(world.db, world.people[who]) as connection:
        connection.exec_driver_sql(statement)
