"""Invariants broken without the triggers: each causes an event, a mail and a webhook call; nothing else does."""

import json
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, TextClause, text

from harness.clocks import ShiftedClock, StoppedClock
from harness.people import World
from harness.stage import Urls, setting
from lockbox.admin import legal_holds, tenant_data
from lockbox.audit.events import Origin
from lockbox.database import Database, make_engine, now
from lockbox.facts.enumerations import AuthMethod, Mode
from lockbox.identity import sessions
from lockbox.identity.sessions import ClientInfo, SessionLifetime
from lockbox.monitoring import invariants
from lockbox.monitoring.heartbeats import HeartbeatSender, ProcessPart
from lockbox.monitoring.invariants import InvariantViolation, ScanPosition
from lockbox.requests import decide, timers
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import many, read, set_back, write
from tests.database.tenancy import does
from tests.database.test_exports import freely
from tests.database.test_signed_decisions import BY_A_RULE, past_all_triggers
from tests.logs import sealed
from tests.passkey_approvals import approve, enrol
from worker import alerts

HOOK = "https://vendor.example/alarms"
LARGE = {"requests", "events", "decisions", "seals", "notifications", "unsealed", "people", "memberships"}

BREAKS: dict[str, tuple[str, str]] = {
    "UPDATE requests SET state = 'active', opened_at = now(), deadline_at = now() + interval '1 hour', "
    "wake_at = now() WHERE state = 'pending'": ("I1", "without the approval"),
    "DELETE FROM decisions WHERE decision = 'approve'": ("I1", "without the approval"),
    "UPDATE decisions SET person_id = requester_id FROM requests": ("I1", "without the approval"),
    "UPDATE decisions SET person_id = (SELECT person_id FROM memberships WHERE role = 'manager' LIMIT 1)": (
        "I1",
        "without the approval",
    ),
    "UPDATE decisions SET decided_at = decided_at + interval '1 minute'": ("I1", "without the approval"),
    "UPDATE requests SET quorum = 2 WHERE state = 'active'": ("I1", "without the approval"),
    "INSERT INTO decisions (id, request_id, person_id, principals, means, decision, channel, decided_at) "
    "SELECT uuidv7(), request_id, person_id, '{}', 'oidc', 'deny', 'api', decided_at FROM decisions": (
        "I1",
        "without the approval",
    ),
    "UPDATE requests SET deadline_at = now() - interval '61 seconds', opened_at = now() - interval '1 hour', "
    "wake_at = now() - interval '61 seconds' WHERE state = 'active'": ("I2", "over a minute ago"),
    "UPDATE requests SET deadline_at = deadline_at + interval '1 hour', access_window = access_window + 3600 "
    "WHERE state = 'active'": ("I2", "for longer than was approved"),
    "UPDATE events SET to_state = 'revoked' WHERE action = 'approve'": ("I2", "its audit log says that it ended"),
    "DELETE FROM events WHERE action = 'submit'": ("I4", "one event for each of its moves"),
    "UPDATE requests SET version = version + 1": ("I4", "one event for each of its moves"),
    "UPDATE requests SET state = 'completed', closed_at = now(), wake_at = NULL WHERE state = 'active'": (
        "I4",
        "one event for each of its moves",
    ),
    "DELETE FROM events WHERE request_id IS NOT NULL": ("I4", "one event for each of its moves"),
    "DELETE FROM outbox": ("I5", "nobody is told of that"),
    "UPDATE outbox SET at = now() - interval '16 minutes'": ("I5", "to be told to anybody"),
    "UPDATE decisions SET means = 'oidc', channel = 'portal'": ("I12", "without a sign-in on record"),
    "DELETE FROM seals WHERE number = 1": ("I4", "gap in its seals"),
    "DELETE FROM seals WHERE number = (SELECT max(number) FROM seals)": ("I4", "gap in its seals"),
    "DELETE FROM events WHERE id = (SELECT event_id FROM seals WHERE number = 0 LIMIT 1)": ("I4", "gap in its seals"),
    "DELETE FROM seals WHERE number = 0": ("I4", "is not sealed and does not wait"),
    "INSERT INTO events (id, tenant_id, at, action, actor_role, body) "
    "SELECT uuidv7(interval '-2 days'), tenant_id, at, 'policy_changed', 'clock', body FROM events LIMIT 1": (
        "I4",
        "is not sealed and does not wait",
    ),
    "WITH late AS (UPDATE events SET at = at - interval '61 seconds' RETURNING id) "
    "INSERT INTO unsealed SELECT id FROM late": ("I4", "waited for over a minute to be sealed"),
    "UPDATE decisions SET means = 'passkey'": ("I12", "without a sign-in on record"),
    "UPDATE decisions SET means = 'token'": ("I12", "without a sign-in on record"),
    "UPDATE tokens SET created_at = now() + interval '1 minute'": ("I12", "without a sign-in on record"),
    "UPDATE tokens SET is_sample = false": ("I12", "no event says who gave it"),
    "INSERT INTO passkeys (id, person_id, credential_id, public_key, sign_count, name, created_at, trusted_at) "
    "SELECT uuidv7(), id, '1', '', 0, 'mine', now(), now() FROM people LIMIT 1": ("I12", "a passkey that no event"),
    "INSERT INTO identities (issuer, subject, person_id, created_at, trusted_at) "
    "SELECT 'https://idp.example', 'ann', id, now(), now() FROM people LIMIT 1": (
        "I12",
        "an identity provider that no event",
    ),
    "INSERT INTO ended_powers (mac, ended_at) SELECT mac, now() FROM memberships WHERE role = 'approver'": (
        "I12",
        "is approver, and it was taken away",
    ),
}


