"""A tenant's policy: its admins replace it whole, by versions, and never by one under which nobody could approve."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from harness.people import HERE, WITHOUT_REVIEW, World
from lockbox.admin import delegates, members, policies
from lockbox.admin.delegates import DelegationInput
from lockbox.admin.policies import VersionedPolicy
from lockbox.database import Database
from lockbox.errors import Invalid, NobodyCanApprove, NotFound, StaleVersion
from lockbox.facts.enumerations import Mode, State
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy import Consent
from lockbox.requests.policy_parts import ApprovalStage
from lockbox.requests.policy_rules import Match, Overrides, Policy, Rule
from lockbox.sql import new_id
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.scenes import at_once, read, state_of
from tests.database.tenancy import does, id_of, on_the_database, reads

VENDOR = ["erin", "max", "olga", "vera", "gate"]
STRICT = WITHOUT_REVIEW.model_copy(update={"quorum": 2})


def change(world: World, policy: Policy, who: str = "tara", seen: int | None = None) -> VersionedPolicy:
    """Replace the policy of the world's tenant."""
    return does(world, who, policies.change, policy, seen=seen)


def of_groups(world: World, stage: ApprovalStage | None = None, **groups: Any) -> Policy:
    """Return a policy with groups of people of the world, by name, and perhaps a stage."""
    members_ = {name: tuple(id_of(world, one) for one in people) for name, people in groups.items()}
    return Policy(groups=members_, stages=(stage,) if stage else ())


def test_a_change_is_a_new_version_that_holds_at_once_and_the_old_one_stays(world: World) -> None:
    held = change(world, STRICT)

    assert (held.edition.version, held.edition.author, held.policy) == (2, "Tara", STRICT)
    assert reads(world, "ann", policies.read) == held
    old = reads(world, "ann", policies.read, 1)
    assert (old.policy, old.edition.author_id, old.edition.author) == (WITHOUT_REVIEW, None, None)
    assert world.submit().quorum == 2


def test_a_change_is_one_event_with_a_diff_that_all_admins_and_approvers_hear_of(world: World) -> None:
    change(world, STRICT)

    told = last_change(world.db)

    assert (told.action, told.actor, told.role) == ("policy_changed", "Tara", "tenant_admin")
    assert (told.changes, told.facts["version"]) == ({"quorum": "1 → 2"}, 2)
    assert told.told == {"Tara", "Ann", "Amir", "Abe"}


def test_an_equal_policy_is_no_new_version(world: World) -> None:
    before = len(recorded_changes(world.db))

    held = change(world, Policy.model_validate(WITHOUT_REVIEW.model_dump(mode="json")), seen=1)

    assert held.edition.version == 1
    assert len(recorded_changes(world.db)) == before
    assert read(world.db, "SELECT count(*) AS number FROM policies")[0].number == 1


def test_who_replaces_another_version_than_the_one_seen_is_told(world: World) -> None:
    change(world, STRICT, seen=1)

    with pytest.raises(StaleVersion) as refused:
        change(world, Policy(), seen=1)

    assert refused.value.facts == {"current_version": 2}
    assert reads(world, "ann", policies.read).policy == STRICT


def test_of_two_who_replace_the_same_version_at_once_one_is_told(world: World, pool: ThreadPoolExecutor) -> None:
    world.add("tom", Role.TENANT_ADMIN, world.tenant.id)

    answers = at_once(
        pool, lambda: change(world, STRICT, "tara", seen=1), lambda: change(world, Policy(), "tom", seen=1)
    )

    assert sorted(type(answer).__name__ for answer in answers) == ["StaleVersion", "VersionedPolicy"]
    assert [one.version for one in reads(world, "ann", policies.editions, before=None, most=9)] == [2, 1]


def test_requests_are_submitted_while_a_policy_is_being_changed(world: World) -> None:
    with world.db.transaction() as session:
        policies.change(session, world.people["tara"], HERE, world.tenant.slug, STRICT)
        submitted = world.submit()

    assert (submitted.policy_version, submitted.quorum) == (1, 1)


@pytest.mark.parametrize("who", ["tara", "ann", "aude"])
def test_all_of_the_tenant_read_the_policy_and_its_versions(world: World, who: str) -> None:
    change(world, STRICT)
    change(world, Policy())

    listed = reads(world, who, policies.editions, before=None, most=2)
    rest = reads(world, who, policies.editions, before=listed[-1].version, most=2)

    assert [(one.version, one.author) for one in (*listed, *rest)] == [(3, "Tara"), (2, "Tara"), (1, None)]
    assert reads(world, who, policies.read).policy == Policy()


