"""The finding of a check, and the fix."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class FindingLevel(StrEnum):
    """A failure keeps a process from starting or from working, or endangers its data."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class DoctorFinding:
    """All levels except `ok` have a `fix`."""

    check: str
    level: FindingLevel
    says: str
    fix: str = ""


def well(check: str, says: str) -> DoctorFinding:
    return DoctorFinding(check, FindingLevel.OK, says)


def warning(check: str, says: str, fix: str) -> DoctorFinding:
    return DoctorFinding(check, FindingLevel.WARNING, says, fix)


def failure(check: str, says: str, fix: str) -> DoctorFinding:
    return DoctorFinding(check, FindingLevel.FAILURE, says, fix)


def worst(findings: Iterable[DoctorFinding]) -> FindingLevel:
    return max((finding.level for finding in findings), key=list(FindingLevel).index, default=FindingLevel.OK)
