"""Approvals signed by passkeys: required if the policy says so, and compared with the rows at each access check."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from catalogue.service_catalogue import Level
from harness.authenticator import Authenticator
from harness.clocks import StoppedClock
from harness.people import WITHOUT_REVIEW, World
from lockbox.audit.verifier.passkey_assertion import Assertion, check
from lockbox.database import Database
from lockbox.errors import AlreadyDecided, Invalid, NotYours, PasskeyMustSign, StaleVersion
from lockbox.facts.enumerations import ApproveMeans, Mode, Reason, Severity, State
from lockbox.identity import passkeys
from lockbox.requests import decide
from lockbox.requests.approvals import SignedStatement
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_parts import fits
from lockbox.requests.policy_rules import Policy, RequestFacts, terms_for
from tests.database.scenes import as_caller, door, read, telling
from tests.each import each
from tests.passkey_approvals import DEMANDED, approve, asked, cose_bytes, enrol, signed
from tests.policy_setup import lay_down

OTHER = "mailbox:boss@contoso.example"
TWO: dict[str, Any] = {"resources": ["mailbox:anna@contoso.example", OTHER], "actions": ["read", "export"]}


@pytest.fixture
def demanding(api: Database) -> World:
    return World.make(api, DEMANDED)


def event_of(world: World, request: AccessRequest) -> dict[str, Any]:
    """Return the body of the event of a request's last move."""
    (row,) = read(world.db, "SELECT body FROM events WHERE request_id = :id ORDER BY seq DESC LIMIT 1", id=request.id)
    said: dict[str, Any] = json.loads(row.body)
    return said


def past_all_triggers(superuser: Engine, statement: str, **values: object) -> None:
    """Write as the database owner, with the triggers switched off."""
    with superuser.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(text(statement), values)


def test_an_approvers_passkey_signs_exactly_the_decision(demanding: World) -> None:
    authenticator, request = enrol(demanding, "ann"), demanding.submit(**TWO)
    kept = {"resources": [OTHER], "actions": ["read"], "access_window": 600, "comment": "Only the boss"}

    opened = approve(demanding, "ann", request.id, authenticator, **kept)

    said = event_of(demanding, request)
    statement = json.loads(said["decision"])
    (content,) = read(
        demanding.db, "SELECT signed_content AS text FROM decisions WHERE request_id = :id", id=request.id
    )
    key = passkeys.public_key(cose_bytes(authenticator))
    check(
        Assertion.read(said["assertion"]),
        said["decision"].encode(),
        key,
        rp_id="lockbox.example",
        origin="https://lockbox.example",
    )
    assert opened.state == State.ACTIVE
    assert (said["proof"], said["approve_means"]) == ("passkey-signed", "passkey-signed")
    assert {name: statement[name] for name in ("actions", "access_window", "version", "service", "approver")} == {
        "actions": ["read"],
        "access_window": 600,
        "version": 1,
        "service": "exchange-online",
        "approver": str(demanding.people["ann"].person_id),
    }
    assert {**json.loads(content.text), "salt": ""} == {"comment": "Only the boss", "resources": [OTHER], "salt": ""}
    assert OTHER not in json.dumps(said)
    assert door(demanding, resource=OTHER) is not None


def test_an_unsigned_approval_is_refused_where_the_policy_requires_signing(demanding: World) -> None:
    request = demanding.submit()

    with pytest.raises(PasskeyMustSign, match="signed with a passkey"):
        demanding.act("ann", Action.APPROVE, request.id)

    assert not read(demanding.db, "SELECT FROM decisions WHERE request_id = :id", id=request.id)


def test_an_approval_without_a_passkey_signature_is_recorded_as_attested_by_the_server(api: Database) -> None:
    world = World.make(api, WITHOUT_REVIEW)
    request = world.submit()

    world.act("ann", Action.APPROVE, request.id)

    said = event_of(world, request)
    assert (said["proof"], said["approve_means"], "assertion" in said) == ("attested", "attested", False)


def test_a_missing_passkey_is_reported_before_the_decision(demanding: World) -> None:
    request = demanding.submit()
    enrol(demanding, "amir")

    with pytest.raises(NotYours, match="no passkey that can sign"):
        asked(demanding, "ann", request.id)


