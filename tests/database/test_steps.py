"""Stages with an order: later groups are not prompted and cannot approve until the earlier ones have approved."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from harness.clocks import ShiftedClock
from harness.people import HERE, SETTINGS, World
from harness.stage import unbound
from lockbox.database import Database
from lockbox.errors import EarlierStepFirst, LockboxError
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.identity.roles import Caller, Role, RoleGrant, Side
from lockbox.requests import decide, inbox, submit, timers
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from tests.database.scenes import assert_audit_logs_are_whole, read, state_of
from tests.database.test_reminders import told
from tests.examples import examples
from tests.policy_setup import group, lay_down, stand_in

STEPS = """
SELECT actor_id, CAST(convert_from(body, 'UTF8') AS jsonb) -> 'step' AS step FROM events
WHERE action = 'escalate' AND request_id = :id
"""


def ordered(
    world: World, first: tuple[str, ...] = ("abe",), then: tuple[str, ...] = ("ann",), **changes: Any
) -> None:
    """Set a policy by which one group is asked first, and then another."""
    groups = {"first": group(world, *first), "then": group(world, *then)}
    stages = [{"group": "first"}, {"group": "then", "order": 2}]
    lay_down(world, **({"stages": stages, "groups": groups} | changes))


def prompted(world: World, request_id: UUID) -> set[str]:
    found = told(world, request_id, "pending")
    assert set(found.values()) <= {1}
    return set(found)


def test_a_later_group_may_approve_once_the_earlier_group_has_approved(world: World) -> None:
    ordered(world)
    request = world.submit()
    before = prompted(world, request.id)

    with pytest.raises(EarlierStepFirst, match="first asks for 1 of first") as refused:
        world.act("ann", Action.APPROVE, request.id)
    world.act("abe", Action.APPROVE, request.id)
    (event,) = read(world.db, STEPS, id=request.id)
    opened = world.act("ann", Action.APPROVE, request.id)

    assert refused.value.facts == {"step": 1, "current_state": "pending", "current_version": 1}
    assert before == {"abe", "amir"}
    assert prompted(world, request.id) == {"abe", "amir", "ann"}
    assert (event.step, event.actor_id) == (2, world.people["abe"].person_id)
    assert opened.state is State.ACTIVE
    assert_audit_logs_are_whole(world.db)


def test_anyone_asked_in_a_later_step_may_deny_at_any_time(world: World) -> None:
    ordered(world)
    request = world.submit()

    assert world.act("ann", Action.DENY, request.id).state is State.DENIED


def test_a_member_of_two_approval_groups_counts_in_both_groups(world: World) -> None:
    ordered(world, first=("abe", "ann"))
    request = world.submit()

    assert world.act("ann", Action.APPROVE, request.id).state is State.ACTIVE


def test_a_delegate_for_the_later_group_must_wait_for_the_earlier_group_too(world: World) -> None:
    ordered(world)
    stand_in(world, "aude", "ann")
    request = world.submit()

    with pytest.raises(EarlierStepFirst):
        world.act("aude", Action.APPROVE, request.id)
    assert "aude" not in prompted(world, request.id)
    world.act("abe", Action.APPROVE, request.id)

    assert {"aude"} == prompted(world, request.id) - {"abe", "amir"}
    assert world.act("aude", Action.APPROVE, request.id).state is State.ACTIVE


def test_a_later_group_is_prompted_when_its_step_is_reached_and_not_by_escalation(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    ordered(world, tiers=[["first"], ["then"]], escalation=[50])
    request = world.submit()

    later.shift = timedelta(hours=7)
    timers.run(sender, [request.id])
    waited = prompted(world, request.id), set(told(world, request.id, "answer_reminder"))
    world.act("abe", Action.APPROVE, request.id)

    assert waited == ({"abe"}, {"abe"})
    assert prompted(world, request.id) == {"abe", "ann"}


def test_reminders_go_to_people_of_the_current_approval_step(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    ordered(world, quorum=2)
    request = world.submit()
    world.act("abe", Action.APPROVE, request.id)

    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])

    assert set(told(world, request.id, "answer_reminder")) == {"ann", "amir"}
    assert state_of(world.db, request.id) == "pending"


def test_the_inbox_says_which_group_is_asked_first(world: World) -> None:
    ordered(world)
    world.submit()

    with world.db.transaction() as session:
        (waits,), (asked,) = (inbox.pending_requests(session, world.people[who]).pending for who in ("ann", "abe"))

    assert (waits.is_waiting, waits.may_approve) == (True, False)
    assert [(one.group, one.needed) for one in waits.lacking] == [("first", 1)]
    assert (asked.is_waiting, asked.may_approve) == (False, True)


PEOPLE = ("una", "ugo", "ulla")
ROLES = (Role.ENGINEER, Role.MANAGER, Role.APPROVER, Role.TENANT_ADMIN)
ACTIONS = (Action.ENDORSE, Action.APPROVE, Action.APPROVE, Action.DENY, Action.CANCEL, Action.COMPLETE, Action.REVOKE)
CLEAR = """
DELETE FROM delegations; DELETE FROM memberships m USING people p WHERE p.id = m.person_id AND p.name = ANY(:names)
"""

someone = st.sampled_from(PEOPLE)
acts = st.tuples(st.sampled_from(ACTIONS), someone)
turns = st.tuples(st.just("turn"), someone, st.sampled_from(ROLES))
delegates = st.tuples(st.just("stand in"), someone, someone)
steps = st.lists(st.one_of(acts, acts, acts, st.tuples(st.just("submit"), someone), delegates, turns), max_size=14)
NOTHING: dict[str, frozenset[Role]] = {name: frozenset() for name in PEOPLE}
lacks = st.fixed_dictionaries({name: st.frozensets(st.sampled_from(ROLES), max_size=1) for name in PEOPLE})


class FourEyesStory:
    """People with roles of both sides, which Postgres would refuse: only the rules in the code remain."""

    def __init__(self, world: World, quorum: int, lacking: dict[str, frozenset[Role]], *, review: bool) -> None:
        self.world = world
        self.requests: list[UUID] = []
        lay_down(world, quorum=quorum, vendor_review=review)
        with unbound(world.db).begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            for statement in CLEAR.split(";"):
                connection.execute(text(statement), {"names": [name.capitalize() for name in PEOPLE]})
        for name in PEOPLE:
            world.people[name] = replace(world.people[name], standings=frozenset())
            for role in ROLES:
                if role not in lacking[name]:
                    self.turn(name, role)

    def turn(self, name: str, role: Role) -> None:
        person = self.world.people[name]
        tenant = self.world.tenant.id if role in {Role.APPROVER, Role.TENANT_ADMIN} else None
        standing = RoleGrant(role, tenant)
        values = {"person": person.person_id, "role": role.value, "tenant": tenant}
        with unbound(self.world.db).begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            if standing in person.standings:
                connection.execute(text("DELETE FROM memberships WHERE person_id = :person AND role = :role"), values)
            else:
                connection.execute(
                    text(
                        "INSERT INTO memberships (id, person_id, tenant_id, role) "
                        "VALUES (gen_random_uuid(), :person, :tenant, :role)"
                    ),
                    values,
                )
        # The vendor's side turns to the tenant of a request; a member of that tenant reaches it anyway.
        self.world.people[name] = replace(
            person, standings=person.standings ^ {standing}, means=AuthMethod.SAMPLE, side=Side.VENDOR
        )

    def take(self, step: tuple[object, ...]) -> None:
        """Take one step; ignore a refusal."""
        what, who, *more = step
        caller = self.world.people[str(who)]
        try:
            if what == "submit":
                self._submit(caller)
            elif what == "stand in":
                if who != more[0]:
                    stand_in(self.world, str(who), str(more[0]))
            elif what == "turn":
                self.turn(str(who), Role(str(more[0])))
            elif self.requests:
                with self.world.db.transaction() as session:
                    decide.act(session, caller, HERE, self.requests[-1], DecisionInput(Action(str(what)), "No"))
        except LockboxError:
            pass

    def _submit(self, caller: Caller) -> None:
        with self.world.db.transaction() as session:
            submitted = submit.submit(session, caller, HERE, self.world.submission(), SETTINGS.catalogue.services)
        self.requests.append(submitted.request.id)


@settings(
    max_examples=examples(80, near=10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(lacking=NOTHING, quorum=1, review=True, taken=[("endorse", "ugo"), ("approve", "ugo")])
@example(lacking=NOTHING, quorum=2, review=True, taken=[("endorse", "ugo"), ("approve", "ugo"), ("approve", "ulla")])
@example(lacking=NOTHING, quorum=1, review=False, taken=[("approve", "una")])
@example(lacking=NOTHING, quorum=1, review=False, taken=[("stand in", "una", "ugo"), ("approve", "una")])
@given(lacking=lacks, quorum=st.integers(1, 2), review=st.booleans(), taken=steps)
def test_no_sequence_of_acts_lets_one_person_request_and_decide(
    world: World,
    lacking: dict[str, frozenset[Role]],
    quorum: int,
    review: bool,  # noqa: FBT001 - Hypothesis' choice
    taken: list[tuple[object, ...]],
) -> None:
    for name in PEOPLE:
        if name not in world.people:
            world.add(name, Role.AUDITOR, world.tenant.id)
    play = FourEyesStory(world, quorum, lacking, review=review)

    for step in (("submit", "una"), *taken):
        play.take(step)

    for request_id in play.requests:
        _nobody_did_both(world.db, request_id)


def _nobody_did_both(db: Database, request_id: UUID) -> None:
    (request,) = read(db, "SELECT requester_id, opened_at, quorum FROM requests WHERE id = :id", id=request_id)
    rows = read(db, "SELECT person_id, decision FROM decisions WHERE request_id = :id", id=request_id)
    said = {
        decision: {row.person_id for row in rows if row.decision == decision} for decision in ("endorse", "approve")
    }
    assert request.requester_id not in {row.person_id for row in rows}
    assert not said["endorse"] & said["approve"]
    if request.opened_at is not None:
        assert len(said["approve"]) >= request.quorum
