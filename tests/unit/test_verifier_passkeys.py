"""Approvals that passkeys sign: all keys of the vendor together forge none, and the verifier names each attempt."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from harness.authenticator import Authenticator, decoded
from lockbox.audit.canonical import canonical
from lockbox.audit.verifier import approver_keys
from lockbox.audit.verifier.approver_keys import ApproverKey, ApproverKeys, BadKeys
from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.passkey_assertion import Assertion, BadAssertion, check, fingerprint
from lockbox.audit.verifier.signed_approvals import Approvers
from lockbox.audit.verifier.verify import BAD, CANNOT_TELL, GOOD, VerificationResult, remarks
from tests.each import each
from tests.logs import TENANT, Log, SealedEvent, event
from tests.unit.test_verifier_approvals import ANN, ENGINEER, OPENED, REQUEST, SIGNER, UNTIL, approval, named
from tests.verification_results import verified

BEN = "00000000-0000-0000-0000-00000000000d"
OTHER = "00000000-0000-0000-0000-00000000000e"
TEN_MINUTES = "2026-01-01T00:10:01.000000Z"
RESOURCES = ["mailbox:anna@contoso.example", "mailbox:boss@contoso.example"]
ASKED: dict[str, Any] = {
    "service": "exchange",
    "actions": ["read", "export"],
    "mode": "enforce",
    "policy_version": 3,
    "access_window": 28800,
}
ANNS = Authenticator()
ANNS.create({"rp": {"id": "lockbox.example"}, "user": {"id": "AA"}, "challenge": "AA"})
MALLORYS = Authenticator()
MALLORYS.create({"rp": {"id": "lockbox.example"}, "user": {"id": "AA"}, "challenge": "AA"})


def public_key(authenticator: Authenticator) -> bytes:
    key = authenticator.credentials[-1].key.public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


FILE = ApproverKeys(
    str(TENANT),
    "lockbox.example",
    "https://lockbox.example",
    OPENED,
    (ApproverKey(ANN, "Ann", public_key(ANNS), OPENED),),
)


@dataclass
class SignedApprovalExample:
    """One approval, as an honest vendor or an attacker as root would write it: each changed part is signed again."""

    said: dict[str, Any] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)
    personal: dict[str, str] = field(default_factory=dict)
    authenticator: Authenticator = field(default_factory=lambda: ANNS)
    signs: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    lies: dict[str, Any] = field(default_factory=dict)
    until: str = UNTIL
    is_erased: bool = False
    requested: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> bytes:
        """The part of a decision that is kept separately, because it may be erased."""
        return canonical({"comment": None, "resources": RESOURCES, "salt": "00" * 16} | self.content)

    def statement(self, **changes: Any) -> bytes:
        said = {
            "format": "lockbox decision 1",
            "action": "approve",
            "request_id": REQUEST,
            "tenant_id": str(TENANT),
            "version": 1,
            "approver": ANN,
            "principals": [],
            "engineer": ENGINEER,
            "content": hashlib.sha256(self.text).hexdigest(),
            "issued_at": "2026-01-01T00:00:00.500000Z",
            **ASKED,
        }
        return canonical(said | self.said | changes)

    def facts(self) -> dict[str, Any]:
        challenge = hashlib.sha256(self.statement(**self.signs)).digest()
        options = {"challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode()}
        answer = json.loads(self.authenticator.get(options, **self.lies))["response"]
        parts = [decoded(answer[name]) for name in ("authenticatorData", "clientDataJSON", "signature")]
        key = self.key or fingerprint(public_key(self.authenticator))
        return {
            "approve_means": "passkey-signed",
            "proof": "passkey-signed",
            "decision": self.statement().decode(),
            "assertion": Assertion(parts[0], parts[1], parts[2], key).facts,
        }

    def events(self) -> list[SealedEvent]:
        """The request and its approval, signed with the vendor's key for approvals whatever they say."""
        resources = json.loads(self.personal.get("granted_resources", json.dumps(RESOURCES)))
        actions = self.shown.get("granted_actions", ASKED["actions"])
        by = self.shown.get("approved_by", [ANN])
        asked = {name: value for name, value in ASKED.items() if name != "access_window"}
        asked |= {name: self.shown[name] for name in ("max_uses", "opens_at") if name in self.shown}
        given = approval(**asked | {"resources": resources, "actions": actions, "by": by, "until": self.until})
        opening = {
            "action": "approve",
            "side": "customer",
            "to_state": "active",
            "at": OPENED,
            "deadline_at": self.until,
            "approved_by": by,
            "actor_id": ANN,
            "policy_version": 3,
            "approval": given,
        }
        submitted = {"request_id": REQUEST, "seq": 1, "actor_id": ENGINEER, **ASKED, **self.requested}
        first = event(0, {"resources": json.dumps(RESOURCES)}, **submitted)
        kept = {"name": "Ann", "signed_content": self.text.decode(), "credential": "x"} | self.personal
        second = event(1, kept, request_id=REQUEST, seq=2, **opening | self.facts() | self.shown)
        return [SealedEvent(one.body, {}) for one in (first, second)] if self.is_erased else [first, second]


