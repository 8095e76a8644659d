"""A time-out records how many people were reached; if none, the event and mails say so, also to operators."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text

from harness.clocks import ShiftedClock
from harness.outbox import fan_out_all
from harness.people import World
from harness.stage import as_sender, setting
from lockbox.database import Database
from lockbox.notifications.senders.protocol import OutgoingMail, SendFailed
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from tests.database.postbag import Postbag, address, open_notifications
from tests.database.scenes import assert_audit_logs_are_whole, many, read, state_of
from tests.policy_setup import lay_down

LAST = "SELECT body FROM events WHERE request_id = :id AND seq IS NOT NULL ORDER BY seq DESC LIMIT 1"

SENT = text("UPDATE notifications SET outcome = 'sent', closed_at = run_at WHERE request_id = :id")


def facts(db: Database, request_id: UUID) -> dict[str, Any]:
    (row,) = read(db, LAST, id=request_id)
    said: dict[str, Any] = json.loads(row.body)
    return said


def reached(db: Database, request_id: UUID) -> tuple[int, int, bool]:
    """Return from a time-out's event how many were asked and reached, and if it says that no one was reached."""
    said = facts(db, request_id)
    return said["asked"], said["reached"], said.get("nobody_notified", False)


def mails_to(post: Postbag, db: Database, world: World, name: str) -> Sequence[OutgoingMail]:
    return [mail for mail in post.mail.sent if mail.to_address == address(db, world, name)]


def refuse(post: Postbag, db: Database, world: World, *names: str) -> None:
    """Let mails to these people fail permanently."""
    for name in names:
        post.mail.refused[address(db, world, name)] = SendFailed("no such mailbox", permanent=True, kind="status")


@pytest.mark.parametrize("refused", [(), ("abe",), ("abe", "ann")])
def test_a_time_out_event_states_how_many_people_the_prompts_reached(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, refused: tuple[str, ...]
) -> None:
    request = world.submit()
    refuse(post, sender, world, *refused)
    post.deliver(sender, open_notifications(sender))

    later.shift = timedelta(hours=12)
    timers.run(sender, [request.id])
    post.deliver(sender, open_notifications(sender))

    assert reached(sender, request.id) == (3, 3 - len(refused), False)
    assert mails_to(post, sender, world, "erin")[-1].subject.startswith("Timed out: ")
    assert mails_to(post, sender, world, "olga") == []


def test_the_requester_and_operators_are_notified_if_no_approver_could_be_reached(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    request = world.submit()
    refuse(post, sender, world, "abe", "ann", "amir")
    post.deliver(sender, open_notifications(sender))

    later.shift = timedelta(hours=12)
    timers.run(sender, [request.id])
    post.deliver(sender, open_notifications(sender))

    assert (state_of(sender, request.id), reached(sender, request.id)) == ("timed_out", (3, 0, True))
    (mine,) = mails_to(post, sender, world, "erin")
    assert mine.subject == f"Nobody could be notified: access to Exchange Online at {world.tenant.name}"
    assert "Nobody could be notified: none of three approvers could be reached." in mine.text
    assert f"lockbox request again {request.id}" in mine.text
    assert "in time" not in mine.text
    (told,) = mails_to(post, sender, world, "olga")
    assert told.subject == "Requests timed out, and nobody could be notified"
    assert f"{request.id} {world.tenant.name}: none of three approvers could be reached" in told.text
    for secret in ("mailbox:anna", "does not open", "Erin", "CASE-1"):
        assert secret not in told.text
    assert_audit_logs_are_whole(sender)


def test_a_prompt_says_of_each_earlier_time_out_whether_anyone_could_be_notified(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    untold, told = world.submit(), world.submit()
    fan_out_all(as_sender(sender))
    with setting(sender).transaction() as session:
        session.execute(SENT, {"id": told.id})
    later.shift = timedelta(hours=12)
    timers.run(sender, [untold.id, told.id])

    later.shift = timedelta(hours=12, minutes=1)
    asked = world.submit(db=Database(world.db.engine, world.db.schedule, later))
    post.deliver(sender, open_notifications(sender))

    (prompt,) = [mail for mail in mails_to(post, sender, world, "ann") if str(asked.id) in mail.thread_id]
    assert prompt.text.index("Erin: timed out") < prompt.text.index("Erin: nobody could be notified")


def test_people_whose_prompts_are_still_unsent_at_the_time_out_count_as_unreached(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request = world.submit()

    later.shift = timedelta(hours=12)
    timers.run(sender, [request.id])

    assert reached(sender, request.id) == (3, 0, True)


def test_a_person_whose_mail_failed_but_who_voted_counts_as_reached(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    lay_down(world, quorum=2)
    request = world.submit()
    refuse(post, sender, world, "abe", "ann", "amir")
    post.deliver(sender, open_notifications(sender))
    world.act("ann", Action.APPROVE, request.id)

    later.shift = timedelta(hours=12)
    timers.run(sender, [request.id])

    assert reached(sender, request.id) == (3, 1, False)


def test_a_time_out_counts_the_prompted_managers_in_review_and_the_approvers_afterwards(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    lay_down(world, vendor_review=True)
    unreviewed, endorsed = world.submit(), world.submit()
    post.deliver(sender, open_notifications(sender))
    world.act("max", Action.ENDORSE, endorsed.id)

    later.shift = timedelta(hours=12, minutes=1)
    timers.run(sender, [unreviewed.id, endorsed.id])

    assert reached(sender, unreviewed.id) == (2, 2, False)
    assert reached(sender, endorsed.id) == (3, 0, True)


def test_the_event_of_an_expired_window_does_not_state_how_many_people_were_reached(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)

    later.shift = timedelta(hours=2)
    timers.run(sender, [request.id])

    said = facts(sender, request.id)
    assert said["action"] == "expire"
    assert not {"asked", "reached", "nobody_notified"} & said.keys()


@pytest.mark.far
def test_many_time_outs_take_few_sql_statements_and_one_mail_per_operator(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    ids = many(world, 80)
    with setting(sender).transaction() as session:
        for place, one in enumerate(ids):
            rows = read(sender, "SELECT id FROM notifications WHERE request_id = :id ORDER BY id", id=one)
            for row in rows[: place % 4]:
                session.connection().exec_driver_sql(
                    "UPDATE notifications SET outcome = 'sent', closed_at = run_at WHERE id = %s", (row.id,)
                )
    later.shift = timedelta(hours=12)
    said: list[str] = []
    event.listen(sender.engine, "before_cursor_execute", lambda *call: said.append(call[2]))

    assert timers.run(sender, ids).total() == 80

    assert [reached(sender, one) for one in ids] == [(3, place % 4, place % 4 == 0) for place in range(80)]
    assert len(said) < 15
    (told,) = read(sender, "SELECT person_id FROM notifications WHERE template = 'nobody_notified'")
    assert told.person_id == world.people["olga"].person_id
    (body,) = read(sender, "SELECT body FROM events WHERE action = 'nobody_notified'")
    assert set(json.loads(body.body)["changes"]) == {str(one) for one in ids[::4]}
    assert_audit_logs_are_whole(sender)


@pytest.mark.far
def test_a_mail_to_operators_about_time_outs_names_at_most_fifty_requests(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    ids = many(world, 53)
    later.shift = timedelta(hours=12)

    timers.run(sender, ids)

    (body,) = read(sender, "SELECT body FROM events WHERE action = 'nobody_notified'")
    said = json.loads(body.body)
    assert (said["requests"], len(said["changes"]), said["changes"]["and"]) == (53, 51, "3 more")
