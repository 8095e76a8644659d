"""Both verifiers on extensions, pre-approvals and findings that were altered, left out or swapped."""

import json
from typing import Any
from uuid import UUID

import pytest

from lockbox.audit.canonical import canonical
from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.verify import BAD, GOOD, VerificationResult
from tests.logs import Log, SealedEvent, event
from tests.unit.test_verifier_approvals import (
    ANN,
    ASKED,
    ENGINEER,
    OPENED,
    REQUEST,
    RESOURCES,
    SIGNER,
    UNTIL,
    approval,
    history,
    named,
)
from tests.unit.test_verifier_windows import MAX, TRUE
from tests.verification_results import told, verified

FIRST, ANOTHER = str(UUID(int=0xE1)), str(UUID(int=0xE2))
TARA = str(UUID(int=0xF1))
SHOWN = {"resources": json.dumps(RESOURCES)}
OF_RULE = {"service": "exchange", "actions": ["read"], "reason_code": "support_case"}


def result_of(events: list[SealedEvent]) -> VerificationResult:
    return verified(Log(events).whole(), keys=[named(SIGNER)])


def changed(one: SealedEvent, *gone: str, **changes: Any) -> SealedEvent:
    """Return an event with other facts, and without some, as a dishonest vendor would write it."""
    facts = {name: value for name, value in json.loads(one.body).items() if name not in gone}
    return SealedEvent(canonical(facts | changes), one.personal)


def extension(signed_for: str = FIRST) -> list[SealedEvent]:
    """Return an extension and its approval, which is signed for the window `signed_for`."""
    asked, opened = history(approval(extends=signed_for))
    return [changed(asked, extends=FIRST), opened]


def test_the_signed_approval_of_an_extension_names_the_extended_window() -> None:
    assert result_of(extension()).exit_code == GOOD


@pytest.mark.parametrize(
    "events",
    [
        [changed(extension()[0], extends=ANOTHER), extension()[1]],
        [changed(extension()[0], "extends"), extension()[1]],
        [extension()[0], extension(ANOTHER)[1]],
        [extension()[0], history(approval())[1]],
    ],
    ids=["another", "left out", "approved for another", "approved for none"],
)
def test_an_extension_of_another_window_than_approved_is_reported(events: list[SealedEvent]) -> None:
    result = result_of(events)

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.APPROVAL})
    assert any("does not match the request's events" in one for one in told(result))


def rule(number: int, which: str = FIRST, **changes: Any) -> list[SealedEvent]:
    """Return a pre-approval, proposed by Tara and approved by Ann, as two events from this number on."""
    facts: dict[str, Any] = {"pre_approval_id": which, "seq": None, "request_id": None, "to_state": None}
    facts["at"] = "2026-01-01T00:00:00.500000Z"
    proposed: dict[str, Any] = (
        OF_RULE | {"access_window": 28_800, "max_uses": 1, "ends_at": "2026-02-01T00:00:00.000000Z"} | changes
    )
    pattern = {"resource": "mailbox:*@contoso.example"}
    return [
        event(number, pattern, action="pre_approval_proposed", actor_id=TARA, **facts, **proposed),
        event(number + 1, {}, action="pre_approval_approved", actor_id=ANN, **facts),
    ]


def opened_by_it(*gone: str, **changes: Any) -> SealedEvent:
    """Return a submission that a pre-approval opened at once, with a statement signed for the pre-approval."""
    facts = ASKED | OF_RULE | {"mode": "enforce", "access_window": 3600, "pre_approval_id": FIRST}
    stated = {name: facts[name] for name in (*ASKED, "pre_approval_id")}
    opening: dict[str, Any] = {
        "to_state": "active",
        "at": OPENED,
        "deadline_at": UNTIL,
        "approved_by": [ANN],
        "actor_id": ENGINEER,
    }
    given = approval(**stated)
    return changed(
        event(9, SHOWN, request_id=REQUEST, seq=1, on_behalf_of=None, approval=given, **facts, **opening),
        *gone,
        **changes,
    )


def test_the_verifier_accepts_a_window_opened_by_a_pre_approval() -> None:
    result = result_of([*rule(0), opened_by_it()])

    assert result.exit_code == GOOD, told(result)