def result_of(events: list[SealedEvent], *, approvers: Approvers | None = None) -> VerificationResult:
    return verified(Log(events).whole(), keys=[named(SIGNER)], approvers=approvers or Approvers((FILE,)))


def said_of(result: VerificationResult) -> str:
    return "\n".join(one.message for one in result.findings.first)


TWICE = {"max_uses": 2}
SOON, LATER = "2026-01-01T00:05:00.000000Z", "2026-01-01T00:06:00.000000Z"
FROM_LATER = {"kept_opens_at": LATER}


@pytest.mark.parametrize(
    "approval_",
    [
        SignedApprovalExample(),
        SignedApprovalExample(is_erased=True),
        SignedApprovalExample(content={"comment": "Only this once"}, personal={"comment": "Only this once"}),
        SignedApprovalExample(
            content={"resources": RESOURCES[:1]},
            said={"actions": ["read"], "access_window": 600},
            personal={"kept_resources": json.dumps(RESOURCES[:1]), "granted_resources": json.dumps(RESOURCES[:1])},
            shown={"kept_actions": ["read"], "granted_actions": ["read"], "access_window": 600},
            until=TEN_MINUTES,
        ),
        SignedApprovalExample(said={"principals": [BEN]}, shown={"principals": [BEN], "on_behalf_of": BEN}),
        SignedApprovalExample(said=TWICE, shown={"kept_max_uses": 2, "max_uses": 2}, requested={"max_uses": 5}),
        SignedApprovalExample(said=TWICE, shown={"kept_max_uses": 2, "max_uses": 1}),
        SignedApprovalExample(shown={"max_uses": 1}),
        SignedApprovalExample(said={"opens_at": LATER}, shown=FROM_LATER | {"opens_at": LATER}),
        SignedApprovalExample(said={"opens_at": SOON}, shown={"kept_opens_at": SOON, "opens_at": LATER}),
        SignedApprovalExample(shown={"opens_at": LATER}, requested={"not_before": SOON}),
    ],
)
def test_a_genuine_passkey_signature_verifies_with_the_customers_key_after_erasure(
    approval_: SignedApprovalExample,
) -> None:
    result = result_of(approval_.events())

    assert (result.exit_code, said_of(result)) == (GOOD, "")
    assert (result.signed_approvals, result.attested) == (1, {})
    assert "signed by a passkey of your approvers: 1 approval" in [*remarks(result)]


SMALLER = {"resources": RESOURCES[:1]}
KEPT = {"kept_resources": json.dumps(RESOURCES[:1])}
OTHERS = {"granted_resources": json.dumps(RESOURCES[1:])}

