"""The verifier of exports: what it says about an event's body and the personal values beside it."""

import json
from typing import Any
from uuid import UUID

import pytest
import rfc8785

from lockbox.audit.log import checkpoint
from lockbox.audit.verifier.event_checks import NotCanonical, fields_of
from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.verify import BAD, CANNOT_TELL, GOOD
from tests.each import each
from tests.logs import SALT, TENANT, Log, SealedEvent, event, text
from tests.verification_results import told, verified

ID = "00000000-0000-0000-0000-0000000003e9"
PLACE: dict[str, Any] = {"at": "2026-01-01T00:00:00.000000Z", "log": str(TENANT), "tenant_id": str(TENANT)}
WHERE = f"line 4, number 1, event {ID}"
REQUEST = "00000000-0000-0000-0000-0000000186a1"
LARGEST = 2**53 - 1


def bodies_with(body: bytes, personal: dict[str, str] | None = None) -> Log:
    """Return a log of three events, of which the second has this body."""
    return Log([event(0), SealedEvent(body, personal or {}), event(2)])


def with_members(**changes: Any) -> Log:
    return bodies_with(rfc8785.dumps(json.loads(event(1, {}).body) | changes))


def without(name: str) -> Log:
    return bodies_with(
        rfc8785.dumps({other: value for other, value in json.loads(event(1, {}).body).items() if other != name})
    )


@each(
    "fields",
    [
        {},
        {"a": None, "b": [True, False, [], {}], "c": {"d": "e"}},
        {"n": LARGEST, "m": -LARGEST, "zero": 0},
        {"text": 'Zoë \U0001f512 "\\\n\t\x00\x7f\u2028'},
        {"\ue000": 1, "é": 2},
        {"\U0001f512": 1, "\ue000": 2},
        {"a": [{"\U0001f512": [{"\U0001f512": 1, "\uffff": "\U0001f512"}], "\uffff": 2}]},
        {"\uffff": "x"},
    ],
)
def test_the_verifier_reads_rfc_8785_output(fields: dict[str, Any]) -> None:
    assert fields_of(rfc8785.dumps(fields)) == fields


