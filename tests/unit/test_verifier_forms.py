"""The verifier of exports: malformed files, as a stranger or the owner of a database may hand them over."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox.audit.verifier.export_format import FindingKind, Unreadable
from lockbox.audit.verifier.verify import BAD, GOOD, verify
from tests.each import each
from tests.examples import examples
from tests.logs import Log, SealedEvent, event, line, public
from tests.verification_results import verified

SAYS_SO: dict[str, Any] = {
    "action": "audit_events_removed",
    "removed_from": 0,
    "removed_to": 1,
    "request_id": None,
    "seq": None,
}
LOG = Log([*(event(number) for number in range(3)), event(3, {}, **SAYS_SO)], removed=[range(1)])
ROWS = LOG.whole().splitlines(keepends=True)
FIRST, TILE, GAP, EVENT, END = 0, 1, 2, 3, -1


def with_row(place: int, row: bytes) -> bytes:
    """Return the export with the line at one place replaced."""
    rows = list(ROWS)
    rows[place] = row
    return b"".join(rows)


@each(
    ("place", "old", "new"),
    [
        (EVENT, b'{"number":1,', b'{"number":1,"body":"{\\"action\\":\\"deny\\"}",'),
        (EVENT, b'"salt":', b'"salt":"","salt":'),
        (EVENT, b'"value":', b'"verified":true,"value":'),
        (EVENT, b'{"number":1,', b'{"proof":[],"number":1,'),
        (EVENT, b"Erin 1", b"\\ud800"),
        (TILE, b'"proof":', b'"checked":true,"proof":'),
        (GAP, b'"to":1', b'"to":1,"by":"law"'),
        (END, b'"events":3', b'"events":3,"complete":"certified"'),
        (END, b'"events":3}', b'"events":3},"end":{"events":3}'),
        (EVENT, b'"number":1', b'"number":1e0'),
        (EVENT, b'"number":1', b'"number":false'),
        (EVENT, b'"personal":{"name"', b'"personal":{"\\ud800"'),
        (EVENT, b'"value":"', b'"value":"\\udfff'),
    ],
)
def test_undocumented_members_of_an_export_line_count_as_damage(place: int, old: bytes, new: bytes) -> None:
    assert old in ROWS[place]

    result = verified(with_row(place, ROWS[place].replace(old, new, 1)))

    assert (result.exit_code, result.findings.first[0].kind) == (BAD, FindingKind.DAMAGED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"whole":true', b'"whole":true,"whole":true'),
        (b'"whole":true', b'"whole":true,"by":"us"'),
        (b'"asked":{}', b'"asked":{"person":1}'),
        (b'"asked":{}', b'"asked":[]'),
        (b'"consistency":[]', b'"consistency":[{"from":1,"proof":[],"by":"us"}]'),
        (b'"consistency":[]', b'"consistency":[{"from":1,"proof":[]},{"from":1,"proof":[]}]'),
        (b'"checkpoint":"', b'"checkpoint":"\\ud800'),
    ],
)
def test_the_verifier_does_not_read_an_export_with_a_malformed_first_line(old: bytes, new: bytes) -> None:
    assert old in ROWS[FIRST]

    with pytest.raises(Unreadable):
        verify([ROWS[FIRST].replace(old, new)], [public()])


@pytest.mark.parametrize("behind", [b'{"number":4,"body":"approve"', b"\n", b"}", ROWS[EVENT]])
def test_the_verifier_reports_lines_after_the_last_line_of_an_export(behind: bytes) -> None:
    result = verify([*ROWS, behind], [public()])

    assert (result.exit_code, result.findings.first[0].kind) == (BAD, FindingKind.INSERTED)


def test_a_vendor_log_whose_header_has_an_invalid_id_is_refused() -> None:
    log = Log([event(0, tenant_id=None)], whose="vendor")

    result = verified(log.whole())

    assert (result.exit_code, result.findings.first[0].kind) == (BAD, FindingKind.EDITED)


ODD_COMMITMENTS: list[Any] = [["a"], None, "a", {"name": {}}, {"name": 1}]
ODD_OBJECTS: list[Any] = [{"a": {}}, {"a": {"b": "c"}}, {"a": ["b", 1]}, {"a": [["b"]]}, [{}], [1], [[]]]
ODD: list[tuple[str, Any]] = [
    *(("seq", odd) for odd in ("1", ["1"], {"a": "b"}, True, 0, -1)),
    *(("to_state", odd) for odd in (["pending"], None, 1)),
    *(("request_id", odd) for odd in (["a"], None, 1)),
    *(("id", odd) for odd in (["a"], None, 1)),
    *(("action", odd) for odd in (["a"], None, 1)),
    *(("personal", odd) for odd in ODD_COMMITMENTS),
    *(("log", odd) for odd in (["a"], None, 1)),
    *(("tenant_id", odd) for odd in (["a"], 1)),
    *(("actor_id", odd) for odd in (["a"], 1)),
    *(("submission", odd) for odd in (["a"], None, 1, "a")),
    *(("pre_approval_id", odd) for odd in (["a"], None, 1)),
    *(("at", odd) for odd in (None, 1, "then", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000+00:00")),
    *(("changes", odd) for odd in ODD_OBJECTS),
]


@each(("name", "odd"), ODD)
def test_a_malformed_event_member_is_reported_and_does_not_crash_the_verifier(name: str, odd: object) -> None:
    fields = json.loads(event(1, {}).body) | {name: odd}
    body = json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()
    log = Log([event(0), SealedEvent(body, {}), event(2)])

    result = verified(log.whole())

    assert [(one.kind, one.number) for one in result.findings.first] == [(FindingKind.MALFORMED, 1)]


@pytest.mark.parametrize("plain", [{"a": None, "b": True, "c": 1, "d": "e", "f": ["g", "h"]}, ["a"], [], {}])
def test_an_object_in_an_event_body_may_contain_no_objects(plain: Any) -> None:
    assert verified(Log([event(0, changes=plain)]).whole()).exit_code == GOOD


@pytest.mark.parametrize("name", ["id", "log", "tenant_id", "at", "action", "seq", "personal"])
def test_the_verifier_detects_a_missing_mandatory_member(name: str) -> None:
    fields = json.loads(event(1, {}).body)
    del fields[name]
    log = Log([event(0), SealedEvent(json.dumps(fields, separators=(",", ":"), sort_keys=True).encode(), {})])

    assert verified(log.whole()).exit_code == BAD


def test_the_verifier_reports_two_events_with_the_same_id() -> None:
    log = Log([event(0), event(1), event(2, id=UUID(int=1_000)), event(3, id="none"), event(4, id="none")])

    for export in (log.whole(), log.filtered(lambda _: True)):
        result = verified(export)
        assert [(one.kind, one.number) for one in result.findings.first] == [
            (FindingKind.DOUBLED, 2),
            (FindingKind.DOUBLED, 4),
        ]
        assert result.exit_code == BAD


def test_an_export_file_with_other_line_endings_is_the_same_export() -> None:
    for export in (b"".join(ROWS), Log(LOG.events[:3]).filtered(lambda _: True)):
        result = verified(export.replace(b"\n", b"\r\n"))

        assert (result.exit_code, result.findings.first) == (GOOD, [])


def test_the_times_of_events_imply_no_order() -> None:
    times = ("2026-01-01T00:00:05.000000Z", "2026-01-01T00:00:03.000000Z")
    moves = [event(n, seq=n + 1, at=at, request_id=UUID(int=5)) for n, at in enumerate(times)]

    assert verified(Log(moves).whole()).exit_code == GOOD


def test_findings_too_many_to_print_still_count_for_the_exit_code() -> None:
    seen = [LOG.note(1)] * 60
    rows = Log(LOG.events).filtered(lambda number: number < 2).splitlines(keepends=True)
    rows[1] = rows[1].replace(b"Erin 0", b"Eric 0")

    assert verified(b"".join(rows), *seen).exit_code == BAD


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def places(value: object, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(found for name, part in parts for found in places(part, (*way, name)))]


def put(value: Any, way: tuple[Any, ...], new: object) -> Any:
    if not way:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = put(value[way[0]], way[1:], new)
    return copy


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_any_value_at_any_place_of_an_export_is_checked(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(ROWS) - 1))
    said = json.loads(ROWS[number])
    changed = put(said, data.draw(st.sampled_from(places(said))), data.draw(json_values))
    row = json.dumps(changed).encode() + b"\n"

    try:
        result = verify([*ROWS[:number], row, *ROWS[number + 1 :]], [public()], [LOG.note(2)])
    except Unreadable:
        return

    assert result.exit_code != GOOD or line(changed) == line(said) or only_remarks(changed, said)


def only_remarks(changed: Any, said: Any) -> bool:
    """Return whether a line differs only in what is unsigned and changes no result."""
    return isinstance(changed, dict) and all(
        changed.get(name) == said[name] for name in said if name not in {"asked", "personal"}
    )


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_any_value_at_any_place_of_an_event_body_is_checked(data: st.DataObject) -> None:
    said = json.loads(
        event(1, {}, action=data.draw(st.sampled_from(["submit", "audit_events_removed", "restored"]))).body
    )
    said |= {"removed_from": 0, "removed_to": 1, "log_id": said["tenant_id"], "size": 1, "shipped_size": 1}
    said |= {"shipped_origin": LOG.origin, "shipped_root": "AAAA", "approved_by": ["a"], "mode": "x"}
    said["approval"] = {"statement": "a", "signature": "b", "key": "c"}
    changed = put(said, data.draw(st.sampled_from(places(said))), data.draw(json_values))
    try:
        body = json.dumps(changed, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    except UnicodeEncodeError:
        return

    verified(Log([event(0), SealedEvent(body, {}), event(2)], generation=2).whole(), LOG.note(2))
