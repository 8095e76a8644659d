"""What is to be said of a verdict beside what is wrong, one wording for terminals and pages; pure."""

from collections.abc import Iterator

from lockbox.audit.verify import BAD, CANNOT_TELL, GOOD, Verdict

WORDS = {GOOD: "Good.", BAD: "NOT AS IT WAS SEALED.", CANNOT_TELL: "Not shown."}


def whole(verdict: Verdict) -> str:
    """Return what the file is."""
    kind = "whole" if verdict.header.whole else "filtered"
    return f"{verdict.events} events, a {kind} export of {verdict.header.origin} at size {verdict.header.size}"


def remarks(verdict: Verdict, *, has_seen: bool) -> Iterator[str]:
    """Yield what was shown and what was not, a line each; `has_seen` is whether an own checkpoint was given."""
    if verdict.signer:
        yield f"signed by {verdict.signer.name}+{verdict.signer.id.hex()} at {verdict.at}"
        yield f"the fingerprint of that key: {verdict.signer.fingerprint}; compare it with what came another way"
        yield from _of_name(verdict.header.origin, verdict.signer.name)
    for size in sorted(set(verdict.seen)):
        yield f"it extends the checkpoint that you gave, of {size} events"
    if not has_seen:
        yield "no --checkpoint was given: whether the log was cut back or told another way is not shown"
    if not verdict.header.whole:
        yield "it was filtered: each event is proven, that no other belongs to it is not"
    if verdict.withheld:
        yield f"the file says that {verdict.withheld} events are withheld"
    for start, end in verdict.removed:
        yield f"the events {start} to {end - 1} were removed by retention"
    if verdict.left_out:
        yield f"{verdict.left_out} personal details were erased or are not for whoever exported it"
    if verdict.header.unproven:
        yield f"the file says that its first {verdict.header.unproven} events are older than the seals"
    yield from _of_approvals(verdict)


def _of_name(origin: str, name: str) -> Iterator[str]:
    if not origin.startswith(f"{name}/audit/"):
        yield f"the log is of another name than the key: give no --key but those of whoever keeps {origin}"


def _of_approvals(verdict: Verdict) -> Iterator[str]:
    if verdict.approvals:
        yield f"{verdict.approvals} approvals are signed by the vendor's key of approvals"
    if verdict.approvals_by_hash:
        yield f"{verdict.approvals_by_hash} of these by their hash alone: the file does not show what was asked for"