@each(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b'"text"',
        b"null",
        b'{"n":1.0}',
        b'{"n":1e0}',
        b'{"n":NaN}',
        b'{"n":-Infinity}',
        b'{"n":9007199254740992}',
        b'{"n":-9007199254740992}',
        b'{"n":-0}',
        b'{"n": 1}',
        b'{"n":1} ',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":"\\u0061"}',
        b'{"a":"\\/"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\u00e9"}',
        '{"\ue000":1,"\U0001f512":2}'.encode(),
        '{"a":[{"\ue000":1,"\U0001f512":2}]}'.encode(),
        '{"a":{"\ue000":1,"\U0001f512":2}}'.encode(),
        '["\U0001f512"]'.encode(),
        '{"\U0001f512": 1}'.encode(),
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_the_verifier_does_not_read_non_canonical_json(body: bytes) -> None:
    with pytest.raises(NotCanonical):
        fields_of(body)


def test_the_verifier_names_a_non_canonical_body_once() -> None:
    log = bodies_with(b'{"seq": 1}')

    assert told(verified(log.whole())) == [
        "not canonical: line 4, number 1: the body is not in the canonical form of RFC 8785"
    ]


ODD: list[tuple[str, Any]] = [
    *(("action", odd) for odd in (None, 1)),
    *(("seq", odd) for odd in (0, -1, True, "1")),
    *(("request_id", odd) for odd in (None, 1)),
    *(("to_state", odd) for odd in (None, 1)),
    *(("personal", odd) for odd in (None, "a")),
]


@each(
    ("log", "name"),
    [
        *((without(name), name) for name in ("action", "request_id", "to_state", "personal", "tenant_id", "seq")),
        *((with_members(**{name: odd}), name) for name, odd in ODD),
        *((with_members(seq=None, **{name: 1}), name) for name in ("request_id", "to_state")),
        (with_members(seq=None, request_id=None, to_state=False), "to_state"),
        (with_members(action=None, seq=0, personal=None), "action"),
        (with_members(seq=0, request_id=None), "seq"),
        (with_members(request_id=None, to_state=None, personal=None), "request_id"),
    ],
)
def test_the_verifier_names_the_first_malformed_member_of_an_event(log: Log, name: str) -> None:
    assert told(verified(log.whole())) == [f"malformed: {WHERE}: the body's {name} is missing or malformed"]


@pytest.mark.parametrize(("id_", "said"), [(None, "None"), (7, "7"), (["a"], "['a']")])
def test_the_verifier_names_an_event_with_an_invalid_id_by_that_id(id_: object, said: str) -> None:
    result = verified(with_members(id=id_).whole())

    assert told(result) == [f"malformed: line 4, number 1, event {said}: the body's id is missing or malformed"]


@pytest.mark.parametrize(
    "log",
    [
        with_members(seq=1, request_id=REQUEST, to_state="denied"),
        with_members(seq=None, request_id=None, to_state=None),
        with_members(seq=None, request_id="a", to_state="b"),
        bodies_with(rfc8785.dumps({"id": "a", "action": "b", "personal": {}, "seq": None} | PLACE)),
    ],
)
def test_the_verifier_finds_no_malformed_event_in_a_correct_log(log: Log) -> None:
    assert [one for one in told(verified(log.whole())) if "malformed" in one] == []


@pytest.mark.parametrize(
    ("whose", "tenant", "said"),
    [
        (str(TENANT), None, "the vendor"),
        (str(TENANT), "somebody", "somebody"),
    ],
)
def test_a_finding_about_a_foreign_event_says_whose_event_it_is(whose: str, tenant: str | None, said: str) -> None:
    log = Log([event(0), event(1, tenant_id=tenant)], whose=whose)

    assert told(verified(log.whole())) == [f"foreign event: {WHERE}: this event is of {said}"]


def vendors(*events: SealedEvent) -> bytes:
    log = Log(list(events), whose="vendor")
    return log.whole().replace(b'"log":"vendor"', f'"log":"{UUID(int=0)}"'.encode(), 1)


def test_the_vendors_log_may_contain_events_of_tenants_too() -> None:
    export = vendors(event(0, log=UUID(int=0)), event(1, log=UUID(int=0), tenant_id=None, seq=None, request_id=None))

    assert told(verified(export)) == []


def test_the_verifier_names_an_event_sealed_in_another_log() -> None:
    own = verified(Log([event(0), event(1, log=UUID(int=0))]).whole())
    theirs = verified(vendors(event(0, log=UUID(int=0)), event(1)))

    for result, log in ((own, UUID(int=0)), (theirs, TENANT)):
        assert told(result) == [f"foreign event: {WHERE}: this event belongs to another log, {log}"]


def test_the_verifier_names_every_value_that_does_not_match_its_commitment() -> None:
    log = Log([event(0), event(1, {"name": "Erin", "comment": "Hello", "reason": "None"}), event(2)])
    export = log.whole()
    salted, salted_anew = (text(given).encode() + b'","value":"None"' for given in (SALT, bytes(16)))
    edited = export.replace(b'"Hello"', b'"Hallo"').replace(salted, salted_anew)
    unasked = export.replace(b'"reason":{"salt"', b'"cause":{"salt"')

    assert told(verified(edited)) == [
        f"commitment: {WHERE}: the value shown as {name} is not the one that the event commits to"
        for name in ("comment", "reason")
    ]
    assert told(verified(unasked)) == [
        f"commitment: {WHERE}: the value shown as cause is not the one that the event commits to"
    ]


def test_the_verifier_counts_shown_and_hidden_values() -> None:
    bare = event(1, {"name": "Erin", "comment": "Hello", "reason": "None"})
    log = Log([event(0), SealedEvent(bare.body, {"name": "Erin"}), SealedEvent(event(2).body, {}), event(3, {})])

    result = verified(log.whole())

    assert (told(result), result.details, result.left_out) == ([], 2, 3)


def test_the_verifier_compares_a_value_in_any_script_with_its_commitment() -> None:
    result = verified(Log([event(0, {"name": "Zoë \U0001f512"})]).whole())

    assert (told(result), result.details) == ([], 1)


@pytest.mark.parametrize(
    ("export", "says"),
    [
        ("whole", [f"request {REQUEST} lacks its move 1; others up to 2 are there"]),
        ("filtered", []),
    ],
)
def test_the_verifier_detects_a_missing_move_only_in_a_whole_export(export: str, says: list[str]) -> None:
    log = Log([event(0), event(1, seq=2), event(2)])
    file = log.whole() if export == "whole" else log.filtered(lambda _: True)

    assert told(verified(file)) == [f"gap in moves: {one}" for one in says]


def test_the_verifier_names_a_repeated_move_with_its_place() -> None:
    log = Log([event(0), event(1, request_id=UUID(int=100_000)), event(2)])

    assert told(verified(log.whole())) == [
        f"gap in moves: {WHERE}: request 00000000-0000-0000-0000-0000000186a0 has its move 1 twice"
    ]


def removal(number: int, start: Any, stop: Any) -> SealedEvent:
    facts = {"removed_from": start, "removed_to": stop, "request_id": None, "seq": None}
    return event(number, {}, action="audit_events_removed", **facts)


@each(
    ("start", "stop", "code"),
    [
        (0, 1, GOOD),
        (0, 4, GOOD),
        (0, 5, BAD),
        (0, 0, BAD),
        (1, 2, BAD),
        ("0", 2, BAD),
        (0, "2", BAD),
        (0, None, BAD),
        (None, 2, BAD),
    ],
)
def test_a_removal_event_must_concern_earlier_events(start: Any, stop: Any, code: int) -> None:
    log = Log([*(event(number) for number in range(4)), removal(4, start, stop)], removed=[range(1)])

    assert verified(log.whole()).exit_code == code


NO_NUMBERS: list[Any] = [None, "1", True, -1, []]
MALFORMED_RECORDS: list[tuple[str, dict[str, Any]]] = [
    *(("removed_from", {"removed_from": odd, "removed_to": 1}) for odd in NO_NUMBERS),
    *(("removed_to", {"removed_from": 0, "removed_to": odd}) for odd in NO_NUMBERS),
]


@each(("name", "facts"), MALFORMED_RECORDS)
def test_the_verifier_detects_a_malformed_removal_event_though_nothing_was_removed(
    name: str, facts: dict[str, Any]
) -> None:
    said = event(1, {}, action="audit_events_removed", request_id=None, seq=None, **facts)
    log = Log([event(0), said, event(2)])

    filtered, whole = verified(log.filtered(lambda number: number == 1)), verified(log.whole())

    for result, row in ((filtered, 2), (whole, 4)):
        place = f"line {row}, number 1, event {ID}"
        assert told(result) == [f"malformed: {place}: the body's {name} is missing or malformed"]


@each("name", ["removed_from", "removed_to"])
def test_the_verifier_detects_a_removal_event_lacking_a_number(name: str) -> None:
    facts = {"removed_from": 0, "removed_to": 1, "request_id": None, "seq": None}
    del facts[name]

    result = verified(Log([event(0), event(1, {}, action="audit_events_removed", **facts)]).whole())

    assert result.findings.kinds == {FindingKind.MALFORMED}


def test_an_event_with_removal_fields_but_another_action_does_not_excuse_missing_events() -> None:
    said: dict[str, Any] = {"removed_from": 0, "removed_to": 1, "request_id": None, "seq": None}
    log = Log([event(0), event(1), event(2, {}, action="log_restored", **said)], removed=[range(1)])

    assert verified(log.whole()).findings.kinds == {FindingKind.REMOVED}


BEFORE = Log([event(number) for number in range(5)])


def restored(number: int, size: object, **changes: Any) -> SealedEvent:
    said = checkpoint.read(BEFORE.note())
    facts: dict[str, Any] = {"log_id": str(TENANT), "size": size, "seq": None, "request_id": None}
    facts |= {"shipped_origin": said.origin, "shipped_size": said.size, "shipped_root": text(said.root)}
    return event(number, {}, **({"action": "restored"} | facts | changes))


@each(
    ("size", "changes", "kind"),
    [
        (3, {}, FindingKind.RESTORED),
        (2, {}, FindingKind.RESTORED),
        (0, {}, FindingKind.RESTORED),
        (4, {}, FindingKind.FORKED),
        (3, {"action": "restore"}, FindingKind.FORKED),
        (3, {"log_id": "another"}, FindingKind.FORKED),
        (3, {"shipped_root": text(bytes(32))}, FindingKind.FORKED),
        (3, {"shipped_root": text(bytes(32)), "shipped_size": 4}, FindingKind.RESTORED),
    ],
)
def test_a_restore_event_counts_only_if_complete_and_about_earlier_events(
    size: object, changes: dict[str, Any], kind: FindingKind
) -> None:
    log = Log([*BEFORE.events[:3], restored(3, size, **changes)], generation=2)

    result = verified(log.whole(), BEFORE.note())

    assert result.findings.kinds == {kind}
    assert result.exit_code == (CANNOT_TELL if kind is FindingKind.RESTORED else BAD)


MALFORMED_RESTORES: list[tuple[str, dict[str, Any]]] = [
    *((name, {name: odd}) for name in ("size", "shipped_size") for odd in NO_NUMBERS),
    *((name, {name: odd}) for name in ("log_id", "shipped_origin", "shipped_root") for odd in (None, 1)),
]


@each(("name", "changes"), MALFORMED_RESTORES)
@each("generation", [1, 2])
def test_the_verifier_reports_and_ignores_a_malformed_restore_event(
    name: str, changes: dict[str, Any], generation: int
) -> None:
    log = Log([*BEFORE.events[:3], restored(3, **{"size": 3} | changes)], generation=generation)

    filtered, whole = verified(log.filtered(lambda number: number == 3)), verified(log.whole())

    for result, row in ((filtered, 2), (whole, 6)):
        place = f"line {row}, number 3, event {UUID(int=1_003)}"
        assert told(result) == [f"malformed: {place}: the body's {name} is missing or malformed"]
    if generation > 1:
        assert verified(log.whole(), BEFORE.note()).findings.kinds == {FindingKind.MALFORMED, FindingKind.FORKED}


def test_a_restore_event_about_later_events_explains_no_new_generation() -> None:
    beyond = verified(Log([*BEFORE.events[:3], restored(3, 4)], generation=2).whole())
    before = verified(Log([*BEFORE.events[:3], restored(3, 3)], generation=2).whole())

    assert (beyond.findings.kinds, before.findings.kinds) == ({FindingKind.FORKED}, set())


def test_the_verifier_reports_a_restore_with_time_size_and_number() -> None:
    log = Log([*BEFORE.events[:3], restored(3, 2)], generation=2)

    (only,) = told(verified(log.whole(), BEFORE.note()))

    assert only.startswith(
        "restored: number 3: a back-up was restored at 2026-01-01T00:00:03.000000Z: the log went on from its first "
        "2 events, and gave up what came after them, to which your checkpoint of 5 belongs;"
    )
