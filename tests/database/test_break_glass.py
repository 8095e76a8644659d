"""Break-glass: who opens it, when the customer's policy allows it, and the finding that must follow."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.outbox import fan_out_all
from harness.people import HERE, SETTINGS, World
from harness.stage import as_sender
from lockbox.database import Database, now
from lockbox.errors import (
    AlreadyDecided,
    CommentRequired,
    InvalidMove,
    LockboxError,
    NotFound,
    NotYours,
    OwnRequest,
    PolicyNotMet,
    SignInAgain,
    WindowTooLong,
)
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.monitoring import metrics
from lockbox.monitoring.invariants import ScanPosition
from lockbox.monitoring.metrics import MetricName
from lockbox.requests import after_reviews, extend
from lockbox.requests.after_reviews import AfterReviewEntry, FindingInput
from lockbox.requests.extend import ExtensionInput
from lockbox.requests.lifecycle import Action, AfterReviewFinding
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_parts import ReasonedDecision
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import as_caller, assert_audit_logs_are_whole, at_once, door, read, write_unchecked
from tests.each import each
from worker import alerts

ON = Policy(vendor_review=False, break_glass_services=("exchange-online",))
WHY = "Mail is down for everybody"


@pytest.fixture(name="world")
def _world(api: Database) -> World:
    return World.make(api, ON)


def asked(world: World, who: str = "erin", **changes: Any) -> AccessRequest:
    return world.fresh(who, **({"break_glass": True, "access_window": 900} | changes))


def opened(world: World, by: str = "max", **changes: Any) -> AccessRequest:
    return world.act(by, Action.BREAK_GLASS, asked(world, **changes).id, comment=WHY)


def ended(world: World, **changes: Any) -> AccessRequest:
    return world.act("ann", Action.REVOKE, opened(world, **changes).id)


def find(
    world: World,
    who: str,
    request: AccessRequest,
    finding: AfterReviewFinding = AfterReviewFinding.JUSTIFIED,
    comment: str = "As agreed",
) -> AfterReviewEntry:
    with world.db.transaction() as session:
        said = FindingInput(finding, comment)
        return after_reviews.give_finding(session, world.people[who], HERE, request.id, said)


def overdue(superuser: Engine) -> None:
    write_unchecked(
        superuser,
        "UPDATE after_reviews SET opened_at = opened_at - interval '25 h', due_at = due_at - "
        "interval '25 h', remind_at = clock_timestamp()",
    )


def test_break_glass_by_two_vendor_people_opens_a_window_that_grants_access(world: World) -> None:
    request = opened(world)

    assert (request.state, request.break_glass, request.mode) == (State.ACTIVE, True, "enforce")
    let_in = door(world, resource=request.resources[0])
    assert let_in is not None
    assert let_in.break_glass
    (event,) = read(world.db, "SELECT body FROM events WHERE action = 'break_glass'")
    assert b'"break_glass":true' in event.body
    (due,) = read(world.db, "SELECT due_at - opened_at AS after, finding FROM after_reviews")
    assert (due.after, due.finding) == (timedelta(days=1), None)
    assert_audit_logs_are_whole(world.db)


@each("by", ["erin", "eve", "ann", "tara", "gate"])
def test_only_a_manager_can_open_break_glass(world: World, by: str) -> None:
    request = asked(world)

    with pytest.raises((OwnRequest, NotYours, NotFound)):
        world.act(by, Action.BREAK_GLASS, request.id, comment=WHY)

    assert door(world, resource=request.resources[0]) is None


def test_break_glass_needs_a_reason(world: World) -> None:
    with pytest.raises(CommentRequired):
        world.act("max", Action.BREAK_GLASS, asked(world).id, comment=" ")


def test_an_api_token_cannot_submit_break_glass(world: World) -> None:
    world.people["erin"] = replace(world.people["erin"], means=AuthMethod.TOKEN)
    with pytest.raises(SignInAgain, match="An API token cannot submit it") as refused:
        asked(world)
    assert "approve" not in refused.value.detail


@pytest.mark.parametrize("means", [AuthMethod.TOKEN, AuthMethod.MAIL, AuthMethod.PASSKEY])
def test_break_glass_needs_two_people_with_recent_strong_sign_ins(world: World, means: AuthMethod) -> None:
    request = asked(world)
    with world.db.transaction() as session:
        long_ago = now(session) - timedelta(minutes=16)
    for name in ("erin", "max"):
        world.people[name] = replace(world.people[name], means=means, signed_in_at=long_ago)

    with pytest.raises(SignInAgain):
        asked(world)
    with pytest.raises(SignInAgain):
        world.act("max", Action.BREAK_GLASS, request.id, comment=WHY)


@each(
    ("terms", "refusal"),
    [
        ({"break_glass_services": ()}, PolicyNotMet),
        ({"break_glass_services": ("sharepoint",)}, PolicyNotMet),
        ({"break_glass_ceiling": 600}, WindowTooLong),
        ({"break_glass_people": ()}, PolicyNotMet),
    ],
)
def test_break_glass_outside_the_policy_is_refused_at_submit(
    api: Database, terms: dict[str, Any], refusal: type[LockboxError]
) -> None:
    world = World.make(api, ON.model_copy(update=terms))

    with pytest.raises(refusal):
        asked(world)


def test_break_glass_does_not_override_an_earlier_denial(world: World) -> None:
    denied = world.fresh()
    world.act("ann", Action.DENY, denied.id)

    with pytest.raises(PolicyNotMet, match="cannot overrule"):
        asked(world, resources=denied.resources)


def test_break_glass_does_not_override_a_denial_made_while_it_waits(world: World) -> None:
    request = asked(world)
    world.act("ann", Action.DENY, world.submit(resources=request.resources).id)

    with pytest.raises(PolicyNotMet, match="cannot overrule"):
        world.act("max", Action.BREAK_GLASS, request.id, comment=WHY)


def test_an_api_token_cannot_record_a_break_glass_finding(world: World) -> None:
    request = ended(world)
    world.people["ann"] = replace(world.people["ann"], means=AuthMethod.TOKEN)

    with pytest.raises(SignInAgain, match="API token"):
        find(world, "ann", request)


def test_the_policy_limits_how_often_break_glass_is_used_in_thirty_days(world: World) -> None:
    third = asked(world)
    ended(world), ended(world, access_window=60)

    with pytest.raises(PolicyNotMet, match="2 times within 30 days"):
        asked(world)
    with pytest.raises(PolicyNotMet, match="2 times within 30 days"):
        world.act("max", Action.BREAK_GLASS, third.id, comment=WHY)


@pytest.mark.far
def test_concurrent_break_glass_requests_at_the_limit_open_one_window(api: Database, superuser: Engine) -> None:
    world = World.make(api, ON.model_copy(update={"break_glass_monthly": 1}))
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            pairs = [(by, asked(world, who).id) for by, who in (("max", "erin"), ("mia", "eve"))]
            moves = [partial(world.act, by, Action.BREAK_GLASS, id_, comment=WHY) for by, id_ in pairs]

            won = at_once(pool, *moves)

            assert sorted(type(one).__name__ for one in won) == ["AccessRequest", "PolicyNotMet"], won
            (row,) = read(world.db, "SELECT count(*) AS opened FROM after_reviews")
            assert row.opened == 1
            write_unchecked(superuser, "DELETE FROM after_reviews")


PLANTED = (
    "DELETE FROM decisions",
    "DELETE FROM after_reviews",
    "DELETE FROM events WHERE action = 'break_glass'",
    "UPDATE events SET actor_id = (SELECT requester_id FROM requests) WHERE action = 'break_glass'",
    "UPDATE decisions SET person_id = requester_id FROM requests",
    "UPDATE decisions SET person_id = (SELECT id FROM people WHERE name = 'Ann')",
    "UPDATE decisions SET decided_at = decided_at + interval '1 minute'",
    "UPDATE requests SET break_glass = false",
    (
        "INSERT INTO decisions (id, request_id, person_id, principals, means, decision, channel, decided_at) SELECT "
        "uuidv7(), request_id, (SELECT id FROM people WHERE name = 'Ann'), '{}', 'oidc', 'deny', 'api', decided_at "
        "FROM decisions"
    ),
)


@pytest.mark.parametrize("statement", PLANTED)
def test_a_forged_break_glass_window_is_detected_within_a_minute(
    world: World, worker: Database, superuser: Engine, statement: str
) -> None:
    opened(world)
    before = {violation.rule for violation in alerts.find_violations(worker, ScanPosition())[0]}

    write_unchecked(superuser, statement)

    assert "I1" not in before
    assert "I1" in {violation.rule for violation in alerts.find_violations(worker, ScanPosition())[0]}


def test_an_overdue_break_glass_finding_blocks_further_break_glass(world: World, superuser: Engine) -> None:
    first = ended(world)
    counted = [metrics.read(world.db).labelled(MetricName.FINDINGS)]
    overdue(superuser)
    counted.append(metrics.read(world.db).labelled(MetricName.FINDINGS))

    with pytest.raises(PolicyNotMet, match="overdue"):
        asked(world)

    find(world, "ann", first)
    assert [*counted, metrics.read(world.db).labelled(MetricName.FINDINGS)] == [{"due": 1}, {"overdue": 1}, {}]
    assert asked(world).state is State.REVIEWING


def test_an_endorsed_break_glass_request_becomes_an_ordinary_request(world: World) -> None:
    request = world.act("max", Action.ENDORSE, asked(world).id)

    assert (request.state, request.break_glass) == (State.PENDING, False)
    with pytest.raises(InvalidMove):
        world.act("mia", Action.BREAK_GLASS, request.id, comment=WHY)
    approved = world.act("ann", Action.APPROVE, request.id)
    assert door(world, resource=approved.resources[0]) is not None
    assert read(world.db, "SELECT FROM after_reviews") == []


def test_an_ordinary_request_cannot_be_opened_by_break_glass(api: Database) -> None:
    world = World.make(api, ON.model_copy(update={"vendor_review": True}))

    with pytest.raises(InvalidMove, match="not submitted for break-glass"):
        world.act("max", Action.BREAK_GLASS, world.submit().id, comment=WHY)


def test_the_customer_records_one_finding_with_a_reason_after_break_glass_ends(world: World) -> None:
    request = opened(world)
    with pytest.raises(InvalidMove, match="still open"):
        find(world, "ann", request)
    world.act("ann", Action.REVOKE, request.id)
    for who in ("max", "erin"):
        with pytest.raises(NotYours):
            find(world, who, request)
    with pytest.raises(CommentRequired):
        find(world, "tara", request, comment=" ")

    found = find(world, "tara", request, AfterReviewFinding.NOT_JUSTIFIED)

    assert (found.finding, found.found_by, found.comment) == (AfterReviewFinding.NOT_JUSTIFIED, "Tara", "As agreed")
    with pytest.raises(AlreadyDecided):
        find(world, "ann", request)
    (event,) = read(world.db, "SELECT actor_role, body FROM events WHERE action = 'after_review'")
    assert event.actor_role == "tenant_admin"
    assert b'"finding":"not_justified"' in event.body
    assert_audit_logs_are_whole(world.db)


def test_revoking_break_glass_needs_no_reason_and_no_fresh_sign_in(api: Database) -> None:
    required = frozenset({ReasonedDecision.DENY, ReasonedDecision.REVOKE})
    world = World.make(api, ON.model_copy(update={"comment_required": required, "revoke_sign_in_age": 60}))
    request = opened(world)
    world.people["ann"] = replace(world.people["ann"], means=AuthMethod.TOKEN, signed_in_at=None)

    assert world.act("ann", Action.REVOKE, request.id).state is State.REVOKED


CHANGES = (
    "UPDATE requests SET break_glass = true",
    "INSERT INTO after_reviews SELECT id, tenant_id, now(), now(), now() FROM requests WHERE NOT break_glass",
    "UPDATE after_reviews SET due_at = due_at + interval '1 day'",
    "UPDATE after_reviews SET opened_at = opened_at - interval '40 days'",
    (
        "UPDATE after_reviews SET finding = 'justified', found_by = at_person(), found_at = now(), "
        "found_event = uuidv7(), remind_at = NULL"
    ),
    "DELETE FROM after_reviews",
)


@pytest.mark.parametrize("change", CHANGES)
def test_no_database_role_lengthens_a_break_glass_window_or_clears_its_flag(
    world: World, worker: Database, change: str
) -> None:
    ended(world)
    world.fresh()
    state = "SELECT r.break_glass, a.* FROM requests r LEFT JOIN after_reviews a ON a.request_id = r.id ORDER BY r.id"
    before = read(world.db, state)

    for name in ("max", "ann", "tara"):
        with suppress(DBAPIError), as_caller(world.db, world.people[name], at=world.tenant.id) as connection:
            connection.execute(text(change))
    with pytest.raises(DBAPIError), worker.transaction() as session:
        session.execute(text(change))

    assert read(world.db, state) == before


INTO = (
    "INSERT INTO after_reviews (request_id, tenant_id, opened_at, due_at, remind_at, reminders) SELECT id, tenant_id,"
)
PROPER = "opened_at, opened_at + interval '1 day', opened_at + interval '12 h', 0 FROM requests WHERE break_glass"


@pytest.mark.parametrize(
    ("who", "asked_for", "is_taken"),
    [
        ("max", PROPER, True),
        ("max", PROPER.replace("opened_at + interval '12 h'", "NULL"), False),
        ("max", PROPER.replace("'12 h'", "'25 h'"), False),
        ("max", PROPER.replace("opened_at", "opened_at - interval '1 h'"), False),
        ("max", PROPER.replace(" 0 ", " 1 "), False),
        ("ann", PROPER, False),
    ],
)
def test_the_apis_database_role_cannot_change_when_a_finding_is_due(
    world: World, superuser: Engine, who: str, asked_for: str, *, is_taken: bool
) -> None:
    opened(world)
    write_unchecked(superuser, "DELETE FROM after_reviews")

    with suppress(DBAPIError), as_caller(world.db, world.people[who], at=world.tenant.id) as connection:
        connection.execute(text(f"{INTO} {asked_for}"))

    assert len(read(world.db, "SELECT FROM after_reviews")) == is_taken


def test_no_break_glass_finding_is_due_without_an_opened_window(world: World) -> None:
    asked(world)

    with (
        pytest.raises(DBAPIError, match="row-level security"),
        as_caller(world.db, world.people["max"]) as connection,
    ):
        connection.execute(text(f"{INTO} {PROPER.replace('opened_at', 'created_at')}"))


def test_reminders_of_a_break_glass_finding_continue_until_it_is_recorded(
    world: World, worker: Database, superuser: Engine
) -> None:
    request = ended(world)
    assert list(after_reviews.remind(worker)) == []
    overdue(superuser)

    assert list(after_reviews.remind(worker)) == [1]

    (event,) = read(world.db, "SELECT action, actor_role FROM events WHERE action ^@ 'after_review'")
    assert (event.action, event.actor_role) == ("after_review_overdue", "clock")
    (told,) = read(world.db, "SELECT template FROM outbox WHERE template ^@ 'after_review'")
    assert told.template == "after_review_overdue"
    (due,) = read(world.db, "SELECT remind_at - due_at AS again, reminders FROM after_reviews")
    assert (due.again, due.reminders) == (timedelta(days=1), 1)
    find(world, "ann", request)
    assert list(after_reviews.remind(worker)) == []
    assert_audit_logs_are_whole(world.db)


def test_everyone_at_the_customer_is_notified_of_break_glass_despite_mail_preferences(
    world: World, superuser: Engine
) -> None:
    write_unchecked(superuser, "UPDATE people SET wants_prompts = false")
    request = opened(world)
    fan_out_all(as_sender(world.db))

    rows = read(
        world.db,
        "SELECT p.name FROM notifications n JOIN people p ON p.id = n.person_id "
        "WHERE n.template = 'break_glass' AND n.request_id = :id",
        id=request.id,
    )
    assert {row.name for row in rows} == {"Ann", "Amir", "Abe", "Tara", "Erin"}


def test_a_break_glass_window_is_never_extended(world: World) -> None:
    request = opened(world)

    erin, wanted, services = world.people["erin"], ExtensionInput(600), SETTINGS.catalogue.services
    with pytest.raises(InvalidMove, match="cannot be extended"), world.db.transaction() as session:
        extend.extend(session, erin, HERE, request.id, wanted, services)
