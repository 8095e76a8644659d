"""Both verifiers on windows by break-glass, by pre-approval or with a limit of uses, and on stated access."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from lockbox.audit.verifier.export_format import FindingKind, Findings
from lockbox.audit.verifier.pre_approval_checks import PreApprovalChecker
from lockbox.audit.verifier.signed_approvals import Approvers
from lockbox.audit.verifier.stated_access_checks import StatedAccessChecker
from lockbox.audit.verifier.verify import BAD, GOOD
from tests import second_verifier
from tests.logs import Log, SealedEvent, event, public
from tests.unit.test_verifier_approvals import (
    ANN,
    ASKED,
    ENGINEER,
    REQUEST,
    RESOURCES,
    SIGNER,
    approval,
    history,
    named,
)
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
    """Return the log of a break-glass window, with changes, and with an approval that is signed for it."""
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


def test_the_verifier_reports_break_glass_where_signing_is_required() -> None:
    result = verified(log_of().whole(), keys=[named(SIGNER)], approvers=Approvers((), is_required=True))

    assert any("no passkey of yours signed it" in one for one in told(result))


def test_the_verifier_accepts_and_counts_valid_break_glass() -> None:
    result = verified(log_of().whole(), keys=[named(SIGNER)])

    assert (result.exit_code, result.by_break_glass, result.approvals) == (GOOD, 1, 1), told(result)


@pytest.mark.parametrize(("changes", "said"), FALSE.values(), ids=FALSE)
def test_the_verifier_reports_break_glass_that_is_wrongly_marked_or_wrongly_signed_or_too_long(
    changes: dict[str, Any], said: str
) -> None:
    result = verified(log_of(**changes).whole(), keys=[named(SIGNER)])

    assert (result.exit_code, result.findings.kinds) == (BAD, {FindingKind.APPROVAL})
    assert any(said in one for one in told(result))


USED_UP: dict[str, Any] = {"action": "used_up", "max_uses": 2}
LAST_USED: dict[str, Any] = {"action": "last_used", "count": 2}
NO_MOVE: dict[str, Any] = {"seq": None, "to_state": None, "request_id": REQUEST}


def used(*told: dict[str, Any], max_uses: Any = 2) -> list[SealedEvent]:
    """Return a request that was opened for so many uses, and the events about its uses."""
    facts = {} if max_uses is None else {"max_uses": max_uses}
    asked, opened = history(approval(**facts), **facts)
    return [asked, opened, *(event(number, {}, **NO_MOVE | one) for number, one in enumerate(told, 2))]


def kinds_of_uses(events: list[SealedEvent]) -> set[FindingKind]:
    whole = Log(events).whole()
    result = verified(whole, keys=[named(SIGNER)])
    assert result.exit_code == (BAD if result.findings.kinds else GOOD)
    try:
        second_verifier.check(whole, [public().text, named(SIGNER).text])
    except second_verifier.VerificationFailed:
        assert result.exit_code == BAD
    else:
        assert result.exit_code == GOOD
    return set(result.findings.kinds)


@pytest.mark.parametrize("told", [(), (USED_UP,), (USED_UP, LAST_USED), (LAST_USED | {"count": 1},)])
def test_the_verifier_accepts_a_window_used_exactly_as_often_as_allowed(told: tuple[dict[str, Any], ...]) -> None:
    assert kinds_of_uses(used(*told)) == set()


@pytest.mark.parametrize(
    "told",
    [
        (LAST_USED | {"count": 3},),
        (USED_UP, LAST_USED | {"count": 3}),
        (LAST_USED | {"count": "2"},),
        ({"action": "last_used"},),
        (USED_UP | {"max_uses": 3},),
        ({"action": "used_up"},),
        (USED_UP, USED_UP),
    ],
)
def test_the_verifier_detects_a_window_used_too_often(told: tuple[dict[str, Any], ...]) -> None:
    assert kinds_of_uses(used(*told)) == {FindingKind.USES}


def test_the_verifier_ignores_uses_of_other_windows_and_of_windows_without_a_limit_of_uses() -> None:
    other = {"request_id": ANN, "seq": 1, "action": "submit", "to_state": "pending"}
    assert kinds_of_uses(used(other, LAST_USED | {"count": 3, "request_id": ANN})) == set()
    assert kinds_of_uses(used(LAST_USED | {"count": 3}, max_uses=None)) == set()


def test_a_finding_about_too_many_uses_states_the_number_of_uses_and_the_limit() -> None:
    result = verified(Log(used(LAST_USED | {"count": 3})).whole(), keys=[named(SIGNER)])

    (finding,) = result.findings.first
    assert (finding.message, finding.number) == (f"request {REQUEST} was used 3 times, and was for 2", 2)


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
    """Return the findings in a log of these events."""
    found = Findings()
    checker = PreApprovalChecker(found)
    for taken in events:
        checker.take(taken, {"resource": pattern} if taken["seq"] is None else shown, {})
    checker.finish(is_all_there=True)
    return [one.message for one in found.first]


def test_the_verifier_accepts_a_pre_approved_window_whatever_the_order_of_the_events() -> None:
    assert findings(PROPOSED, APPROVED, OPENED, REVOKED) == []
    assert findings(OPENED, APPROVED, PROPOSED) == []
    assert findings(PROPOSED, APPROVED, OPENED, shown={}) == []


@pytest.mark.parametrize(("events", "said"), WRONG.values(), ids=WRONG)
def test_the_verifier_detects_a_window_beyond_its_pre_approval(events: list[dict[str, Any]], said: str) -> None:
    assert any(said in finding for finding in findings(*events))


def test_the_verifier_detects_resources_that_do_not_fit_the_pre_approvals_pattern() -> None:
    assert "for other resources" in findings(PROPOSED, APPROVED, OPENED, pattern="mailbox:*@fabrikam.example")[0]


SINCE, STATED_AT = "2026-09-02T00:00:00.000000Z", "2026-12-01T00:00:05.000000Z"


def stated(at: str = STATED_AT, **changes: Any) -> dict[str, Any]:
    facts = {
        "action": "unapproved_access_stated",
        "at": at,
        "month": at[:7],
        "since": SINCE,
        "opened": {"break_glass": 0},
        "seq": None,
        "to_state": None,
        "request_id": None,
    }
    return facts | changes


def kinds(*told: dict[str, Any]) -> set[FindingKind]:
    """Return the kinds of findings; the second verifier agrees on whether there are any."""
    return set(verified(Log([event(number, {}, **one) for number, one in enumerate(told)]).whole()).findings.kinds)


def test_the_verifier_accepts_one_statement_of_unapproved_access_a_month() -> None:
    assert kinds(stated(), stated("2027-01-01T00:00:05.000000Z")) == set()


def test_the_verifier_detects_a_month_of_unapproved_access_stated_twice() -> None:
    assert kinds(stated(), stated("2026-12-02T00:00:05.000000Z")) == {FindingKind.STATED}


@pytest.mark.parametrize(
    "changes", [{"month": "2026-11"}, {"month": 12}, {"since": "x"}, {"opened": {}}, {"opened": {"break_glass": "1"}}]
)
def test_the_verifier_detects_a_statement_of_unapproved_access_without_month_or_numbers(
    changes: dict[str, Any],
) -> None:
    assert kinds(stated(**changes)) == {FindingKind.MALFORMED}


def test_an_impossible_time_in_an_event_is_named_and_verification_continues() -> None:
    nowhen = "2026-13-01T00:00:05.000000Z"
    broken = {"action": "break_glass", "to_state": "active", "at": nowhen, "seq": 1}

    assert kinds(stated(since=nowhen)) == {FindingKind.MALFORMED}
    assert kinds(stated(nowhen)) >= {FindingKind.MALFORMED}
    assert kinds(broken)
    assert kinds(stated(since="9999-12-31T23:59:59.999999Z"), stated("2027-01-01T00:00:05.000000Z")) == set()


@pytest.mark.parametrize(("at", "found"), [("2026-10-01", {FindingKind.STATED}), ("2026-08-01", set())])
def test_the_verifier_detects_a_break_glass_window_missing_from_the_monthly_statement(
    at: str, found: set[FindingKind]
) -> None:
    findings = Findings()
    checker = StatedAccessChecker(findings)
    opened = {"seq": 2, "action": "break_glass", "to_state": "active", "at": f"{at}T00:00:00.000000Z"}

    for number, one in enumerate((opened, stated())):
        checker.take(one, {"number": number})
    checker.finish()

    assert set(findings.kinds) == found
