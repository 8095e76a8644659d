"""People, timer, messages, Redis, outbox, mail and log act in any order: rows, index, access check and log agree."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as play
from sqlalchemy import Engine

from harness import people
from harness.outbox import fan_out_all
from harness.people import HERE, SERVICE, World
from harness.stage import as_sender
from lockbox.admin import emergency_stop
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from lockbox.identity.roles import BOUND_TO, Role, Scope
from lockbox.requests import access_check, after_reviews, closed_cases, extend
from lockbox.requests.access_check import AccessCheck
from lockbox.requests.after_reviews import FindingInput
from lockbox.requests.extend import ExtensionInput
from lockbox.requests.lifecycle import Action, AfterReviewFinding
from lockbox.requests.models import AccessRequest, RequestEntry
from lockbox.sql import new_id
from tests.database import reference
from tests.database.conftest import SharedDatabase
from tests.database.played_plant import CHOICES, PlayedPlant, StatefulServers
from tests.database.reference import (
    APPROVERS,
    DECISIONS,
    ENGINEERS,
    EVERYBODY,
    FIRST,
    MANAGERS,
    THEN,
    Beforehand,
    ReferenceRules,
    Request,
)
from tests.database.scenes import (
    assert_audit_logs_are_whole,
    at_once,
    door,
    promised_clocks,
    read,
    read_as_is,
    write,
)
from tests.database.test_pre_approvals import approve, propose, revoke
from tests.examples import FAR
from tests.policy_setup import group, lay_down

# Nearby a play that fails is shown as it is: to shorten it takes longer than the tests have time for.
PHASES = tuple(Phase) if FAR else (Phase.reuse, Phase.generate)
SETTINGS = settings(
    max_examples=int(os.environ.get("PLAYS", "200")) if FAR else 6,
    stateful_step_count=50 if FAR else 25,
    phases=PHASES,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

ACTIONS = ("endorse", "break_glass", "approve", "approve", "deny", "cancel", "complete", "revoke")
IN_TURN = (FIRST, "amir", THEN)
WINDOWS = st.sampled_from((None, None, 1, 30, 3601))
USES = st.sampled_from((None, None, 1, 2, 5))
# Postgres judges a use by its own clock, which goes on by itself: one that is so near to the end proves nothing.
NEAR = timedelta(seconds=20)
ROWS = "SELECT id, state, version, deadline_at, max_uses, used FROM requests"
USED_UP = "SELECT request_id FROM events WHERE action = 'used_up'"
UNAPPROVED = """
SELECT e.request_id FROM events e WHERE e.to_state = 'active' AND e.from_state = 'pending' AND NOT EXISTS (
    SELECT FROM decisions d JOIN requests r ON r.id = d.request_id
    WHERE r.id = e.request_id AND d.decision = 'approve' AND d.person_id <> r.requester_id AND d.decided_at <= e.at)
