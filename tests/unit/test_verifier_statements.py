"""Both verifiers of what is signed in format 2: each file that is good, and each way in which one is malformed."""

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.signed_approvals import Approvers
from lockbox.audit.verifier.verify import BAD, GOOD, VerificationResult
from tests.each import each
from tests.examples import examples
from tests.logs import Log, SealedEvent, event
from tests.statement_examples import (
    FILE,
    FOLDER,
    KEPT_ODD,
    KEY_OF_APPROVALS,
    MALFORMED,
    NO_FORM,
    ODD_MEMBERS,
    VALID,
    StatementExample,
    files,
    malformed,
)
from tests.unit.test_verifier_forms import json_values, places, put
from tests.verification_results import told, verified

EXAMPLES = [*VALID.values(), *(example for example, _ in MALFORMED.values())]


def result_of(export: bytes) -> VerificationResult:
    return verified(export, keys=[KEY_OF_APPROVALS], approvers=Approvers((FILE,)))


def test_the_files_are_as_the_format_has_them_byte_for_byte() -> None:
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == files()


@each("name", VALID)
def test_a_valid_file_is_verified_with_its_signatures(name: str) -> None:
    result = result_of((FOLDER / f"valid-{name}.ndjson").read_bytes())

    assert (result.exit_code, told(result)) == (GOOD, [])
    assert (result.approvals, result.signed_approvals) == (1, int(VALID[name].is_signed))


@each(
    ("name", "says"), [(name, says) for name, (_, says) in MALFORMED.items()] + [(name, NO_FORM) for name in KEPT_ODD]
)
def test_a_malformed_file_is_refused_by_what_is_wrong_with_it(name: str, says: str) -> None:
    result = result_of((FOLDER / f"malformed-{name}.ndjson").read_bytes())

    assert result.exit_code == BAD
    assert any(says in one for one in told(result)), told(result)


@each("odd", ODD_MEMBERS.values())
@each("example", [StatementExample(), StatementExample(is_signed=False, is_filtered=True)])
def test_a_member_of_another_form_is_named_whatever_was_signed(
    odd: dict[str, Any], example: StatementExample
) -> None:
    result = result_of(replace(malformed(odd), is_signed=example.is_signed, is_filtered=example.is_filtered).export)

    assert FindingKind.MALFORMED in result.findings.kinds
    assert told(result)[0].endswith(f"the body's {next(iter(odd))} {NO_FORM}")


def test_an_event_that_is_no_move_may_use_the_words_otherwise() -> None:
    other: dict[str, Any] = {"agent": "x", "call": None, "act_as": 1}
    noted = event(2, {}, action="noted", seq=None, request_id=None, to_state=None, **other)

    assert result_of(Log([*StatementExample().events, noted]).whole()).exit_code == GOOD


@settings(max_examples=examples(600), deadline=None)
@given(st.data())
def test_both_verifiers_agree_on_whatever_stands_in_any_place(data: st.DataObject) -> None:
    first, opening = data.draw(st.sampled_from(EXAMPLES)).events
    known = [part for one in (first, opening) for part in json.loads(one.body).values()]
    values = json_values | st.sampled_from([*known, *VALID["all"].members.values()])
    try:
        is_first = data.draw(st.booleans())
        changed = _changed(data, first if is_first else opening, values)
    except UnicodeEncodeError:
        return

    log = Log([changed, opening] if is_first else [first, changed])
    result_of(log.whole() if data.draw(st.booleans()) else log.filtered(lambda _: True))


def _changed(data: st.DataObject, one: SealedEvent, values: st.SearchStrategy[Any]) -> SealedEvent:
    """Return an event with another value in one place, perhaps within what a passkey signed."""
    fields = json.loads(one.body)
    decision = json.loads(fields.get("decision", "{}"))
    if decision and data.draw(st.booleans()):
        decision = put(decision, data.draw(st.sampled_from(places(decision)[1:])), data.draw(values))
        changed = fields | {"decision": _text(decision)}
    else:
        changed = put(fields, data.draw(st.sampled_from(places(fields)[1:])), data.draw(values))
    return SealedEvent(_text(changed).encode(), one.personal)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
