"""Reminders, the next tier and the closing warning on the real stack, by windows of seconds."""

import pytest
from celery import Celery

from harness.people import World
from lockbox.requests.lifecycle import Action
from tests.database.postbag import address
from tests.policy_setup import group, lay_down
from tests.whole.conftest import RunningStack, wait_until

pytestmark = pytest.mark.far

WINDOW = 10
REPORTED = {"tara", "aude", "ann"}
A_MINUTE_AGO = """
    UPDATE reports_due SET due_at = now() WHERE event_id IN (SELECT id FROM events WHERE tenant_id = :tenant)
    RETURNING due_at
"""
REPORTS = "SELECT FROM notifications WHERE template = 'report' AND tenant_id = :tenant"


def subjects(stage: RunningStack, world: World, who: str) -> list[str]:
    """Return how each mail to somebody begins, in the order in which they were sent."""
    found = stage.caught.all()
    mine = [one for one in found if address(world.db, world, who) in str(one["To"])]
    return [str(one["Subject"]).split()[0].strip(",:") for one in mine]  # A long one begins with where it was folded.


@pytest.mark.far
def test_who_was_asked_is_reminded_then_the_next_tier_is_asked_and_silence_still_means_no(
    stage: RunningStack,
) -> None:
    world = stage.world()
    lay_down(
        world,
        approval_window=WINDOW,
        approval_reminders=[20, 60],
        tiers=[["first"], ["second"]],
        escalation=[40],
        groups={"first": group(world, "abe"), "second": group(world, "ann")},
    )
    request = world.submit()

    stage.ends(request.id, "timed_out")
    wait_until(lambda: not stage.open_notifications(world), "every notification is closed")

    assert sorted(subjects(stage, world, "abe")) == ["Approval", "Reminder", "Reminder", "Timed"]
    assert sorted(subjects(stage, world, "ann")) == ["Approval", "Reminder", "Timed"]
    with stage.as_(world, "ann") as ann:
        shown = ann.get(f"/v1/requests/{request.id}").json()
    assert (shown["state"], shown["reminders"], shown["tiers_asked"], shown["version"]) == ("timed_out", 2, 2, 2)
    stage.events_are_whole()


@pytest.mark.far
def test_a_yes_ends_the_reminders_and_the_window_says_when_it_is_about_to_close(stage: RunningStack) -> None:
    world = stage.world()
    lay_down(world, approval_window=WINDOW, approval_reminders=[60], closing_warning=2)
    request = world.submit(access_window=WINDOW // 2)
    opened = world.act("ann", Action.APPROVE, request.id)

    stage.ends(request.id, "expired")
    wait_until(lambda: stage.rows(A_MINUTE_AGO, tenant=str(world.tenant.id)), "the reports are noted")
    with Celery("impatient", broker=stage.urls.redis, set_as_current=False) as app:
        app.send_task("lockbox.reconcile", queue="maintenance")
    wait_until(lambda: stage.rows(REPORTS, tenant=str(world.tenant.id)), "the reports are promised")
    wait_until(lambda: not stage.open_notifications(world), "every notification is closed")

    assert opened.deadline_at > request.created_at
    for who in ("erin", "ann", "amir"):
        assert [word for word in subjects(stage, world, who) if word in {"Ends", "Reminder"}] == ["Ends"]
    assert {who for who in world.people if "Report" in subjects(stage, world, who)} == REPORTED
    stage.events_are_whole()


def test_a_lost_index_reminds_all_the_same(stage: RunningStack) -> None:
    world = stage.world()
    lay_down(world, approval_window=WINDOW, approval_reminders=[60])
    request = world.submit()
    with stage.redis() as redis:
        redis.flushdb()

    stage.ends(request.id, "timed_out")

    reminded = "SELECT 1 FROM events WHERE request_id = :id AND action = 'remind'"
    assert len(stage.rows(reminded, id=str(request.id))) == 1