FORGED: list[tuple[SignedApprovalExample, str]] = [
    # An assertion of Ann's for something else, under what the vendor would have her say.
    (SignedApprovalExample(signs={"request_id": OTHER}), "over another statement"),
    (SignedApprovalExample(signs={"version": 0}), "over another statement"),
    (
        SignedApprovalExample(signs={"content": hashlib.sha256(b"another kept set").hexdigest()}),
        "over another statement",
    ),
    (SignedApprovalExample(signs={"actions": ["read"]}), "over another statement"),
    (SignedApprovalExample(signs={"engineer": OTHER}), "over another statement"),
    (SignedApprovalExample(signs={"access_window": 60}), "over another statement"),
    (SignedApprovalExample(signs={"approver": BEN}), "over another statement"),
    # Her own statement, beside an event that says something else.
    (SignedApprovalExample(said={"request_id": OTHER}), "another request_id"),
    (SignedApprovalExample(said={"tenant_id": OTHER}), "another tenant_id"),
    (SignedApprovalExample(said={"version": 7}), "another version"),
    (SignedApprovalExample(said={"version": True}), "another version"),
    (SignedApprovalExample(said={"approver": BEN}), "another approver"),
    (SignedApprovalExample(said={"engineer": OTHER}), "another engineer"),
    (SignedApprovalExample(said={"service": "files"}), "another service"),
    (SignedApprovalExample(said={"mode": "observe"}), "another mode"),
    (SignedApprovalExample(said={"actions": ["read"]}), "another actions"),
    (SignedApprovalExample(said={"access_window": 600}), "another access_window"),
    (SignedApprovalExample(said={"policy_version": 2}), "another policy_version"),
    (SignedApprovalExample(said={"principals": [BEN]}), "another principals"),
    (SignedApprovalExample(said={"action": "deny"}), "another action"),
    (SignedApprovalExample(said={"format": "lockbox decision 2"}), "another format"),
    (SignedApprovalExample(said={"more": "x"}), "malformed"),
    (SignedApprovalExample(said={"issued_at": "2025-12-31T00:00:00.000000Z"}), "another time"),
    (SignedApprovalExample(said={"issued_at": "2026-01-01T00:00:02.000000Z"}), "another time"),
    (SignedApprovalExample(said={"issued_at": "soon"}), "another time"),
    # Another key: Mallory's passes for Ann's, is listed under Ann's, or has only its name.
    (SignedApprovalExample(authenticator=MALLORYS), "is none of this approver's"),
    (SignedApprovalExample(authenticator=MALLORYS, key=fingerprint(public_key(ANNS))), "its signature is wrong"),
    (SignedApprovalExample(shown={"actor_id": BEN}, said={"approver": BEN}), "is none of this approver's"),
    # The ceremony itself: another page, another host, nobody there.
    (SignedApprovalExample(authenticator=replace(ANNS, origin="https://evil.example")), "a page of another origin"),
    (SignedApprovalExample(authenticator=replace(ANNS, cross_origin=True)), "a page of another origin"),
    (SignedApprovalExample(authenticator=replace(ANNS, domain="evil.example")), "another host"),
    (SignedApprovalExample(authenticator=replace(ANNS, is_verified=False)), "did not verify its user"),
    (SignedApprovalExample(authenticator=replace(ANNS, is_present=False)), "did not verify its user"),
    (SignedApprovalExample(lies={"kind": "webauthn.create"}), "not the answer to a question"),
    (SignedApprovalExample(lies={"signature": b"\x30\x06\x02\x01\x01\x02\x01\x01"}), "its signature is wrong"),
    # The event: parts that are missing or are none.
    (SignedApprovalExample(shown={"decision": None}), "no statement"),
    (SignedApprovalExample(shown={"decision": '{"version": 1}'}), "canonical form"),
    (SignedApprovalExample(shown={"assertion": None}), "malformed"),
    (SignedApprovalExample(shown={"assertion": {"key": "x"}}), "malformed"),
    # Her own good signature, and a window that goes beyond what she signed.
    (SignedApprovalExample(until="2026-02-01T00:00:00.000000Z"), "for longer"),
    (SignedApprovalExample(said={"access_window": 600}, shown={"access_window": 600}), "for longer"),
    (SignedApprovalExample(said={"actions": ["read"]}, shown={"kept_actions": ["read"]}), "for other actions"),
    (SignedApprovalExample(content=SMALLER, personal=KEPT), "for other resources"),
    (SignedApprovalExample(said=TWICE, shown={"kept_max_uses": 2}), "for more uses"),
    (SignedApprovalExample(said=TWICE, shown={"kept_max_uses": 2, "max_uses": 3}), "for more uses"),
    (SignedApprovalExample(said=TWICE, shown={"kept_max_uses": 2, "max_uses": "2"}), "for more uses"),
    (SignedApprovalExample(said={"max_uses": "2"}, shown={"kept_max_uses": "2", "max_uses": 2}), "for more uses"),
    (SignedApprovalExample(shown={"max_uses": 6}, requested={"max_uses": 5}), "for more uses"),
    (SignedApprovalExample(requested={"max_uses": 5}), "for more uses"),
    # Her signature over a number, beside an event that says another or none.
    (SignedApprovalExample(said=TWICE), "malformed"),
    (SignedApprovalExample(shown={"kept_max_uses": 2, "max_uses": 2}), "malformed"),
    (SignedApprovalExample(said=TWICE, shown={"kept_max_uses": 3, "max_uses": 3}), "another max_uses"),
    # A start that she moved later, and a window that begins before, or beside an event that says another or none.
    (
        SignedApprovalExample(
            signs={"opens_at": SOON}, said={"opens_at": LATER}, shown=FROM_LATER | {"opens_at": LATER}
        ),
        "over another statement",
    ),
    (SignedApprovalExample(said={"opens_at": LATER}, shown=FROM_LATER), "begins earlier"),
    (SignedApprovalExample(said={"opens_at": LATER}, shown=FROM_LATER | {"opens_at": SOON}), "begins earlier"),
    (SignedApprovalExample(said={"opens_at": LATER}, shown={"opens_at": LATER}), "malformed"),
    (SignedApprovalExample(shown=FROM_LATER | {"opens_at": LATER}), "malformed"),
    (SignedApprovalExample(said={"opens_at": SOON}, shown=FROM_LATER | {"opens_at": LATER}), "another opens_at"),
    (SignedApprovalExample(requested={"not_before": SOON}), "begins earlier"),
    (SignedApprovalExample(requested={"not_before": LATER}, shown={"opens_at": SOON}), "begins earlier"),
    # Votes that were never given.
    (SignedApprovalExample(shown={"approved_by": [ANN, BEN]}), f"an approval of {BEN}, and the log has none"),
    (SignedApprovalExample(shown={"approved_by": [], "action": "endorse"}), "no approver of the customer approved"),
]
FORGED_VALUES: list[tuple[SignedApprovalExample, str]] = [
    (SignedApprovalExample(said={"content": "00"}), "not those of the statement"),
    (SignedApprovalExample(content=SMALLER), "other resources were signed"),
    (SignedApprovalExample(content=SMALLER, personal={"kept_resources": json.dumps(RESOURCES)}), "other resources"),
    (SignedApprovalExample(content=SMALLER, personal=KEPT | OTHERS), "for other resources"),
    (SignedApprovalExample(content={"comment": "Never again"}), "another comment was signed"),
    (SignedApprovalExample(personal={"comment": "Do as you like"}), "another comment was signed"),
]


