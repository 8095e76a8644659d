"""Findings of a verifier: all are counted, some are kept, and each is placed in words."""

import pytest

from lockbox.audit.verifier.export_format import MOST, UNSURE, Finding, FindingKind, Findings


def test_a_finding_of_the_verifier_is_kept_unchanged() -> None:
    findings = Findings()

    findings.add(FindingKind.EDITED, "this", line=3, number=1, event="e")
    findings.add(FindingKind.TRUNCATED, "that")

    assert findings.first == [Finding(FindingKind.EDITED, "this", 3, 1, "e"), Finding(FindingKind.TRUNCATED, "that")]
    assert (findings.count, findings.kinds) == (2, {FindingKind.EDITED, FindingKind.TRUNCATED})


def test_beyond_fifty_findings_the_verifier_keeps_only_numbers_and_kinds() -> None:
    findings = Findings()

    for number in range(MOST):
        findings.add(FindingKind.EDITED, "this", number=number)
    findings.add(FindingKind.FOREIGN, "that")

    assert [one.number for one in findings.first] == list(range(50))
    assert (findings.count, findings.kinds) == (51, {FindingKind.EDITED, FindingKind.FOREIGN})


@pytest.mark.parametrize(
    ("finding", "place"),
    [
        (Finding(FindingKind.EDITED, "this"), ""),
        (Finding(FindingKind.EDITED, "this", 0, 0, ""), "line 0, number 0, event "),
        (Finding(FindingKind.EDITED, "this", event="e", line=2), "line 2, event e"),
        (Finding(FindingKind.EDITED, "this", 3, 1, "e"), "line 3, number 1, event e"),
    ],
)
def test_the_place_of_a_finding_is_described_by_the_parts_that_are_known(finding: Finding, place: str) -> None:
    assert finding.place == place


def test_only_four_kinds_of_verifier_finding_are_inconclusive() -> None:
    assert {kind.value for kind in UNSURE} == {"not proven", "restored", "from the future", "newer known"}
