"""A tenant's policy: its admins replace all of it by a new version, under which someone must be able to approve."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock
from harness.people import HERE, WITHOUT_REVIEW, World
from lockbox.admin import delegates, members, policies
from lockbox.admin.delegates import DelegationInput
from lockbox.admin.policies import VersionedPolicy
from lockbox.database import Database
from lockbox.errors import (
    AlreadyDecided,
    Invalid,
    NobodyCanApprove,
    NotFound,
    PolicyNotMet,
    SignInAgain,
    TooLate,
)
from lockbox.facts.enumerations import AuthMethod, Mode, State
from lockbox.identity.roles import Caller, Role
from lockbox.requests import decide
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import Consent
from lockbox.requests.policy_parts import ApprovalStage
from lockbox.requests.policy_rules import Match, Overrides, Policy, Rule
from lockbox.requests.quorum import ApprovalLimits
from lockbox.sql import new_id
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.scenes import at_once, read, state_of
from tests.database.tenancy import does, id_of, on_the_database, reads
from tests.policy_setup import lay_down, signed_in

VENDOR = ["erin", "max", "olga", "vera", "gate"]
STRICT = WITHOUT_REVIEW.model_copy(update={"quorum": 2})


def change(world: World, policy: Policy, who: str = "tara", seen: int | None = None) -> VersionedPolicy:
    return does(world, who, policies.change, policy, seen=seen)


def of_groups(world: World, stage: ApprovalStage | None = None, **groups: Any) -> Policy:
    """Return a policy with these groups of the world's people, and with the stage if there is one."""
    members_ = {name: tuple(id_of(world, person) for person in people) for name, people in groups.items()}
    return Policy(groups=members_, stages=(stage,) if stage else ())


def test_a_policy_change_makes_a_new_version_and_keeps_the_old_version(world: World) -> None:
    held = change(world, STRICT)

    assert (held.edition.version, held.edition.author, held.policy) == (2, "Tara", STRICT)
    assert reads(world, "ann", policies.read) == held
    old = reads(world, "ann", policies.read, 1)
    assert (old.policy, old.edition.author_id, old.edition.author) == (WITHOUT_REVIEW, None, None)
    assert world.submit().quorum == 2


def test_a_policy_change_writes_one_event_with_a_diff_and_notifies_people(world: World) -> None:
    change(world, STRICT)

    told = last_change(world.db)

    assert (told.action, told.actor, told.role) == ("policy_changed", "Tara", "tenant_admin")
    assert (told.changes, told.facts["version"]) == ({"quorum": "1 → 2"}, 2)
    assert told.told == {"Tara", "Ann", "Amir", "Abe"}


def test_saving_an_unchanged_policy_makes_no_new_version(world: World) -> None:
    before = len(recorded_changes(world.db))

    held = change(world, Policy.model_validate(WITHOUT_REVIEW.model_dump(mode="json")), seen=1)

    assert held.edition.version == 1
    assert len(recorded_changes(world.db)) == before
    assert read(world.db, "SELECT count(*) AS number FROM policies")[0].number == 1


def test_of_two_concurrent_policy_replacements_one_is_refused(world: World, pool: ThreadPoolExecutor) -> None:
    world.add("tom", Role.TENANT_ADMIN, world.tenant.id)

    answers = at_once(
        pool, lambda: change(world, STRICT, "tara", seen=1), lambda: change(world, Policy(), "tom", seen=1)
    )

    assert sorted(type(answer).__name__ for answer in answers) == ["StaleVersion", "VersionedPolicy"]
    assert [one.version for one in reads(world, "ann", policies.editions, before=None, most=9)] == [2, 1]


def test_requests_can_be_submitted_during_a_policy_change(world: World) -> None:
    with world.db.transaction() as session:
        policies.change(session, world.people["tara"], HERE, world.tenant.slug, STRICT)
        submitted = world.submit()

    assert (submitted.policy_version, submitted.quorum) == (1, 1)


def test_another_tenants_policy_is_not_found(world: World, api: Database) -> None:
    elsewhere = World.make(api)

    with pytest.raises(NotFound):
        reads(world, "tara", policies.read, slug=elsewhere.tenant.slug)
    with pytest.raises(NotFound):
        does(world, "tara", policies.change, STRICT, slug=elsewhere.tenant.slug)