@pytest.fixture
def lived(world: World, worker: Database) -> World:
    """A tenant with a pending request, an open window, an ended one, and a sealed audit log."""
    world.fresh()
    for who in ("erin", "eve"):
        world.act("ann", Action.APPROVE, world.fresh(who).id)
    (row,) = read(world.db, "SELECT id FROM requests WHERE state = 'active' AND requester_id = :id", id=_eve(world))
    world.act("ann", Action.REVOKE, row.id)
    sealed(worker)
    return world


def _eve(world: World) -> UUID:
    return world.people["eve"].person_id


def looked(db: Database, rota: ScanPosition = ScanPosition()) -> set[InvariantViolation]:  # noqa: B008 - it cannot be changed
    return alerts.find_violations(db, rota)[0]


def raised(db: Database) -> list[InvariantViolation]:
    return alerts.confirm(db, looked(db), ScanPosition())


@pytest.mark.usefixtures("lived")
def test_the_invariant_checks_of_a_healthy_database_have_no_findings(worker: Database) -> None:
    assert looked(worker) == set()
    assert raised(worker) == []
    assert not read(worker, "SELECT FROM events WHERE action = 'invariant_broken'")


@pytest.mark.parametrize("is_said", [True, False])
def test_the_invariant_checks_detect_a_window_lacking_a_required_signature(
    api: Database, worker: Database, superuser: Engine, *, is_said: bool
) -> None:
    world = World.make(api, BY_A_RULE)
    approve(world, "ann", world.submit().id, enrol(world, "ann"))
    healthy = {broken.rule for broken in looked(worker)}

    past_all_triggers(
        superuser,
        "UPDATE decisions SET statement = NULL, signed_content = NULL, assertion = NULL, passkey_id = NULL",
    )
    if not is_said:
        past_all_triggers(superuser, "UPDATE requests SET approve_means = 'attested'")

    assert "I1" not in healthy
    assert [broken.what for broken in looked(worker) if broken.rule == "I1"] == [
        "is or was open without the approval that it needs"
    ]


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
def test_a_window_opened_by_endorsement_in_mode_observe_or_off_causes_no_invariant_finding(
    api: Database, worker: Database, superuser: Engine, mode: Mode
) -> None:
    world = World.make(api, Policy(), mode)
    world.act("max", Action.ENDORSE, world.fresh().id)
    assert read(api, "SELECT FROM requests WHERE state = 'active'")
    assert looked(worker) == set()

    freely(superuser, "DELETE FROM decisions")

    assert {one.rule for one in looked(worker)} == {"I1"}


