"""People, clock, messages, Redis, outbox, mail and log in any order: rows, index, access check and log agree."""

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as play
from redis import Redis
from sqlalchemy import Engine

from harness import people
from harness.clocks import StoppedClock
from harness.outbox import fan_out_all
from harness.people import HERE, SERVICE, World
from harness.stage import as_sender, unbound
from lockbox import reconcile as repairing
from lockbox.audit.verifier.verify import GOOD, VerificationResult
from lockbox.database import Database
from lockbox.errors import LockboxError
from lockbox.identity import keyring
from lockbox.identity.roles import BOUND_TO, Mode, Role, Scope
from lockbox.notifications import fan_out
from lockbox.notifications.delivery import LEASE
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.requests import access_check, after_reviews, closed_cases, extend, timers
from lockbox.requests.access_check import AccessCheck
from lockbox.requests.after_reviews import FindingInput
from lockbox.requests.extend import ExtensionInput
from lockbox.requests.lifecycle import Action, AfterReviewFinding
from lockbox.requests.models import AccessRequest
from lockbox.requests.request_entry import RequestEntry
from lockbox.schedule import CLOCK, IndexEntry
from lockbox.sql import new_id
from tests.database import reference
from tests.database.conftest import SharedDatabase
from tests.database.postbag import DyingMail, Postbag
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
    assert_indexes_are_true,
    at_once,
    door,
    promised_clocks,
    read,
    read_as_is,
    write,
)
from tests.database.test_exports import exported
from tests.database.test_pre_approvals import approve, propose, revoke
from tests.examples import FAR
from tests.logs import sealed
from tests.policy_setup import group, lay_down
from tests.verification_results import verified

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
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
# Of each, a seed alone is drawn: how many there are to choose from may depend on who of two at once was faster.
CHOICES = st.randoms(use_true_random=True)
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
FORGOTTEN = """
SELECT e.id FROM events e WHERE e.seq IS NOT NULL AND EXISTS (SELECT FROM outbox o WHERE o.event_id = e.id)
    = EXISTS (SELECT FROM notifications n WHERE n.event_id = e.id)
"""
OVERTAKEN = """
SELECT o.event_id FROM outbox o JOIN events e ON e.id = o.event_id
JOIN events later ON later.request_id = e.request_id AND later.seq > e.seq
WHERE EXISTS (SELECT FROM notifications n WHERE n.event_id = later.id)
"""
WAITING = "SELECT event_id FROM outbox ORDER BY number"
SEALS = "SELECT log_id FROM seals GROUP BY log_id HAVING count(*) <> max(number) + 1"
NOTES = "SELECT note FROM logs WHERE id = :id AND note <> ''"
LET_IN = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :person, :tenant, 'approver')"
BODY = "UPDATE events SET body = convert_to(replace(convert_from(body, 'UTF8'), :old, :new), 'UTF8') WHERE id = :id"
VICTIM = """
SELECT e.id, e.action FROM events e JOIN seals s ON s.event_id = e.id AND s.log_id = :id ORDER BY s.number
"""


@dataclass(frozen=True)
class StatefulServers:
    """The servers that one play after another is given."""

    shared: SharedDatabase
    api: Database
    worker: Database
    superuser: Engine
    pool: ThreadPoolExecutor


