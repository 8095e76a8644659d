"""What each move leaves in the audit log: one event, canonical to the byte, with nothing personal in it."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
import rfc8785
from sqlalchemy import Engine, Row

from harness import people
from harness.people import World
from lockbox.admin import policies
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.requests.transition import Origin
from tests.database.scenes import read, set_back
from tests.database.tenancy import does

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
    """A tenant that wants a review and two approvals."""
    return World.make(api, Policy(quorum=2))


@pytest.fixture
def told_all(careful: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The same, of whose people everything personal is noted."""
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


def test_the_bytes_of_an_event_are_canonical_json_and_say_what_its_columns_say(told_all: World) -> None:
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


def test_personal_values_stand_in_an_event_as_salted_commitments(told_all: World) -> None:
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


def test_each_event_says_on_which_side_and_by_which_policy_it_was_checked(
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


def test_no_personal_text_stands_in_the_bytes_of_an_event(told_all: World) -> None:
    names = {caller.name for caller in told_all.people.values()}
    emails = {row.email for row in read(told_all.db, "SELECT email FROM people")}

    bodies = [row.body.decode() for row in read(told_all.db, EVENTS)]

    secrets = {*PERSONAL.values(), *names, *emails}
    escaped = {json.dumps(secret)[1:-1] for secret in secrets}
    # A name of three letters stands in a signature now and then: a word that is alone would be the name.
    words = re.compile(rf"(?<![\w+/=-])(?:{'|'.join(map(re.escape, secrets | escaped))})(?![\w+/=-])")
    assert [found for body in bodies for found in words.findall(body)] == []


def test_the_same_words_twice_give_two_commitments_that_nobody_can_match(told_all: World) -> None:
    rows = read(told_all.db, EVENTS)
    commitments = [json.loads(row.body)["personal"].get("comment") for row in rows]

    assert len({one for one in commitments if one}) == 3


def test_the_clock_leaves_events_without_anything_personal(
    careful: World, worker: Database, superuser: Engine
) -> None:
    request = careful.submit()
    set_back(superuser, [request.id], 1)
    timers.run(worker, [request.id])

    *_, last = _events(worker, request.id)
    assert (last.actor_id, last.actor_role) == (None, "clock")
    assert json.loads(last.body)["personal"] == {}
    assert rfc8785.dumps(json.loads(last.body)) == last.body
    assert not read(worker, DETAILS, id=last.id)


def test_every_event_waits_to_be_sealed(told_all: World, superuser: Engine, worker: Database) -> None:
    request = told_all.submit()
    set_back(superuser, [request.id], 1)
    timers.run(worker, [request.id])

    missing = read(
        superuser,
        "SELECT FROM events e FULL JOIN unsealed u ON u.event_id = e.id WHERE e.id IS NULL OR u IS NULL",
    )
    assert missing == []
    assert read(superuser, "SELECT count(*) AS n FROM unsealed")[0].n == 8


def test_a_decision_is_a_row_with_who_what_and_from_where(told_all: World) -> None:
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


def test_the_first_event_says_what_the_policy_demanded(api: Database) -> None:
    world = World.make(api, Policy(quorum=2, approval_window=1234), Mode.ENFORCE)
    world.submit(access_window=600, case_ref="CASE-7", actions=["read", "export"])

    body = json.loads(read(api, EVENTS)[0].body)

    assert {name: body[name] for name in ("service", "actions", "reason_code")} == {
        "service": "exchange-online",
        "actions": ["read", "export"],
        "reason_code": "support_case",
    }
    assert (body["quorum"], body["approval_window"], body["access_window"], body["mode"]) == (2, 1234, 600, "enforce")
