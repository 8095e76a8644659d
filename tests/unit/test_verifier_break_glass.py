"""Both verifiers look at each window that was opened by break-glass: two people, an hour at most, and it says so."""

import json
from typing import Any

import pytest

from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.signed_approvals import Approvers
from lockbox.audit.verifier.verify import BAD, GOOD
from tests.logs import Log, event
from tests.unit.test_verifier_approvals import ASKED, ENGINEER, REQUEST, RESOURCES, SIGNER, approval, named
from tests.verification_results import told, verified

MAX, MIA = (f"00000000-0000-0000-0000-00000000001{digit}" for digit in "ab")
HOUR, LATER = "2026-01-01T01:00:01.000000Z", "2026-01-01T01:00:02.000000Z"
TRUE: dict[str, Any] = {
    "action": "break_glass",
    "break_glass": True,
    "actor_id": MAX,
    "approved_by": [MAX],
    "at": "2026-01-01T00:00:01.000000Z",
    "deadline_at": HOUR,
    "to_state": "active",
}
FALSE: dict[str, tuple[dict[str, Any], str]] = {
    "does not say so": ({"break_glass": None}, "does not say so"),
    "says so and is an approval": ({"action": "approve"}, "says so and is none"),
    "signed for by another": ({"approved_by": [MIA]}, "by another than who signed"),
    "signed for by two": ({"approved_by": [MAX, MIA]}, "by another than who signed"),
    "by the requester": ({"actor_id": ENGINEER, "approved_by": [ENGINEER]}, "by the requester alone"),
    "longer than an hour": ({"deadline_at": LATER}, "longer than an hour"),
}


def log_of(**changes: Any) -> Log:
    """Return the log of a window that was opened so, but for the changes, with an approval that is signed for it."""
    opening = {name: value for name, value in (TRUE | changes).items() if value is not None}
    said = {"by": sorted(opening["approved_by"]), "until": opening["deadline_at"]}
    said |= {"break_glass": opening["break_glass"]} if "break_glass" in opening else {}
    asked = {"actor_id": ENGINEER, "on_behalf_of": None, "break_glass": True, "to_state": "reviewing"}
    return Log(
        [
            event(0, {"resources": json.dumps(RESOURCES)}, request_id=REQUEST, seq=1, **ASKED, **asked),
            event(1, {}, request_id=REQUEST, seq=2, approval=approval(**said), **opening),
        ]
    )


def test_a_true_one_is_a_finding_where_each_approval_has_to_be_signed() -> None:
    result = verified(log_of().whole(), keys=[named(SIGNER)], approvers=Approvers((), is_required=True))

    assert any("no passkey of yours signed it" in one for one in told(result))


def test_a_true_one_is_good_and_counted() -> None:
    result = verified(log_of().whole(), keys=[named(SIGNER)])

    assert (result.exit_code, result.by_break_glass, result.approvals) == (GOOD, 1, 1), told(result)


@pytest.mark.parametrize(("changes", "said"), FALSE.values(), ids=FALSE)
def test_a_false_one_is_a_finding_of_both(changes: dict[str, Any], said: str) -> None:
    result = verified(log_of(**changes).whole(), keys=[named(SIGNER)])

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.APPROVAL})
    assert any(said in one for one in told(result))
