"""What a check has found, and what mends it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class FindingLevel(StrEnum):
    """How bad it is: a failure keeps a process from starting or from doing its work, or endangers its data."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class DoctorFinding:
    """One line of the table; every one but `ok` has a `fix`."""

    check: str
    level: FindingLevel
    says: str
    fix: str = ""


def well(check: str, says: str) -> DoctorFinding:
    """Return that all is as it must be."""
    return DoctorFinding(check, FindingLevel.OK, says)


def warning(check: str, says: str, fix: str) -> DoctorFinding:
    """Return that something may do harm."""
    return DoctorFinding(check, FindingLevel.WARNING, says, fix)


def failure(check: str, says: str, fix: str) -> DoctorFinding:
    """Return that something has to be mended."""
    return DoctorFinding(check, FindingLevel.FAILURE, says, fix)


def worst(findings: Iterable[DoctorFinding]) -> FindingLevel:
    """Return the worst level of all."""
    return max((finding.level for finding in findings), key=list(FindingLevel).index, default=FindingLevel.OK)
