"""The verifier of exports: approvals are compared with their requests, and their signatures are checked."""

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lockbox.audit.canonical import canonical
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier.approval_checks import NAME
from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.verify import BAD, CANNOT_TELL, GOOD, VerificationResult
from tests.each import each
from tests.logs import KEY, OTHER_KEY, TENANT, Log, SealedEvent, event
from tests.verification_results import verified

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
REQUEST, ENGINEER, ANN = (f"00000000-0000-0000-0000-00000000000{digit}" for digit in "abc")
OPENED, UNTIL = "2026-01-01T00:00:01.000000Z", "2026-01-01T08:00:00.000000Z"
RESOURCES = ["mailbox:anna@contoso.example"]
WIDE: dict[str, Any] = {"resources": [*RESOURCES, "mailbox:bob@contoso.example"], "actions": ["read", "export"]}
SUBMITTED: dict[str, Any] = {"actor_id": ENGINEER, "on_behalf_of": None}
OPENING: dict[str, Any] = {
    "action": "approve",
    "side": "customer",
    "to_state": "active",
    "at": OPENED,
    "deadline_at": UNTIL,
    "approved_by": [ANN],
    "actor_id": ANN,
}
ASKED: dict[str, Any] = {"service": "exchange", "actions": ["read"], "mode": "on_request", "policy_version": 3}


def named(key: Ed25519PrivateKey) -> VerifierKey:
    return VerifierKey(NAME, key.public_key().public_bytes_raw())


def approval(signer: Ed25519PrivateKey = SIGNER, **changes: Any) -> dict[str, str]:
    """Return an event's record of an approval: signed as docs/audit-format.md says, apart from the changes."""
    said = {
        "format": "lockbox approval 1",
        "request_id": REQUEST,
        "tenant_id": TENANT,
        "engineer": ENGINEER,
        "resources": RESOURCES,
        "opened_at": OPENED,
        "until": UNTIL,
        "by": [ANN],
        **ASKED,
    }
    hashed = hashlib.sha256(canonical(said | changes)).hexdigest()
    window = {name: (said | changes)[name] for name in ("request_id", "tenant_id", "opened_at", "until", "by")}
    window |= {"opens_at": changes["opens_at"]} if "opens_at" in changes else {}
    signed = canonical(window | {"format": "lockbox signed approval 1", "statement": hashed})
    return {
        "statement": hashed,
        "signature": base64.b64encode(signer.sign(signed)).decode(),
        "key": named(signer).id.hex(),
    }


def narrowed(given: Any, resources: Any, actions: Any) -> list[SealedEvent]:
    """Return a request for two resources and two actions, and its approval of these resources and actions."""
    wide = {"resources": json.dumps(WIDE["resources"])}
    submitted = event(0, wide, request_id=REQUEST, seq=1, **(ASKED | {"actions": WIDE["actions"]}), **SUBMITTED)
    granted = {"granted_resources": json.dumps(resources)} if resources is not None else {}
    facts: dict[str, Any] = {"granted_actions": actions} if actions is not None else {}
    return [submitted, event(1, granted, request_id=REQUEST, seq=2, approval=given, **OPENING, **facts)]


def history(given: Any, *, by: str | None = None, **facts: Any) -> list[SealedEvent]:
    """Return a request that was submitted, by the engineer or by a system for them, and approved."""
    submitted = {"actor_id": by, "on_behalf_of": ENGINEER} if by else {"actor_id": ENGINEER, "on_behalf_of": None}
    return [
        event(0, {"resources": json.dumps(RESOURCES)}, request_id=REQUEST, seq=1, **ASKED, **submitted),
        event(1, {}, request_id=REQUEST, seq=2, approval=given, **OPENING, **facts),
    ]


def result_of(events: list[SealedEvent], *keys: Ed25519PrivateKey) -> VerificationResult:
    return verified(Log(events).whole(), keys=[named(key) for key in keys])


@pytest.mark.parametrize("by", [None, TENANT])
def test_the_verifier_accepts_an_approval_that_matches_its_request(by: str | None) -> None:
    result = result_of(history(approval(), by=by and str(by)), OTHER_KEY, SIGNER)

    assert (result.exit_code, result.approvals, result.unchecked_approvals) == (GOOD, 1, 0)


