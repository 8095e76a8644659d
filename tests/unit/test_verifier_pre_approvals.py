"""The verifier compares each window that a pre-approval opened with what was approved beforehand."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from lockbox.audit.verifier.export_format import Findings
from lockbox.audit.verifier.pre_approval_checks import PreApprovalChecker

WHICH = "0197f3a0-7c1e-7b11-9c55-3f8f0f6c9b01"
AT = "2026-11-28T{}:00:00.000000Z"
PROPOSED: dict[str, Any] = {
    "action": "pre_approval_proposed",
    "seq": None,
    "at": AT.format("08"),
    "actor_id": "tara",
    "pre_approval_id": WHICH,
    "service": "exchange-online",
    "actions": ["read"],
    "reason_code": "support_case",
    "access_window": 3600,
    "max_uses": 1,
    "ends_at": AT.format("20"),
}
APPROVED = PROPOSED | {"action": "pre_approval_approved", "at": AT.format("09"), "actor_id": "ann"}
REVOKED = PROPOSED | {"action": "pre_approval_revoked", "at": AT.format("12"), "actor_id": "ann"}
OPENED = PROPOSED | {
    "action": "submit",
    "seq": 1,
    "at": AT.format("10"),
    "deadline_at": AT.format("11"),
    "actor_id": "erin",
    "to_state": "active",
    "approved_by": ["ann"],
}
SHOWN = {"resources": json.dumps(["mailbox:anna@contoso.example"])}
WRONG: dict[str, tuple[list[dict[str, Any]], str]] = {
    "nothing": ([OPENED], "no such pre-approval"),
    "nobody's": ([PROPOSED, OPENED], "lacks the approval"),
    "the proposer's own": (
        [PROPOSED, APPROVED | {"actor_id": "tara"}, OPENED | {"approved_by": ["tara"]}],
        "proposer",
    ),
    "another approver": ([PROPOSED, APPROVED, OPENED | {"approved_by": ["amir"]}], "lacks the approval"),
    "revoked": ([PROPOSED, APPROVED, REVOKED | {"at": AT.format("09")}, OPENED], "revoked by then"),
    "twice": ([PROPOSED, APPROVED, OPENED, OPENED | {"at": AT.format("10")}], "used as often"),
    "another service": ([PROPOSED, APPROVED, OPENED | {"service": "fax"}], "another service"),
    "another reason": ([PROPOSED, APPROVED, OPENED | {"reason_code": "other"}], "another service or reason"),
    "another action": ([PROPOSED, APPROVED, OPENED | {"actions": ["read", "export"]}], "other actions"),
    "longer": ([PROPOSED, APPROVED, OPENED | {"deadline_at": AT.format("12")}], "shorter time"),
    "later": ([PROPOSED | {"ends_at": AT.format("10")}, APPROVED, OPENED], "ends earlier"),
    "no end": ([PROPOSED, APPROVED, OPENED | {"deadline_at": None}], "shorter time"),
}


def findings(*events: Mapping[str, Any], shown: Mapping[str, str] = SHOWN, pattern: str = "mailbox:*") -> list[str]:
    """Return what is found in a log of these events."""
    found = Findings()
    checker = PreApprovalChecker(found)
    for event in events:
        checker.take(event, {"resource": pattern} if event["seq"] is None else shown, {})
    checker.finish(is_all_there=True)
    return [one.message for one in found.first]


def test_what_is_within_it_is_good_in_whatever_order_it_was_sealed() -> None:
    assert findings(PROPOSED, APPROVED, OPENED, REVOKED) == []
    assert findings(OPENED, APPROVED, PROPOSED) == []
    assert findings(PROPOSED, APPROVED, OPENED, shown={}) == []


@pytest.mark.parametrize(("events", "said"), WRONG.values(), ids=WRONG)
def test_what_is_beyond_it_is_a_finding(events: list[dict[str, Any]], said: str) -> None:
    assert any(said in one for one in findings(*events))


def test_resources_that_its_pattern_does_not_fit_are_a_finding() -> None:
    assert "for other resources" in findings(PROPOSED, APPROVED, OPENED, pattern="mailbox:*@fabrikam.example")[0]
