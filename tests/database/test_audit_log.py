"""What each move writes into the audit log: one event in canonical bytes, without personal data."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import rfc8785
from sqlalchemy import Engine, Row, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from harness import people
from harness.people import World
from harness.stage import Urls
from lockbox.admin import policies
from lockbox.audit.events import Origin
from lockbox.database import Database
from lockbox.errors import NotYours
from lockbox.facts.enumerations import Mode
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import as_caller, moves_of, read, set_back, state_of, telling
from tests.database.tenancy import does
from tests.each import each

EVENTS = "SELECT * FROM events ORDER BY seq"
DETAILS = "SELECT * FROM event_details WHERE event_id = :id"

PERSONAL = {
    "comment": 'Ask Zoë "first"\u2028\x7f\t\\ \U0001f512',
    "justification": "Anna Müller's mailbox \t“does” not open\r\n🙈",
    "resource": "mailbox:anna.müller@contoso.example",
    "address": "2001:db8::c0:ffee",
    "user_agent": "Firefox of Ann's own laptop",
}


def _events(db: Database, request_id: object) -> Sequence[Row[Any]]:
    return read(db, "SELECT * FROM events WHERE request_id = :id ORDER BY seq", id=request_id)


@pytest.fixture
def careful(api: Database) -> World:
    return World.make(api, Policy(quorum=2))


@pytest.fixture
def told_all(careful: World, monkeypatch: pytest.MonkeyPatch) -> World:
    origin = Origin("portal", PERSONAL["address"], PERSONAL["user_agent"])
    monkeypatch.setattr(people, "HERE", origin)
    request = careful.submit(
        justification=PERSONAL["justification"], resources=[PERSONAL["resource"]], access_window=600
    )
    careful.act("max", Action.ENDORSE, request.id, comment=PERSONAL["comment"])
    careful.act("ann", Action.APPROVE, request.id, comment=PERSONAL["comment"], access_window=60)
    careful.act("amir", Action.APPROVE, request.id)
    careful.act("tara", Action.REVOKE, request.id, comment=PERSONAL["comment"])
    return careful


def test_an_event_is_stored_as_canonical_json_that_agrees_with_the_event_columns(told_all: World) -> None:
    rows = read(told_all.db, EVENTS)

    assert len(rows) == 5
    for row in rows:
        body = json.loads(row.body)
        assert rfc8785.dumps(body) == row.body
        assert (body["id"], body["request_id"], body["tenant_id"]) == (
            str(row.id),
            str(row.request_id),
            str(row.tenant_id),
        )
        assert (body["seq"], body["action"], body["actor_id"], body["actor_role"], body["from_state"]) == (
            row.seq,
            row.action,
            str(row.actor_id),
            row.actor_role,
            row.from_state,
        )
        assert body["to_state"] == row.to_state
        assert body["at"] == row.at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        assert body["deadline_at"] == (row.deadline_at and row.deadline_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
        assert body["format"] == 1


def test_events_store_personal_values_as_salted_commitments(told_all: World) -> None:
    fields = []

    for row in read(told_all.db, EVENTS):
        (detail,) = read(told_all.db, DETAILS, id=row.id)
        salted = {name: (base64.b64decode(salt), value) for name, (salt, value) in detail.fields.items()}
        expected = {name: hashlib.sha256(salt + value.encode()).hexdigest() for name, (salt, value) in salted.items()}
        assert json.loads(row.body)["personal"] == expected
        salts = [salt for salt, _ in salted.values()]
        assert len(set(salts)) == len(salts)
        assert all(len(salt) == 16 for salt in salts)
        fields.append(set(expected))

    person = {"name", "address", "user_agent"}
    assert fields == [
        person | {"justification", "case_ref", "resources"},
        person | {"comment", "engineer", "justification", "case_ref", "resources"},
        person | {"comment"},
        person,
        person | {"comment"},
    ]


def test_each_event_names_its_acting_side_and_policy_version(
    careful: World, worker: Database, superuser: Engine
) -> None:
    request = careful.submit()
    careful.act("max", Action.ENDORSE, request.id)
    does(careful, "tara", policies.change, Policy(quorum=2, approval_window=7_000))
    careful.act("ann", Action.APPROVE, request.id)
    set_back(superuser, [request.id], 1)
    timers.run(worker, [request.id])

    said = [json.loads(row.body) for row in _events(worker, request.id) if row.seq]
    assert [(body["action"], body["side"], body["policy_version"]) for body in said] == [
        ("submit", "vendor", 1),
        ("endorse", "vendor", 1),
        ("approve", "customer", 2),
        ("time_out", None, None),
    ]
    (changed,) = read(worker, "SELECT body FROM events WHERE action = 'policy_changed'")
    assert json.loads(changed.body)["side"] == "customer"


def test_the_bytes_of_an_event_contain_no_personal_text(told_all: World) -> None:
    names = {caller.name for caller in told_all.people.values()}
    emails = {row.email for row in read(told_all.db, "SELECT email FROM people")}

    bodies = [row.body.decode() for row in read(told_all.db, EVENTS)]

    secrets = {*PERSONAL.values(), *names, *emails}
    escaped = {json.dumps(secret)[1:-1] for secret in secrets}
    # A name of three letters stands in a signature now and then: a word that is alone would be the name.
    words = re.compile(rf"(?<![\w+/=-])(?:{'|'.join(map(re.escape, secrets | escaped))})(?![\w+/=-])")
    assert [found for body in bodies for found in words.findall(body)] == []


def test_commitments_to_equal_texts_cannot_be_linked_to_each_other(told_all: World) -> None:
    rows = read(told_all.db, EVENTS)
    commitments = [json.loads(row.body)["personal"].get("comment") for row in rows]

    assert len({commitment for commitment in commitments if commitment}) == 3


def test_events_of_the_timer_contain_nothing_personal(careful: World, worker: Database, superuser: Engine) -> None:
    request = careful.submit()
    set_back(superuser, [request.id], 1)
    timers.run(worker, [request.id])

    *_, last = _events(worker, request.id)
    assert (last.actor_id, last.actor_role) == (None, "clock")
    assert json.loads(last.body)["personal"] == {}
    assert rfc8785.dumps(json.loads(last.body)) == last.body
    assert not read(worker, DETAILS, id=last.id)


def test_every_event_is_queued_for_sealing(told_all: World, superuser: Engine, worker: Database) -> None:
    request = told_all.submit()
    set_back(superuser, [request.id], 1)
    timers.run(worker, [request.id])

    missing = read(
        superuser,
        "SELECT FROM events e FULL JOIN unsealed u ON u.event_id = e.id WHERE e.id IS NULL OR u IS NULL",
    )
    assert missing == []
    assert read(superuser, "SELECT count(*) AS n FROM unsealed")[0].n == 8


def test_a_decision_row_records_the_person_and_the_action_and_the_origin(told_all: World) -> None:
    rows = read(told_all.db, "SELECT * FROM decisions ORDER BY decided_at")

    people = [told_all.people[name].person_id for name in ("max", "ann", "amir")]
    assert [(row.person_id, row.decision, row.access_window) for row in rows] == [
        (people[0], "endorse", None),
        (people[1], "approve", 60),
        (people[2], "approve", None),
    ]
    assert {(row.channel, row.address, row.user_agent) for row in rows} == {
        ("portal", PERSONAL["address"], PERSONAL["user_agent"])
    }
    assert [row.comment for row in rows] == [PERSONAL["comment"], PERSONAL["comment"], None]


def test_the_first_event_of_a_request_records_what_the_policy_required(api: Database) -> None:
    world = World.make(api, Policy(quorum=2, approval_window=1234), Mode.ENFORCE)
    world.submit(access_window=600, case_ref="CASE-7", actions=["read", "export"])

    body = json.loads(read(api, EVENTS)[0].body)

    assert {name: body[name] for name in ("service", "actions", "reason_code")} == {
        "service": "exchange-online",
        "actions": ["read", "export"],
        "reason_code": "support_case",
    }
    assert (body["quorum"], body["approval_window"], body["access_window"], body["mode"]) == (2, 1234, 600, "enforce")


TELL = telling(
    "uuidv7(), tenant_id, id, version + 1, now(), CAST(:action AS text), "
    "CASE :role WHEN 'clock' THEN NULL ELSE requester_id END, CAST(:role AS text), state, CAST(:state AS text) "
    "FROM requests"
)


def _write(world: World, db: Database, statement: str, **values: str) -> None:
    """Write one row as that database role, in the context of the request's engineer."""
    with as_caller(db, world.people["erin"], at=world.tenant.id) as connection:
        assert connection.execute(text(statement), values).rowcount == 1