@pytest.mark.parametrize("version", [2, 99])
def test_a_version_that_is_none_is_not_there(world: World, version: int) -> None:
    with pytest.raises(NotFound, match="no such version"):
        reads(world, "tara", policies.read, version)


def test_the_policy_of_another_tenant_is_not_there(world: World, api: Database) -> None:
    elsewhere = World.make(api)

    with pytest.raises(NotFound):
        reads(world, "tara", policies.read, slug=elsewhere.tenant.slug)
    with pytest.raises(NotFound):
        does(world, "tara", policies.change, STRICT, slug=elsewhere.tenant.slug)


def test_an_author_who_has_left_is_not_named(world: World) -> None:
    tom = world.add("tom", Role.TENANT_ADMIN, world.tenant.id)
    change(world, STRICT, "tom")

    does(world, "tara", members.remove, tom.person_id)

    edition = reads(world, "tara", policies.read).edition
    assert (edition.author_id, edition.author) == (tom.person_id, None)


def test_more_approvals_than_there_are_approvers_are_refused_with_the_reason(world: World) -> None:
    with pytest.raises(NobodyCanApprove) as refused:
        change(world, Policy(quorum=4))

    assert refused.value.facts["reasons"] == [
        "The policy requires 4 approvals, and the tenant has 3 people who could approve."
    ]
    assert reads(world, "tara", policies.read).edition.version == 1


def test_a_rule_under_which_nobody_could_approve_is_refused_by_its_name(world: World) -> None:
    rules = (
        Rule(name="Exports", match=Match(actions=("export",)), terms=Overrides(quorum=3)),
        Rule(name="Mail", match=Match(services=("exchange-online",)), terms=Overrides(quorum=4)),
    )

    with pytest.raises(NobodyCanApprove) as refused:
        change(world, Policy(rules=rules))

    assert refused.value.facts["reasons"] == [
        'Under the rule "Mail": The policy requires 4 approvals, and the tenant has 3 people who could approve.'
    ]


def test_a_rule_is_checked_together_with_the_terms_that_hold_for_all(world: World) -> None:
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


def test_a_tenant_without_approvers_takes_no_policy(api: Database) -> None:
    world = World.make(api)
    for name in ("ann", "amir", "abe"):
        does(world, "tara", members.remove, id_of(world, name))

    with pytest.raises(NobodyCanApprove, match="0 people"):
        change(world, STRICT)


def test_a_group_may_hold_approvers_and_eligible_delegates(world: World) -> None:
    does(world, "tara", members.set_eligible, id_of(world, "aude"), eligible=True)

    held = change(world, of_groups(world, ApprovalStage(group="legal"), legal=("ann", "aude")))

    assert set(held.policy.groups["legal"]) == {id_of(world, "ann"), id_of(world, "aude")}


def test_a_group_of_delegates_can_answer_while_one_stands_in(world: World) -> None:
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


def test_strangers_in_a_group_are_named_whoever_they_are(world: World, api: Database) -> None:
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


def test_dated_consent_is_a_part_of_the_policy_and_ends_by_itself(world: World) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)

    change(world, Policy(consent=Consent(mode=Mode.OBSERVE, until=until)))

    assert last_change(world.db).changes["consent"].startswith("none → observe until ")
    submitted = world.submit()
    assert (submitted.mode, submitted.state) == (Mode.OBSERVE, State.REVIEWING)


def test_taking_consent_back_closes_what_the_vendor_opened_under_it(world: World) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    change(world, Policy(consent=Consent(mode=Mode.OBSERVE, until=until)))
    opened = world.act("max", Action.ENDORSE, world.submit().id)

    change(world, Policy(quorum=2, consent=Consent(mode=Mode.OBSERVE, until=until)))
    while_it_held = state_of(world.db, opened.id)
    change(world, Policy(quorum=2))

    assert (while_it_held, state_of(world.db, opened.id)) == ("active", "revoked")
    assert last_change(world.db).facts["closed"] == [str(opened.id)]


def test_the_database_itself_lets_nobody_of_the_vendor_write_a_version(world: World) -> None:
    statement = "INSERT INTO policies (tenant_id, version, body, created_at) VALUES (:t, 2, '{}', now())"

    for who in VENDOR:
        with pytest.raises(DBAPIError, match="row-level security"):
            on_the_database(world, who, statement, t=world.tenant.id)
