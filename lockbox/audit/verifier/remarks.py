"""What a verdict says, in one wording for terminals and pages; pure."""

from collections.abc import Iterator

from lockbox.audit.verifier.verify import BAD, CANNOT_TELL, Verdict


def word(verdict: Verdict) -> str:
    """Return the verdict in a sentence."""
    if verdict.exit_code == BAD:
        return "Tampered."
    if verdict.exit_code == CANNOT_TELL:
        return "Not fully verified."
    if verdict.continues:
        return f"Intact, continues your checkpoint of {day(verdict.continues.at)}."
    return "Intact as signed by the vendor; not compared with a checkpoint of yours."


def day(at: str) -> str:
    """Return a moment of a checkpoint to the minute."""
    return f"{at[:10]} {at[11:16]} UTC"


def whole(verdict: Verdict) -> str:
    """Return what the file is."""
    kind = "whole" if verdict.header.whole else "filtered"
    events = counted(verdict.events, "event")
    return f"{events}, a {kind} export of {verdict.header.origin} at size {verdict.header.size}"


def counted(number: int, thing: str) -> str:
    """Return how many there are of something, in the singular for one."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def remarks(verdict: Verdict) -> Iterator[str]:
    """Yield what was shown and what was not, a line each."""
    if verdict.signer:
        yield f"signed by {verdict.signer.name}+{verdict.signer.id.hex()} at {verdict.at}"
        yield f"the fingerprint of that key: {verdict.signer.fingerprint}; compare it with what came another way"
        yield from _of_name(verdict.header.origin, verdict.signer.name)
    for size, at in sorted({(one.size, one.at) for one in verdict.extended}):
        yield f"it extends your checkpoint of {counted(size, 'event')}, signed at {day(at)}"
    if not verdict.extended:
        yield "not compared with a checkpoint of yours: whoever holds the vendor's key can have told it another way"
    if not verdict.header.whole:
        yield "it was filtered: each event is proven, that no other belongs to it is not"
    for start, end in verdict.removed:
        yield f"the events {start} to {end - 1} were removed by retention"
    if verdict.left_out:
        details = counted(verdict.left_out, "personal detail")
        yield f"not in the file: {details}, erased or not visible to the person who exported it"
    yield from _of_approvals(verdict)
    yield from _of_passkeys(verdict)


def _of_name(origin: str, name: str) -> Iterator[str]:
    if not origin.startswith(f"{name}/audit/"):
        yield f"the log is of another name than the key: give no --key but those of whoever keeps {origin}"


def _of_passkeys(verdict: Verdict) -> Iterator[str]:
    if verdict.signed_approvals:
        yield f"signed by a passkey of your approvers: {counted(verdict.signed_approvals, 'approval')}"
    if verdict.hidden_signatures:
        yield f"{verdict.hidden_signatures} of these over resources that the file does not show: not compared"
    if verdict.unchecked_signatures:
        approvals = counted(verdict.unchecked_signatures, "approval")
        yield f"signed by a passkey, not checked without the file of your approvers' keys: {approvals}"
    if verdict.attested:
        people = ", ".join(f"{name} ({count})" for name, count in sorted(verdict.attested.items()))
        total = sum(verdict.attested.values())
        yield f"attested by the vendor's server alone: {counted(total, 'approval')}, of {people}"
    if verdict.opened_alone:
        yield f"opened by the vendor without asking you: {counted(verdict.opened_alone, 'window')}"


def _of_approvals(verdict: Verdict) -> Iterator[str]:
    if verdict.approvals:
        yield f"signed by the vendor's key of approvals: {counted(verdict.approvals, 'approval')}"
    if verdict.approvals_by_hash:
        yield f"{verdict.approvals_by_hash} of these by their hash alone: the file does not show what was asked for"