def test_a_filtered_export_contains_approvals_the_verifier_checks() -> None:
    result = verified(Log(history(approval())).filtered(lambda _: True), keys=[named(SIGNER)])

    assert (result.exit_code, result.approvals) == (GOOD, 1)


def test_an_approval_with_erased_resources_is_verified_by_its_hash() -> None:
    asked, opened = history(approval())

    result = result_of([SealedEvent(asked.body, {}), opened], SIGNER)

    assert (result.exit_code, result.approvals, result.approvals_by_hash) == (GOOD, 1, 1)
    assert result.unchecked_approvals == 0


@pytest.mark.parametrize("changes", [{"request_id": ANN}, {"until": OPENED}, {"by": [ENGINEER]}, {"tenant_id": ANN}])
def test_an_approval_of_another_window_counts_as_forged_although_resources_are_erased(
    changes: dict[str, Any],
) -> None:
    asked, opened = history(approval(**changes))

    result = result_of([SealedEvent(asked.body, {}), opened], SIGNER)

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.WRONG_SIGNATURE})


def test_an_approval_whose_key_is_missing_counts_as_unverified() -> None:
    result = result_of(history(approval()))

    assert (result.exit_code, result.findings.kinds) == (CANNOT_TELL, {FindingKind.UNPROVEN})
    assert (result.approvals, result.unchecked_approvals) == (0, 1)


@each("keys", [(), (SIGNER,)])
@each(
    "changes",
    [
        {"resources": ["mailbox:bob@contoso.example"]},
        {"actions": ["read", "export"]},
        {"engineer": ANN},
        {"until": "2026-01-02T08:00:00.000000Z"},
        {"by": [ENGINEER]},
        {"tenant_id": None},
    ],
)
def test_the_verifier_detects_a_mismatched_approval_with_or_without_a_key(
    changes: dict[str, Any], keys: tuple[Ed25519PrivateKey, ...]
) -> None:
    result = result_of(history(approval(**changes)), *keys)

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.APPROVAL})
    assert result.findings.first[0].number == 1


def test_the_verifier_detects_an_approval_by_an_untrusted_key() -> None:
    result = result_of(history(approval(OTHER_KEY)), SIGNER)

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.UNKNOWN_KEY})


@pytest.mark.parametrize("signature", ["", "AAAA", "no base64", base64.b64encode(bytes(64)).decode()])
def test_the_verifier_calls_a_malformed_approval_signature_wrong(signature: str) -> None:
    result = result_of(history(approval() | {"signature": signature}), SIGNER)

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.WRONG_SIGNATURE})


@pytest.mark.parametrize("given", [None, "yes", {}, {"statement": "a", "signature": "b"}])
def test_the_verifier_reports_an_approval_that_lacks_a_required_member(given: object) -> None:
    assert result_of(history(given), SIGNER).findings.kinds == {FindingKind.APPROVAL}


@pytest.mark.parametrize("side", ["vendor", None])
@pytest.mark.parametrize("to_state", ["active", "pending"])
def test_the_verifier_reports_an_approval_that_is_not_by_the_customers_side(side: str | None, to_state: str) -> None:
    submitted = history(None)[0]
    approved = OPENING | {"side": side, "to_state": to_state}
    approval_of_it = {"approval": approval()} if to_state == "active" else {}

    result = result_of([submitted, event(1, {}, request_id=REQUEST, seq=2, **approved, **approval_of_it)], SIGNER)

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.APPROVAL})


@each(
    ("before", "mode", "code"),
    [
        ("off", "enforce", GOOD),
        ("observe", "enforce", GOOD),
        ("observe", "off", BAD),
        ("enforce", "observe", BAD),
        ("enforce", "enforce", BAD),
        ("observe", ["enforce"], BAD),
        (["observe"], "enforce", BAD),
    ],
)
def test_the_verifier_accepts_a_mode_change_at_the_endorsement_only_to_a_stricter_mode(
    before: Any, mode: Any, code: int
) -> None:
    submitted, opened = history(approval(mode=mode if code == GOOD else before))
    first = SealedEvent(canonical(json.loads(submitted.body) | {"mode": before}), submitted.personal)
    endorsed = event(2, {}, request_id=REQUEST, seq=2, action="endorse", side="vendor", mode=mode)
    last = SealedEvent(canonical(json.loads(opened.body) | {"seq": 3}), opened.personal)

    assert result_of([first, endorsed, last], SIGNER).exit_code == code


