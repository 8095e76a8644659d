"""The results of both verifiers on one file; the results must agree."""

import io
import json
from collections.abc import Sequence

from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier import approver_keys, export_format
from lockbox.audit.verifier.signed_approvals import NO_APPROVERS, Approvers
from lockbox.audit.verifier.verify import GOOD, VerificationResult, verify
from tests import second_break_glass, second_passkeys, second_pre_approvals, second_statements, second_verifier
from tests.logs import public

WRONG = (second_verifier.VerificationFailed, KeyError, ValueError, TypeError)


def verified(
    export: bytes,
    *seen: str,
    keys: Sequence[VerifierKey] = (),
    approvers: Approvers = NO_APPROVERS,
    last: str | None = None,
) -> VerificationResult:
    """Return the result; fail unless the second verifier agrees on whether anything is wrong."""
    trusted = [public(), *keys]
    result = verify(export_format.lines_of(io.BytesIO(export)), trusted, seen, last=last, approvers=approvers)
    try:
        second_verifier.check(export, [key.text for key in trusted], (*seen, *([last] if last else [])))
        _, *lines = (json.loads(line) for line in export.splitlines())
        second_break_glass.check(lines)
        second_statements.check(lines, whole=json.loads(export.splitlines()[0])["whole"])
        if json.loads(export.splitlines()[0])["whole"] and not any("removed" in line for line in lines):
            second_pre_approvals.check(lines)
        files = [approver_keys.document(file) for file in approvers.files]
        whole, is_required = json.loads(export.splitlines()[0])["whole"], approvers.is_required
        second_passkeys.check(lines, files, whole=whole, is_required=is_required)
    except WRONG:
        agrees = result.exit_code != GOOD
    else:
        agrees = result.exit_code == GOOD
    assert agrees, result.findings
    return result


def told(result: VerificationResult) -> list[str]:
    """Return the findings of a result, one line each, as they are printed."""
    return [": ".join(filter(None, (one.kind, one.place, one.message))) for one in result.findings.first]
