"""What the system does while people act: messages, Redis, the outbox, mail and the log, in any order."""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from redis import Redis
from sqlalchemy import Engine

from harness.clocks import StoppedClock
from harness.outbox import fan_out_all
from harness.people import World
from harness.stage import as_sender, unbound
from lockbox import reconcile as repairing
from lockbox.audit.verifier.verify import GOOD, VerificationResult
from lockbox.database import Database
from lockbox.errors import LockboxError
from lockbox.identity import keyring
from lockbox.notifications import fan_out
from lockbox.notifications.delivery import LEASE
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.requests import timers
from lockbox.requests.models import AccessRequest
from lockbox.schedule import CLOCK, IndexEntry
from lockbox.sql import new_id
from tests.database import reference
from tests.database.conftest import SharedDatabase
from tests.database.postbag import DyingMail, Postbag
from tests.database.reference import Request
from tests.database.scenes import assert_indexes_are_true, at_once, read, read_as_is
from tests.database.test_exports import exported
from tests.logs import sealed
from tests.verification_results import verified

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
# Of each, a seed alone is drawn: how many there are to choose from may depend on who of two at once was faster.
CHOICES = st.randoms(use_true_random=True)
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
NOTES = "SELECT note FROM logs WHERE id = :id AND note <> ''"
BODY = "UPDATE events SET body = convert_to(replace(convert_from(body, 'UTF8'), :old, :new), 'UTF8') WHERE id = :id"
VICTIM = """
SELECT e.id, e.action FROM events e JOIN seals s ON s.event_id = e.id AND s.log_id = :id ORDER BY s.number
"""


@dataclass(frozen=True)
class StatefulServers:
    """The servers that each run of the state machine uses in turn."""

    shared: SharedDatabase
    api: Database
    worker: Database
    superuser: Engine
    pool: ThreadPoolExecutor


class PlayedPlant(RuleBasedStateMachine):
    """The system around one tenant: messages, Redis, outbox, mail and log, in any order; `known` are its requests."""

    world: World
    plant: StatefulServers

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
        """Let two pollers claim what is due: each entry goes to one of them, and is offered again after its lease.

        An entry that was handled too early was scheduled with a delay, and falls due by the running clock of Redis.
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
        """Deliver the messages of some events, and lose those of others."""
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
    def each_move_waits_or_is_told_in_order(self) -> None:
        assert not read_as_is(self.plant.api, FORGOTTEN)
        assert not read_as_is(self.plant.api, OVERTAKEN)

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