@pytest.mark.parametrize("side", ["vendor", None])
def test_the_verifier_detects_an_approval_in_an_event_that_is_no_move(side: str | None) -> None:
    submitted = history(None)[0]
    told = event(1, {}, **OPENING | {"request_id": REQUEST, "seq": None, "side": side, "to_state": None})

    assert FindingKind.APPROVAL in result_of([submitted, told], SIGNER).findings.kinds


@each("given", [None, "yes", {}, {"statement": "a", "signature": "b"}, approval()])
@each("action", ["notified", "approve"])
@each("form", ["whole", "filtered"])
def test_a_signed_approval_on_another_kind_of_event_is_reported(given: object, action: str, form: str) -> None:
    told = event(1, {}, **OPENING | {"action": action, "request_id": None, "seq": None, "to_state": None})
    signed = SealedEvent(canonical(json.loads(told.body) | {"approval": given}), {})
    log = Log([event(0), signed])

    result = verified(log.whole() if form == "whole" else log.filtered(lambda _: True), keys=[named(SIGNER)])

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.APPROVAL})
    assert "only a move can open a window" in result.findings.first[0].message


@pytest.mark.parametrize("action", ["approve", "endorse"])
def test_the_verifier_reports_a_window_that_opened_without_an_approval(action: str) -> None:
    submitted = history(None)[0]
    opened = event(1, {}, request_id=REQUEST, seq=2, **OPENING | {"action": action})

    result = result_of([submitted, opened], SIGNER)

    assert result.exit_code == BAD
    assert FindingKind.APPROVAL in result.findings.kinds


def test_a_key_for_approvals_signs_no_log() -> None:
    log = Log(history(approval()), key=SIGNER, name=NAME)

    result = verified(log.whole(), keys=[named(SIGNER), named(KEY)])

    assert result.findings.kinds == {FindingKind.UNKNOWN_KEY}


@pytest.mark.parametrize(
    ("resources", "actions"),
    [(RESOURCES, ["read"]), (RESOURCES, None), (None, ["read"]), (WIDE["resources"], WIDE["actions"])],
)
def test_a_narrowed_approval_is_compared_with_the_granted_parts(
    resources: list[str] | None, actions: list[str] | None
) -> None:
    granted: dict[str, Any] = {"resources": resources or WIDE["resources"], "actions": actions or WIDE["actions"]}

    good = result_of(narrowed(approval(**granted), resources, actions), SIGNER)
    widened = result_of(narrowed(approval(**granted, mode="off"), resources, actions), SIGNER)

    assert (good.exit_code, good.approvals) == (GOOD, 1), good.findings
    assert widened.findings.kinds == {FindingKind.APPROVAL}


@pytest.mark.parametrize(
    ("resources", "actions"),
    [
        (["mailbox:boss@contoso.example"], None),
        (None, ["delete"]),
        ([], None),
        (None, []),
        (None, "read"),
        ("x", None),
    ],
)
def test_the_verifier_names_a_granted_part_that_was_not_requested_even_if_the_approval_is_signed(
    resources: Any, actions: Any
) -> None:
    granted: dict[str, Any] = {"resources": resources or WIDE["resources"], "actions": actions or WIDE["actions"]}

    result = result_of(narrowed(approval(**granted), resources, actions), SIGNER)

    assert result.findings.kinds == {FindingKind.APPROVAL}


def test_an_approval_of_hidden_granted_parts_is_verified_by_their_hash() -> None:
    asked, opened = narrowed(approval(resources=RESOURCES, actions=WIDE["actions"]), RESOURCES, None)

    result = result_of([asked, SealedEvent(opened.body, {})], SIGNER)

    assert (result.exit_code, result.approvals, result.approvals_by_hash) == (GOOD, 1, 1)