PROPOSED, APPROVED = rule(0)
REVOKED = changed(APPROVED, id=str(UUID(int=5)), action="pre_approval_revoked")
FALSE: dict[str, tuple[list[SealedEvent], str]] = {
    "another": ([*rule(0), *rule(2, ANOTHER), opened_by_it(pre_approval_id=ANOTHER)], "does not match"),
    "left out": ([*rule(0), opened_by_it("pre_approval_id")], "does not match"),
    "approval left out": ([PROPOSED, opened_by_it()], "lacks the approval"),
    "all of it left out": ([opened_by_it()], "no such pre-approval"),
    "signed for one of another service": ([*rule(0, service="fax"), opened_by_it()], "another service or reason"),
    "signed for one of another reason": (
        [*rule(0, reason_code="other"), opened_by_it()],
        "another service or reason",
    ),
    "signed for one of other actions": ([*rule(0, actions=["export"]), opened_by_it()], "other actions"),
    "signed for a shorter one": ([*rule(0, access_window=600), opened_by_it()], "a shorter time"),
    "signed for one that ends earlier": ([*rule(0, ends_at=OPENED), opened_by_it()], "ends earlier"),
    "signed for one that was revoked": ([*rule(0), REVOKED, opened_by_it()], "revoked by then"),
    "swapped with its own proposer": ([PROPOSED, changed(APPROVED, actor_id=TARA), opened_by_it()], "its proposer"),
}


@pytest.mark.parametrize(("events", "said"), FALSE.values(), ids=FALSE)
def test_the_verifier_reports_a_window_that_its_pre_approval_does_not_allow(
    events: list[SealedEvent], said: str
) -> None:
    result = result_of(events)

    assert result.exit_code == BAD
    assert any(said in one for one in told(result)), told(result)


def glass(number: int, request: str, finding: str, comment: str) -> list[SealedEvent]:
    """Return a break-glass window that was revoked, and the finding about it."""
    asked = {"actor_id": ENGINEER, "on_behalf_of": None, "break_glass": True, "to_state": "reviewing"}
    given = approval(request_id=request, by=[MAX], until=TRUE["deadline_at"], break_glass=True)
    ended = {"request_id": request, "to_state": "revoked", "actor_id": ANN}
    return [
        event(number, SHOWN, request_id=request, seq=1, **ASKED, **asked),
        event(number + 1, {}, request_id=request, seq=2, approval=given, **TRUE),
        event(number + 2, {}, seq=3, action="revoke", **ended),
        event(number + 3, {"comment": comment}, seq=None, action="after_review", finding=finding, **ended),
    ]


FOUND = Log([*glass(0, REQUEST, "justified", "As agreed"), *glass(4, ANOTHER, "not_justified", "Nobody knew")])
NOT_JUSTIFIED = r"\"finding\":\"not_justified\""


def test_the_verifier_accepts_sealed_break_glass_findings() -> None:
    result = verified(FOUND.whole(), keys=[named(SIGNER)])

    assert (result.exit_code, result.by_break_glass) == (GOOD, 2), told(result)


def _swapped(export: bytes, places: tuple[int, int], member: str) -> bytes:
    """Return the export in which two events have swapped a member."""
    lines = [json.loads(line) for line in export.splitlines()]
    first, second = (next(line for line in lines if line.get("number") == place) for place in places)
    first[member], second[member] = second[member], first[member]
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)


TAMPERED = {
    "another finding": (
        FOUND.whole().replace(NOT_JUSTIFIED.encode(), rb"\"finding\":\"justified\""),
        FindingKind.EDITED,
    ),
    "another comment": (FOUND.whole().replace(b"Nobody knew", b"Everybody knew"), FindingKind.COMMITMENT),
    "comments swapped": (_swapped(FOUND.whole(), (3, 7), "personal"), FindingKind.COMMITMENT),
    "findings swapped": (_swapped(FOUND.whole(), (3, 7), "body"), FindingKind.REORDERED),
    "left out": (
        b"".join(line for line in FOUND.whole().splitlines(keepends=True) if NOT_JUSTIFIED.encode() not in line),
        FindingKind.REMOVED,
    ),
}


@pytest.mark.parametrize(("export", "kind"), TAMPERED.values(), ids=TAMPERED)
def test_the_verifier_reports_an_altered_swapped_or_omitted_break_glass_finding(
    export: bytes, kind: FindingKind
) -> None:
    result = verified(export, keys=[named(SIGNER)])

    assert result.exit_code == BAD
    assert kind in result.findings.kinds, told(result)