def assert_named(forged: SignedApprovalExample, said: str) -> None:
    result = result_of(forged.events())

    assert result.exit_code == BAD
    assert FindingKind.PASSKEY in result.findings.kinds
    assert said in said_of(result)


@each(("forged", "said"), FORGED)
@each("is_erased", [False, True])
def test_every_passkey_approval_forged_with_the_vendors_keys_is_reported_even_after_erasure(
    forged: SignedApprovalExample, said: str, *, is_erased: bool
) -> None:
    assert_named(replace(forged, is_erased=is_erased), said)


@pytest.mark.parametrize(("forged", "said"), FORGED_VALUES)
def test_resources_and_comments_that_differ_from_the_signed_values_are_named(
    forged: SignedApprovalExample, said: str
) -> None:
    assert_named(forged, said)


def without(approval_: SignedApprovalExample, *names: str, **changes: Any) -> list[SealedEvent]:
    """Return the events of an approval whose own event lacks some facts."""
    first, second = approval_.events()
    return [first, changed(second, *names, **changes)]


def changed(one: SealedEvent, *names: str, **changes: Any) -> SealedEvent:
    """Return an event without some facts, or with others."""
    body = {name: value for name, value in json.loads(one.body).items() if name not in names}
    return SealedEvent(canonical(body | changes), one.personal)


LOOSE: dict[str, Any] = ASKED | {"mode": "observe"}


def opened_by_the_vendor(**changes: Any) -> SealedEvent:
    """Return a move by which the vendor opens a window that no approver of the customer approved."""
    stated = {name: value for name, value in LOOSE.items() if name != "access_window"} | {"by": []}
    given = approval(**stated | {"resources": RESOURCES, "until": TEN_MINUTES, "engineer": ENGINEER})
    facts: dict[str, Any] = {"action": "endorse", "to_state": "active", "at": OPENED, "deadline_at": TEN_MINUTES}
    return event(
        1,
        {"resources": json.dumps(RESOURCES)},
        request_id=REQUEST,
        approval=given,
        approved_by=[],
        **facts | {"seq": 2} | changes,
    )


@pytest.mark.parametrize("lacking", ["access_window", "mode", "actions", "service"])
def test_the_signed_statement_is_compared_even_if_the_log_hides_the_request(lacking: str) -> None:
    first, second = SignedApprovalExample().events()

    result = result_of([SealedEvent(changed(first, lacking).body, {}), SealedEvent(second.body, {})])

    assert (result.exit_code, result.signed_approvals) == (BAD, 0)
    assert "does not say what was asked for" in said_of(result)