class Life(RuleBasedStateMachine):
    """A tenant, its people and the plant, and beside them the reference."""

    plant: StatefulServers
    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.plant.shared.clear()
        self.clock = StoppedClock(datetime.now(UTC))
        self.plant.api.clock = self.plant.worker.clock = self.clock
        self.known: dict[UUID, Request] = {}
        self.rows: dict[UUID, AccessRequest] = {}
        self.messages: list[list[UUID]] = []
        self.old: list[list[UUID]] = []
        self.post = Postbag()
        self.told: list[UUID] = []
        self.notes: list[str] = []

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
        """Few requests get as far by steps that know nothing of each other."""
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
        """Ask for it, and have a manager open it at once or not."""
        request = self._submit(who, 60, None, break_glass=True)
        if request is not None and manager:
            self._act(request, manager, "break_glass", None, None)
        return request

    @precondition(lambda self: self.laid_down.glass)
    @rule(who=st.sampled_from((*APPROVERS, "tara", "max")))
    def give_finding(self, who: str) -> None:
        """Say whether the last break-glass was justified."""
        expected = self.laid_down.glass[-1]
        (request,) = [one for one, known in self.known.items() if known is expected]
        said = FindingInput(AfterReviewFinding.JUSTIFIED, "As agreed")

        given = self._tried(partial(self._called, after_reviews.give_finding, who, request, said))

        may = who in {*self.laid_down.able, "tara"}
        assert (given is not None) == (may and reference.found(expected, self.clock.at))

    @rule(target=requests, choice=CHOICES, is_approved=st.booleans())
    def extend(self, choice: Any, is_approved: bool) -> UUID | None:  # noqa: FBT001 - drawn by name
        """Ask for more time for a window, one that there is or a new one, and have it approved or not."""
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
        """Have the ticket system say that the case of all requests is closed."""
        with self.plant.api.transaction() as session:
            desk = self.world.people["desk"]
            closed_cases.close_case(session, desk, HERE, "helpdesk", "CASE-1", is_only=True)
        reference.close_case(self.known.values(), self.clock.at)

    @precondition(lambda self: self.laid_down.enforce)
    @rule(target=requests, most=st.integers(1, 3))
    def approve_beforehand_and_submit(self, most: int) -> UUID | None:
        """Have whatever is submitted approved beforehand, by all approvers, and submit something."""
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
        """Most acts of most people are refused; this one is by somebody who may."""
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
        """Each use is before the revoke or is none."""
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

    # Messages.

    @precondition(lambda self: self.messages)
    @rule(choice=CHOICES)
    def deliver(self, choice: Any) -> None:
        self._run(self.messages.pop(choice.randrange(len(self.messages))))

    @precondition(lambda self: self.messages)
    @rule()
    def deliver_twice_at_once(self) -> None:
        ids = self.messages.pop()
        at_once(self.plant.pool, *[partial(timers.run, self.plant.worker, ids)] * 2)
        # What one of them held, the other has left alone.
        self._run(ids)

    @precondition(lambda self: self.messages)
    @rule()
    def drop(self) -> None:
        self.messages.pop(0)

    @precondition(lambda self: self.old)
    @rule(choice=CHOICES)
    def replay(self, choice: Any) -> None:
        self._run(choice.choice(self.old))

    @rule()
    def forge(self) -> None:
        self._run([new_id(), *self.known])

    # The plant.

    @rule()
    def poll_twice(self) -> None:
        """Two pollers claim what is due; each member goes to one of them, and comes again when its lease is over.

        What was looked at too early was armed by a delay, and falls due by Redis' own clock, which nobody stops.
        """
        due = [row for row in read(self.plant.api, "SELECT id, wake_at FROM requests") if self._is_due(row)]
        schedule = self.plant.worker.schedule
        schedule.arm(CLOCK, [IndexEntry(str(row.id), "time_out", LONG_AGO) for row in due])
        claims = at_once(self.plant.pool, *[partial(schedule.claim, CLOCK)] * 2)
        claimed = [name for claim in claims for ids in claim.ids.values() for name in ids]  # type: ignore[attr-defined]
        assert len(claimed) == len(set(claimed))
        assert {str(row.id) for row in due} <= set(claimed) <= set(map(str, self.known))
        with Redis.from_url(self.plant.shared.urls.redis) as redis:
            for member in redis.zrange(CLOCK.keys[1], 0, -1):
                redis.zadd(CLOCK.keys[1], {member: 1})
        again = schedule.claim(CLOCK)
        assert {name for ids in again.ids.values() for name in ids} >= set(claimed)
        self._send([row.id for row in due])
        for row in due:
            self._run([row.id])

    @rule()
    def flush_redis(self) -> None:
        with Redis.from_url(self.plant.shared.urls.redis) as redis:
            redis.flushdb()
        list(repairing.reconcile(self.plant.worker, None))
        assert_indexes_are_true(self.plant.api)

    # The outbox.

    @rule(choice=CHOICES)
    def fan_out(self, choice: Any) -> None:
        """The messages of some events arrive, those of others are lost."""
        waiting = self._waiting()
        ids = choice.sample(waiting, choice.randint(0, len(waiting)))
        self.post.deliver(self.plant.worker, ids)
        assert not {*ids} & {*self._waiting()}
        self.told += ids

    @rule()
    def fan_out_twice_at_once(self) -> None:
        self.told += self._waiting()
        at_once(self.plant.pool, *[partial(fan_out_all, as_sender(self.plant.worker))] * 2)
        assert not self._waiting()

    @precondition(lambda self: self.told)
    @rule(choice=CHOICES)
    def replay_what_was_told(self, choice: Any) -> None:
        before = read_as_is(self.plant.api, "SELECT count(*) AS number FROM notifications")
        self.post.deliver(self.plant.worker, choice.sample(self.told, 1))
        assert read_as_is(self.plant.api, "SELECT count(*) AS number FROM notifications") == before

    @rule()
    def die_while_fanning_out(self) -> None:
        waiting = self._waiting()
        with contextlib.suppress(SystemExit), as_sender(self.plant.worker).transaction() as session:
            fan_out.fan_out(session, waiting, lambda *_: ([], {}))
            raise SystemExit(137)
        assert self._waiting() == waiting

    # Notifications.

    @rule(how=st.sampled_from(("sent", "later", "never", "ambiguous")))
    def send(self, how: str) -> None:
        before = {row.id: row.outcome for row in read(self.plant.api, "SELECT id, outcome FROM notifications")}
        ids = [one for one, outcome in before.items() if outcome is None]
        failure = {"later": SendFailed("try later"), "never": SendFailed("no such mailbox", permanent=True)}.get(how)
        people = read(self.plant.api, "SELECT email FROM people")
        self.post.mail.refused = {row.email: failure for row in people} if failure else {}
        if how == "ambiguous":
            self.post.mailing, ids = DyingMail(), ids[:1]
        with contextlib.suppress(SystemExit):
            self.post.deliver(self.plant.worker, ids)
        if isinstance(self.post.mailing, DyingMail):
            self.post.mail.sent += self.post.mailing.sent
            self.post.mailing = None
        self.post.mail.refused = {}
        after = {row.id: row.outcome for row in read(self.plant.api, "SELECT id, outcome FROM notifications")}
        assert all(after[one] == outcome for one, outcome in before.items() if outcome)
        sent = {mail.message_id.strip("<>").partition("@")[0] for mail in self.post.mail.sent}
        assert {str(one) for one, outcome in after.items() if outcome == "sent"} <= sent

    @rule()
    def let_claims_lapse(self) -> None:
        self.clock.at += LEASE + timedelta(seconds=1)

    # The audit log.

    @rule()
    def seal(self) -> None:
        sealed(self.plant.worker)
        self._note()

    @rule()
    def seal_twice_at_once(self) -> None:
        at_once(self.plant.pool, *[partial(sealed, self.plant.worker)] * 2)
        sealed(self.plant.worker)
        self._note()

    @precondition(lambda self: self.notes)
    @rule()
    def verify(self) -> None:
        result = self._result(self.notes[0], self.notes[-1])

        assert result.exit_code == GOOD, result.findings

    @precondition(lambda self: self.notes)
    @rule(choice=CHOICES)
    def tamper(self, choice: Any) -> None:
        victims = read(unbound(self.plant.api), VICTIM, id=self.world.tenant.id)
        if not victims:
            return
        victim = choice.choice(victims)
        there, back = f'"action":"{victim.action}"', '"action":"nothing"'
        self._forge(victim.id, there, back)

        found = self._result(self.notes[-1])

        assert found.exit_code != GOOD, victim.action
        self._forge(victim.id, back, there)

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
    def each_move_waits_or_is_told_in_order(self) -> None:
        assert not read_as_is(self.plant.api, FORGOTTEN)
        assert not read_as_is(self.plant.api, OVERTAKEN)

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
        """Let all that was left alone run: in the end every request is final."""
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
        """Ask as often at once, beside something else, and return how often the answer was yes."""
        asked = [partial(self._use, request, str(new_id())) for _ in range(times)]
        found = at_once(self.plant.pool, *asked, *beside)
        return sum(isinstance(one, RequestEntry) for one in found)

    def _usable(self) -> list[UUID]:
        """Return the active requests whose end is not too near for a use to be told from none."""
        ends = max(datetime.now(UTC) + NEAR, self.clock.at)
        active = {one: known for one, known in self.known.items() if known.state == "active" and known.starts is None}
        return [one for one, known in active.items() if known.deadline > ends]

    def _tried(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except LockboxError:
            return None

    def _send(self, ids: list[UUID]) -> None:
        self.messages.append(ids)
        self.old.append(ids)

    def _run(self, ids: list[UUID]) -> None:
        timers.run(self.plant.worker, ids)
        for one in ids:
            if one in self.known:
                reference.clocked(self.known[one], self.clock.at)

    def _waiting(self) -> list[UUID]:
        return [row.event_id for row in read_as_is(self.plant.api, WAITING)]

    def _is_due(self, row: Any) -> bool:
        return row.wake_at is not None and bool(row.wake_at <= self.clock.at)

    def _note(self) -> None:
        self.notes += [row.note for row in read(unbound(self.plant.api), NOTES, id=self.world.tenant.id)]

    def _result(self, *seen: str) -> VerificationResult:
        keys = [keyring.ephemeral().public]
        return verified(exported(self.world), *seen, keys=keys)

    def _forge(self, event: UUID, old: str, new: str) -> None:
        forged = BODY.replace(":old", f"'{old}'").replace(":new", f"'{new}'").replace(":id", f"'{event}'")
        with self.plant.superuser.connect() as connection:
            connection.exec_driver_sql("SET session_replication_role = replica")
            connection.exec_driver_sql(forged)


@pytest.mark.far
@pytest.mark.hypothesis
def test_whatever_happens_in_whatever_order_all_is_as_it_must_be(
    shared: SharedDatabase, api: Database, worker: Database, superuser: Engine, pool: ThreadPoolExecutor
) -> None:
    machine = type("Played", (Life,), {"plant": StatefulServers(shared, api, worker, superuser, pool)})

    play(machine, settings=SETTINGS)