def test_a_policys_author_who_left_the_tenant_is_not_named(world: World) -> None:
    tom = world.add("tom", Role.TENANT_ADMIN, world.tenant.id)
    change(world, STRICT, "tom")

    does(world, "tara", members.remove, tom.person_id)

    edition = reads(world, "tara", policies.read).edition
    assert (edition.author_id, edition.author) == (tom.person_id, None)


def test_a_policy_needing_more_approvals_than_approvers_is_refused_with_the_reason(world: World) -> None:
    with pytest.raises(NobodyCanApprove) as refused:
        change(world, Policy(quorum=4))

    assert refused.value.facts["reasons"] == [
        "The policy requires 4 approvals, and the tenant has 3 people who could approve."
    ]
    assert reads(world, "tara", policies.read).edition.version == 1


def test_the_refusal_of_a_policy_rule_under_which_no_one_could_approve_names_the_rule(world: World) -> None:
    rules = (
        Rule(name="Exports", match=Match(actions=("export",)), terms=Overrides(quorum=3)),
        Rule(name="Mail", match=Match(services=("exchange-online",)), terms=Overrides(quorum=4)),
    )

    with pytest.raises(NobodyCanApprove) as refused:
        change(world, Policy(rules=rules))

    assert refused.value.facts["reasons"] == [
        'Under the rule "Mail": The policy requires 4 approvals, and the tenant has 3 people who could approve.'
    ]


def test_a_policy_rule_is_validated_together_with_the_default_terms(world: World) -> None:
    does(world, "tara", members.set_eligible, id_of(world, "aude"), eligible=True)
    groups = {"legal": (id_of(world, "aude"),), "board": (id_of(world, "ann"),)}
    rule = Rule(
        name="Legal", match=Match(actions=("export",)), terms=Overrides(stages=(ApprovalStage(group="legal"),))
    )

    with pytest.raises(NobodyCanApprove) as refused:
        change(world, Policy(groups=groups, stages=(ApprovalStage(group="board"),), rules=(rule,)))

    assert refused.value.facts["reasons"] == [
        'Under the rule "Legal": The group legal must give 1 approval and none of its members could.'
    ]


def test_a_tenant_without_approvers_accepts_no_policy(api: Database) -> None:
    world = World.make(api)
    for name in ("ann", "amir", "abe"):
        does(world, "tara", members.remove, id_of(world, name))

    with pytest.raises(NobodyCanApprove, match="0 people"):
        change(world, STRICT)


def test_a_policy_group_may_contain_approvers_and_eligible_delegates(world: World) -> None:
    does(world, "tara", members.set_eligible, id_of(world, "aude"), eligible=True)

    held = change(world, of_groups(world, ApprovalStage(group="legal"), legal=("ann", "aude")))

    assert set(held.policy.groups["legal"]) == {id_of(world, "ann"), id_of(world, "aude")}


def test_a_policy_group_of_delegates_can_answer_during_a_delegation(world: World) -> None:
    does(world, "tara", members.set_eligible, id_of(world, "aude"), eligible=True)
    policy = of_groups(world, ApprovalStage(group="legal"), legal=("aude",))
    with pytest.raises(NobodyCanApprove):
        change(world, policy)

    does(
        world,
        "ann",
        delegates.add_delegation,
        DelegationInput(id_of(world, "aude"), datetime.now(UTC) + timedelta(days=1)),
    )

    assert change(world, policy).edition.version == 2


def test_unknown_people_in_a_policy_group_are_named(world: World, api: Database) -> None:
    elsewhere, nobody = World.make(api), new_id()
    theirs, erin, aude = id_of(elsewhere, "ann"), id_of(world, "erin"), id_of(world, "aude")
    groups = {"legal": (id_of(world, "ann"), theirs, nobody), "board": (erin,), "ops": (aude,)}

    with pytest.raises(Invalid) as refused:
        change(world, Policy(groups=groups))

    said = {error["field"]: error["message"] for error in refused.value.facts["errors"]}
    assert said.keys() == {"groups.legal", "groups.board", "groups.ops"}
    for group, strangers in (("legal", {theirs, nobody}), ("board", {erin}), ("ops", {aude})):
        named = set(said[f"groups.{group}"].rpartition(": ")[2].split(", "))
        assert named == {str(person) for person in strangers}


