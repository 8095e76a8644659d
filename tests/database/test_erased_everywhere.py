"""Erase a person who has done everything possible: the name remains in free text, and nowhere else."""

import json
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine

from harness.clocks import ShiftedClock
from harness.people import HERE, SETTINGS, World
from harness.stage import Urls
from lockbox.admin import delegates, invitations, members, observers, policies
from lockbox.admin.observers import ObserverInput
from lockbox.audit import events, refusals_log
from lockbox.audit.events import AUDIT_LOG_READ, Actor
from lockbox.audit.refusals_log import DECISION_REFUSED, SIGN_IN_REFUSED, RefusalEntry
from lockbox.database import Database
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import authentication, sessions, token_creation
from lockbox.identity.roles import Role, Scope
from lockbox.identity.sessions import ClientInfo, SessionLifetime
from lockbox.identity.token_creation import TokenRules
from lockbox.notifications import addresses, mailed_codes
from lockbox.requests import activity, idempotency
from lockbox.requests.activity import ActivityEntry
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.mentions import mentions
from tests.database.postbag import Postbag, open_notifications
from tests.database.rejecting_relay import RefusingMail
from tests.database.scenes import read, write
from tests.database.tenancy import does, id_of, invites, joins, names_delegate, with_delegates
from tests.database.test_erasure import erase
from tests.mailbox import code_of
from tests.policy_setup import signed_in

ANN = "Annabelquist"
ERIN = "Erasmusquist"
THERE = ClientInfo("203.0.113.9", "Unheard-of browser")
# What people wrote: reasons, comments and cases, what was asked for and used, and what they called things of theirs.
WRITTEN = {
    *("decisions.comment", "event_details.comment", "requests.justification", "event_details.justification"),
    *("requests.resources", "event_details.resources", "event_details.resource"),
    *("requests.case_ref", "event_details.case_ref", "endpoints.description", "policies.body", "events.body"),
    "passkeys.name",
}
ROWS = (
    """
    INSERT INTO identities (issuer, subject, person_id, created_at, trusted_at)
    VALUES ('https://idp.example', lower(:name) || '@idp.example', :id, now(), now())
    """,
    """
    INSERT INTO gate_identities (id, issuer, subject, person_id, added_by, created_at)
    VALUES (uuidv7(), 'https://idp.example', lower(:name) || '@idp.example', :id, :other, now())
    """,
    """
    INSERT INTO passkeys (id, person_id, credential_id, public_key, sign_count, name, created_at, trusted_at)
    VALUES (uuidv7(), :id, uuid_send(:id), 'key', 0, :name || '''s laptop', now(), now()),
        (uuidv7(), :other, uuid_send(:other), 'key', 0, 'Shared with ' || :name, now(), now())
    """,
    """
    INSERT INTO device_logins (id, secret_hash, code_hash, address, user_agent, created_at, expires_at, answered_by,
        answered_at, is_allowed)
    VALUES (uuidv7(), 'test'::bytea || sha256(uuid_send(:id)), 'test'::bytea || sha256(uuid_send(:id)),
        '203.0.113.9', 'lockbox of ' || :name, now(),
        now() + interval '10 minutes', :id, now(), true)
    """,
    "UPDATE endpoints SET description = 'Pager of ' || :name",
)


@pytest.fixture
def world(api: Database, worker: Database, superuser: Engine, post: Postbag, later: ShiftedClock) -> World:
    """A world in which two people, one of each side, have left traces everywhere."""
    made = with_delegates(api)
    made.add("erasmusquist", Role.ENGINEER)
    made.add("sensor", Role.SYSTEM, scopes={Scope.ACTIVITY_REPORT}, services=set(SETTINGS.catalogue.services))
    post.endpoint(made, "https://tenant.example/", tenant_id=made.tenant.id)
    rule = {"name": f"After {ANN} and {ERIN}", "match": {"services": ["exchange-online"]}, "terms": {"quorum": 1}}
    does(made, "tara", policies.change, Policy.model_validate({"vendor_review": False, "rules": [rule]}), seen=1)
    _comes(made, worker)
    _delegates(made)
    _works(made)
    for who in ("annabelquist", "erasmusquist"):
        _signs_in(made, worker, superuser, who)
        _is_refused(made, who)
    _is_looked_for(made)
    post.mailing = RefusingMail()
    post.deliver(worker, open_notifications(worker))
    worker.clock = later
    later.shift = timedelta(minutes=3)
    refusals_log.record_finished_minutes(worker)
    for who in ("annabelquist", "erasmusquist"):
        _is_refused(made, who)
    return made


def _email(world: World, who: str) -> str:
    (row,) = read(world.db, "SELECT email FROM people WHERE id = :id", id=id_of(world, who))
    return str(row.email)


def _comes(world: World, worker: Database) -> None:
    first = invites(world, name=ANN, address="annabelquist@contoso.example")
    does(world, "tara", invitations.withdraw, first.id)
    wanted = ObserverInput(ANN, "annabelquist@contoso.example")
    does(world, "tara", observers.add, wanted, services=SETTINGS.catalogue.services)
    joins(world, worker, "annabelquist", Role.APPROVER)
    does(world, "tara", members.set_eligible, id_of(world, "annabelquist"), eligible=True)


def _delegates(world: World) -> None:
    """Act as a delegate, and have a delegate who decides."""
    entry = names_delegate(world, "ann", "annabelquist")
    does(world, "ann", delegates.end, entry.delegation.id)
    names_delegate(world, "tara", "aude", "annabelquist")
    world.act("aude", Action.DENY, world.fresh().id, comment=f"{ANN} would not")


