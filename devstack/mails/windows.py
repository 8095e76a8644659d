"""Specimens of closed windows for reports."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from lockbox.audit.report import ERASED, NOBODY, ReportedUse, ReportStep
from lockbox.notifications.window_report import MOST_USES, ClosedWindow

SHUT_AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
OPENED_AT = SHUT_AT - timedelta(minutes=90)
MINUTE = timedelta(minutes=1)
ONE_REPORT = 3


def windows(
    requester: str, approver: str, words: str, resources: Sequence[str], method: str
) -> Iterator[tuple[str, ClosedWindow]]:
    steps = _steps(requester, approver, words)
    yield "report", _used(steps, method, resources)
    yield "report-as-asked", _used(steps, "GET", resources[:1], astray=False)
    yield "report-unused", ClosedWindow(steps=steps, opened_at=OPENED_AT, shut_at=SHUT_AT)
    erased = tuple(
        ReportedUse(use.first_at, use.last_at, "GET", None, "done", 1, as_asked=True, by=ERASED) for use in _uses()
    )
    many = (*_steps(ERASED, ERASED, None), *_steps(ERASED, ERASED, None) * 5)
    yield "report-erased", ClosedWindow(many, OPENED_AT, SHUT_AT, erased, entries=1, times=1)


def _steps(requester: str, approver: str, words: str | None) -> tuple[ReportStep, ...]:
    return (
        ReportStep(OPENED_AT - 40 * MINUTE, "submit", None, "pending", requester, "engineer", (), None, 1204),
        ReportStep(
            OPENED_AT - 9 * MINUTE,
            "approve",
            "pending",
            "pending",
            approver,
            "approver",
            (requester, approver),
            words,
            1207,
        ),
        ReportStep(OPENED_AT, "approve", "pending", "active", approver, "approver", (), words, 1208),
        ReportStep(
            SHUT_AT, "expire", "active", "expired", NOBODY["clock"], "clock", (), None, 1213 if words else None
        ),
    )


def _used(
    steps: tuple[ReportStep, ...], method: str, resources: Sequence[str], *, astray: bool = True
) -> ClosedWindow:
    uses = tuple(_uses(method, resources, astray=astray))
    more = 1337 if len(uses) == MOST_USES else 0
    return ClosedWindow(steps, OPENED_AT, SHUT_AT, uses, len(uses) + more, 48_211, 2 if astray else 0)


def _uses(method: str = "GET", resources: Sequence[str] = ("",), *, astray: bool = False) -> Iterator[ReportedUse]:
    count = MOST_USES if astray else 1
    for number in range(count):
        at = OPENED_AT + number * MINUTE
        resource = resources[number % len(resources)]
        last = at + timedelta(seconds=number % ONE_REPORT)
        yield ReportedUse(
            at, last, method, resource, "done", number + 1, as_asked=not astray or number > 1, by="Gate"
        )