def test_a_clock_set_back_between_decisions_causes_no_invariant_finding(
    api: Database, worker: Database, still: StoppedClock
) -> None:
    world = World.make(api, Policy(quorum=2))
    request = world.fresh()
    for who, action in (("max", Action.ENDORSE), ("ann", Action.APPROVE), ("amir", Action.APPROVE)):
        still.at -= timedelta(seconds=1)
        world.act(who, action, request.id)

    assert looked(worker) == set()


@pytest.mark.far
def test_ordinary_requests_cause_no_invariant_finding_however_they_end(
    api: Database, worker: Database, superuser: Engine
) -> None:
    world = World.make(api, Policy(quorum=2))
    for ending in (Action.COMPLETE, Action.REVOKE, None):
        request = world.fresh()
        world.act("max", Action.ENDORSE, request.id)
        world.act("ann", Action.APPROVE, request.id)
        world.act("amir", Action.APPROVE, request.id)
        if ending:
            world.act("erin" if ending is Action.COMPLETE else "tara", ending, request.id)
    world.act("max", Action.DENY, world.fresh("eve").id)
    late = many(world, 3, "eve")
    set_back(superuser, late, 1)
    timers.run(worker, late)
    sealed(worker)

    assert looked(worker) == set()


def test_decisions_made_after_a_sign_in_cause_no_invariant_finding(api: Database, worker: Database) -> None:
    world = World.make(api, Policy())
    request = world.fresh()
    for who, action in (("max", Action.ENDORSE), ("ann", Action.APPROVE)):
        with api.transaction() as session:
            caller = replace(world.people[who], means=AuthMethod.PASSKEY, signed_in_at=now(session), key_id=None)
            sessions.begin(
                session, caller, ClientInfo(None, None), SessionLifetime(timedelta(hours=1), timedelta(hours=1))
            )
        with api.transaction() as session:
            decide.act(session, caller, Origin("portal"), request.id, DecisionInput(action))

    assert read(api, "SELECT FROM decisions WHERE means = 'passkey' AND channel = 'portal'")
    assert looked(worker) == set()


@pytest.mark.parametrize("statement", BREAKS)
def test_the_invariant_checks_detect_faults_that_bypassed_the_triggers(
    lived: World, worker: Database, superuser: Engine, statement: str
) -> None:
    rule, what = BREAKS[statement]

    freely(superuser, statement)

    found = looked(worker)
    assert any(one.rule == rule and what in one.what for one in found), (found, lived.tenant.slug)


def test_an_invariant_finding_causes_an_event_and_a_mail_to_operators_and_a_webhook_call(
    lived: World, worker: Database, superuser: Engine, post: Postbag, capsys: pytest.CaptureFixture[str]
) -> None:
    post.deliver(worker, open_notifications(worker))
    post.endpoint(lived, HOOK, tenant_id=None, event_types=["request.approved"])
    post.endpoint(lived, "https://contoso.example/hook", tenant_id=lived.tenant.id)
    post.mail.sent.clear()
    freely(superuser, "DELETE FROM decisions WHERE decision = 'approve'")

    said = raised(worker)
    post.deliver(worker, open_notifications(worker))

    broken = {str(one.id) for one in said}
    (event,) = read(worker, "SELECT tenant_id, body FROM events WHERE action = 'invariant_broken'")
    facts = json.loads(bytes(event.body))
    assert event.tenant_id is None
    assert facts["changes"].keys() == broken
    (mail,) = post.mail.sent
    assert mail.to_name == "Olga"
    assert mail.subject == "Alarm: an invariant check failed"
    line = f"I1 at {lived.tenant.slug}: is or was open without the approval that it needs"
    for form in (mail.text, mail.html):
        assert line in " ".join(form.split())
        assert all(one in form for one in broken)
        assert "docs/operating.md" in form
    (call,) = post.hooks.sent
    body = json.loads(call.body)
    assert call.url == HOOK
    assert body["type"] == "operate.invariant_broken"
    assert body["data"] == {"tenant": None, "tenant_id": None, "changes": facts["changes"]}
    assert "invariant.broken" in capsys.readouterr().out