def test_the_signed_statement_is_compared_even_if_the_approval_precedes_the_request() -> None:
    first, second = (SealedEvent(one.body, {}) for one in SignedApprovalExample().events())

    honest = result_of([second, first])
    forged = result_of([second, changed(first, service="files")])

    assert (honest.exit_code, honest.signed_approvals) == (GOOD, 1)
    assert (forged.exit_code, forged.signed_approvals) == (BAD, 0)
    assert "another service" in said_of(forged)


def test_an_approval_signed_for_another_requester_than_the_submitter_is_reported() -> None:
    first, second = (SealedEvent(one.body, {}) for one in SignedApprovalExample().events())

    result = result_of([changed(first, actor_id=OTHER, engineer=ENGINEER), second])

    assert (result.exit_code, result.signed_approvals) == (BAD, 0)
    assert "another engineer" in said_of(result)


def test_signatures_over_hidden_values_are_counted_separately() -> None:
    first, second = SignedApprovalExample(content={"resources": ["mailbox:other"]}).events()
    hidden = {name: value for name, value in second.personal.items() if name != "signed_content"}

    result = result_of([first, SealedEvent(second.body, hidden)])

    assert (result.exit_code, result.signed_approvals, result.hidden_signatures) == (GOOD, 1, 1)
    said = "1 of these over resources that the file does not show: not compared"
    assert said in [*remarks(result)]


def test_the_verifier_compares_a_signature_with_the_submitted_request_and_not_with_later_moves() -> None:
    first, _ = SignedApprovalExample().events()
    between = event(2, {}, request_id=REQUEST, seq=2, action="note", actor_id=ENGINEER, **LOOSE)

    result = result_of([first, between, opened_by_the_vendor(seq=3)])

    assert result.exit_code == BAD
    assert "no approver of the customer approved" in said_of(result)


def test_a_window_whose_beginning_was_removed_must_be_opened_by_an_approval() -> None:
    gone = event(2)
    says = event(
        3, action="audit_events_removed", removed_from=0, removed_to=1, seq=None, request_id=None, to_state=None
    )
    export = Log([gone, says, opened_by_the_vendor()], removed=[range(1)]).whole()

    result = verified(export, keys=[named(SIGNER)], approvers=Approvers((FILE,)))

    assert result.exit_code == BAD
    assert "no approver of the customer approved" in said_of(result)


def test_required_signatures_are_unverified_without_the_customers_keys() -> None:
    forged = SignedApprovalExample(authenticator=MALLORYS).events()

    result = result_of(forged, approvers=Approvers((), is_required=True))

    assert (result.exit_code, result.findings.kinds) == (CANNOT_TELL, {FindingKind.UNPROVEN})


def test_an_approval_falsely_recorded_as_signed_is_named() -> None:
    result = result_of(without(SignedApprovalExample(), "assertion", "decision", approve_means="attested"))

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.PASSKEY})


def test_an_unsigned_approval_where_signing_was_required_is_named() -> None:
    result = result_of(without(SignedApprovalExample(), "assertion", "decision"))

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.PASSKEY})
    assert "must be signed with a passkey" in said_of(result)


def test_approvals_attested_only_by_the_server_are_counted_and_fail_if_passkeys_are_required() -> None:
    attested = without(SignedApprovalExample(), "assertion", "decision", approve_means="attested", proof="attested")

    lenient = result_of(attested)
    strict = result_of(attested, approvers=Approvers((FILE,), is_required=True))

    assert (lenient.exit_code, lenient.attested, lenient.signed_approvals) == (GOOD, {"Ann": 1}, 0)
    assert "attested by the vendor's server alone: 1 approval, of Ann (1)" in [*remarks(lenient)]
    assert (strict.exit_code, strict.findings.kinds) == (BAD, {FindingKind.PASSKEY})


def opened_alone(**changes: Any) -> list[SealedEvent]:
    """Return the events of a window that the vendor opened without asking, under a mode that may permit it."""
    first, second = without(SignedApprovalExample(), "assertion", "decision", action="endorse")
    asked = {name: value for name, value in (ASKED | changes).items() if name != "access_window"}
    second = SealedEvent(
        canonical(json.loads(second.body) | {"approval": approval(**asked, resources=RESOURCES)}), {}
    )
    body = json.loads(first.body) | changes
    return [
        SealedEvent(canonical({name: one for name, one in body.items() if one is not None}), first.personal),
        second,
    ]


