"""The event on a move's mails lists dead mails; if no one could be notified, the timer acts at once."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock
from harness.people import HERE, World
from harness.stage import as_sender, setting
from harness.wait import within
from lockbox import reconcile
from lockbox.database import NO_KEYS, Database, UnitOfWork, WarnedSession, postgres_clock
from lockbox.identity.keyring import development
from lockbox.notifications import delivery_status, results
from lockbox.notifications.models import Outcome
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.requests import decide, timers
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.schedule import CLOCK, Schedule
from tests.database.postbag import Postbag, address, open_notifications
from tests.database.scenes import (
    PATIENCE,
    as_caller,
    assert_audit_logs_are_whole,
    assert_indexes_are_true,
    at_once,
    promised_clocks,
    read,
    state_of,
    write,
)
from tests.each import each
from tests.policy_setup import group, lay_down

BESIDE = """
SELECT action, actor_role, body, at FROM events WHERE request_id = :id AND seq IS NULL ORDER BY at, id
"""
OPEN_OF_REQUEST = "SELECT id, run_at FROM notifications WHERE request_id = :id AND closed_at IS NULL"
WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
PROMPTED = """
SELECT p.name FROM notifications n JOIN people p ON p.id = n.person_id
WHERE n.request_id = :id AND n.template = :template ORDER BY p.name
"""


@dataclass
class DeadNotificationScene:
    """A world, its mail, and the worker that sends mail and runs the timer."""

    world: World
    db: Database
    post: Postbag

    def refuse(self, *names: str, permanent: bool = True) -> None:
        for name in names:
            failure = SendFailed("no such mailbox", permanent=permanent, kind="status")
            self.post.mail.refused[address(self.db, self.world, name)] = failure

    def send(self) -> None:
        self.post.deliver(self.db, open_notifications(self.db))

    def run(self, request: AccessRequest) -> int:
        return timers.run(self.db, [request.id]).total()

    def row(self, request: AccessRequest) -> Any:
        (row,) = read(self.db, "SELECT * FROM requests WHERE id = :id", id=request.id)
        return row

    def beside(self, request: AccessRequest) -> list[tuple[str, dict[str, Any]]]:
        """Return the events of a request other than moves, each with its facts."""
        rows = read(self.db, BESIDE, id=request.id)
        assert {row.actor_role for row in rows} <= {"clock"}
        return [(row.action, json.loads(row.body)) for row in rows]

    def actions(self, request: AccessRequest) -> list[str]:
        """Return the actions of events other than moves and mail outcomes."""
        return [action for action, _ in self.beside(request) if action != "notified"]

    def dead(self, request: AccessRequest) -> list[int]:
        """Return for each mail outcome event the number of dead mails."""
        return [facts["dead"] for action, facts in self.beside(request) if action == "notified"]

    def told(self, request: AccessRequest, template: str = "pending") -> list[str]:
        return [row.name for row in read(self.db, PROMPTED, id=request.id, template=template)]


@pytest.fixture
def scene(world: World, sender: Database, post: Postbag) -> DeadNotificationScene:
    return DeadNotificationScene(world, sender, post)


def tiered(world: World, **changes: Any) -> AccessRequest:
    """Submit a request to a tenant with two tiers: abe, then ann; amir is in neither."""
    groups = {"first": group(world, "abe"), "second": group(world, "ann"), "gone": group(world, "aude")}
    lay_down(world, **({"tiers": [["first"], ["second"]], "groups": groups} | changes))
    return world.submit()


def test_the_event_on_mails_about_a_move_names_unreached_people_by_id_and_omits_webhooks(
    scene: DeadNotificationScene,
) -> None:
    scene.post.endpoint(scene.world, "https://hooks.contoso.example/1", tenant_id=scene.world.tenant.id)
    scene.post.hooks.refused["https://hooks.contoso.example/1"] = SendFailed("gone", gone=True, kind="status")
    request = scene.world.submit()
    scene.refuse("amir")

    scene.send()

    ((action, facts),) = scene.beside(request)
    assert (action, facts["dead"], facts["sent"]) == ("notified", 1, 2)
    assert facts["mails"]["1"][:3] == [str(scene.world.people["amir"].person_id), "mail", "dead"]
    assert "@" not in json.dumps(facts)
    assert "mailbox" not in json.dumps(facts)
    assert_audit_logs_are_whole(scene.db)


def test_a_notification_being_retried_causes_no_event_within_the_first_minute(scene: DeadNotificationScene) -> None:
    request = scene.world.submit()
    scene.refuse("amir", permanent=False)

    scene.send()

    assert scene.beside(request) == []


def test_an_expired_notification_is_recorded_as_dead_for_being_too_late(
    scene: DeadNotificationScene, later: ShiftedClock
) -> None:
    request = scene.world.submit()
    scene.world.act("ann", Action.DENY, request.id)

    later.shift = timedelta(days=2)
    scene.send()

    (deliveries,) = read(scene.db, "SELECT count(*) AS number FROM notifications WHERE outcome = 'dead'")
    assert sum(scene.dead(request)) == deliveries.number > 0


def test_a_send_attempt_recorded_twice_leaves_one_event(scene: DeadNotificationScene) -> None:
    request = scene.world.submit()
    scene.refuse("amir")
    tries = scene.post.deliver(scene.db, open_notifications(scene.db))

    with as_sender(scene.db).transaction() as session:
        results.record(session, [one for one in tries if one.error])

    assert scene.dead(request) == [1]


def test_an_undeliverable_policy_notice_is_recorded_but_an_undeliverable_sign_in_code_is_not(
    scene: DeadNotificationScene,
) -> None:
    ann = scene.world.people["ann"].person_id
    write(
        setting(scene.world.db).engine,
        """
        WITH told AS (
            INSERT INTO events (id, tenant_id, at, action, actor_id, actor_role, body)
            VALUES (uuidv7(), :tenant, now(), 'policy_changed', :ann, 'tenant_admin',
                '{"actor_role": "tenant_admin"}') RETURNING id
        ), code AS (
            INSERT INTO sign_ins (id, browser_hash, means, email, code_nonce, created_at, expires_at)
            SELECT uuidv7(), 'test'::bytea || sha256('x'), 'mail', p.email, :nonce, now(),
                now() + interval '10 minutes'
            FROM people p WHERE p.id = :ann RETURNING id
        )
        INSERT INTO notifications (id, tenant_id, event_id, person_id, about_id, channel, template, run_at, until_at,
            attempts)
        SELECT uuidv7(), CAST(:tenant AS uuid), id, CAST(:ann AS uuid), NULL, 'mail', 'policy_changed', now(),
            now() + interval '1 day', 0 FROM told
        UNION ALL SELECT uuidv7(), NULL, NULL, NULL, id, 'mail', 'sign_in_code', now(), now() + interval '1 day', 0
        FROM code
        """,
        tenant=scene.world.tenant.id,
        ann=ann,
        nonce=development().codes.nonce(),
    )
    scene.refuse("ann")

    scene.send()

    assert [row.outcome for row in read(scene.db, "SELECT outcome FROM notifications")] == ["dead", "dead"]
    (event,) = read(scene.db, "SELECT * FROM events WHERE action = 'notification_dead'")
    assert (event.tenant_id, event.request_id, event.seq) == (scene.world.tenant.id, None, None)
    assert json.loads(event.body)["template"] == "policy_changed"


def test_only_readers_on_the_same_side_see_which_people_were_not_notified(
    scene: DeadNotificationScene, api: Database
) -> None:
    request = scene.world.submit()
    scene.refuse("amir")
    scene.send()
    query = text("SELECT count(*) FROM events WHERE action = 'notified' AND request_id = :id")

    def seen(who: str) -> int:
        with as_caller(api, scene.world.people[who]) as connection:
            return int(connection.execute(query, {"id": request.id}).scalar_one())

    assert {who: seen(who) for who in ("erin", "max", "ann", "tara", "eve", "olga")} == {
        **dict.fromkeys(("ann", "tara"), 1),
        **dict.fromkeys(("erin", "max", "eve", "olga"), 0),
    }


def test_only_operators_may_list_dead_notifications(scene: DeadNotificationScene, api: Database) -> None:
    scene.world.submit()
    scene.refuse("amir")
    scene.send()

    def listed(who: str) -> int:
        with as_caller(api, scene.world.people[who], scene.world.tenant.id) as connection:
            return len(connection.execute(text("SELECT * FROM dead_notifications(NULL, 10)")).all())

    assert {who: listed(who) for who in scene.world.people} == dict.fromkeys(scene.world.people, 0) | {"olga": 1}


def test_the_next_tier_is_prompted_at_once_if_the_first_tier_is_unreachable(
    scene: DeadNotificationScene, later: ShiftedClock
) -> None:
    request = tiered(scene.world)
    scene.refuse("abe")

    scene.send()
    woken = scene.row(request)
    held = scene.db.schedule.members(CLOCK)
    ran = scene.run(request)

    assert woken.wake_at < woken.asked_at + timedelta(minutes=1)
    assert held == {f"remind:{request.id}": pytest.approx(woken.wake_at.timestamp() * 1000, abs=1)}
    assert ran == 1
    assert scene.told(request) == ["Abe", "Ann"]
    (widened,) = [facts for action, facts in scene.beside(request) if action == "escalate"]
    assert (widened["tiers_asked"], widened["unreached"]) == (2, 1)
    row = scene.row(request)
    assert (row.state, row.version, row.tiers_asked, row.reminders) == ("pending", 1, 2, 0)
    assert row.wake_at == row.asked_at + timedelta(hours=6)
    later.shift = timedelta(hours=6)
    scene.run(request)
    assert scene.actions(request) == ["escalate", "remind"]
    assert_indexes_are_true(scene.db)


@pytest.mark.far
def test_if_there_is_no_next_tier_all_other_deciders_are_asked_and_admins_are_notified_once(
    scene: DeadNotificationScene,
) -> None:
    with setting(scene.world.db).transaction() as session:
        session.execute(
            text("UPDATE people SET wants_prompts = false WHERE id = :id"),
            {"id": scene.world.people["amir"].person_id},
        )
    request = tiered(scene.world)
    scene.refuse("abe", "ann", "amir")

    for _ in range(5):
        scene.send()
        scene.run(request)

    assert scene.told(request) == ["Abe", "Amir", "Ann"]
    assert scene.told(request, "unreached") == ["Tara"]
    assert scene.actions(request) == ["escalate", "escalate", "unreached"]
    (mail,) = [mail for mail in scene.post.mail.sent if mail.to_address == address(scene.db, scene.world, "tara")]
    assert mail.subject.startswith("No approver could be reached, ")
    assert "none of two approvers could be reached" in mail.text
    row = scene.row(request)
    assert (row.state, row.wake_at) == ("pending", row.asked_at + timedelta(hours=6))
    assert open_notifications(scene.db) == []
    assert scene.db.schedule.members(CLOCK).keys() == promised_clocks(scene.db).keys()
    assert_audit_logs_are_whole(scene.db)


def test_admins_are_notified_and_prompts_are_not_repeated_if_the_policy_has_no_tiers(
    scene: DeadNotificationScene,
) -> None:
    request = scene.world.submit()
    scene.refuse("abe", "ann", "amir")

    scene.send()
    scene.run(request)

    assert scene.told(request) == ["Abe", "Amir", "Ann"]
    assert scene.told(request, "unreached") == ["Tara"]
    assert scene.actions(request) == ["unreached"]


def test_one_reached_or_pending_recipient_is_enough_to_leave_the_prompt_schedule_unchanged(
    scene: DeadNotificationScene,
) -> None:
    told, tried = scene.world.submit(), scene.world.submit()
    scene.refuse("abe", "ann")
    scene.post.deliver(scene.db, notifications_of(scene, told))
    scene.refuse("amir", permanent=False)
    scene.post.deliver(scene.db, notifications_of(scene, tried))

    for request in (told, tried):
        assert scene.row(request).wake_at == request.wake_at
        assert scene.run(request) == 0


def test_a_person_who_voted_counts_as_reached(scene: DeadNotificationScene) -> None:
    lay_down(scene.world, quorum=2)
    request = scene.world.submit()
    scene.world.act("ann", Action.APPROVE, request.id)
    scene.refuse("abe", "ann", "amir")

    scene.send()

    assert scene.row(request).wake_at == request.wake_at


def test_a_person_counts_as_reached_by_any_of_their_notifications(
    scene: DeadNotificationScene, later: ShiftedClock
) -> None:
    request = scene.world.submit()
    scene.refuse("abe", "ann", "amir")
    scene.send()
    scene.run(request)
    scene.post.mail.refused.pop(address(scene.db, scene.world, "ann"))

    later.shift = timedelta(hours=6)
    scene.run(request)
    scene.send()

    with scene.db.transaction() as session:
        found = delivery_status.reach_of_request(session, request.id, "pending")
    assert (found.asked, found.reached, found.waiting, found.unreached) == (3, 1, 0, 2)


def test_a_pending_prompt_to_a_disabled_person_does_not_delay_the_next_tier(scene: DeadNotificationScene) -> None:
    request = tiered(scene.world)
    with setting(scene.world.db).transaction() as session:
        session.execute(
            text("UPDATE people SET disabled_at = now() WHERE id = :id"), {"id": scene.world.people["abe"].person_id}
        )

    scene.send()
    scene.run(request)

    assert scene.told(request) == ["Abe", "Ann"]


def test_if_no_manager_is_reachable_operators_are_notified_and_the_customer_is_not(
    scene: DeadNotificationScene,
) -> None:
    lay_down(scene.world, vendor_review=True)
    request = scene.world.submit()
    scene.refuse("max", "mia")

    for _ in range(3):
        scene.send()
        scene.run(request)

    assert scene.actions(request) == ["unreached"]
    mails = [mail for mail in scene.post.mail.sent if "no manager could be reached" in mail.subject]
    assert [mail.to_address for mail in mails] == [address(scene.db, scene.world, "olga")]
    assert f"{request.id} {scene.world.tenant.name}: none of two managers could be reached" in mails[0].text
    assert scene.told(request, "unreached") == []


def test_if_recording_a_send_result_is_rolled_back_the_notification_is_sent_again(
    scene: DeadNotificationScene,
) -> None:
    request = tiered(scene.world)
    scene.refuse("abe")
    with WarnedSession(as_sender(scene.db).engine) as orm:
        session = UnitOfWork(orm, postgres_clock, NO_KEYS)
        results.record(session, dead_tries(scene, request))
        session.orm.rollback()
    untouched = scene.row(request).wake_at, scene.beside(request)

    scene.send()

    assert untouched == (request.wake_at, [])
    assert scene.row(request).wake_at < request.wake_at
    assert scene.dead(request) == [1]


def test_after_a_failed_mail_the_next_tier_is_asked_even_if_redis_is_unavailable(
    scene: DeadNotificationScene, worker: Database, refused_url: str
) -> None:
    request = tiered(scene.world)
    scene.refuse("abe")
    with closing(Schedule(refused_url)) as away:
        scene.post.deliver(Database(worker.engine, away), open_notifications(worker))
        nothing_of_redis = list(reconcile.act_on_overdue_clock(Database(worker.engine, away), grace=timedelta(0)))

    assert nothing_of_redis == [("overdue", 1)]
    assert scene.told(request) == ["Abe", "Ann"]


def test_reconciling_handles_a_request_whose_new_wake_up_time_never_reached_the_index(
    scene: DeadNotificationScene, worker: Database, refused_url: str, later: ShiftedClock
) -> None:
    request = tiered(scene.world)
    scene.refuse("abe")
    with closing(Schedule(refused_url)) as away:
        scene.post.deliver(Database(worker.engine, away, later), open_notifications(worker))

    list(reconcile.act_on_overdue(scene.db, None, grace=timedelta(0)))

    assert scene.row(request).tiers_asked == 2


@pytest.mark.far
def test_a_dead_notification_and_a_concurrent_approval_leave_a_consistent_request(
    scene: DeadNotificationScene, worker: Database, pool: ThreadPoolExecutor
) -> None:
    for number in range(8):
        request = scene.world.fresh() if number else tiered(scene.world)
        scene.refuse("abe")
        ids = open_notifications(worker)

        def send(ids: list[UUID] = ids) -> object:
            return scene.post.deliver(worker, ids)

        def approve(request: AccessRequest = request) -> object:
            return scene.world.act("ann", Action.APPROVE, request.id)

        calls: list[Callable[[], object]] = [send, approve]
        at_once(pool, *calls)
        scene.run(request)

        assert state_of(worker, request.id) == "active"
        assert "escalate" not in scene.actions(request)
        scene.send()
    assert worker.schedule.members(CLOCK).keys() == promised_clocks(worker).keys()
    assert_audit_logs_are_whole(worker)


def test_recording_a_dead_notification_waits_for_an_uncommitted_approval(
    scene: DeadNotificationScene, pool: ThreadPoolExecutor
) -> None:
    request = tiered(scene.world)
    scene.refuse("abe")
    with scene.world.db.transaction() as session:
        opened = decide.act(session, scene.world.people["ann"], HERE, request.id, DecisionInput(Action.APPROVE))
        sending = pool.submit(scene.send)
        waits = within(PATIENCE, lambda: read(scene.db, WAITING))
    sending.result(PATIENCE)

    row = scene.row(request)
    assert waits
    assert (row.state, row.wake_at) == ("active", opened.wake_at)
    assert scene.dead(request) == [1]


@pytest.mark.far
def test_the_timer_wakes_even_if_the_last_two_prompts_become_dead_at_the_same_time(
    scene: DeadNotificationScene, worker: Database, pool: ThreadPoolExecutor
) -> None:
    for _ in range(5):
        request = scene.world.fresh()
        scene.refuse("abe", "ann", "amir")

        def send(one: UUID) -> Callable[[], object]:
            return lambda: scene.post.deliver(worker, [one])

        at_once(pool, *[send(one) for one in notifications_of(scene, request)])

        assert scene.row(request).wake_at < request.wake_at
        scene.run(request)
        assert scene.actions(request) == ["unreached"]
        scene.send()


@each(
    "change",
    ["reminders = reminders + 1", "tiers_asked = tiers_asked + 1", "warned = true", "deadline_at = deadline_at"],
)
def test_a_worker_can_make_the_timer_of_a_request_earlier_but_change_nothing_else(
    scene: DeadNotificationScene, worker: Database, api: Database, change: str
) -> None:
    request = scene.world.submit()
    before = scene.row(request)
    sooner = "UPDATE requests SET wake_at = wake_at - interval '1 minute'"

    with (
        pytest.raises(DBAPIError, match=r"one move at a time|permission denied"),
        as_sender(worker).transaction() as session,
    ):
        session.execute(text(f"{sooner}, {change}"))
    with as_caller(api, scene.world.people["ann"]) as connection, pytest.raises(DBAPIError, match="one move"):
        connection.execute(text(sooner))
    with as_sender(worker).transaction() as session:
        session.execute(text(sooner))

    assert scene.row(request).wake_at == before.wake_at - timedelta(minutes=1)


def test_no_database_role_makes_the_timer_of_an_open_window_earlier(
    scene: DeadNotificationScene, worker: Database
) -> None:
    request = scene.world.submit()
    scene.world.act("ann", Action.APPROVE, request.id)

    with pytest.raises(DBAPIError, match="from active to active"), worker.transaction() as session:
        session.execute(text("UPDATE requests SET wake_at = wake_at - interval '1 minute'"))

    assert scene.row(request).state == "active"


def notifications_of(scene: DeadNotificationScene, request: AccessRequest) -> list[UUID]:
    return [row.id for row in read(scene.db, OPEN_OF_REQUEST, id=request.id)]


def dead_tries(scene: DeadNotificationScene, request: AccessRequest) -> list[results.AttemptResult]:
    """Return results, not recorded yet, by which all open notifications of a request are dead."""
    at = scene.row(request).created_at
    return [
        results.AttemptResult(row.id, row.run_at, Outcome.DEAD, at, "no such mailbox")
        for row in read(scene.db, OPEN_OF_REQUEST, id=request.id)
    ]


def test_a_person_who_was_reached_and_left_the_tenant_no_longer_counts_as_reached(
    scene: DeadNotificationScene,
) -> None:
    groups = {"first": group(scene.world, "abe", "amir"), "second": group(scene.world, "ann")}
    lay_down(scene.world, tiers=[["first"], ["second"]], groups=groups)
    request = scene.world.submit()
    scene.refuse("amir", permanent=False)
    scene.send()
    with setting(scene.world.db).transaction() as session:
        gone = {"id": scene.world.people["abe"].person_id}
        session.execute(text("DELETE FROM memberships WHERE person_id = :id"), gone)
    scene.refuse("amir")
    scene.db.clock.shift = timedelta(seconds=5)  # type: ignore[attr-defined]  # the shifted clock of these tests

    scene.send()
    scene.run(request)

    assert scene.told(request) == ["Abe", "Amir", "Ann"]