def test_known_invariant_findings_are_repeated_hourly_and_new_findings_are_sent_at_once(
    lived: World, sender: Database, later: ShiftedClock, superuser: Engine
) -> None:
    freely(superuser, "DELETE FROM decisions WHERE decision = 'approve'")
    first = raised(sender)
    assert {one.rule for one in first} == {"I1"}
    later.shift = timedelta(minutes=59)
    assert raised(sender) == []

    freely(superuser, "DELETE FROM seals WHERE number = 1")
    assert {one.rule for one in raised(sender)} == {"I4"}

    later.shift = timedelta(minutes=61)
    assert [one.key for one in raised(sender)] == [one.key for one in first]
    assert len(read(sender, "SELECT FROM events WHERE action = 'invariant_broken'")) == 3
    assert lived.people


def test_an_invariant_finding_fixed_before_the_second_check_raises_no_alarm(
    lived: World, worker: Database, superuser: Engine
) -> None:
    late = many(lived, 1)
    lived.act("ann", Action.APPROVE, late[0])
    set_back(superuser, late, 90)
    found = looked(worker)
    assert {(one.rule, one.id) for one in found} == {("I2", late[0])}

    timers.run(worker, late)

    assert alerts.confirm(worker, found, ScanPosition()) == []
    assert not read(worker, "SELECT FROM alarms")


@pytest.mark.parametrize(
    "broken", ["DELETE FROM unsettled", "UPDATE unsettled SET settle_by = now() - interval '16 minutes'"]
)
def test_the_invariant_checks_detect_mails_whose_outcome_event_is_missing(
    world: World, worker: Database, superuser: Engine, post: Postbag, broken: str
) -> None:
    told, forgotten = world.fresh(), world.fresh()
    mails = read(worker, "SELECT id FROM notifications WHERE request_id = :id", id=told.id)
    post.deliver(worker, [row.id for row in mails])
    assert looked(worker) == set()

    freely(superuser, broken)

    assert {(one.rule, one.id) for one in looked(worker)} == {("I5", forgotten.id)}


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ("UPDATE legal_holds SET released_at = now(), released_by = set_by", "the end of a legal hold"),
        ("UPDATE legal_holds SET set_by = (SELECT id FROM people WHERE name = 'Ann' LIMIT 1)", "a legal hold"),
        ("UPDATE retentions SET days = 31, set_at = now()", "for how long the log is kept"),
        ("UPDATE offboardings SET asked_at = now()", "that somebody asked to off-board the tenant"),
    ],
)
def test_the_invariant_checks_detect_a_data_change_without_its_event(
    world: World, worker: Database, superuser: Engine, broken: str, what: str
) -> None:
    does(world, "tara", tenant_data.keep_for, 30, most=None)
    does(world, "tara", tenant_data.ask_to_leave)
    does(world, "olga", legal_holds.hold, "A dispute")
    assert looked(worker) == set()

    freely(superuser, broken)

    assert looked(worker) == {InvariantViolation("unsaid", world.tenant.id, world.tenant.id, f"no event says {what}")}


def test_the_invariant_checks_read_old_requests_page_by_page(
    world: World, worker: Database, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invariants, "PAGE", 2)
    monkeypatch.setattr(invariants, "LATELY", timedelta(0))
    last = max(many(world, 5))
    freely(superuser, f"UPDATE requests SET version = version + 1 WHERE id = '{last}'")  # noqa: S608 - an id

    rota, found = ScanPosition(), []
    for _ in range(3):
        broken, rota = alerts.find_violations(worker, rota)
        found.append({one.id for one in broken})

    assert found == [set(), set(), {last}]
    assert rota.request == invariants.NOBODY


