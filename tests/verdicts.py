"""The verdicts of both verifiers on one file, which have to agree."""

import io
from collections.abc import Sequence

from lockbox.audit import exported
from lockbox.audit.checkpoint import VerifierKey
from lockbox.audit.verify import GOOD, Verdict, verify
from tests import second_verifier
from tests.logs import public

WRONG = (second_verifier.Wrong, KeyError, ValueError, TypeError)


def judged(export: bytes, *seen: str, keys: Sequence[VerifierKey] = ()) -> Verdict:
    """Return the verdict; the second verifier agrees on whether anything is wrong."""
    trusted = [public(), *keys]
    verdict = verify(exported.lines_of(io.BytesIO(export)), trusted, seen)
    try:
        second_verifier.check(export, [key.text for key in trusted], seen)
    except WRONG:
        agrees = verdict.exit_code != GOOD
    else:
        agrees = verdict.exit_code == GOOD
    assert agrees, verdict.findings
    return verdict


def told(verdict: Verdict) -> list[str]:
    """Return what a verdict says is wrong, a line each, as it is printed."""
    return [": ".join(filter(None, (one.kind, one.place, one.message))) for one in verdict.findings.first]