def test_temporary_consent_is_part_of_the_policy_and_ends_without_a_policy_change(world: World) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)

    change(world, Policy(consent=Consent(mode=Mode.OBSERVE, until=until)))

    assert last_change(world.db).changes["consent"].startswith("none → observe until ")
    submitted = world.submit()
    assert (submitted.mode, submitted.state) == (Mode.OBSERVE, State.REVIEWING)


def test_withdrawing_consent_closes_windows_the_vendor_opened_by_consent(world: World) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    change(world, Policy(consent=Consent(mode=Mode.OBSERVE, until=until)))
    opened = world.act("max", Action.ENDORSE, world.submit().id)

    change(world, Policy(quorum=2, consent=Consent(mode=Mode.OBSERVE, until=until)))
    while_it_held = state_of(world.db, opened.id)
    change(world, Policy(quorum=2))

    assert (while_it_held, state_of(world.db, opened.id)) == ("active", "revoked")
    assert last_change(world.db).facts["closed"] == [str(opened.id)]


def test_the_database_refuses_policies_written_by_the_vendor(world: World) -> None:
    statement = "INSERT INTO policies (tenant_id, version, body, created_at) VALUES (:t, 2, '{}', now())"

    for who in VENDOR:
        with pytest.raises(DBAPIError, match="row-level security"):
            on_the_database(world, who, statement, t=world.tenant.id)


def acts(world: World, caller: Caller, action: Action, request: AccessRequest) -> State:
    """Let a caller act; return the request's state afterwards."""
    with world.db.transaction() as session:
        return decide.act(session, caller, HERE, request.id, DecisionInput(action, "No")).state


def reviewed(api: Database, mode: Mode = Mode.ENFORCE, **terms: Any) -> World:
    """Make a world in which a manager of the vendor reviews the tenant's requests."""
    return World.make(api, Policy.model_validate(terms), mode)


def test_a_vote_by_mailed_code_counts_only_while_the_policy_accepts_mailed_codes(world: World) -> None:
    lay_down(world, quorum=2, mail_suffices=True)
    request = world.submit()
    acts(world, signed_in(world, "ann", AuthMethod.MAIL), Action.APPROVE, request)
    lay_down(world, quorum=2, mail_suffices=False)

    after_two = acts(world, signed_in(world, "amir", AuthMethod.PASSKEY), Action.APPROVE, request)
    after_three = acts(world, signed_in(world, "abe", AuthMethod.PASSKEY), Action.APPROVE, request)

    assert (after_two, after_three) == (State.PENDING, State.ACTIVE)


def test_a_vote_by_mailed_code_still_counts_where_the_policy_accepts_mailed_codes(world: World) -> None:
    lay_down(world, quorum=2, mail_suffices=True)
    request = world.submit()
    acts(world, signed_in(world, "ann", AuthMethod.MAIL), Action.APPROVE, request)

    assert acts(world, signed_in(world, "amir", AuthMethod.PASSKEY), Action.APPROVE, request) is State.ACTIVE


def test_a_vote_by_mailed_code_that_no_longer_counts_shortens_no_window(world: World) -> None:
    lay_down(world, quorum=2, mail_suffices=True)
    request = world.submit(access_window=3600)
    with world.db.transaction() as session:
        shorter = DecisionInput(Action.APPROVE, limits=ApprovalLimits(access_window=60))
        decide.act(session, signed_in(world, "ann", AuthMethod.MAIL), HERE, request.id, shorter)
    lay_down(world, quorum=2)
    world.act("amir", Action.APPROVE, request.id)

    opened = world.act("abe", Action.APPROVE, request.id)

    assert opened.opened_at is not None
    assert opened.deadline_at - opened.opened_at == timedelta(seconds=3600)


def test_a_voter_is_notified_that_their_vote_by_mailed_code_no_longer_counts(world: World) -> None:
    lay_down(world, quorum=2, mail_suffices=True)
    request = world.submit()
    acts(world, signed_in(world, "ann", AuthMethod.MAIL), Action.APPROVE, request)
    lay_down(world, quorum=2)

    with pytest.raises(AlreadyDecided, match="a code from a mail is no longer enough"):
        acts(world, signed_in(world, "ann", AuthMethod.PASSKEY), Action.APPROVE, request)