def test_a_passkey_that_is_not_trusted_yet_cannot_sign_an_approval(demanding: World, superuser: Engine) -> None:
    request = demanding.submit()
    enrol(demanding, "ann")
    past_all_triggers(superuser, "UPDATE passkeys SET trusted_at = '2999-01-01Z'")

    with pytest.raises(NotYours, match="no passkey that can sign"):
        asked(demanding, "ann", request.id)


@each(
    "changes",
    [
        {"resources": [OTHER]},
        {"actions": ["read"]},
        {"access_window": 600},
        {"comment": "All of it"},
    ],
)
def test_an_approval_signature_over_another_decision_is_refused(demanding: World, changes: dict[str, Any]) -> None:
    authenticator, request = enrol(demanding, "ann"), demanding.submit(**TWO)
    said = signed(asked(demanding, "ann", request.id), authenticator)

    with pytest.raises(StaleVersion, match="What your passkey signed"):
        demanding.act("ann", Action.APPROVE, request.id, signed=said, **changes)


def test_an_approval_signature_over_another_request_or_an_older_request_version_is_refused(api: Database) -> None:
    world = World.make(api, DEMANDED.model_copy(update={"quorum": 2}))
    authenticator, first, second = enrol(world, "ann"), world.submit(), world.submit()
    other, old = (signed(asked(world, "ann", one.id), authenticator) for one in (first, second))
    approve(world, "amir", second.id, enrol(world, "amir"))

    for said in (other, old):
        with pytest.raises(StaleVersion, match="What your passkey signed"):
            world.act("ann", Action.APPROVE, second.id, signed=said)


def test_an_approval_signature_requested_before_a_clock_set_back_is_refused(
    demanding: World, still: StoppedClock
) -> None:
    authenticator, request = enrol(demanding, "ann"), demanding.submit()
    still.at += timedelta(seconds=1)
    said = signed(asked(demanding, "ann", request.id), authenticator)
    still.at -= timedelta(milliseconds=1)

    with pytest.raises(StaleVersion, match="What your passkey signed"):
        demanding.act("ann", Action.APPROVE, request.id, signed=said)


def test_an_approval_signature_from_before_a_policy_change_is_refused(demanding: World) -> None:
    authenticator, request = enrol(demanding, "ann"), demanding.submit()
    said = signed(asked(demanding, "ann", request.id), authenticator)
    lay_down(demanding, approve_means="passkey-signed", sign_in_age=60)

    with pytest.raises(StaleVersion, match="What your passkey signed"):
        demanding.act("ann", Action.APPROVE, request.id, signed=said)


def _of_amir(world: World, request: AccessRequest) -> SignedStatement:
    authenticator = enrol(world, "amir")
    return signed(asked(world, "amir", request.id), authenticator)


def _by_another_key(world: World, request: AccessRequest) -> SignedStatement:
    enrol(world, "ann")
    stranger = Authenticator()
    stranger.create({"rp": {"id": "lockbox.example"}, "user": {"id": "AA"}, "challenge": "AA"})
    return signed(asked(world, "ann", request.id), stranger)


def _lying(**lies: Any) -> Callable[[World, AccessRequest], SignedStatement]:
    def sign(world: World, request: AccessRequest) -> SignedStatement:
        authenticator = replace(enrol(world, "ann"), **lies)
        return signed(asked(world, "ann", request.id), authenticator)

    return sign


def _with_another_challenge(world: World, request: AccessRequest) -> SignedStatement:
    authenticator = enrol(world, "ann")
    said, other = asked(world, "ann", request.id), asked(world, "ann", request.id)
    return replace(signed(other, authenticator), statement=said.statement, content=said.content)


def _nonsense(world: World, request: AccessRequest) -> SignedStatement:
    authenticator = enrol(world, "ann")
    return replace(signed(asked(world, "ann", request.id), authenticator), credential="{}")


def _no_statement(world: World, request: AccessRequest) -> SignedStatement:
    authenticator = enrol(world, "ann")
    return replace(signed(asked(world, "ann", request.id), authenticator), statement="[]", content="{}")


