"""Resubmitting a timed-out request with one call: the same request, and one resubmission at a time."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock
from harness.people import HERE, SETTINGS, World
from lockbox.database import Database
from lockbox.errors import NobodyCanApprove, NotFound, NotYours, PolicyNotMet, TooMany
from lockbox.facts.enumerations import State
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role, Scope
from lockbox.requests import resubmission, submit, timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from lockbox.requests.resubmission import AlreadyAskedAgain, NotTimedOut
from lockbox.requests.submit import SubmissionLimits, SubmittedRequest
from lockbox.sql import new_id
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import MAILBOX, as_caller, assert_audit_logs_are_whole, read, set_back, write
from tests.each import each
from tests.policy_setup import lay_down

SAME = ("service", "resources", "actions", "reason_code", "justification", "case_ref", "access_window", "tenant_id")
FORGED = """
INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification, mode,
    policy_version, quorum, approval_window, access_window, state, version, deadline_at, wake_at, created_at,
    asked_at, follows)
SELECT uuidv7(), tenant_id, CAST(:who AS uuid), service, resources, actions, reason_code, 'x', mode, policy_version,
    quorum, approval_window, access_window, 'pending', 1, now() + interval '1 hour', now() + interval '1 hour', now(),
    now(), id
FROM requests WHERE id = :id
"""


def timed_out(world: World, superuser: Engine, worker: Database, who: str = "erin") -> AccessRequest:
    request = world.submit(who)
    set_back(superuser, [request.id], 1)
    timers.run(worker, [request.id])
    return request


def asks_again(
    world: World, who: str | Caller, request_id: UUID, limits: SubmissionLimits | None = None
) -> SubmittedRequest:
    caller = world.people[who] if isinstance(who, str) else who
    with world.db.transaction() as session:
        return resubmission.resubmit(session, caller, HERE, request_id, SETTINGS.catalogue.services, limits=limits)


def test_resubmitting_submits_the_same_request_with_a_link_to_the_first_request(
    world: World, superuser: Engine, worker: Database
) -> None:
    first = timed_out(world, superuser, worker)

    submitted = asks_again(world, "erin", first.id)

    second = submitted.request
    assert submitted.asked == 3
    assert {name: getattr(second, name) for name in SAME} == {name: getattr(first, name) for name in SAME}
    assert (second.follows, second.state, second.version) == (first.id, "pending", 1)
    assert second.id != first.id
    (event,) = read(worker, "SELECT body FROM events WHERE request_id = :id", id=second.id)
    assert json.loads(event.body)["follows"] == str(first.id)
    assert_audit_logs_are_whole(worker)


def test_a_resubmission_is_checked_by_the_current_policy(world: World, superuser: Engine, worker: Database) -> None:
    first = timed_out(world, superuser, worker)
    lay_down(world, vendor_review=True, quorum=2)
    second = asks_again(world, "erin", first.id).request
    other = timed_out(world, superuser, worker)
    lay_down(world, reasons=["vendor_alert"])

    with pytest.raises(PolicyNotMet):
        asks_again(world, "erin", other.id)

    assert (second.state, second.quorum) == ("reviewing", 2)


def test_submission_limits_apply_to_resubmissions(world: World, superuser: Engine, worker: Database) -> None:
    first = timed_out(world, superuser, worker)

    with pytest.raises(TooMany):
        asks_again(world, "erin", first.id, SubmissionLimits(1, 1))


def test_resubmitting_is_refused_where_no_one_could_approve(
    world: World, superuser: Engine, worker: Database
) -> None:
    first = timed_out(world, superuser, worker)
    write(superuser, "UPDATE people SET disabled_at = now() WHERE name IN ('Abe', 'Ann', 'Amir')")

    with pytest.raises(NobodyCanApprove):
        asks_again(world, "erin", first.id)


@pytest.mark.parametrize("ending", [None, Action.DENY, Action.CANCEL, Action.APPROVE])
def test_only_a_timed_out_request_can_be_resubmitted(world: World, ending: Action | None) -> None:
    request = world.submit()
    if ending:
        world.act("erin" if ending is Action.CANCEL else "ann", ending, request.id)

    with pytest.raises(NotTimedOut) as refused:
        asks_again(world, "erin", request.id)

    assert refused.value.facts["current_state"] in {"pending", "denied", "cancelled", "active"}


@each(
    ("who", "refusal"),
    [("ann", NotYours), ("max", NotYours), ("tara", NotYours), ("eve", NotFound), ("gate", NotFound)],
)
def test_only_the_requester_can_resubmit_a_request(
    world: World, superuser: Engine, worker: Database, who: str, refusal: type[Exception]
) -> None:
    first = timed_out(world, superuser, worker)

    with pytest.raises(refusal):
        asks_again(world, who, first.id)


def test_only_the_requester_can_load_an_earlier_request_to_resubmit_it(
    world: World, superuser: Engine, worker: Database
) -> None:
    first = timed_out(world, superuser, worker)

    def seen(who: str) -> int:
        with as_caller(world.db, world.people[who], world.tenant.id) as connection:
            return len(connection.execute(text("SELECT * FROM lock_earlier_request(:id)"), {"id": first.id}).all())

    assert {who: seen(who) for who in world.people} == dict.fromkeys(world.people, 0) | {"erin": 1}


def test_a_third_submission_of_a_request_is_refused_while_the_second_is_open(
    world: World, superuser: Engine, worker: Database
) -> None:
    first = timed_out(world, superuser, worker)
    second = asks_again(world, "erin", first.id).request

    with pytest.raises(AlreadyAskedAgain) as refused:
        asks_again(world, "erin", first.id)
    set_back(superuser, [second.id], 1)
    timers.run(worker, [second.id])
    third = asks_again(world, "erin", second.id).request

    assert refused.value.facts["request_id"] == str(second.id)
    assert third.follows == second.id


def test_a_system_resubmits_only_its_own_submissions(world: World, superuser: Engine, worker: Database) -> None:
    submitters = [
        world.add(name, Role.SYSTEM, scopes={Scope.REQUESTS_FILE}, services={"exchange-online"})
        for name in ("filer", "other")
    ]
    erin = world.people["erin"].person_id
    with world.db.transaction() as session:
        wanted = world.submission(engineer=erin)
        first = submit.submit(session, submitters[0], HERE, wanted, SETTINGS.catalogue.services).request
    set_back(superuser, [first.id], 1)
    timers.run(worker, [first.id])

    with pytest.raises(NotFound):
        asks_again(world, submitters[1], first.id)
    second = asks_again(world, submitters[0], first.id).request

    assert (second.requester_id, second.follows) == (erin, first.id)


def test_customer_and_requester_see_the_resubmission_and_other_people_do_not(
    world: World, superuser: Engine, worker: Database
) -> None:
    lay_down(world, vendor_review=True)
    first = world.submit()
    world.act("max", Action.ENDORSE, first.id)
    set_back(superuser, [first.id], 1)
    timers.run(worker, [first.id])
    second = asks_again(world, "erin", first.id).request

    def found(who: str) -> UUID | None:
        with world.db.transaction() as session:
            authentication.enter(session, world.people[who])
            return resubmission.follower(session, world.people[who], first.id)

    assert {who: found(who) for who in ("erin", "max", "ann", "eve")} == {
        "erin": second.id,
        "max": second.id,
        "ann": None,
        "eve": None,
    }


def test_the_database_refuses_invalid_links_to_a_first_request(
    world: World, superuser: Engine, worker: Database
) -> None:
    first, waiting = timed_out(world, superuser, worker), world.submit()
    eve, erin = (world.people[name].person_id for name in ("eve", "erin"))

    for who, request in ((eve, first), (erin, waiting)):
        with pytest.raises(DBAPIError, match="follows none that it could follow"):
            write(superuser, FORGED, who=who, id=request.id)
    asks_again(world, "erin", first.id)
    with pytest.raises(DBAPIError, match="uq_requests_follows_open"):
        write(superuser, FORGED, who=erin, id=first.id)


def test_the_link_of_a_resubmission_to_the_first_request_never_changes(
    world: World, superuser: Engine, worker: Database
) -> None:
    first = timed_out(world, superuser, worker)
    second = asks_again(world, "erin", first.id).request

    for db in (world.db, worker):
        with pytest.raises(DBAPIError, match="permission denied"), db.transaction() as session:
            session.execute(text("UPDATE requests SET follows = NULL"))

    assert read(worker, "SELECT follows FROM requests WHERE id = :id", id=second.id)[0].follows == first.id


def test_a_resubmission_has_its_own_approval_deadline(world: World, sender: Database, later: ShiftedClock) -> None:
    first = world.submit()
    later.shift = timedelta(hours=12)
    timers.run(sender, [first.id])

    second = asks_again(world, "erin", first.id).request

    assert second.wake_at is not None
    assert second.asked_at is not None
    assert second.wake_at == second.asked_at + timedelta(hours=6)


OTHER: dict[str, Any] = {"resources": ["mailbox:other@contoso.example"], "case_ref": "CASE-9"}


@pytest.fixture
def reviewed(api: Database) -> World:
    """A world in which the vendor reviews the requests of its engineers."""
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
def test_a_prompt_mentions_how_similar_requests_ended(world: World, worker: Database, same: dict[str, Any]) -> None:
    before = world.submit(**same)
    world.act("ann", Action.DENY, before.id)
    request = world.submit()
    if request.state is State.REVIEWING:
        world.act("max", Action.ENDORSE, request.id)

    prompts = _prompts(worker, request)

    assert prompts.keys() == {"Ann", "Amir", "Abe"}
    for said in prompts.values():
        assert "Earlier requests for the same case or resource:\n  - Erin: denied by Ann, " in said
        assert _mentions(said, before)


def test_unrelated_requests_are_not_mentioned_in_a_prompt(world: World, worker: Database) -> None:
    world.submit(**OTHER)
    request = world.submit()

    assert all("Earlier requests" not in text for text in _prompts(worker, request).values())


def test_a_prompt_mentions_at_most_five_earlier_requests_newest_first(world: World, worker: Database) -> None:
    before = [world.submit() for _ in range(7)]
    request = world.submit()

    (text, *_) = _prompts(worker, request).values()

    told = [one for one in before if _mentions(text, one)]
    assert told == before[2:]
    assert text.index(str(before[6].id)) < text.index(str(before[2].id))


def test_requests_that_ended_in_review_are_mentioned_only_in_managers_prompts(
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
def test_a_prompt_omits_other_requests_endorsed_after_the_prompted_request(reviewed: World, worker: Database) -> None:
    before, request = reviewed.submit(), reviewed.submit()
    reviewed.act("mia", Action.ENDORSE, request.id)
    reviewed.act("max", Action.ENDORSE, before.id)
    reviewed.act("ann", Action.DENY, before.id)

    prompts = _prompts(worker, request)

    assert not [text for name, text in prompts.items() if name in {"Ann", "Amir", "Abe"} and _mentions(text, before)]


def test_a_prompt_shows_other_requests_as_they_were_when_the_prompted_request_was_submitted(
    world: World, worker: Database
) -> None:
    before, request = world.submit(), world.submit()
    world.act("ann", Action.DENY, before.id)

    prompts = _prompts(worker, request)

    assert all("  - Erin: waiting for the customer's approval, " in text for text in prompts.values())
    assert not [text for text in prompts.values() if "denied by" in text]


def test_requests_of_another_tenant_are_never_mentioned_in_a_prompt(world: World, worker: Database) -> None:
    elsewhere = World.make(world.db)
    foreign = elsewhere.submit()
    request = world.submit()

    assert not [text for text in _prompts(worker, request).values() if str(foreign.id) in text]


def test_two_requests_without_a_case_reference_do_not_count_as_the_same_case(world: World, worker: Database) -> None:
    world.submit(case_ref=None, resources=[f"mailbox:{new_id()}"])
    request = world.submit(case_ref=None)

    assert not [text for text in _prompts(worker, request).values() if "Earlier requests" in text]
