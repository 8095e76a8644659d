"""Facts about the requester from the vendor's directory: kept with each request, and checked by policies."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.people import HERE, World
from lockbox.admin import policies, vendor_staff
from lockbox.database import Database, now
from lockbox.errors import LockboxError, NotFound, NotYours, PasskeyMustSign, PolicyNotMet, SignInAgain
from lockbox.facts.enumerations import AuthMethod, Severity, SignInKind, State
from lockbox.identity.directory import DirectoryEntry
from lockbox.identity.models import DirectoryRecord
from lockbox.identity.roles import Role, Scope
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import as_caller, read, write
from tests.database.tenancy import does
from tests.each import each

GERMAN = DirectoryEntry("Example Support GmbH", "DE", "DE")
ABROAD = DirectoryEntry("Example Support Inc", "DE", "US")
SUBMITTED = """
SELECT e.body, d.fields FROM events e JOIN event_details d ON d.event_id = e.id WHERE e.request_id = :id AND e.seq = 1
"""


def made(db: Database, **policy: Any) -> World:
    """Return a world without vendor review, and with the account that copies the directory."""
    world = World.make(db, Policy.model_validate({"vendor_review": False} | policy))
    world.add("copier", Role.SYSTEM, scopes={Scope.DIRECTORY_WRITE})
    return world


def says(world: World, entry: DirectoryEntry, whose: str = "erin", who: str = "copier") -> DirectoryRecord | None:
    with world.db.transaction() as session:
        person_id = world.people[whose].person_id
        return vendor_staff.write_record(session, world.people[who], HERE, person_id, entry).record


def signs_in(world: World, means: AuthMethod, ago: timedelta = timedelta(0), **changes: Any) -> None:
    with world.db.transaction() as session:
        erin = replace(world.people["erin"], means=means, signed_in_at=now(session) - ago, **changes)
        world.people["erin"] = erin


def refused(world: World, **changes: Any) -> LockboxError:
    with pytest.raises(LockboxError) as error:
        world.fresh(**changes)
    return error.value


def test_a_request_keeps_the_requesters_location_and_sign_in(api: Database) -> None:
    world = made(api)
    kept = says(world, ABROAD)
    signs_in(world, AuthMethod.PASSKEY, timedelta(minutes=5))

    request = world.fresh(severity=Severity.S2)
    says(world, GERMAN)

    assert kept is not None
    (row,) = read(api, "SELECT * FROM requests WHERE id = :id", id=request.id)
    assert (row.employing_entity, row.office_country, row.physical_country) == ("Example Support Inc", "DE", "US")
    assert (row.directory_as_of, row.severity, row.sign_in, row.sign_in_means) == (
        *(kept.as_of, "S2", "session", "passkey"),
    )
    (event,) = read(api, SUBMITTED, id=request.id)
    said = json.loads(event.body)
    assert (said["severity"], said["sign_in"], said["sign_in_means"]) == ("S2", "session", "passkey")
    assert {"directory_as_of", "signed_in_at"} <= said.keys()
    places = {"employing_entity": "Example Support Inc", "office_country": "DE", "physical_country": "US"}
    assert {name: event.fields[name][1] for name in places} == places
    assert places.keys() <= said["personal"].keys()
    assert "Inc" not in bytes(event.body).decode()


def test_a_request_submitted_by_a_system_has_no_time_or_kind_of_sign_in(api: Database) -> None:
    world = made(api)
    says(world, GERMAN)
    world.add("desk", Role.SYSTEM, scopes={Scope.REQUESTS_FILE}, services={"exchange-online"})

    request = world.fresh("desk", engineer=world.people["erin"].person_id)

    assert (request.sign_in, request.sign_in_means, request.signed_in_at) == (SignInKind.SYSTEM, None, None)
    assert request.physical_country == "DE"


def test_only_a_service_account_with_the_directory_scope_writes_directory_records(api: Database) -> None:
    world = made(api)

    for who in ("erin", "olga", "gate", "tara"):
        with pytest.raises(NotYours):
            says(world, GERMAN, who=who)
    for whose in ("ann", "copier"):
        with pytest.raises(NotFound):
            says(world, GERMAN, whose)


CHANGES = """
SELECT convert_from(e.body, 'UTF8')::jsonb AS said, d.fields FROM events e
LEFT JOIN event_details d ON d.event_id = e.id WHERE e.action = 'directory_record_changed' ORDER BY e.id
"""


def test_each_change_of_a_directory_record_is_one_event_in_the_vendors_log(api: Database) -> None:
    world = made(api)

    for entry in (ABROAD, ABROAD, DirectoryEntry()):
        says(world, entry)

    first, second = read(api, CHANGES)
    assert first.said["person_id"] == str(world.people["erin"].person_id)
    assert (first.said["tenant_id"], first.said["source"]) == (None, f"account:{world.people['copier'].person_id}")
    assert first.fields["physical_country"][1] == "US"
    assert "physical_country" not in second.said["personal"]


FORGED = "UPDATE directory_records SET physical_country = 'DE' WHERE person_id = :id"


def test_a_directory_record_altered_by_a_database_role_is_ignored(api: Database, superuser: Engine) -> None:
    world = made(api, countries=["DE"])
    says(world, ABROAD)
    write(superuser, FORGED, id=world.people["erin"].person_id)

    error = refused(world)

    assert isinstance(error, PolicyNotMet)
    assert "has no location for this engineer" in error.detail


OLDER = "UPDATE directory_records SET as_of = as_of - interval '1 second' WHERE person_id = :id"
THEIRS = "UPDATE directory_records SET source = 'x' WHERE person_id = :id"
MOVED = "UPDATE requests SET physical_country = 'DE' WHERE requester_id = :id"


def test_no_database_role_restores_an_old_directory_record_or_changes_a_requests_country(api: Database) -> None:
    world = made(api)
    says(world, ABROAD)
    world.fresh()

    assert "only gets newer" in _changes(world, "erin", OLDER)
    assert "permission denied" in _changes(world, "erin", MOVED)
    for who in ("max", "tara", "eve", "copier"):
        assert _changes(world, who, THEIRS) == "0"


def _changes(world: World, who: str, statement: str) -> str:
    """Return how many rows a person's SQL statement changes, or the database's refusal."""
    try:
        with as_caller(world.db, world.people[who]) as connection:
            return str(connection.execute(text(statement), {"id": world.people["erin"].person_id}).rowcount)
    except DBAPIError as error:
        return str(error)


def test_the_requesters_country_is_checked_at_submit_and_before_opening(api: Database) -> None:
    world = made(api, countries=["DE", "US"])
    says(world, ABROAD)
    request = world.fresh()
    does(world, "tara", policies.change, Policy(vendor_review=False, countries=frozenset({"DE"})))

    error = refused(world)
    with pytest.raises(PolicyNotMet, match="the requester is in US"):
        world.act("ann", Action.APPROVE, request.id)

    assert error.facts["errors"] == [{"field": "countries", "message": error.detail}]
    assert world.act("ann", Action.DENY, request.id).state is State.DENIED


OUTSIDE = {"name": "Abroad", "match": {"outside_countries": ["DE"]}, "terms": {"quorum": 2}}


@pytest.mark.far
@each(("entry", "quorum"), [(GERMAN, 1), (ABROAD, 2), (None, 2)])
def test_a_rule_can_require_more_of_requesters_in_other_countries(
    api: Database, entry: DirectoryEntry | None, quorum: int
) -> None:
    world = made(api, rules=[OUTSIDE])
    if entry:
        says(world, entry)

    request = world.fresh()
    after = world.act("ann", Action.APPROVE, request.id)

    assert request.quorum == quorum
    assert after.state is (State.ACTIVE if quorum == 1 else State.PENDING)


DEMANDS = """
SELECT demands_passkeys(p.body, r) AS demands FROM requests r JOIN policies p USING (tenant_id) WHERE r.id = :id
"""
SIGNED = [
    ({"outside_countries": ["DE"]}, GERMAN, None, True),
    ({"outside_countries": ["DE"]}, ABROAD, None, False),
    ({"outside_entities": ["Example Support GmbH"]}, GERMAN, None, True),
    ({"outside_entities": ["Example Support GmbH"]}, None, None, False),
    ({"severities": ["S1"]}, None, Severity.S2, True),
    ({"severities": ["S1"]}, None, None, True),
    ({"severities": ["S1"]}, None, Severity.S1, False),
]


@pytest.mark.far
@each(("match", "entry", "severity", "opens"), SIGNED)
def test_the_database_enforces_rules_about_the_requesters_location(
    api: Database, match: dict[str, Any], entry: DirectoryEntry | None, severity: Severity | None, *, opens: bool
) -> None:
    rule = {"name": "Signed", "match": match, "terms": {"approve_means": "passkey-signed"}}
    world = made(api, rules=[rule])
    if entry:
        says(world, entry)
    request = world.fresh(severity=severity)

    (row,) = read(api, DEMANDS, id=request.id)

    assert row.demands is not opens
    if opens:
        assert world.act("ann", Action.APPROVE, request.id).state is State.ACTIVE
    else:
        with pytest.raises(PasskeyMustSign):
            world.act("ann", Action.APPROVE, request.id)


def test_a_requester_with_an_old_sign_in_must_sign_in_again(api: Database) -> None:
    world = made(api, requester_means="strong", requester_sign_in_age=900)
    signs_in(world, AuthMethod.OIDC, timedelta(minutes=20), key_id=None)

    error = refused(world)
    signs_in(world, AuthMethod.OIDC, key_id=None)

    assert isinstance(error, SignInAgain)
    assert error.facts["max_age"] == 900
    assert world.fresh().sign_in is SignInKind.PROVIDER_TOKEN


def test_a_high_severity_brings_reminders_forward_and_moves_no_deadline(api: Database) -> None:
    world = made(api, approval_reminders=[40], approval_window=1000)

    plain, half, quarter = (world.fresh(severity=one) for one in (Severity.S3, Severity.S2, Severity.S1))

    assert [_wakes_after(one) for one in (plain, half, quarter)] == [400, 200, 100]
    assert {(one.deadline_at - one.created_at).total_seconds() for one in (plain, half, quarter)} == {1000.0}


def _wakes_after(request: AccessRequest) -> float:
    assert request.wake_at is not None
    return (request.wake_at - request.created_at).total_seconds()