@each("login", ["api", "worker"])
def test_no_database_role_moves_a_request_without_an_event(
    world: World, login: str, request: pytest.FixtureRequest
) -> None:
    submitted = world.submit()
    db: Database = request.getfixturevalue(login)
    ended = "UPDATE requests SET state = 'timed_out', version = version + 1, wake_at = NULL, closed_at = now()"

    with pytest.raises(DBAPIError, match="moved without an event"):
        _write(world, db, ended)

    assert state_of(db, submitted.id) == "pending"


@pytest.mark.parametrize(
    ("login", "action", "role", "state"),
    [("api", "cancel", "engineer", "cancelled"), ("worker", "time_out", "clock", "timed_out")],
)
def test_no_database_role_inserts_an_event_without_its_move(
    world: World, request: pytest.FixtureRequest, *, login: str, action: str, role: str, state: str
) -> None:
    world.submit()
    db: Database = request.getfixturevalue(login)

    with pytest.raises(DBAPIError, match="a move that was not made"):
        _write(world, db, TELL, action=action, role=role, state=state)

    assert len(read(db, "SELECT FROM events")) == 1


@pytest.mark.parametrize(
    ("action", "role", "state"),
    [("revoke", "approver", "revoked"), ("approve", "approver", "active"), ("expire", "clock", "active")],
)
def test_a_workers_database_role_writes_only_events_of_the_timer(
    world: World, worker: Database, action: str, role: str, state: str
) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)

    with pytest.raises(DBAPIError, match="the clock"):
        _write(world, worker, TELL, action=action, role=role, state=state)

    assert len(read(worker, "SELECT FROM events")) == 2


