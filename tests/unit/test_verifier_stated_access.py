"""The verifier of exports: what a log states of access without approval, once a month and with each break-glass."""

from typing import Any

import pytest

from lockbox.audit.verifier.export_format import FindingKind, Findings
from lockbox.audit.verifier.stated_access_checks import StatedAccessChecker
from tests.logs import Log, event
from tests.verification_results import verified

SINCE, AT = "2026-09-02T00:00:00.000000Z", "2026-12-01T00:00:05.000000Z"


def stated(at: str = AT, **changes: Any) -> dict[str, Any]:
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
    """Return what is found; the second verifier agrees on whether anything is."""
    return set(verified(Log([event(number, {}, **one) for number, one in enumerate(told)]).whole()).findings.kinds)


def test_a_statement_each_month_is_good() -> None:
    assert kinds(stated(), stated("2027-01-01T00:00:05.000000Z")) == set()


def test_a_month_that_is_stated_twice_is_found() -> None:
    assert kinds(stated(), stated("2026-12-02T00:00:05.000000Z")) == {FindingKind.STATED}


@pytest.mark.parametrize(
    "changes", [{"month": "2026-11"}, {"month": 12}, {"since": "x"}, {"opened": {}}, {"opened": {"break_glass": "1"}}]
)
def test_a_statement_of_no_month_or_without_its_numbers_is_found(changes: dict[str, Any]) -> None:
    assert kinds(stated(**changes)) == {FindingKind.MALFORMED}


def test_a_moment_that_no_calendar_has_is_named_and_ends_no_verification() -> None:
    nowhen = "2026-13-01T00:00:05.000000Z"
    broken = {"action": "break_glass", "to_state": "active", "at": nowhen, "seq": 1}

    assert kinds(stated(since=nowhen)) == {FindingKind.MALFORMED}
    assert kinds(stated(nowhen)) >= {FindingKind.MALFORMED}
    assert kinds(broken)
    assert kinds(stated(since="9999-12-31T23:59:59.999999Z"), stated("2027-01-01T00:00:05.000000Z")) == set()


@pytest.mark.parametrize(("at", "found"), [("2026-10-01", {FindingKind.STATED}), ("2026-08-01", set())])
def test_a_window_by_break_glass_that_is_not_counted_is_found(at: str, found: set[FindingKind]) -> None:
    findings = Findings()
    checker = StatedAccessChecker(findings)
    opened = {"seq": 2, "action": "break_glass", "to_state": "active", "at": f"{at}T00:00:00.000000Z"}

    for number, one in enumerate((opened, stated())):
        checker.take(one, {"number": number})
    checker.finish()

    assert set(findings.kinds) == found
