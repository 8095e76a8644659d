"""Approvals in a log: which count as checked, which do not, and what is reported about wrong ones."""

import base64
import hashlib
import json
from itertools import product
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lockbox.audit.canonical import canonical, signed_text
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier.approval_checks import NAME, ApprovalChecker
from lockbox.audit.verifier.export_format import Finding, FindingKind, Findings
from tests.each import each

KEY, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([digit]) * 32) for digit in (1, 2))
RESOURCES = ["mailbox:anna", "mailbox:bob"]
STATEMENT: dict[str, Any] = {
    "format": "lockbox approval 1",
    "request_id": "A",
    "tenant_id": "T",
    "engineer": "E",
    "resources": RESOURCES,
    "service": "exchange",
    "actions": ["read", "export"],
    "mode": "on_request",
    "policy_version": 3,
    "opened_at": "then",
    "until": "later",
    "by": ["ann", "bill"],
}
SUBMITTED: dict[str, Any] = {
    "request_id": "A",
    "seq": 1,
    "action": "submit",
    "to_state": "pending",
    "actor_id": "E",
    "personal": {},
    **{name: STATEMENT[name] for name in ("service", "actions", "mode", "policy_version")},
}
OPENED: dict[str, Any] = {
    "request_id": "A",
    "tenant_id": "T",
    "seq": 2,
    "action": "approve",
    "side": "customer",
    "to_state": "active",
    "at": "then",
    "deadline_at": "later",
    "approved_by": ["bill", "ann"],
}
WHERE: dict[str, Any] = {"line": 4, "number": 2, "event": "e"}
OTHERWISE = "the approval does not match the request's events"
NO_FORM = "the approval is malformed"


def named(key: Ed25519PrivateKey) -> VerifierKey:
    return VerifierKey(NAME, key.public_key().public_bytes_raw())


def approval(key: Ed25519PrivateKey = KEY, **changes: Any) -> dict[str, Any]:
    """Return an approval of the statement with these changes."""
    said = canonical(STATEMENT | changes)
    hashed = hashlib.sha256(said).hexdigest()
    window = [(STATEMENT | changes)[name] for name in ("request_id", "tenant_id", "opened_at", "until")]
    signed = signed_text(*window, by=(STATEMENT | changes)["by"], statement=hashed)
    return {"statement": hashed, "signature": base64.b64encode(key.sign(signed)).decode(), "key": named(key).id.hex()}


def taken(
    submitted: dict[str, Any],
    opened: dict[str, Any],
    *,
    keys: tuple[Ed25519PrivateKey, ...] = (KEY,),
    resources: str | None = json.dumps(RESOURCES),
    granted: str | None = None,
) -> tuple[int, int, list[Finding]]:
    """Return how many approvals were checked, how many were not, and the findings."""
    findings = Findings()
    approved = ApprovalChecker([named(key) for key in keys], findings)
    approved.take(SUBMITTED | submitted, {} if resources is None else {"resources": resources}, {"line": 3})
    approved.take(OPENED | opened, {} if granted is None else {"granted_resources": granted}, WHERE)
    return approved.checked, approved.unchecked, findings.first


def found(kind: FindingKind, message: str) -> tuple[int, int, list[Finding]]:
    return 0, 0, [Finding(kind, message, 4, 2, "e")]


CHECKED: tuple[int, int, list[Finding]] = (1, 0, [])
UNCHECKED: tuple[int, int, list[Finding]] = (0, 1, [])
FORGED = found(FindingKind.WRONG_SIGNATURE, "the signature of the approval is wrong")