def test_a_workers_database_role_cannot_redirect_a_notification(world: World, worker: Database) -> None:
    world.submit()

    with pytest.raises(DBAPIError, match="permission denied"):
        _write(world, worker, "UPDATE notifications SET person_id = (SELECT requester_id FROM requests LIMIT 1)")

    assert len(read(worker, "SELECT DISTINCT person_id FROM notifications")) == 3


def test_an_approver_removed_while_waiting_for_the_row_lock_cannot_approve(world: World, superuser: Engine) -> None:
    submitted = world.submit()
    with superuser.connect() as holder, ThreadPoolExecutor(1) as pool:
        holder.execute(text("BEGIN"))
        holder.execute(text("SELECT FROM requests FOR UPDATE"))
        waiting = pool.submit(world.act, "ann", Action.APPROVE, submitted.id)
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        while not read(superuser, waits):
            assert not waiting.done()
        holder.execute(text("DELETE FROM memberships WHERE person_id = :ann"), {"ann": world.people["ann"].person_id})
        holder.execute(text("COMMIT"))

        with pytest.raises(NotYours):
            waiting.result()

    assert state_of(world.db, submitted.id) == "pending"


TABLES = ("events", "decisions", "policies")
EVERYTHING = "SELECT * FROM {table} t ORDER BY t::text"
ERASE = "UPDATE {table} SET {column} = NULL"
CHANGE = "UPDATE requests SET {change}"
CHANGES = {
    "UPDATE": "UPDATE {table} SET {column} = {column}",
    "DELETE": "DELETE FROM {table}",
    "TRUNCATE": "TRUNCATE {table} CASCADE",
}
REOPENINGS = (
    "state = 'pending', closed_at = NULL, wake_at = deadline_at",
    "state = 'active', closed_at = NULL, wake_at = deadline_at, opened_at = now()",
    "deadline_at = deadline_at + interval '1 hour'",
    "state = 'expired', opened_at = now()",
    "justification = 'another'",
)
SAME = {"events": "id", "decisions": "id", "policies": "version"}
STEPS = ("version", "version + 2", "version - 1", "1")
AGAIN = """
INSERT INTO decisions (id, request_id, person_id, principals, means, decision, channel, decided_at)
SELECT uuidv7(), request_id, person_id, principals, means, decision, channel, decided_at FROM decisions
"""