"""
TWICE_TOLD = """
SELECT event_id FROM notifications WHERE event_id IS NOT NULL
GROUP BY event_id, person_id, endpoint_id, address_id, observer_id, template HAVING count(*) > 1
"""
SEALS = "SELECT log_id FROM seals GROUP BY log_id HAVING count(*) <> max(number) + 1"
LET_IN = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :person, :tenant, 'approver')"


class Life(PlayedPlant):
    """A tenant and its people, compared with the reference model; the system around them acts on its own."""

    requests = Bundle("requests")

    @initialize(quorum=st.integers(1, 3), review=st.booleans(), enforce=st.booleans(), steps=st.booleans())
    def begin(self, quorum: int, review: bool, enforce: bool, steps: bool) -> None:  # noqa: FBT001 - drawn by name
        self.laid_down = ReferenceRules(quorum, review, enforce, 4 * 3600, 12 * 3600, steps=steps)
        self.world = World.make(self.plant.api, mode=Mode.ENFORCE if enforce else Mode.OBSERVE)
        lay_down(
            self.world,
            vendor_review=review,
            quorum=quorum,
            report_on_close=False,
            break_glass_services=[SERVICE],
            groups={one: group(self.world, one) for one in (FIRST, THEN)},
            stages=[{"group": FIRST}, {"group": THEN, "order": 2}] if steps else [],
        )
        bounds = {Scope.CASE_CLOSE.value, f"{BOUND_TO}{self.world.tenant.slug}"}
        self.world.add("desk", Role.SYSTEM, scopes=bounds)
        self.which: UUID | None = None

    # People.

    @rule(target=requests, who=st.sampled_from(ENGINEERS), access=st.sampled_from((60, 3600)), uses=USES)
    def submit(self, who: str, access: int, uses: int | None) -> UUID | None:
        return self._submit(who, access, uses)

    @rule(target=requests, who=st.sampled_from(ENGINEERS), uses=USES, kept=st.lists(USES, min_size=3, max_size=3))
    def submit_and_approve(self, who: str, uses: int | None, kept: list[int | None]) -> UUID | None:
        """Submit and approve at once: by independent steps, few requests get that far."""
        return self._opened(self._submit(who, 3600, uses), kept)

    def _opened(self, request: UUID | None, kept: Sequence[int | None] = (None, None, None)) -> UUID | None:
        if request is not None and self.known[request].state == "reviewing":
            self._act(request, "max", "endorse", None, None)
        for approver, fewer in zip(IN_TURN, kept, strict=True):
            if request is not None and self.known[request].state == "pending":
                self._act(request, approver, "approve", None, fewer)
        return request

    @rule(target=requests, who=st.sampled_from(ENGINEERS), ahead=st.sampled_from((60, 3600)))
    def submit_for_later_and_approve(self, who: str, ahead: int) -> UUID | None:
        return self._opened(self._submit(who, 3600, None, starts=self.clock.at + timedelta(seconds=ahead)))

    @precondition(lambda self: not any(one.is_found is False for one in self.laid_down.glass))
    @rule(target=requests, who=st.sampled_from(ENGINEERS), manager=st.sampled_from((*MANAGERS, None)))
    def submit_for_break_glass(self, who: str, manager: str | None) -> UUID | None:
        """Submit a break-glass request, and maybe have a manager open it at once."""
        request = self._submit(who, 60, None, break_glass=True)
        if request is not None and manager:
            self._act(request, manager, "break_glass", None, None)
        return request

    @precondition(lambda self: self.laid_down.glass)
    @rule(who=st.sampled_from((*APPROVERS, "tara", "max")))
    def give_finding(self, who: str) -> None:
        expected = self.laid_down.glass[-1]
        (request,) = [one for one, known in self.known.items() if known is expected]
        said = FindingInput(AfterReviewFinding.JUSTIFIED, "As agreed")

        given = self._tried(partial(self._called, after_reviews.give_finding, who, request, said))

        may = who in {*self.laid_down.able, "tara"}
        assert (given is not None) == (may and reference.found(expected, self.clock.at))

    @rule(target=requests, choice=CHOICES, is_approved=st.booleans())
    def extend(self, choice: Any, is_approved: bool) -> UUID | None:  # noqa: FBT001 - drawn by name
        """Extend an existing or a new window, and maybe have the extension approved."""
        active = [one for one, known in self.known.items() if known.state == "active"]
        first = choice.choice(active) if active else self._opened(self._submit("erin", 3600, None))
        if first is None:
            return None
        expected = reference.extended(self.laid_down, self.known[first], 60, self.clock.at)
        who, services = self.known[first].who, people.SETTINGS.catalogue.services
        made = self._tried(partial(self._called, extend.extend, who, first, ExtensionInput(60), services))
        request = self._know(made.request if made else None, expected)
        return self._opened(request) if is_approved else request

    @rule()
    def close_the_case(self) -> None:
        """Report as the ticket system that the case of all requests is closed."""
        with self.plant.api.transaction() as session:
            desk = self.world.people["desk"]
            closed_cases.close_case(session, desk, HERE, "helpdesk", "CASE-1", is_only=True)
        reference.close_case(self.known.values(), self.clock.at)

    @precondition(lambda self: self.laid_down.enforce and not self.laid_down.is_stopped)
    @rule(who=st.sampled_from(ENGINEERS))
    def stop_everything(self, who: str) -> None:
        """Make an emergency stop; break-glass that is requested right afterwards is refused."""
        self._called(emergency_stop.stop_all, "tara", self.world.tenant.slug)
        reference.stop(self.laid_down, self.known.values(), self.clock.at)
        assert self._submit(who, 60, None, break_glass=True) is None

    @precondition(lambda self: self.laid_down.is_stopped)
    @rule()
    def end_the_stop(self) -> None:
        self._called(emergency_stop.end_stop, "tara", self.world.tenant.slug)
        self.laid_down.is_stopped = False

    @precondition(lambda self: self.laid_down.enforce)
    @rule(target=requests, most=st.integers(1, 3))
    def approve_beforehand_and_submit(self, most: int) -> UUID | None:
        """Make a pre-approval, by all approvers, that covers every request, and submit a request."""
        if self.laid_down.beforehand is None or self.laid_down.beforehand.is_over:
            self._approve_beforehand(most)
        request = self._submit("erin", 60, None)
        if request is not None and self.known[request].state == "reviewing":
            self._act(request, "max", "endorse", None, None)
        return request

    def _approve_beforehand(self, most: int) -> None:
        ends = self.clock.at + timedelta(days=60)
        which = self._tried(
            partial(propose, self.world, resource="mailbox:*@contoso.example", max_uses=most, ends_at=ends)
        )
        assert (which is not None) == self.laid_down.is_enough(self.laid_down.able)
        if which is None:
            return
        self.which, self.laid_down.beforehand = which, Beforehand(most, self.clock.at)
        for who in APPROVERS:
            given = self._tried(partial(approve, self.world, which, who))
            assert (given is not None) == (who in self.laid_down.able)
            self.laid_down.beforehand.approved_by |= {who} if given else set()

    @precondition(lambda self: self.which)
    @rule()
    def revoke_beforehand(self) -> None:
        assert self.which
        revoke(self.world, self.which, "tara")
        reference.revoke_beforehand(self.laid_down, self.known.values(), self.clock.at)

    def _submit(self, who: str, access: int, uses: int | None, **further: Any) -> UUID | None:
        expected = reference.submitted(self.laid_down, who, access, self.clock.at, uses, **further)
        asked = {"not_before" if name == "starts" else name: value for name, value in further.items()}
        submit = partial(self.world.fresh, who, access_window=access, max_uses=uses, **asked)
        return self._know(self._tried(submit), expected)

    def _know(self, row: AccessRequest | None, expected: Request | None) -> UUID | None:
        assert (row is None) == (expected is None)
        if row is None or expected is None:
            return None
        self.known[row.id], self.rows[row.id] = expected, row
        self._send([row.id])
        return row.id

    @rule(
        request=requests, who=st.sampled_from(EVERYBODY), action=st.sampled_from(ACTIONS), window=WINDOWS, uses=USES
    )
    def act(self, request: UUID | None, who: str, action: str, window: int | None, uses: int | None) -> None:
        if request is not None:
            self._act(request, who, action, *((window, uses) if action == "approve" else (None, None)))

    @rule(request=requests, action=st.sampled_from(ACTIONS), choice=CHOICES, uses=USES)
    def act_as_one_may(self, request: UUID | None, action: str, choice: Any, uses: int | None) -> None:
        """Act as a person who may do so: most acts of random people are refused."""
        if request is not None:
            expected = self.known[request]
            likely = {"cancel": (expected.who,), "complete": (expected.who,), "approve": APPROVERS}
            who = choice.choice(likely.get(action, ("max", "ann", "tara")))
            self._act(request, who, action, None, uses if action == "approve" else None)

    # Uses.

    @precondition(lambda self: self._usable())
    @rule(choice=CHOICES, is_asked_again=st.booleans())
    def use(self, choice: Any, is_asked_again: bool) -> None:  # noqa: FBT001 - drawn by name
        request = choice.choice(self._usable())
        asked = partial(self._use, request, str(new_id()))
        expected = reference.used(self.known[request], self.clock.at)

        found = self._tried(asked)

        assert (found is not None) == expected
        if expected and is_asked_again:
            assert self._tried(asked).uses_left == found.uses_left

    @precondition(lambda self: self._usable())
    @rule(choice=CHOICES, times=st.integers(2, 4))
    def use_at_once(self, choice: Any, times: int) -> None:
        request = choice.choice(self._usable())
        expected = sum(reference.used(self.known[request], self.clock.at) for _ in range(times))

        assert self._let_in(request, times) == expected

    @precondition(lambda self: self._usable())
    @rule(choice=CHOICES, times=st.integers(1, 3))
    def revoke_while_it_is_used(self, choice: Any, times: int) -> None:
        request = choice.choice(self._usable())
        expected = self.known[request]
        without = replace(expected)
        could = sum(reference.used(without, self.clock.at) for _ in range(times))

        let_in = self._let_in(request, times, partial(self._act, request, "tara", "revoke", None, None))

        assert let_in <= could
        expected.used += let_in if expected.most_uses is not None else 0
        assert expected.state == "revoked"
        assert self._let_in(request, 1) == 0

    @rule(who=st.sampled_from(APPROVERS))
    def turn_the_approver_out_or_in(self, who: str) -> None:
        values = {"person": self.world.people[who].person_id, "tenant": self.world.tenant.id}
        if who in self.laid_down.able:
            statement = "DELETE FROM memberships WHERE person_id = :person AND tenant_id = :tenant"
        else:
            statement = LET_IN
        write(self.plant.superuser, statement, **values)
        self.laid_down.able ^= {who}

    # The clock.

    @rule(seconds=st.sampled_from((1, 59, 1800, 3600)))
    def wait(self, seconds: int) -> None:
        self.clock.at += timedelta(seconds=seconds)

    @rule(request=requests, beside=st.sampled_from((-1, 0, 1)))
    def wait_for_the_end(self, request: UUID | None, beside: int) -> None:
        if request is not None and self.known[request].is_open:
            self.clock.at = max(self.clock.at, self.known[request].deadline + timedelta(milliseconds=beside))

    @rule()
    def step_back(self) -> None:
        self.clock.at -= timedelta(milliseconds=1)

    # What holds after each.

    @invariant()
    def rows_are_as_they_must_be(self) -> None:
        rows = {row.id: row for row in read(self.plant.api, ROWS)}
        assert rows.keys() == self.known.keys()
        for one, expected in self.known.items():
            assert (rows[one].state, rows[one].version) == (expected.state, expected.moves), one
            assert (rows[one].max_uses, rows[one].used) == (expected.most_uses, expected.used), one
            assert not expected.is_open or rows[one].deadline_at == expected.deadline

    @invariant()
    def what_was_approved_beforehand_is_used_as_often_as_it_must_be(self) -> None:
        if self.which and self.laid_down.beforehand:
            (row,) = read(self.plant.api, "SELECT used FROM pre_approvals WHERE id = :id", id=self.which)
            assert row.used == self.laid_down.beforehand.used

    @invariant()
    def the_audit_log_is_whole(self) -> None:
        assert_audit_logs_are_whole(self.plant.api)
        assert not read(self.plant.api, UNAPPROVED)
        assert not read_as_is(self.plant.api, TWICE_TOLD)
        assert not read(self.plant.api, SEALS)
        used_up = [one for one, expected in self.known.items() if expected.is_used_up]
        assert sorted(row.request_id for row in read(self.plant.api, USED_UP)) == sorted(used_up)

    @invariant()
    def the_door_is_open_as_long_as_it_must_be(self) -> None:
        for one, expected in self.known.items():
            if expected.state == "active":
                (resource,) = self.rows[one].resources
                # An engineer who looks uses nothing.
                asker = "gate" if expected.most_uses is None else expected.who
                opened = door(self.world, expected.who, resource, asker=asker)
                # An extension is for the same resource as the window that it goes on from.
                beside = [known for other, known in self.known.items() if resource in self.rows[other].resources]
                assert (opened is not None) == any(reference.lets_in(known, self.clock.at) for known in beside), one

    def teardown(self) -> None:
        """Run everything that is still due: in the end every request is closed."""
        self.clock.at = max([self.clock.at, *(one.deadline for one in self.known.values())])
        for one in self.known:
            self._run([one])
        assert not promised_clocks(self.plant.api)
        fan_out_all(as_sender(self.plant.worker))
        assert not self._waiting()
        self.each_move_waits_or_is_told_in_order()

    def _act(self, request: UUID, who: str, action: str, window: int | None, uses: int | None) -> None:
        changes: dict[str, Any] = {"access_window": window, "max_uses": uses}
        changes |= {"comment": "It is down"} if action == "break_glass" else {}
        found = self._tried(partial(self.world.act, who, Action(action), request, **changes))
        said = reference.ReferenceAct(who, action, window, uses, self.clock.at)
        accepted = reference.acted(self.laid_down, self.known[request], said)
        assert (found is not None) == accepted, (who, action, action in DECISIONS)
        if accepted:
            self._send([request])

    def _called(self, use_case: Callable[..., Any], who: str, *given: object) -> Any:
        with self.plant.api.transaction() as session:
            return use_case(session, self.world.people[who], HERE, *given)

    def _use(self, request: UUID, call: str) -> RequestEntry:
        engineer, (resource,) = self.known[request].who, self.rows[request].resources
        of_engineer = "read", self.world.people[engineer].person_id
        with self.plant.api.transaction() as session:
            asked = AccessCheck(self.world.tenant.slug, "exchange-online", resource, *of_engineer)
            return access_check.check(session, self.world.people["gate"], asked, call)

    def _let_in(self, request: UUID, times: int, *beside: Callable[[], object]) -> int:
        """Check access `times` times at once, concurrently with `beside`; return how often it was allowed."""
        asked = [partial(self._use, request, str(new_id())) for _ in range(times)]
        found = at_once(self.plant.pool, *asked, *beside)
        return sum(isinstance(one, RequestEntry) for one in found)

    def _usable(self) -> list[UUID]:
        """Return the active requests whose end is far enough away for a use to count for certain."""
        ends = max(datetime.now(UTC) + NEAR, self.clock.at)
        active = {one: known for one, known in self.known.items() if known.state == "active" and known.starts is None}
        return [one for one, known in active.items() if known.deadline > ends]


@pytest.mark.far
@pytest.mark.hypothesis
def test_any_order_of_actions_matches_the_reference_model(
    shared: SharedDatabase, api: Database, worker: Database, superuser: Engine, pool: ThreadPoolExecutor
) -> None:
    machine = type("Played", (Life,), {"plant": StatefulServers(shared, api, worker, superuser, pool)})

    play(machine, settings=SETTINGS)