def test_the_invariant_checks_read_old_seals_page_by_page(
    world: World, worker: Database, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invariants, "PAGE_OF_SEALS", 3)
    monkeypatch.setattr(invariants, "TAIL", 1)
    monkeypatch.setattr(invariants, "LATELY", timedelta(0))
    many(world, 9)
    sealed(worker)
    freely(superuser, "DELETE FROM seals WHERE number = 6")

    rota, found = ScanPosition(), []
    for _ in range(3):
        broken, rota = alerts.find_violations(worker, rota)
        found.append(len(broken))

    assert sum(found) >= 1
    assert found[0] == 0


def test_the_invariant_checks_read_people_page_by_page(
    world: World, worker: Database, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invariants, "PAGE_OF_PEOPLE", 5)
    monkeypatch.setattr(invariants, "LATELY", timedelta(0))
    last = max(person.person_id for person in world.people.values())
    freely(superuser, f"UPDATE tokens SET is_sample = false WHERE person_id = '{last}'")  # noqa: S608 - an id

    rota, found = ScanPosition(), []
    for _ in range(4):
        broken, rota = alerts.find_violations(worker, rota)
        found.append({one.id for one in broken})

    assert len(world.people) == 12
    assert found == [set(), set(), {last}, set()]


def test_the_removal_of_events_by_retention_causes_no_invariant_finding_about_a_person(
    lived: World, worker: Database, superuser: Engine
) -> None:
    freely(superuser, "UPDATE tokens SET is_sample = false")
    assert {one.rule for one in looked(worker)} == {"I12"}

    write(superuser, "UPDATE logs SET kept_since = now() + interval '1 hour'")

    assert looked(worker) == set()
    assert lived.people


def test_the_invariant_checks_report_no_gap_where_retention_removed_events(
    lived: World, worker: Database, superuser: Engine
) -> None:
    write(superuser, "UPDATE logs SET kept_from = size")
    freely(superuser, "DELETE FROM events WHERE request_id IN (SELECT id FROM requests WHERE closed_at IS NOT NULL)")

    assert [one for one in looked(worker) if "moves" in one.what] == []
    assert lived.people


def test_only_one_worker_checks_the_invariants_each_minute(worker: Database) -> None:
    assert alerts.is_due(worker)

    write(worker.engine, "SELECT record_heartbeat('invariants', uuidv7(), 'core@here', 0)")

    assert not alerts.is_due(worker)


@pytest.mark.parametrize(
    "query",
    invariants.QUERIES,
    ids=[
        *("I1", "I2", "I4", "I5", "I4-seals", "I4-unsealed", "I12", "I12-powers"),
        *("used-outside", "unsaid", "unstated"),
    ],
)
def test_no_invariant_query_scans_a_large_table(worker: Database, query: TextClause) -> None:
    values = ScanPosition().values | {"page": 10}

    with setting(worker).transaction() as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        plan = session.execute(text(f"EXPLAIN (FORMAT JSON) {query.text}"), values).scalar_one()

    walked = {name for kind, name in _nodes(plan[0]["Plan"]) if kind == "Seq Scan"}
    assert walked & LARGE == set()


def _nodes(plan: dict[str, object]) -> list[tuple[str, str]]:
    below = plan.get("Plans", [])
    assert isinstance(below, list)
    here = (str(plan["Node Type"]), str(plan.get("Relation Name", "")))
    return [here, *(node for part in below for node in _nodes(part))]


@pytest.mark.usefixtures("lived")
def test_a_missing_connector_worker_raises_an_alarm(api: Database, worker: Database, urls: Urls) -> None:
    HeartbeatSender("api@here").beat(api, ProcessPart.API, needs_connectors=False)
    assert looked(worker) == set()

    HeartbeatSender("api@there").beat(api, ProcessPart.API, needs_connectors=True)
    (found,) = raised(worker)
    assert (found.rule, found.tenant_id) == ("no-connector-worker", None)
    assert "python -m worker connectors" in found.what

    connectors = Database(make_engine(urls.connectors, role="test-connectors"), worker.schedule)
    HeartbeatSender("connectors@here").beat(connectors, ProcessPart.CONNECTORS)
    assert looked(worker) == set()
    connectors.engine.dispose()
