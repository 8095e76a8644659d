"""Check the monthly statements of access without approval: one for each month, and no break-glass left out; pure."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from lockbox.audit.verifier.export_format import FindingKind, Findings

STATED, BREAK_GLASS = "unapproved_access_stated", "break_glass"
MONTH = re.compile(r"\d{4}-\d{2}", re.ASCII)
INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z", re.ASCII)
BESIDE = timedelta(minutes=1)
"""A window opened this close to either end of the stated period may be missing from its count."""


@dataclass
class StatedAccessChecker:
    findings: Findings
    _months: set[str] = field(default_factory=set)
    _opened: list[datetime] = field(default_factory=list)
    _stated: list[tuple[datetime, datetime, int, Mapping[str, Any]]] = field(default_factory=list)

    def take(self, fields: Mapping[str, Any], where: Mapping[str, Any]) -> None:
        if fields["seq"] is not None:
            if (fields["action"], fields["to_state"]) == (BREAK_GLASS, "active"):
                self._opened.extend(_moments(fields["at"]))
            return
        if fields["action"] != STATED:
            return
        match fields:
            case {"month": str(month), "since": str(since), "opened": {"break_glass": int(count)}} if (
                MONTH.fullmatch(month)
                and fields["at"].startswith(month)
                and INSTANT.fullmatch(since)
                and len(span := _moments(since, fields["at"])) == 2  # noqa: PLR2004 - both
            ):
                self._take(month, (span[0], span[1]), count, where)
            case _:
                message = "the event does not say of which month it is, and what was opened since when"
                self.findings.add(FindingKind.MALFORMED, message, **where)

    def _take(self, month: str, span: tuple[datetime, datetime], count: int, where: Mapping[str, Any]) -> None:
        if month in self._months:
            message = f"what can open without approval is stated twice for {month}"
            self.findings.add(FindingKind.STATED, message, **where)
        self._months.add(month)
        self._stated.append((*span, count, where))

    def finish(self) -> None:
        """Report statements that count fewer break-glass windows than the log shows.

        A statement may count more: retention may have removed events.
        """
        for since, at, count, where in self._stated:
            opened = sum(one - since > BESIDE and at - one > BESIDE for one in self._opened)
            if opened > count:
                message = f"{count} windows are stated as opened by break-glass, and the log opens {opened}"
                self.findings.add(FindingKind.STATED, message, **where)


def _moments(*said: str) -> list[datetime]:
    """Leaves out moments that do not exist in the calendar."""
    found = []
    for one in said:
        with suppress(ValueError):
            found.append(datetime.fromisoformat(one))
    return found