def test_windows_opened_by_the_vendor_are_counted_and_refused_where_signing_is_required() -> None:
    lenient = result_of(opened_alone(mode="observe"))
    strict = result_of(opened_alone(mode="observe"), approvers=Approvers((FILE,), is_required=True))

    assert (lenient.exit_code, lenient.opened_alone) == (GOOD, 1)
    assert any("opened by the vendor without asking you: 1 window" in remark for remark in remarks(lenient))
    assert (strict.exit_code, strict.findings.kinds) == (BAD, {FindingKind.PASSKEY})


@each("mode", [["observe"], {"observe": "off"}, 1])
def test_a_malformed_mode_does_not_let_the_vendor_open_a_window_without_the_customer(mode: Any) -> None:
    result = result_of(opened_alone(mode=mode))

    assert (result.exit_code, result.opened_alone) == (BAD, 0)
    assert "no approver of the customer approved" in said_of(result)


def test_the_verifier_names_a_window_whose_request_lacks_contents() -> None:
    result = result_of(opened_alone(access_window=None))

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.PASSKEY})
    assert "lacks the submission" in said_of(result)


def test_the_verifier_calls_no_signature_verified_without_the_customers_keys() -> None:
    result = result_of(SignedApprovalExample(authenticator=MALLORYS).events(), approvers=Approvers())

    assert (result.exit_code, result.signed_approvals, result.unchecked_signatures) == (GOOD, 0, 1)
    assert any("not checked without the file of your approvers' keys" in remark for remark in remarks(result))


def test_the_passkeys_of_another_tenant_verify_no_signature() -> None:
    result = result_of(SignedApprovalExample().events(), approvers=Approvers((replace(FILE, tenant_id=OTHER),)))

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.PASSKEY})


def test_an_older_key_file_verifies_a_removed_passkey() -> None:
    newer = replace(FILE, keys=())

    result = result_of(SignedApprovalExample().events(), approvers=Approvers((newer, FILE)))

    assert (result.exit_code, result.signed_approvals) == (GOOD, 1)


def test_an_approver_key_file_reads_back() -> None:
    text = json.dumps(approver_keys.document(FILE))

    assert approver_keys.read(text) == FILE


DOCUMENT = approver_keys.document(FILE)
ENTRY = DOCUMENT["keys"][0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"format": "lockbox approver keys 2"}, "has the format"),
        ({"keys": {}}, "has the format"),
        ({"keys": [{}]}, "malformed"),
        ({"keys": [ENTRY | {"fingerprint": "0" * 64}]}, "is not that of its key"),
        ({"keys": [ENTRY | {"public_key": "AAAA"}]}, "is no public key"),
        ({"keys": [ENTRY | {"public_key": "?"}]}, "is no public key"),
    ],
)
def test_an_invalid_key_file_for_the_verifier_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(BadKeys, match=said):
        approver_keys.read(json.dumps(DOCUMENT | changed))


def test_a_key_file_that_is_not_json_is_refused() -> None:
    with pytest.raises(BadKeys, match="no JSON"):
        approver_keys.read("name+id+base64")


def _ed25519() -> tuple[bytes, Callable[[bytes], bytes]]:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), key.sign


def _rsa() -> tuple[bytes, Callable[[bytes], bytes]]:
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return public, lambda text: key.sign(text, padding.PKCS1v15(), SHA256())


@pytest.mark.parametrize("make", [_ed25519, _rsa])
def test_signatures_by_ed25519_and_rsa_passkeys_are_verified(
    make: Callable[[], tuple[bytes, Callable[[bytes], bytes]]],
) -> None:
    public, sign = make()
    statement = SignedApprovalExample().statement()
    challenge = base64.urlsafe_b64encode(hashlib.sha256(statement).digest()).rstrip(b"=").decode()
    client = json.dumps(
        {"type": "webauthn.get", "challenge": challenge, "origin": "https://lockbox.example"}
    ).encode()
    data = hashlib.sha256(b"lockbox.example").digest() + bytes([5]) + bytes(4)
    good = Assertion(data, client, sign(data + hashlib.sha256(client).digest()), fingerprint(public))

    check(good, statement, public, rp_id="lockbox.example", origin="https://lockbox.example")

    with pytest.raises(BadAssertion, match="signature is wrong"):
        check(replace(good, authenticator_data=data[:-1] + b"\x01"), statement, public)
