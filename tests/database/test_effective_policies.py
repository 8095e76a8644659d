"""Policies at work: the stricter of old and current policy, stages, tiers, delegates and temporary consent."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from catalogue.service_catalogue import Plan
from harness.clocks import ShiftedClock
from harness.people import HERE, World, decision_input
from harness.stage import setting
from lockbox.admin import emergency_stop
from lockbox.database import Database
from lockbox.errors import (
    AlreadyDecided,
    NobodyCanApprove,
    NotYours,
    PolicyNotMet,
    SignInAgain,
    TooLate,
    WindowTooLong,
)
from lockbox.facts.enumerations import AuthMethod, Mode, State
from lockbox.identity.roles import Caller, Role, RoleGrant
from lockbox.requests import decide
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import read, write
from tests.database.tenancy import does
from tests.each import each
from tests.policy_setup import group, lay_down, signed_in, stand_in


def approve(world: World, caller: Caller, request: AccessRequest, **changes: Any) -> AccessRequest:
    with world.db.transaction() as session:
        return decide.act(session, caller, HERE, request.id, decision_input(Action.APPROVE, **changes))


def prompted(world: World, request_id: UUID) -> set[str]:
    """Return who was mailed that a request is pending, by name in the world."""
    rows = read(
        world.db,
        "SELECT person_id FROM notifications WHERE request_id = :id AND template = 'pending' AND person_id NOTNULL",
        id=request_id,
    )
    names = {caller.person_id: name for name, caller in world.people.items()}
    return {names[row.person_id] for row in rows}


def test_a_request_keeps_the_policy_version_that_applied_at_submission(world: World) -> None:
    first = world.submit()

    lay_down(world, quorum=2)
    second = world.submit()

    rows = read(world.db, "SELECT id, policy_version, quorum FROM requests ORDER BY id")
    assert [(row.id, row.policy_version, row.quorum) for row in rows] == [(first.id, 1, 1), (second.id, 2, 2)]


def test_a_raised_quorum_applies_to_pending_requests(world: World) -> None:
    request = world.submit()
    lay_down(world, quorum=2)

    after_one = world.act("ann", Action.APPROVE, request.id).state
    after_two = world.act("amir", Action.APPROVE, request.id).state

    assert (after_one, after_two) == (State.PENDING, State.ACTIVE)
    (row,) = read(world.db, "SELECT quorum FROM requests")
    assert row.quorum == 2


def test_a_lowered_quorum_does_not_apply_to_pending_requests(world: World) -> None:
    lay_down(world, quorum=2)
    request = world.submit()
    lay_down(world, quorum=1)

    assert world.act("ann", Action.APPROVE, request.id).state is State.PENDING


def test_a_window_is_shortened_if_the_policy_lowered_the_longest_allowed_window(world: World) -> None:
    request = world.submit(access_window=3600)
    lay_down(world, access_ceiling=600)

    opened = world.act("ann", Action.APPROVE, request.id)

    assert opened.opened_at is not None
    assert opened.deadline_at - opened.opened_at == timedelta(seconds=600)


def test_late_approvals_are_refused_if_the_approval_window_was_shortened(world: World, later: ShiftedClock) -> None:
    request = world.submit()
    lay_down(world, approval_window=600)
    later.shift = timedelta(seconds=601)

    with pytest.raises(TooLate):
        world.act("ann", Action.APPROVE, request.id, Database(world.db.engine, world.db.schedule, later))


def test_a_policy_rule_applies_only_to_requests_that_match_the_rule(world: World) -> None:
    board = {"name": "Board", "match": {"resources": ["mailbox:ceo@*"]}, "terms": {"quorum": 3}}
    lay_down(world, rules=[board])

    other, matched = world.submit(), world.submit(resources=["mailbox:ceo@contoso.example"])

    assert (other.quorum, matched.quorum) == (1, 3)


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
def test_a_request_whose_reason_code_is_no_longer_accepted_cannot_be_opened(api: Database, mode: Mode) -> None:
    world = World.make(api, Policy(vendor_review=True), mode=mode)
    request = world.submit(reason_code="legal_demand")
    who, action = "max", Action.ENDORSE
    if mode is Mode.ENFORCE:
        world.act("max", Action.ENDORSE, request.id)
        who, action = "ann", Action.APPROVE
    lay_down(world, vendor_review=True, reasons=["support_case"])

    with pytest.raises(PolicyNotMet, match="no longer meets"):
        world.act(who, action, request.id)


HERS, HIS = "mailbox:anna@contoso.example", "mailbox:bob@contoso.example"


@pytest.mark.parametrize("who", ["erin", "eve"])
def test_a_resource_denied_by_the_customer_needs_a_manager_at_the_next_request(world: World, who: str) -> None:
    lay_down(world)
    world.act("ann", Action.DENY, world.submit(resources=[HERS]).id)

    again = world.submit(who, resources=[HIS, HERS])
    other = world.submit(who, resources=[HIS])
    asked = world.act("max", Action.ENDORSE, again.id)

    assert (again.state, other.state, asked.state) == (State.REVIEWING, State.PENDING, State.PENDING)


def test_a_later_approval_of_a_resource_clears_the_earlier_denial(world: World) -> None:
    lay_down(world)
    world.act("ann", Action.DENY, world.submit(resources=[HERS, HIS]).id)
    again = world.submit(resources=[HERS])
    world.act("max", Action.ENDORSE, again.id)
    world.act("ann", Action.APPROVE, again.id)

    assert world.submit(resources=[HERS]).state is State.PENDING
    assert world.submit(resources=[HIS]).state is State.REVIEWING
    assert world.submit(resources=[HERS, HIS]).state is State.REVIEWING


def test_a_vendors_denial_does_not_count_as_a_customers_denial(world: World) -> None:
    lay_down(world, vendor_review=True)
    world.act("max", Action.DENY, world.submit(resources=[HERS]).id)
    lay_down(world)

    assert world.submit(resources=[HERS]).state is State.PENDING


def test_approvers_of_a_stage_added_by_a_policy_change_must_approve_too(world: World) -> None:
    world.add("lena", Role.APPROVER, world.tenant.id)
    lay_down(world, stages=[{"group": "legal"}], groups={"legal": group(world, "lena")})
    request = world.submit()

    after_ann = world.act("ann", Action.APPROVE, request.id).state
    after_lena = world.act("lena", Action.APPROVE, request.id).state

    assert (after_ann, after_lena) == (State.PENDING, State.ACTIVE)


def test_approvers_of_a_stage_removed_by_a_policy_change_must_still_approve(world: World) -> None:
    lay_down(world, stages=[{"group": "legal"}], groups={"legal": group(world, "abe")})
    request = world.submit()
    lay_down(world)

    assert world.act("ann", Action.APPROVE, request.id).state is State.PENDING
    assert world.act("abe", Action.APPROVE, request.id).state is State.ACTIVE


def test_approvers_added_to_a_policy_may_decide_and_removed_approvers_may_not(world: World) -> None:
    request = world.submit()
    write(
        setting(world.db).engine,
        "DELETE FROM memberships WHERE person_id = :id",
        id=world.people["ann"].person_id,
    )
    world.add("nora", Role.APPROVER, world.tenant.id)

    with pytest.raises(NotYours):
        world.act("ann", Action.APPROVE, request.id)
    assert world.act("nora", Action.APPROVE, request.id).state is State.ACTIVE


def test_the_first_tier_is_prompted_and_later_tiers_may_still_decide(world: World) -> None:
    lay_down(
        world, tiers=[["first"], ["second"]], groups={"first": group(world, "abe"), "second": group(world, "ann")}
    )

    request = world.submit()

    assert prompted(world, request.id) == {"abe"}
    assert world.act("amir", Action.APPROVE, request.id).state is State.ACTIVE


def test_a_tier_without_deciders_is_skipped(world: World) -> None:
    lay_down(
        world, tiers=[["gone"], ["second"]], groups={"gone": group(world, "aude"), "second": group(world, "ann")}
    )

    assert prompted(world, world.submit().id) == {"ann"}


def test_a_delegate_is_prompted_instead_of_the_principal_and_decides_in_the_delegates_own_name(world: World) -> None:
    world.add("dora", Role.AUDITOR, world.tenant.id)
    stand_in(world, "dora", "ann")
    request = world.submit()

    opened = world.act("dora", Action.APPROVE, request.id)

    assert opened.state is State.ACTIVE
    assert prompted(world, request.id) == {"amir", "abe", "dora"}
    (decision,) = read(world.db, "SELECT person_id, principals FROM decisions")
    assert decision.person_id == world.people["dora"].person_id
    assert decision.principals == [world.people["ann"].person_id]
    (event,) = read(world.db, "SELECT actor_id, convert_from(body, 'utf8') AS body FROM events WHERE seq = 2")
    assert event.actor_id == world.people["dora"].person_id
    assert f'"on_behalf_of":"{world.people["ann"].person_id}"' in event.body


@pytest.mark.parametrize(("starts", "ends"), [(-2, -1), (1, 2)])
def test_a_delegate_decides_only_within_the_delegation_period(world: World, starts: float, ends: float) -> None:
    world.add("dora", Role.AUDITOR, world.tenant.id)
    stand_in(world, "dora", "ann", starts=starts, ends=ends)

    with pytest.raises(NotYours):
        world.act("dora", Action.APPROVE, world.submit().id)


@pytest.mark.parametrize(
    "lost",
    [
        "DELETE FROM memberships WHERE person_id = :principal",
        "UPDATE people SET disabled_at = now() WHERE id = :principal",
        "DELETE FROM eligible_delegates WHERE person_id = :delegate",
        "DELETE FROM memberships WHERE person_id = :delegate",
        "UPDATE delegations SET ended_at = now() WHERE delegate_id = :delegate",
    ],
)
def test_a_delegate_decides_only_while_delegate_and_principal_keep_their_roles(world: World, lost: str) -> None:
    world.add("dora", Role.AUDITOR, world.tenant.id)
    stand_in(world, "dora", "ann")
    request = world.submit()
    people = {"principal": world.people["ann"].person_id, "delegate": world.people["dora"].person_id}
    write(setting(world.db).engine, lost, **{name: value for name, value in people.items() if f":{name}" in lost})

    with pytest.raises((NotYours,)):
        world.act("dora", Action.APPROVE, request.id)


def test_a_delegate_of_several_approvers_has_one_vote(world: World) -> None:
    lay_down(world, quorum=2)
    world.add("dora", Role.AUDITOR, world.tenant.id)
    stand_in(world, "dora", "ann")
    stand_in(world, "dora", "amir")
    request = world.submit()

    after = world.act("dora", Action.APPROVE, request.id).state

    assert after is State.PENDING
    with pytest.raises(AlreadyDecided):
        world.act("dora", Action.APPROVE, request.id)


def test_the_vote_of_a_delegate_counts_for_the_group_of_the_principal(world: World) -> None:
    world.add("dora", Role.AUDITOR, world.tenant.id)
    lay_down(world, stages=[{"group": "legal"}], groups={"legal": group(world, "abe")})
    stand_in(world, "dora", "abe")
    request = world.submit()

    assert world.act("dora", Action.APPROVE, request.id).state is State.ACTIVE


@each(
    ("means", "minutes_ago", "policy"),
    [
        (AuthMethod.TOKEN, 0, {}),
        (AuthMethod.MAIL, 0, {}),
        (AuthMethod.MAIL, 16, {"mail_suffices": True}),
        (AuthMethod.OIDC, 16, {}),
        (AuthMethod.PASSKEY, 16, {}),
        (AuthMethod.PASSKEY, 2, {"sign_in_age": 60}),
    ],
)
def test_opening_a_window_needs_a_fresh_and_strong_sign_in(
    world: World, means: AuthMethod, minutes_ago: float, policy: dict[str, Any]
) -> None:
    lay_down(world, **policy)
    request = world.submit()

    with pytest.raises(SignInAgain):
        approve(world, signed_in(world, "ann", means, minutes_ago=minutes_ago), request)


@pytest.mark.parametrize(
    ("means", "minutes_ago", "policy"),
    [
        (AuthMethod.MAIL, 1, {"mail_suffices": True}),
        (AuthMethod.OIDC, 14, {}),
        (AuthMethod.PASSKEY, 14, {}),
        (AuthMethod.PASSKEY, 100, {"sign_in_age": 7200}),
    ],
)
def test_an_approver_with_a_fresh_strong_sign_in_opens_a_window_and_the_sign_in_is_recorded(
    world: World, means: AuthMethod, minutes_ago: float, policy: dict[str, Any]
) -> None:
    lay_down(world, **policy)
    request = world.submit()

    opened = approve(world, signed_in(world, "ann", means, minutes_ago=minutes_ago), request)

    assert opened.state is State.ACTIVE
    (event,) = read(world.db, "SELECT convert_from(body, 'utf8') AS body FROM events WHERE seq = 2")
    assert f'"means":"{"mail-only" if means is AuthMethod.MAIL else means.value}"' in event.body


@pytest.mark.parametrize("means", [AuthMethod.TOKEN, AuthMethod.MAIL])
def test_a_token_or_a_mailed_code_suffices_to_deny_and_revoke(world: World, means: AuthMethod) -> None:
    caller = signed_in(world, "ann", means, minutes_ago=60)
    waiting, opened = world.submit(), world.submit()
    world.act("amir", Action.APPROVE, opened.id)

    with world.db.transaction() as session:
        denied = decide.act(session, caller, HERE, waiting.id, DecisionInput(Action.DENY, "No")).state
        revoked = decide.act(session, caller, HERE, opened.id, DecisionInput(Action.REVOKE)).state

    assert (denied, revoked) == (State.DENIED, State.REVOKED)


def test_endorsing_needs_a_fresh_sign_in_like_approving(world: World) -> None:
    lay_down(world, vendor_review=True)
    request = world.submit()
    caller = signed_in(world, "max", AuthMethod.TOKEN)

    with pytest.raises(SignInAgain), world.db.transaction() as session:
        decide.act(session, caller, HERE, request.id, DecisionInput(Action.ENDORSE))


def test_a_service_account_decides_nothing(world: World) -> None:
    lay_down(world, vendor_review=True)
    request = world.submit()
    world.put_on_both_sides("gate", Role.MANAGER)
    gate = world.people["gate"]
    both = replace(gate, standings=gate.standings | {RoleGrant(Role.MANAGER)})

    with pytest.raises(NotYours, match="cannot decide"), world.db.transaction() as session:
        decide.act(session, both, HERE, request.id, DecisionInput(Action.ENDORSE))


def test_temporary_consent_lets_the_vendor_open_windows_until_the_consent_ends(
    world: World, later: ShiftedClock
) -> None:
    until = datetime.now(UTC) + timedelta(minutes=30)
    lay_down(world, consent={"mode": "observe", "until": until.isoformat()})
    shifted = Database(world.db.engine, world.db.schedule, later)
    request = world.submit(access_window=3600)

    opened = world.act("max", Action.ENDORSE, request.id)
    later.shift = timedelta(minutes=31)
    after = world.submit(db=shifted)

    assert (request.mode, request.state, opened.state) == (Mode.OBSERVE, State.REVIEWING, State.ACTIVE)
    assert opened.deadline_at == until
    assert (after.mode, after.state) == (Mode.ENFORCE, State.PENDING)


def test_consent_that_ended_during_review_opens_no_window(world: World, later: ShiftedClock) -> None:
    until = datetime.now(UTC) + timedelta(minutes=30)
    lay_down(world, consent={"mode": "off", "until": until.isoformat()})
    request = world.submit()
    later.shift = timedelta(minutes=30, seconds=1)

    with pytest.raises(TooLate):
        world.act("max", Action.ENDORSE, request.id, Database(world.db.engine, world.db.schedule, later))


def test_consent_given_after_submission_lets_the_vendor_open_the_request_until_consent_ends(api: Database) -> None:
    world = World.make(api, Policy(), Mode.OBSERVE)
    request = world.submit(access_window=3600)
    does(world, "tara", emergency_stop.switch_mode, Mode.ENFORCE, plans={"standard": Plan()})
    until = datetime.now(UTC) + timedelta(minutes=30)
    lay_down(world, consent={"mode": "observe", "until": until.isoformat()})

    opened = world.act("max", Action.ENDORSE, request.id)

    assert (opened.state, opened.deadline_at, opened.consent_until) == (State.ACTIVE, until, until)


def test_the_database_refuses_a_vendor_opened_window_that_outlasts_consent(world: World) -> None:
    until = datetime.now(UTC) + timedelta(minutes=30)
    lay_down(world, consent={"mode": "observe", "until": until.isoformat()})
    request = world.submit()
    longer = until + timedelta(hours=1)
    lay_down(world, consent={"mode": "observe", "until": longer.isoformat()})

    with pytest.raises(Exception, match="ck_requests_consent"):
        write(
            setting(world.db).engine,
            "UPDATE requests SET state = 'active', version = 2, opened_at = now(), asked_at = now(), "
            "deadline_at = now() + interval '40 minutes', wake_at = now() WHERE id = :id",
            id=request.id,
        )


@each(
    ("policy", "changes", "code"),
    [
        ({"require_case": True}, {"case_ref": None}, "case_ref"),
        ({"justification_least": 100}, {}, "justification"),
        ({"reasons": ["vendor_alert"]}, {}, "reason_code"),
    ],
)
def test_the_refusal_of_a_submission_names_each_field_that_the_policy_requires(
    world: World, policy: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    lay_down(world, **policy)

    with pytest.raises(PolicyNotMet) as refused:
        world.submit(**changes)

    assert [error["field"] for error in refused.value.facts["errors"]] == [code]


def test_a_window_longer_than_a_policy_rule_allows_is_refused_and_the_limit_is_stated(world: World) -> None:
    mail = {"name": "Mail", "match": {"services": ["exchange-online"]}, "terms": {"access_ceiling": 600}}
    lay_down(world, rules=[mail])

    with pytest.raises(WindowTooLong) as refused:
        world.submit(access_window=601)

    assert refused.value.facts["limit_seconds"] == 600


def test_a_request_that_no_one_could_approve_is_refused_with_the_reason(world: World) -> None:
    lay_down(world, quorum=4)

    with pytest.raises(NobodyCanApprove, match="requires 4 approvals, and the tenant has 3 people"):
        world.submit()


def test_the_refusal_of_a_request_that_a_stage_could_not_approve_names_the_group(world: World) -> None:
    lay_down(world, stages=[{"group": "legal"}], groups={"legal": group(world, "aude")})

    with pytest.raises(NobodyCanApprove, match="legal"):
        world.submit()


def test_a_delegate_does_not_raise_the_number_of_votes_that_a_unanimous_quorum_needs(world: World) -> None:
    world.add("dora", Role.AUDITOR, world.tenant.id)
    lay_down(world, quorum=4)
    stand_in(world, "dora", "ann")

    with pytest.raises(NobodyCanApprove):
        world.submit()


def test_an_approver_and_their_delegate_have_one_vote_between_them(world: World) -> None:
    lay_down(world, quorum=2)
    world.add("dora", Role.AUDITOR, world.tenant.id)
    stand_in(world, "dora", "ann")
    request = world.submit()

    world.act("dora", Action.APPROVE, request.id)
    after_both = world.act("ann", Action.APPROVE, request.id).state
    after_another = world.act("amir", Action.APPROVE, request.id).state

    assert (after_both, after_another) == (State.PENDING, State.ACTIVE)


def test_a_tenant_admin_denies_a_pending_request(world: World) -> None:
    assert world.act("tara", Action.DENY, world.submit().id).state is State.DENIED