GOOD, OTHERS = approval(), approval(request_id="B")
SIGNATURE = GOOD["signature"]
STRANGERS = found(
    FindingKind.UNKNOWN_KEY, f"the approval is signed by {NAME}+{named(STRANGER).id.hex()}, which you do not trust"
)
MALFORMED = found(FindingKind.APPROVAL, NO_FORM)
DIFFERENT = found(FindingKind.APPROVAL, OTHERWISE)
MISSING = found(FindingKind.APPROVAL, "this opens a window without a signed approval")
HIDDEN = {"approval": approval(resources=["mailbox:bob"]), "personal": {"granted_resources": "committed to"}}
OTHER_REQUESTS: list[dict[str, Any]] = [
    {"service": "teams"},
    {"actions": ["read"]},
    {"mode": "off"},
    {"policy_version": 4},
    {"actor_id": "F"},
    {"on_behalf_of": "F"},
]
OTHER_WINDOWS: list[dict[str, Any]] = [
    {"tenant_id": "U"},
    {"at": "now"},
    {"deadline_at": "never"},
    {"approved_by": ["ann"]},
    {"approved_by": []},
]
NOT_SIGNED = ["", "AAAA", "*", approval(STRANGER)["signature"], SIGNATURE[:4] + "*" + SIGNATURE[4:]]


@each(
    ("submitted", "opened", "options", "expected"),
    [
        # The request and the window that it is compared with.
        ({}, {"approval": GOOD}, {}, CHECKED),
        ({"on_behalf_of": "E", "actor_id": "system"}, {"approval": GOOD}, {}, CHECKED),
        ({"on_behalf_of": None}, {"approval": GOOD}, {}, CHECKED),
        ({"to_state": "reviewing"}, {"approval": GOOD}, {}, CHECKED),
        *(
            (other, {"approval": GOOD}, {"keys": keys}, DIFFERENT)
            for other, keys in product(OTHER_REQUESTS, [(), (KEY,)])
        ),
        *(({}, other | {"approval": GOOD}, {}, DIFFERENT) for other in OTHER_WINDOWS),
        # Values that no statement can contain, and resources that cannot be read.
        *(({"policy_version": odd}, {"approval": GOOD}, {}, DIFFERENT) for odd in (2**60, "\ud800")),
        *(({}, {"approval": GOOD}, {"resources": odd}, DIFFERENT) for odd in ("no json", "[" * 100_000)),
        # A field that is missing or mistyped, or no approval at all.
        ({}, {"approval": None}, {}, MALFORMED),
        ({}, {"approval": {}}, {}, MALFORMED),
        *(({}, {"approval": GOOD | {name: 1}}, {}, MALFORMED) for name in ("statement", "signature", "key")),
        *(({}, {"approval": GOOD, "approved_by": odd}, {}, MALFORMED) for odd in ("ann", ["ann", 1])),
        ({}, {}, {}, MISSING),
        ({}, {"to_state": "denied"}, {}, (0, 0, [])),
        # Another key, no key, another signature, and one of another request though its resources are erased.
        ({}, {"approval": approval(STRANGER)}, {}, STRANGERS),
        ({}, {"approval": GOOD}, {"keys": ()}, UNCHECKED),
        *(
            ({}, {"approval": GOOD | {"signature": wrong}}, {}, FORGED)
            for wrong in (*NOT_SIGNED, SIGNATURE.translate(str.maketrans("AQgw", "BRhx")))
        ),
        ({}, {"approval": OTHERS}, {"resources": None}, FORGED),
        *(
            ({}, {"approval": GOOD | {name: OTHERS[name]}}, {"resources": None}, FORGED)
            for name in ("statement", "signature")
        ),
        # Granted resources that are hidden are verified by their hash.
        *(({}, HIDDEN, {"granted": shown}, CHECKED) for shown in (json.dumps(["mailbox:bob"]), None)),
    ],
)
def test_the_verifier_compares_an_approval_with_its_request_window_and_key(
    submitted: dict[str, Any],
    opened: dict[str, Any],
    options: dict[str, Any],
    expected: tuple[int, int, list[Finding]],
) -> None:
    assert taken(submitted, opened, **options) == expected