@each(
    "forged",
    [
        _of_amir,
        _by_another_key,
        _lying(origin="https://evil.example"),
        _lying(domain="evil.example"),
        _lying(is_verified=False),
        _lying(is_present=False),
        _lying(cross_origin=True),
        _with_another_challenge,
        _nonsense,
        _no_statement,
    ],
)
def test_an_approval_signature_by_another_passkey_is_refused(
    demanding: World, forged: Callable[[World, AccessRequest], SignedStatement]
) -> None:
    request = demanding.submit()
    said = forged(demanding, request)

    with pytest.raises((StaleVersion, Invalid)):
        demanding.act("ann", Action.APPROVE, request.id, signed=said)

    assert not read(demanding.db, "SELECT FROM decisions WHERE request_id = :id", id=request.id)


def test_an_approval_with_a_passkey_sign_count_that_does_not_grow_is_refused(demanding: World) -> None:
    authenticator, request = enrol(demanding, "ann"), demanding.submit()
    copy = authenticator.clone()
    approve(demanding, "ann", request.id, authenticator)
    later = demanding.submit(resources=[OTHER])

    with pytest.raises(Invalid, match="signature of your passkey"):
        approve(demanding, "ann", later.id, copy)


def test_an_unsigned_vote_stops_counting_when_the_policy_begins_to_require_signing(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    lay_down(world, quorum=2, approve_means="passkey-signed")
    pending = approve(world, "amir", request.id, enrol(world, "amir"))

    with pytest.raises(AlreadyDecided, match="no longer counts"):
        world.act("ann", Action.APPROVE, request.id)
    opened = approve(world, "abe", request.id, enrol(world, "abe"))

    assert (pending.state, opened.state) == (State.PENDING, State.ACTIVE)
    people = sorted(str(world.people[name].person_id) for name in ("abe", "amir"))
    assert event_of(world, request)["approved_by"] == people
    assert door(world) is not None


def test_a_window_opened_by_the_vendor_needs_no_customer_passkey(api: Database) -> None:
    world = World.make(api, Policy(approve_means=ApproveMeans.PASSKEY_SIGNED), Mode.OBSERVE)
    request = world.submit()

    world.act("max", Action.ENDORSE, request.id)

    assert door(world) is not None


@pytest.mark.parametrize(
    "forged",
    [
        "UPDATE decisions SET assertion = replace(assertion, 'authenticator_data', 'authenticator')",
        "UPDATE decisions SET statement = replace(statement, '1}', '0}')",
        "UPDATE decisions SET signed_content = replace(signed_content, 'anna', 'boss')",
        "UPDATE decisions SET resources = ARRAY['mailbox:boss@contoso.example']",
        "UPDATE decisions SET access_window = 60",
        "UPDATE decisions SET comment = 'Another'",
        "UPDATE decisions SET principals = ARRAY[person_id]",
        "UPDATE decisions SET statement = NULL, signed_content = NULL, assertion = NULL, passkey_id = NULL",
        "UPDATE passkeys SET public_key = :key",
        "DELETE FROM passkeys",
    ],
)
def test_a_window_whose_database_rows_differ_from_the_signed_approval_admits_no_one(
    demanding: World, superuser: Engine, forged: str
) -> None:
    request = demanding.submit()
    approve(demanding, "ann", request.id, enrol(demanding, "ann"))
    stranger = Authenticator()
    stranger.create({"rp": {"id": "lockbox.example"}, "user": {"id": "AA"}, "challenge": "AA"})
    before = door(demanding)

    values = {"key": cose_bytes(stranger)} if ":key" in forged else {}
    past_all_triggers(superuser, forged, **values)

    assert before is not None
    assert door(demanding) is None


BY_A_RULE = Policy.model_validate(
    {
        "vendor_review": False,
        "rules": [
            {"name": "Other", "match": {"resources": ["mailbox:*"]}, "terms": {"quorum": 1}},
            {
                "name": "Mailboxes",
                "match": {"services": ["exchange-online"], "resources": ["site:*", "mailbox:*@contoso.*"]},
                "terms": {"approve_means": "passkey-signed"},
            },
        ],
    }
)
SAYS_NOTHING, SAYS_SO = "attested", "passkey-signed"


def test_a_rule_can_require_signing_and_a_signed_approval_opens_the_window(api: Database) -> None:
    world = World.make(api, BY_A_RULE)
    authenticator, request, other = enrol(world, "ann"), world.submit(), world.submit(resources=["disk:anna@x"])

    with pytest.raises(PasskeyMustSign, match="signed with a passkey"):
        world.act("ann", Action.APPROVE, request.id)
    opened = approve(world, "ann", request.id, authenticator)
    unsigned = world.act("ann", Action.APPROVE, other.id)

    assert (opened.state, opened.approve_means) == (State.ACTIVE, ApproveMeans.PASSKEY_SIGNED)
    assert (unsigned.state, unsigned.approve_means) == (State.ACTIVE, ApproveMeans.ATTESTED)


@pytest.mark.parametrize(
    ("policy", "later", "said", "why"),
    [
        (DEMANDED, None, SAYS_NOTHING, "the policy demands signed approvals"),
        (DEMANDED, None, SAYS_SO, "active without the decisions for it"),
        (BY_A_RULE, None, SAYS_NOTHING, "the policy demands signed approvals"),
        (BY_A_RULE, None, SAYS_SO, "active without the decisions for it"),
        (WITHOUT_REVIEW, DEMANDED, SAYS_NOTHING, "the policy demands signed approvals"),
        (WITHOUT_REVIEW, BY_A_RULE, SAYS_NOTHING, "the policy demands signed approvals"),
        (BY_A_RULE, WITHOUT_REVIEW, SAYS_NOTHING, "the policy demands signed approvals"),
    ],
)
def test_the_database_trigger_refuses_windows_with_unsigned_votes(
    api: Database, *, policy: Policy, later: Policy | None, said: str, why: str
) -> None:
    demanding = World.make(api, policy)
    request = demanding.submit()
    ann = demanding.people["ann"]
    if later:
        lay_down(demanding, **later.model_dump(mode="json"))
    decision = """
    INSERT INTO decisions (id, request_id, person_id, principals, means, decision, channel, decided_at)
    VALUES (uuidv7(), :id, :by, '{}', 'passkey', 'approve', 'portal', now())
    """
    event = telling(
        "uuidv7(), tenant_id, id, 2, now(), 'approve', CAST(:by AS uuid), 'approver', 'pending', 'active' "
        "FROM requests WHERE id = :id"
    )
    window = """
    UPDATE requests SET state = 'active', version = 2, opened_at = now(), deadline_at = now() + interval '1 hour',
        wake_at = now() + interval '1 hour', approve_means = :said WHERE id = :id
    """
    values = {"id": request.id, "by": ann.person_id, "said": said}

    def write() -> None:
        with as_caller(demanding.db, ann) as connection:
            for statement in (decision, window, event):
                connection.execute(text(statement), values)

    with pytest.raises(DBAPIError, match=why):
        write()


def test_an_unsigned_approval_during_a_policy_change_is_checked_again(
    api: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World.make(api, WITHOUT_REVIEW)
    request = world.submit()

    def meanwhile(point: str) -> None:
        if point == "decide.after_evaluation":
            lay_down(world, **DEMANDED.model_dump(mode="json"))

    monkeypatch.setattr(decide, "failpoint", meanwhile)
    with pytest.raises(OperationalError, match="demands signed approvals"):
        world.act("ann", Action.APPROVE, request.id)
    monkeypatch.undo()

    with pytest.raises(PasskeyMustSign):
        world.act("ann", Action.APPROVE, request.id)


@given(
    st.text("ab*%_\\", min_size=1, max_size=8).map("m:{}".format), st.text("ab%_\\", max_size=6).map("m:{}".format)
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_database_interprets_resource_patterns_like_the_code(api: Database, pattern: str, resource: str) -> None:
    (row,) = read(api, "SELECT fits(:pattern, :resource) AS is_so", pattern=pattern, resource=resource)

    assert row.is_so is fits(pattern, resource)


DEMANDS = """
SELECT demands_passkeys(CAST(:body AS jsonb), r) AS is_so,
    demands_passkeys(CAST(:body AS jsonb), r.service, r.actions, r.reason_code, r.resources) AS is_so_to_older
FROM jsonb_populate_record(NULL::requests, CAST(:request AS jsonb)) r
"""
LATER = {"levels", "context", "severities"}
"""What processes of 0.2.0 do not name: a rule about it is about every request to them."""


@pytest.mark.parametrize(
    ("match", "demands"),
    [
        ({"services": ["exchange-online"]}, True),
        ({"services": ["sharepoint-online"]}, False),
        ({"actions": ["export", "read"]}, True),
        ({"actions": ["export"]}, False),
        ({"reasons": ["support_case"]}, True),
        ({"reasons": ["legal_demand"]}, False),
        ({"resources": ["site:*", "mailbox:*"]}, True),
        ({"resources": ["mailbox:anna"]}, False),
        ({"levels": ["read", "admin"]}, True),
        ({"levels": ["admin"]}, False),
        ({"severities": ["S1", "S2"]}, True),
        ({"severities": ["S1"]}, False),
        ({"services": ["exchange-online"], "context": {"environment": ["production", "test"]}}, True),
        ({"services": ["exchange-online"], "context": {"environment": ["test"]}}, False),
        ({"services": ["exchange-online"], "context": {"rows": [2, 10]}}, True),
        ({"services": ["exchange-online"], "context": {"rows": [True]}}, False),
        ({"services": ["exchange-online"], "context": {"unsaid": ["any"]}}, True),
        ({"services": ["exchange-online"], "actions": ["export"]}, False),
        ({"services": ["exchange-online"], "reasons": ["support_case"], "resources": ["mailbox:anna@*"]}, True),
    ],
)
def test_the_database_matches_policy_rules_like_the_code(
    api: Database, match: dict[str, Any], *, demands: bool
) -> None:
    rule = {"name": "A", "match": match, "terms": {"approve_means": "passkey-signed"}}
    policy = Policy.model_validate({"rules": [rule]})
    ask = RequestFacts("exchange-online", ("read",), Reason.SUPPORT_CASE, ("disk:b", "mailbox:anna@contoso.example"))
    ask = replace(ask, level=Level.READ, context={"environment": "production", "rows": 10}, severity=Severity.S2)
    request = {
        name: getattr(ask, name) for name in ("service", "actions", "resources", "level", "context", "severity")
    }
    request["reason_code"] = ask.reason

    (row,) = read(api, DEMANDS, body=policy.model_dump_json(), request=json.dumps(request))

    assert row.is_so is demands
    assert row.is_so_to_older is (demands or bool(match.keys() & LATER))
    assert (terms_for(policy, ask).approve_means is ApproveMeans.PASSKEY_SIGNED) is demands


def test_a_vote_written_by_a_database_role_does_not_count_towards_the_quorum(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request, ann = world.submit(), world.people["ann"]
    vote = """
    INSERT INTO decisions (id, request_id, person_id, principals, means, decision, channel, decided_at, mac)
    VALUES (uuidv7(), :id, :by, '{}', 'oidc', 'approve', 'api', now(), :mac)
    """
    other = world.submit()
    world.act("ann", Action.APPROVE, other.id)
    (copied,) = read(api, "SELECT mac FROM decisions WHERE request_id = :id", id=other.id)
    with as_caller(world.db, ann) as connection:
        connection.execute(text(vote), {"id": request.id, "by": ann.person_id, "mac": copied.mac})

    pending = world.act("amir", Action.APPROVE, request.id)
    opened = world.act("abe", Action.APPROVE, request.id)

    assert (pending.state, opened.state) == (State.PENDING, State.ACTIVE)
    assert str(ann.person_id) not in event_of(world, request)["approved_by"]


def test_the_signing_requirement_of_a_request_never_becomes_weaker(demanding: World, superuser: Engine) -> None:
    request = demanding.submit()
    approve(demanding, "ann", request.id, enrol(demanding, "ann"))

    with pytest.raises(DBAPIError, match="stay signed with passkeys"), superuser.connect() as connection:
        connection.execute(text("UPDATE requests SET approve_means = 'attested'"))
