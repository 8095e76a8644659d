"""Windows shorter than the first back-off: tries are squeezed in, reminders come, and nothing outlives the end."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from harness.clocks import StoppedClock
from harness.people import World
from harness.webhook_receiver import ScriptedAnswer, WebhookReceiver, receiving
from lockbox.database import Database
from lockbox.notifications.results import FIRST_BACK_OFF
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.notifications.webhook import HttpWebhooks
from lockbox.requests import timers
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, address, open_notifications
from tests.database.scenes import read, state_of
from tests.database.test_reminders import reminders

SECOND = timedelta(seconds=1)
NEXT = "SELECT min(run_at) AS at FROM notifications WHERE closed_at IS NULL"
TRIES = """
SELECT count(*) AS tries, count(DISTINCT d.notification_id) AS notifications, max(d.at) AS last
FROM deliveries d JOIN notifications n ON n.id = d.notification_id
WHERE n.template = 'pending' AND n.channel = 'mail' AND d.error IS NOT NULL
"""


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with receiving() as running:
        yield running


def deliver_all(worker: Database, post: Postbag, still: StoppedClock, until: datetime | None = None) -> None:
    """Deliver, and move the clock to each next try, until all notifications have ended or `until` comes."""
    while waiting := open_notifications(worker):
        (due,) = read(worker, NEXT)
        if until and due.at >= until:
            return
        still.at = max(still.at, due.at)
        post.deliver(worker, waiting)


@pytest.mark.far
@pytest.mark.parametrize(("seconds", "tries"), [(1, 1), (2, 2), (3, 3)])
def test_a_prompt_is_tried_as_often_as_the_window_lets_and_the_outcome_is_told_all_the_same(
    still: StoppedClock, api: Database, worker: Database, receiver: WebhookReceiver, *, seconds: int, tries: int
) -> None:
    world = World.make(api, Policy(vendor_review=False, approval_window=seconds, approval_reminders=()))
    post = Postbag(calling=HttpWebhooks(allow_http=True))
    post.endpoint(world, receiver.url, tenant_id=world.tenant.id)
    receiver.answers = [ScriptedAnswer(status=503)]
    post.mail.refused = {address(worker, world, "ann"): SendFailed("try later")}
    request = world.submit()

    deliver_all(worker, post, still, until=request.deadline_at)
    (log,) = read(worker, TRIES)
    ended_early = timers.run(worker, [request.id]).total()
    still.at = request.deadline_at
    ended = timers.run(worker, [request.id]).total()
    post.mail.refused, receiver.answers = {}, [ScriptedAnswer(status=204)]
    deliver_all(worker, post, still)

    assert seconds * SECOND < 2 * FIRST_BACK_OFF
    assert (log.tries, log.notifications) == (tries, 1)
    assert log.last < request.deadline_at
    assert (ended_early, ended, state_of(worker, request.id)) == (0, 1, "timed_out")
    outcomes = read(worker, "SELECT template, outcome FROM notifications")
    assert Counter(tuple(row) for row in outcomes) == {
        ("pending", "dead"): 1,
        ("pending", "sent"): 3,
        ("timed_out", "sent"): 5,
    }
    called = Counter(json.loads(call.body)["data"]["state"] for call in receiver.calls)
    assert called["pending"] > called["timed_out"] == 1


def test_reminders_come_and_end_with_a_window_of_two_seconds(
    still: StoppedClock, api: Database, worker: Database, post: Postbag
) -> None:
    world = World.make(api, Policy(vendor_review=False, approval_window=2))
    request = world.submit()
    begun = request.created_at
    seen = []

    for wait in (0.9, 1, 1.66, 1.9, 2):
        still.at = begun + wait * SECOND
        timers.run(worker, [request.id])
        seen.append(len(reminders(worker, request.id)))
        deliver_all(worker, post, still)

    assert seen == [0, 1, 2, 2, 2]
    subjects = Counter(mail.subject.partition(",")[0].partition(":")[0] for mail in post.mail.sent)
    assert subjects["Reminder"] == 6
    assert state_of(worker, request.id) == "timed_out"