@pytest.fixture(params=["superuser", "owner"])
def mighty(request: pytest.FixtureRequest, urls: Urls) -> Iterator[Engine]:
    engine = create_engine(getattr(urls, request.param), poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture(params=["api", "worker"])
def server(request: pytest.FixtureRequest) -> Database:
    db: Database = request.getfixturevalue(request.param)
    return db


def _changes() -> Iterator[str]:
    """Return every way to change, remove or empty what must never change."""
    for table in TABLES:
        for change in CHANGES.values():
            yield change.format(table=table, column=SAME[table])


def _refused(engine: Engine, statement: str, **parameters: object) -> str:
    """Run and commit an SQL statement that the database must refuse, and return the error."""
    with pytest.raises(DBAPIError) as error, engine.begin() as connection:
        connection.execute(text(statement), parameters)
    return str(error.value.orig)


def test_not_even_a_superuser_can_change_or_empty_the_audit_log(world: World, mighty: Engine) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    before = [read(mighty, EVERYTHING.format(table=table)) for table in TABLES]

    said = [_refused(mighty, change) for change in _changes()]

    assert all(before)
    assert len(said) == 9
    assert all("append-only" in line for line in said)
    assert [read(mighty, EVERYTHING.format(table=table)) for table in TABLES] == before


@each("who", ["ann", "tara", "max", "olga"])
def test_no_database_role_of_a_server_may_change_or_empty_the_audit_log(
    world: World, server: Database, who: str
) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)

    for change in _changes():
        with (
            pytest.raises(DBAPIError, match=r"permission denied for table (events|decisions|policies)"),
            as_caller(server, world.people[who], at=world.tenant.id) as connection,
        ):
            connection.execute(text(change))


def test_columns_of_events_and_decisions_and_policies_cannot_be_changed(world: World, mighty: Engine) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)
    columns = read(
        mighty,
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_name = ANY(:t)",
        t=[*TABLES],
    )

    said = [_refused(mighty, ERASE.format(table=row.table_name, column=row.column_name)) for row in columns]

    assert len(said) == 15 + 22 + 6
    assert all("append-only" in line or 'column "log_id" can only be updated to DEFAULT' in line for line in said)


def test_a_request_cannot_be_deleted(world: World, mighty: Engine) -> None:
    request = world.submit()

    said = [_refused(mighty, "DELETE FROM requests"), _refused(mighty, "TRUNCATE requests CASCADE")]

    assert all("append-only" in line for line in said)
    assert len(moves_of(world.db, request.id)) == 1


def test_a_closed_request_cannot_be_changed(world: World, mighty: Engine) -> None:
    request = world.submit()
    world.act("erin", Action.CANCEL, request.id)

    said = [_refused(mighty, CHANGE.format(change=f"version = version + 1, {change}")) for change in REOPENINGS]

    assert all("does not go from cancelled to" in line for line in said)


def test_an_active_window_cannot_be_lengthened(world: World, mighty: Engine) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)

    said = _refused(
        mighty, "UPDATE requests SET version = version + 1, deadline_at = deadline_at + interval '1 microsecond'"
    )

    assert "does not go from active to active" in said


def test_a_request_never_returns_to_an_earlier_state(world: World, mighty: Engine) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)

    said = [
        _refused(mighty, CHANGE.format(change=f"version = version + 1, state = '{state}'"))
        for state in ("reviewing", "pending", "denied", "cancelled", "timed_out")
    ]

    assert all("does not go from active to" in line for line in said)


def test_a_window_never_opens_for_longer_than_requested(world: World, mighty: Engine) -> None:
    world.submit(access_window=600)

    said = _refused(
        mighty,
        "UPDATE requests SET version = version + 1, state = 'active', opened_at = now(),"
        " deadline_at = now() + interval '601 seconds', wake_at = now() + interval '601 seconds'",
    )

    assert "ck_requests_window" in said


def test_each_change_of_a_request_is_exactly_one_move(world: World, mighty: Engine) -> None:
    world.submit()

    said = [_refused(mighty, CHANGE.format(change=f"version = {step}")) for step in STEPS]

    assert all("one move at a time" in line for line in said)


def test_event_numbers_of_a_request_are_unique(world: World, mighty: Engine) -> None:
    world.submit()

    said = _refused(
        mighty,
        "INSERT INTO events (id, tenant_id, request_id, seq, at, action, actor_role, to_state, body) "
        "SELECT uuidv7(), tenant_id, id, 1, now(), 'expire', 'clock', 'expired', '' FROM requests",
    )

    assert "uq_events_request_id_seq" in said


def test_a_decision_cannot_be_recorded_twice(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    world.act("ann", Action.APPROVE, world.submit().id)

    with (
        pytest.raises(DBAPIError, match="uq_decisions_request_id_person_id_decision"),
        as_caller(api, world.people["ann"]) as connection,
    ):
        connection.execute(text(AGAIN))