def _works(world: World) -> None:
    """Request, get and use access; decide, and be mentioned by others."""
    named = f"mailbox:{ANN}-{ERIN}@contoso.example"
    said = f"{ANN} called {ERIN}"
    world.act("annabelquist", Action.DENY, world.fresh("erasmusquist", case_ref=said).id, comment=said)
    request = world.submit("erasmusquist", resources=[named], justification=said)
    opened = world.act("amir", Action.APPROVE, request.id, comment=said)
    assert opened.opened_at is not None
    with world.db.transaction() as session:
        entry = ActivityEntry(opened.opened_at, "GET", named, "ok", "read")
        activity.report(session, world.people["sensor"], HERE, request.id, [entry])
    world.act("erasmusquist", Action.COMPLETE, request.id)
    answer = {"requester": {"id": str(id_of(world, "erasmusquist")), "name": ERIN}}
    for who in ("erasmusquist", "gate"):
        with world.db.transaction() as session:
            authentication.enter(session, world.people[who])
            idempotency.keep(session, id_of(world, who), "key", b"body", json.dumps(answer))


def _signs_in(world: World, worker: Database, superuser: Engine, who: str) -> None:
    """Sign in by every means, make a token, and add a mail address."""
    caller = signed_in(world, who, AuthMethod.PASSKEY)
    world.people[who] = caller
    with world.db.transaction() as session:
        mailed_codes.send_code(session, _email(world, who))
    with world.db.transaction() as session:
        sessions.begin(session, caller, THERE, SessionLifetime(timedelta(hours=1), timedelta(hours=8)))
        token_creation.make(session, caller, THERE, token_creation.TokenInput(f"{who} at work"), _rules())
    with world.db.transaction() as session:
        authentication.enter(session, caller)
        added = addresses.add(session, caller, THERE, f"{who}@home.example")
        addresses.add(session, caller, THERE, f"{who}@typo.example")
    with world.db.transaction() as session:
        authentication.enter(session, caller)
        addresses.confirm(session, caller, THERE, added.id, code_of(worker, added.id))
    name = caller.name
    for statement in ROWS:
        wanted = {"id": caller.person_id, "name": name, "other": id_of(world, "abe" if name == ANN else "eve")}
        write(superuser, statement, **{key: value for key, value in wanted.items() if f":{key}" in statement})


def _rules() -> TokenRules:
    return TokenRules(SETTINGS.environment, timedelta(hours=1), timedelta(days=1), timedelta(0), frozenset())


def _is_refused(world: World, who: str) -> None:
    account = {"account": f"{who}@home.example", "from_address": "203.0.113.9"}
    own = {"account": _email(world, who).upper(), "from_address": "203.0.113.9"}
    for personal in (account, own):
        what = RefusalEntry(SIGN_IN_REFUSED, {"means": "mail"}, of=personal["account"], personal=personal)
        with world.db.transaction() as session:
            refusals_log.count(session, what)
    decided = RefusalEntry(DECISION_REFUSED, {}, id_of(world, who), personal={"name": who.capitalize()})
    with world.db.transaction() as session:
        refusals_log.count(session, decided)


def _is_looked_for(world: World) -> None:
    """Record searches of the audit log for the person's name and address."""
    tara = Actor(id_of(world, "tara"), "tenant_admin", "Tara")
    for word in (f"by {ANN}, or {ERIN}?", "annabelquist@home.example", "erasmusquist@home.example"):
        with world.db.transaction() as session:
            authentication.enter(session, world.people["tara"])
            wanted = {"text": word}
            events.record(session, tara, AUDIT_LOG_READ, logs=[world.tenant.id], wanted=wanted, count=0)


def _spoken_of(world: World) -> dict[str, set[str]]:
    return {word: mentions(world.db, word) for word in (ANN, ERIN)}


@pytest.mark.far
@pytest.mark.parametrize(("who", "name"), [("annabelquist", ANN), ("erasmusquist", ERIN)])
def test_an_erased_persons_name_remains_only_in_free_text(world: World, urls: Urls, who: str, name: str) -> None:
    before = _spoken_of(world)
    person: UUID = id_of(world, who)

    erase(urls, person)

    assert before[name] - WRITTEN >= {
        *(
            "people.name",
            "people.email",
            "addresses.email",
            "identities.subject",
            "gate_identities.subject",
            "tokens.name",
            "sign_ins.email",
        ),
        *("event_details.name", "event_details.account", "event_details.wanted", "event_details.mailbox"),
        *("deliveries.answer", "notifications.last_error", "refused.personal", "device_logins.user_agent"),
    }
    assert mentions(world.db, name) <= WRITTEN
    other = {ANN: ERIN, ERIN: ANN}[name]
    assert mentions(world.db, other) >= before[other] - {"event_details.wanted"}


@pytest.mark.far
@pytest.mark.parametrize("who", ["annabelquist", "erasmusquist"])
def test_an_erased_persons_location_remains_only_in_rows_of_other_people(world: World, urls: Urls, who: str) -> None:
    erase(urls, id_of(world, who))
    erase(urls, id_of(world, {"annabelquist": "erasmusquist", "erasmusquist": "annabelquist"}[who]))

    assert mentions(world.db, "203.0.113.9") == set()
    assert mentions(world.db, "Unheard-of browser") == set()