@each(
    ("submitted", "resources"),
    [
        ({}, None),
        ({"action": "comment"}, json.dumps(RESOURCES)),
        ({"to_state": "denied"}, json.dumps(RESOURCES)),
        ({"request_id": "B"}, json.dumps(RESOURCES)),
    ],
)
@each(("changes", "expected"), [({}, CHECKED), ({"deadline_at": "never"}, FORGED)])
def test_an_approval_of_hidden_resources_is_verified_by_their_hash(
    submitted: dict[str, Any],
    resources: str | None,
    changes: dict[str, Any],
    expected: tuple[int, int, list[Finding]],
) -> None:
    assert taken(submitted, {"approval": approval()} | changes, resources=resources) == expected


def test_an_approval_after_the_end_of_its_request_is_verified_by_the_hash_of_its_resources() -> None:
    approved = ApprovalChecker([named(KEY)], Findings())

    approved.take(SUBMITTED, {"resources": json.dumps(RESOURCES)}, {})
    approved.take(SUBMITTED | {"action": "cancel", "to_state": "cancelled"}, {}, {})
    approved.take(OPENED | {"approval": approval()}, {}, {})

    assert (approved.checked, approved.by_hash, approved.unchecked) == (1, 1, 0)


@pytest.mark.parametrize(
    ("resources", "actions"), [(["mailbox:bob"], None), (None, ["read"]), (["mailbox:anna"], ["export"])]
)
def test_an_approval_may_grant_less_than_requested(resources: list[str] | None, actions: list[str] | None) -> None:
    granted: dict[str, Any] = {"resources": resources or RESOURCES, "actions": actions or STATEMENT["actions"]}
    opened: dict[str, Any] = {"approval": approval(**granted)} | ({"granted_actions": actions} if actions else {})

    assert taken({}, opened, granted=json.dumps(resources) if resources else None) == CHECKED
    assert taken({}, opened | {"approval": approval(mode="off")}) == found(FindingKind.APPROVAL, OTHERWISE)


@pytest.mark.parametrize(
    ("resources", "actions"),
    [
        (["mailbox:boss"], None),
        (["mailbox:anna", "mailbox:boss"], None),
        ([], None),
        ("mailbox:anna", None),
        (None, ["read", "delete"]),
        (None, []),
        (None, "read"),
    ],
)
def test_the_verifier_reports_a_signed_approval_of_resources_or_actions_not_requested(
    resources: Any, actions: Any
) -> None:
    granted = ({} if resources is None else {"resources": resources}) | (
        {} if actions is None else {"actions": actions}
    )
    opened: dict[str, Any] = {"approval": approval(**granted)}
    opened |= {} if actions is None else {"granted_actions": actions}

    assert taken({}, opened, granted=None if resources is None else json.dumps(resources)) == found(
        FindingKind.APPROVAL, OTHERWISE
    )


@pytest.mark.far
def test_the_verifier_compares_long_resource_lists_quickly() -> None:
    """To search one list for each item of the other would take an hour."""
    many = [f"mailbox:{number}" for number in range(200_000)]

    narrowed = taken({}, {"approval": approval()}, resources=json.dumps(many), granted=json.dumps([*many[1:], "x"]))

    assert narrowed == found(FindingKind.APPROVAL, OTHERWISE)


def test_the_verifier_counts_each_verified_and_each_unverified_approval() -> None:
    findings = Findings()
    approved, keyless = ApprovalChecker([named(KEY)], findings), ApprovalChecker([], findings)

    for one in (approved, keyless):
        one.take(SUBMITTED, {"resources": json.dumps(RESOURCES)}, {})
        one.take(SUBMITTED | {"request_id": "B"}, {}, {})
        for request in ("A", "A", "B", "B"):
            signed = OPENED | {"request_id": request, "approval": approval(request_id=request)}
            one.take(signed, {}, {})

    assert (approved.checked, approved.by_hash, approved.unchecked) == (4, 2, 0)
    assert (keyless.checked, keyless.unchecked) == (0, 4)
    assert findings.count == 0
