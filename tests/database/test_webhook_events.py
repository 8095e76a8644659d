"""Webhooks are called for every event of a request: once, under one id, whatever has happened since."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest

from harness.clocks import ShiftedClock
from harness.people import World
from harness.stage import unbound
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from lockbox.notifications.models import Format
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import read, write
from tests.database.test_reminders import tiered

CUSTOMERS, VENDORS = "https://customer.example/", "https://vendor.example/"


@pytest.fixture
def reviewed(api: Database, post: Postbag) -> World:
    """A tenant with vendor review and a quorum of two; both sides have an endpoint for every event."""
    world = World.make(api, Policy(quorum=2))
    both(world, post)
    return world


def both(world: World, post: Postbag) -> None:
    post.endpoint(world, CUSTOMERS, tenant_id=world.tenant.id)
    post.endpoint(world, VENDORS, tenant_id=None)


def types(post: Postbag, url: str) -> Sequence[str]:
    """Return the event types of the calls to an endpoint, in the order of the events."""
    bodies = [json.loads(hook.body) for hook in post.hooks.sent if hook.url == url]
    return [body["type"].removeprefix("request.") for body in sorted(bodies, key=lambda body: str(body["timestamp"]))]


def test_every_webhook_event_arrives_although_the_request_ended_before_the_first_call(
    reviewed: World, worker: Database, post: Postbag
) -> None:
    request = reviewed.submit()
    for who, action in (("max", Action.ENDORSE), ("ann", Action.APPROVE), ("amir", Action.APPROVE)):
        reviewed.act(who, action, request.id)
    reviewed.act("erin", Action.COMPLETE, request.id)

    post.deliver(worker, open_notifications(worker))

    asked = ["endorsed", "approved", "approved", "completed"]
    assert types(post, VENDORS) == ["submitted", *asked]
    assert types(post, CUSTOMERS) == asked
    assert max(Counter(hook.hook_id for hook in post.hooks.sent).values()) == 1
    assert read(worker, "SELECT outcome FROM notifications WHERE channel = 'webhook' AND outcome <> 'sent'") == []


@pytest.mark.parametrize(
    ("who", "action", "type_"),
    [("max", Action.DENY, "review_denied"), ("erin", Action.CANCEL, "cancelled"), ("", None, "timed_out")],
)
def test_a_request_that_ends_in_review_calls_only_vendor_webhooks(  # noqa: PLR0917 - a case has as many parts
    reviewed: World, sender: Database, later: ShiftedClock, post: Postbag, who: str, action: Action | None, type_: str
) -> None:
    request = reviewed.submit()
    later.shift = timedelta(hours=2, minutes=5)
    timers.run(sender, [request.id])
    if action:
        reviewed.act(who, action, request.id)
    else:
        later.shift = timedelta(hours=5)
        timers.run(sender, [request.id])

    post.deliver(sender, open_notifications(sender))

    assert types(post, VENDORS)[0] == "submitted"
    assert "reminded" in types(post, VENDORS)
    assert type_ in types(post, VENDORS)
    assert types(post, CUSTOMERS) == []


def test_reminders_and_escalations_call_webhooks_of_both_sides(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    both(world, post)
    request = tiered(world, escalation=[60])

    for shift in (timedelta(hours=6, minutes=1), timedelta(hours=7, minutes=30)):
        later.shift = shift
        timers.run(sender, [request.id])
    post.deliver(sender, open_notifications(sender))

    assert types(post, CUSTOMERS) == types(post, VENDORS) == ["submitted", "reminded", "escalated"]
    states = {json.loads(hook.body)["data"]["state"] for hook in post.hooks.sent}
    assert states == {"pending"}


def test_an_endpoint_unreachable_past_the_deadline_still_gets_the_prompt(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    both(world, post)
    world.submit()

    later.shift = timedelta(hours=71)
    post.deliver(sender, open_notifications(sender))

    assert types(post, CUSTOMERS) == types(post, VENDORS) == ["submitted"]
    assert post.mail.sent == []


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
def test_windows_opened_by_the_vendor_call_webhooks_in_every_mode(
    api: Database, worker: Database, post: Postbag, mode: Mode
) -> None:
    world = World.make(api)
    write(unbound(api), "UPDATE tenants SET mode = :mode WHERE id = :id", mode=mode, id=world.tenant.id)
    both(world, post)
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)
    world.act("erin", Action.COMPLETE, request.id)

    post.deliver(worker, open_notifications(worker))

    assert types(post, CUSTOMERS) == ["endorsed", "completed"]
    assert types(post, VENDORS) == ["submitted", "endorsed", "completed"]


def test_a_chat_message_names_the_approver_and_the_tenant(world: World, worker: Database, post: Postbag) -> None:
    endpoint = post.endpoint(world, CUSTOMERS, tenant_id=world.tenant.id)
    write(unbound(worker), "UPDATE endpoints SET format = :format WHERE id = :id", format=Format.SLACK, id=endpoint)
    write(unbound(worker), "UPDATE tenants SET name = 'Contoso & Sons' WHERE id = :id", id=world.tenant.id)
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)

    post.deliver(worker, open_notifications(worker))

    said = [json.loads(hook.body)["blocks"][0]["text"]["text"] for hook in post.hooks.sent]
    (approved,) = [words for words in said if "is open" in words]
    assert "\nApproved by Ann\n" in approved
    assert all("Contoso &amp; Sons" in words for words in said)


def test_webhooks_are_called_only_for_subscribed_event_types(world: World, worker: Database, post: Postbag) -> None:
    post.endpoint(world, CUSTOMERS, tenant_id=world.tenant.id, event_types=["request.approved"])
    request: UUID = world.submit().id
    world.act("ann", Action.APPROVE, request)
    world.act("ann", Action.REVOKE, request)

    post.deliver(worker, open_notifications(worker))

    assert types(post, CUSTOMERS) == ["approved"]