def test_a_denial_by_mailed_code_counts_under_every_policy(world: World) -> None:
    request = world.submit()

    assert acts(world, signed_in(world, "ann", AuthMethod.MAIL), Action.DENY, request) is State.DENIED


LACKING = [
    ({"require_case": True}, "case_ref"),
    ({"justification_least": 100}, "justification"),
    ({"reasons": ["vendor_alert"]}, "reason_code"),
]


@pytest.mark.parametrize(("since", "field"), LACKING)
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
def test_a_request_no_longer_meeting_the_policy_cannot_be_endorsed(
    api: Database, mode: Mode, since: dict[str, Any], field: str
) -> None:
    world = reviewed(api, mode)
    request = world.submit(case_ref=None)
    lay_down(world, vendor_review=True, **since)

    with pytest.raises(PolicyNotMet, match="submitted anew") as refused:
        world.act("max", Action.ENDORSE, request.id)

    assert [error["field"] for error in refused.value.facts["errors"]] == [field]
    assert world.act("max", Action.DENY, request.id).state is State.DENIED


@pytest.mark.parametrize(("since", "field"), LACKING)
def test_a_request_no_longer_meeting_the_policy_cannot_be_approved(
    world: World, since: dict[str, Any], field: str
) -> None:
    request = world.submit(case_ref=None)
    lay_down(world, **since)

    with pytest.raises(PolicyNotMet, match="submitted anew") as refused:
        world.act("ann", Action.APPROVE, request.id)

    assert [error["field"] for error in refused.value.facts["errors"]] == [field]
    assert world.act("ann", Action.DENY, request.id).state is State.DENIED


def test_an_unreviewed_request_cannot_be_approved_once_review_is_required(world: World) -> None:
    request = world.submit()
    lay_down(world, vendor_review=True)

    with pytest.raises(PolicyNotMet, match=r"review by the vendor.* cancel it and submit a new one"):
        world.act("ann", Action.APPROVE, request.id)

    assert world.act("erin", Action.CANCEL, request.id).state is State.CANCELLED
    assert world.submit().state is State.REVIEWING


def test_an_endorsed_request_can_be_approved_once_review_is_required(api: Database) -> None:
    world = reviewed(api)
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)
    lay_down(world, vendor_review=False)
    lay_down(world, vendor_review=True)

    assert world.act("ann", Action.APPROVE, request.id).state is State.ACTIVE


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
def test_late_endorsements_are_refused_if_the_review_window_was_shortened(
    api: Database, mode: Mode, later: ShiftedClock
) -> None:
    world = reviewed(api, mode)
    request = world.submit()
    lay_down(world, vendor_review=True, review_window=600)
    later.shift = timedelta(seconds=601)

    with pytest.raises(TooLate):
        world.act("max", Action.ENDORSE, request.id, Database(api.engine, api.schedule, later))


@pytest.mark.parametrize(
    ("means", "minutes_ago", "policy"),
    [
        (AuthMethod.MAIL, 0, {"mail_suffices": True}),
        (AuthMethod.PASSKEY, 16, {"sign_in_age": 86400}),
        (AuthMethod.PASSKEY, 2, {"sign_in_age": 60}),
    ],
)
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
def test_no_customer_policy_weakens_the_sign_in_needed_for_endorsing(
    api: Database, mode: Mode, means: AuthMethod, minutes_ago: float, policy: dict[str, Any]
) -> None:
    world = reviewed(api, mode, **policy)
    request = world.submit()

    with pytest.raises(SignInAgain):
        acts(world, signed_in(world, "max", means, minutes_ago=minutes_ago), Action.ENDORSE, request)


def test_a_manager_endorses_with_a_fresh_strong_sign_in(api: Database) -> None:
    world = reviewed(api, mail_suffices=True, sign_in_age=86400)

    assert acts(world, signed_in(world, "max", AuthMethod.PASSKEY), Action.ENDORSE, world.submit()) is State.PENDING
