"""What a prompt says of earlier requests for the same case or resource, and to whom."""

from typing import Any

import pytest

from harness.people import World
from lockbox.database import Database
from lockbox.facts.enumerations import State
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import MAILBOX

OTHER: dict[str, Any] = {"resources": ["mailbox:other@contoso.example"], "case_ref": "CASE-9"}


@pytest.fixture
def reviewed(api: Database) -> World:
    """A world in which the vendor reviews what its engineers ask."""
    return World.make(api, Policy())


def _prompts(worker: Database, request: AccessRequest) -> dict[str, str]:
    """Send everything, and return the texts of the prompts about one request by name."""
    post = Postbag()
    post.deliver(worker, open_notifications(worker))
    return {
        mail.to_name: mail.text
        for mail in post.mail.sent
        if str(request.id) in mail.thread_id and "Answer by" in mail.text and mail.to_name
    }


def _mentions(text: str, request: AccessRequest) -> bool:
    return f"\n    {request.id}\n" in text


@pytest.mark.parametrize(
    "same",
    [{}, {"case_ref": "CASE-9"}, {"resources": OTHER["resources"]}, {"resources": [MAILBOX, *OTHER["resources"]]}],
    ids=["both", "resource", "case", "one of the resources"],
)
def test_a_prompt_says_how_a_request_for_the_same_case_or_resource_ended(
    world: World, worker: Database, same: dict[str, Any]
) -> None:
    before = world.submit(**same)
    world.act("ann", Action.DENY, before.id)
    request = world.submit()
    if request.state is State.REVIEWING:
        world.act("max", Action.ENDORSE, request.id)

    prompts = _prompts(worker, request)

    assert prompts.keys() == {"Ann", "Amir", "Abe"}
    for text in prompts.values():
        assert "Earlier requests for the same case or resource:\n  - Erin: denied by Ann, " in text
        assert _mentions(text, before)


def test_what_is_alike_in_nothing_or_in_another_service_alone_is_not_mentioned(
    world: World, worker: Database
) -> None:
    world.submit(**OTHER)
    request = world.submit()

    assert all("Earlier requests" not in text for text in _prompts(worker, request).values())


def test_at_most_five_are_mentioned_and_the_newest_first(world: World, worker: Database) -> None:
    before = [world.submit() for _ in range(7)]
    request = world.submit()

    (text, *_) = _prompts(worker, request).values()

    told = [one for one in before if _mentions(text, one)]
    assert told == before[2:]
    assert text.index(str(before[6].id)) < text.index(str(before[2].id))


def test_the_customer_never_hears_of_what_ended_inside_the_vendors_review_and_managers_do(
    reviewed: World, worker: Database
) -> None:
    withheld = reviewed.submit()
    reviewed.act("max", Action.DENY, withheld.id)
    reviewing = reviewed.submit("eve")
    request = reviewed.submit()
    to_managers = _prompts(worker, request)
    reviewed.act("mia", Action.ENDORSE, request.id)

    to_approvers = _prompts(worker, request)

    assert to_managers.keys() == {"Max", "Mia"}
    assert all(_mentions(text, withheld) and "denied by Max" in text for text in to_managers.values())
    assert all(_mentions(text, reviewing) for text in to_managers.values())
    assert to_approvers.keys() == {"Ann", "Amir", "Abe"}
    assert not [text for text in to_approvers.values() if "Earlier requests" in text or str(withheld.id) in text]


@pytest.mark.far
def test_what_was_asked_after_the_event_is_not_part_of_a_prompt_about_it(reviewed: World, worker: Database) -> None:
    before, request = reviewed.submit(), reviewed.submit()
    reviewed.act("mia", Action.ENDORSE, request.id)
    reviewed.act("max", Action.ENDORSE, before.id)
    reviewed.act("ann", Action.DENY, before.id)

    prompts = _prompts(worker, request)

    assert not [text for name, text in prompts.items() if name in {"Ann", "Amir", "Abe"} and _mentions(text, before)]


def test_what_became_of_it_is_told_as_of_the_event_not_of_the_sending(world: World, worker: Database) -> None:
    before, request = world.submit(), world.submit()
    world.act("ann", Action.DENY, before.id)

    prompts = _prompts(worker, request)

    assert all("  - Erin: waiting for the customer's approval, " in text for text in prompts.values())
    assert not [text for text in prompts.values() if "denied by" in text]


def test_another_tenants_requests_are_nobodys_business(world: World, worker: Database) -> None:
    elsewhere = World.make(world.db)
    foreign = elsewhere.submit()
    request = world.submit()

    assert not [text for text in _prompts(worker, request).values() if str(foreign.id) in text]


def test_a_case_that_is_not_named_is_no_case_that_is_the_same(world: World, worker: Database) -> None:
    world.submit(case_ref=None, resources=[f"mailbox:{new_id()}"])
    request = world.submit(case_ref=None)

    assert not [text for text in _prompts(worker, request).values() if "Earlier requests" in text]
