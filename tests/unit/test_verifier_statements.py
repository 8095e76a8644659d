"""Both verifiers on statements of format 2: each valid file, and each way in which one is malformed."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox.audit.log import checkpoint
from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.signed_approvals import Approvers
from lockbox.audit.verifier.verify import BAD, CANNOT_TELL, GOOD, VerificationResult
from tests.each import each
from tests.examples import examples
from tests.logs import TENANT, Log, SealedEvent, event
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


def test_the_golden_files_of_approval_statements_match_the_format_byte_for_byte() -> None:
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == files()


@each("name", VALID)
def test_a_valid_approval_statement_is_verified_with_its_signatures(name: str) -> None:
    result = result_of((FOLDER / f"valid-{name}.ndjson").read_bytes())

    assert (result.exit_code, told(result)) == (GOOD, [])
    assert (result.approvals, result.signed_approvals) == (1, int(VALID[name].is_signed))


@each(
    ("name", "says"), [(name, says) for name, (_, says) in MALFORMED.items()] + [(name, NO_FORM) for name in KEPT_ODD]
)
def test_a_malformed_approval_statement_is_refused_for_its_fault(name: str, says: str) -> None:
    result = result_of((FOLDER / f"malformed-{name}.ndjson").read_bytes())

    assert result.exit_code == BAD
    assert any(says in one for one in told(result)), told(result)


@each("odd", ODD_MEMBERS.values())
@each("example", [StatementExample(), StatementExample(is_signed=False, is_filtered=True)])
def test_a_malformed_member_of_a_signed_or_unsigned_statement_is_reported_by_name(
    odd: dict[str, Any], example: StatementExample
) -> None:
    result = result_of(replace(malformed(odd), is_signed=example.is_signed, is_filtered=example.is_filtered).export)

    assert FindingKind.MALFORMED in result.findings.kinds
    assert told(result)[0].endswith(f"the body's {next(iter(odd))} {NO_FORM}")


def test_events_other_than_approvals_may_use_statement_member_names_differently() -> None:
    other: dict[str, Any] = {"agent": "x", "call": None, "act_as": 1}
    noted = event(2, {}, action="noted", seq=None, request_id=None, to_state=None, **other)

    assert result_of(Log([*StatementExample().events, noted]).whole()).exit_code == GOOD


@settings(max_examples=examples(600), deadline=None)
@given(st.data())
def test_two_independent_verifiers_agree_on_any_value_in_a_statement(data: st.DataObject) -> None:
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


A, B, C = "a" * 64, "b" * 64, "c" * 64


def said(action: str, sha256: Any, before: Any = None, service: Any = "mail") -> dict[str, Any]:
    facts = {
        "action": action,
        "service": service,
        "sha256": sha256,
        "seq": None,
        "to_state": None,
        "request_id": None,
    }
    return facts | ({} if before is None else {"before": before})


FIRST = said("gate_defined", A)


def kinds(*told: dict[str, Any]) -> set[FindingKind]:
    """Return the kinds of findings; the second verifier agrees on whether there are any."""
    return set(verified(Log([event(number, {}, **one) for number, one in enumerate(told)]).whole()).findings.kinds)


@pytest.mark.parametrize(
    "told",
    [
        (FIRST,),
        (FIRST, said("gate_redefined", B, A), said("gate_redefined", A, B)),
        (FIRST, said("gate_redefined", C, B, "drive")),
        (said("gate_redefined", C, B), said("gate_redefined", A, C)),
        (FIRST, said("gate_redefined", B)),
    ],
)
def test_the_verifier_accepts_a_log_with_every_gate_definition(told: tuple[dict[str, Any], ...]) -> None:
    assert kinds(*told) == set()


def test_the_verifier_detects_an_omitted_gate_definition() -> None:
    assert kinds(FIRST, said("gate_redefined", C, B)) == {FindingKind.GATE}


@pytest.mark.parametrize(
    "told",
    [
        said("gate_defined", "x"),
        said("gate_redefined", B, "x"),
        said("gate_defined", None),
        said("gate_defined", A, service=1),
    ],
)
def test_the_verifier_detects_a_gate_definition_without_a_digest(told: dict[str, Any]) -> None:
    assert kinds(FIRST, told) == {FindingKind.MALFORMED}


COMMON, SHIPPED = 300, 320
BEFORE = Log([event(number) for number in range(SHIPPED)])


def restored(number: int, of: Log, size: int, **changes: object) -> SealedEvent:
    """Return the event of a restore, which says that the log continues from its first `size` events."""
    said, root = checkpoint.read(of.note()), of.note().split("\n")[2]
    facts = {"log_id": str(TENANT), "size": size, "shipped_origin": said.origin, "shipped_size": said.size}
    facts |= {"shipped_root": root, "seq": None, "request_id": None} | changes
    return event(number, {}, action="restored", **facts)  # type: ignore[arg-type]


def gone_on(of: Log, size: int, generation: int, said: SealedEvent | None = None) -> Log:
    """Return the log as it continues from a back-up, with the event of the restore and two further events."""
    told = restored(10_000 * generation, of, size) if said is None else said
    further = [told, event(10_000 * generation + 1), event(10_000 * generation + 2)]
    return Log([*of.events[:size], *further], generation=generation)


AFTER = gone_on(BEFORE, COMMON, 2)


def test_a_restored_log_extends_every_checkpoint_of_the_part_that_the_restore_kept() -> None:
    whole = verified(AFTER.whole(), BEFORE.note(0), BEFORE.note(100), BEFORE.note(COMMON), AFTER.note())
    filtered = verified(AFTER.filtered(lambda n: n == 3, since=[100]), BEFORE.note(100))

    assert (whole.exit_code, sorted(whole.seen)) == (GOOD, [0, 100, COMMON, len(AFTER.events)])
    assert (filtered.exit_code, filtered.seen) == (GOOD, [100])


def test_the_verifier_cannot_prove_a_checkpoint_lost_in_a_restore_and_names_the_kept_size() -> None:
    result = verified(AFTER.whole(), BEFORE.note())

    (only,) = result.findings.first
    assert (result.exit_code, only.kind, only.number) == (CANNOT_TELL, FindingKind.RESTORED, COMMON)
    assert f"went on from its first {COMMON} events" in only.message
    assert "that they are the same is not shown" in only.message


def test_after_a_restore_the_kept_events_are_proven_up_to_the_largest_older_checkpoint() -> None:
    result = verified(AFTER.whole(), BEFORE.note(), BEFORE.note(250))

    (only,) = result.findings.first
    assert "that the first 250 are the same is shown" in only.message


def test_a_restored_log_shorter_than_the_checkpoint_is_reported_as_restored_not_as_older() -> None:
    short = gone_on(BEFORE, 10, 2)

    assert verified(short.whole(), BEFORE.note()).findings.kinds == {FindingKind.RESTORED}


def test_the_part_of_the_log_before_the_restore_must_be_unchanged() -> None:
    events = list(AFTER.events)
    events[3] = event(3, {"name": "Somebody else"})

    result = verified(Log(events, generation=2).whole(), BEFORE.note(100))

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.FORKED})


def test_an_unexplained_restarted_log_counts_as_forked() -> None:
    silent = Log([*BEFORE.events[:COMMON], event(20_000)], generation=2)
    of_another = gone_on(BEFORE, COMMON, 2, restored(20_000, BEFORE, COMMON, log_id="another"))
    beyond_itself = gone_on(BEFORE, COMMON, 2, restored(20_000, BEFORE, COMMON + 1))

    for log in (silent, of_another, beyond_itself):
        result = verified(log.whole(), BEFORE.note())
        assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.FORKED})


def test_a_restore_event_naming_an_unseen_root_is_a_fork() -> None:
    log = gone_on(BEFORE, COMMON, 2, restored(20_000, BEFORE, COMMON, shipped_root="A" * 43 + "="))

    assert verified(log.whole(), BEFORE.note()).findings.kinds == {FindingKind.FORKED}


def test_of_two_restores_the_verifier_applies_the_restore_that_lost_more_events() -> None:
    third = gone_on(AFTER, 200, 3)

    result = verified(third.whole(), BEFORE.note(250), BEFORE.note(200), AFTER.note(250))

    assert (result.exit_code, result.seen, result.findings.kinds) == (CANNOT_TELL, [200], {FindingKind.RESTORED})


def test_a_later_restore_does_not_make_given_up_events_provable() -> None:
    third = gone_on(AFTER, COMMON + 2, 3)

    result = verified(third.whole(), BEFORE.note(COMMON + 1), AFTER.note(COMMON + 2))

    assert (result.exit_code, result.seen, result.findings.kinds) == (
        CANNOT_TELL,
        [COMMON + 2],
        {FindingKind.RESTORED},
    )


def test_only_a_whole_export_links_to_an_earlier_log_generation() -> None:
    result = verified(AFTER.filtered(lambda n: n == 3), BEFORE.note(100))

    assert (result.exit_code, result.findings.kinds) == (CANNOT_TELL, {FindingKind.UNPROVEN})


def test_an_export_from_before_a_seen_restore_counts_as_older() -> None:
    result = verified(BEFORE.whole(), AFTER.note(100))

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.OLDER})
