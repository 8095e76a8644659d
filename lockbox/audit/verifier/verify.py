"""Verification of one export with only the keys that the caller passes; pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lockbox.audit.log import checkpoint
from lockbox.audit.log.checkpoint import BadNote, Checkpoint, UnknownKey, VerifierKey, WrongSignature
from lockbox.audit.log.merkle import BadProof, check_inclusion, leaf_hash
from lockbox.audit.verifier import export_format
from lockbox.audit.verifier.approval_checks import NAME
from lockbox.audit.verifier.consistency import ConsistencyChecker
from lockbox.audit.verifier.event_checks import EventChecker
from lockbox.audit.verifier.export_format import (
    EndLine,
    EventLine,
    ExportHeader,
    FindingKind,
    Findings,
    GapLine,
    TileLine,
    Unreadable,
)
from lockbox.audit.verifier.inclusion import InclusionChecker
from lockbox.audit.verifier.signed_approvals import NO_APPROVERS, Approvers

GOOD, BAD, CANNOT_TELL, NO_EXPORT = 0, 1, 2, 3
VENDORS = "vendor"
CLOCKS_DIFFER = timedelta(minutes=5)
VENDORS_ID = "00000000-0000-0000-0000-000000000000"
Numbered = Iterator[tuple[int, bytes]]


@dataclass
class VerificationResult:
    """The findings, and counts of what was checked.

    - `extended`: the given checkpoints that the log extends.
    - `said`: the number of events according to the last line.
    - `details`: personal values shown; `left_out`: values erased, or hidden from this reader.
    - `approvals`: signed with a trusted approval key; `approvals_by_hash`: of these, approvals whose content the file
      does not show.
    - `signed_approvals`: signed by the approver's own passkey, under a key of the customer; `hidden_signatures`: of
      these, signatures over resources that the file does not show; `unchecked_signatures`: signatures for which no
      key file was given.
    - `attested`: approvals that only the vendor's server attests, by approver.
    - `opened_alone`: windows opened without asking the customer; `by_break_glass`: windows opened in an emergency.
    - `stopped_at`: the line at which reading stopped after enough findings.
    """

    header: ExportHeader
    at: str = ""
    signer: VerifierKey | None = None
    extended: list[Checkpoint] = field(default_factory=list)
    events: int = 0
    said: int | None = None
    details: int = 0
    left_out: int = 0
    approvals: int = 0
    approvals_by_hash: int = 0
    unchecked_approvals: int = 0
    signed_approvals: int = 0
    hidden_signatures: int = 0
    unchecked_signatures: int = 0
    attested: Mapping[str, int] = field(default_factory=dict)
    opened_alone: int = 0
    by_break_glass: int = 0
    removed: list[tuple[int, int]] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    stopped_at: int | None = None

    @property
    def exit_code(self) -> int:
        """0 without findings, 2 if all findings only say that something is unproven, otherwise 1."""
        return BAD if self.findings.is_contradicted else CANNOT_TELL if self.findings.count else GOOD

    @property
    def seen(self) -> list[int]:
        return [one.size for one in self.extended]

    @property
    def continues(self) -> Checkpoint | None:
        return max(self.extended, key=lambda one: (checkpoint.named(one.origin)[1], one.size), default=None)


def verify(
    lines: Iterable[bytes],
    keys: Collection[VerifierKey],
    seen: Sequence[str] = (),
    *,
    last: str | None = None,
    now: datetime | None = None,
    most: int | None = None,
    approvers: Approvers = NO_APPROVERS,
) -> VerificationResult:
    """Verify an export; memory grows by at most an id for each of its events.

    Args:
        lines: the lines of the file, each with its line break.
        keys: the trusted keys of logs and, recognised by their name, of approvals.
        seen: signed checkpoints of the log from another source, such as a mail.
        last: the checkpoint of the last verified export, from a place that the caller trusts.
        now: the latest valid time; None checks no times.
        approvers: the customer's own keys.
        most: how many findings are enough to stop, if one of them is a contradiction; None reads all lines.
    """
    following = iter(lines)
    header = export_format.read(next(following, b""))
    if not isinstance(header, ExportHeader):
        raise Unreadable("the file is no export: its first line does not say what it is")
    result = VerificationResult(header)
    numbered = _until_enough(enumerate(following, 2), result, most)
    trusted = {key.id: key for key in keys if key.name != NAME}
    own = _own(header.checkpoint)
    holding = ConsistencyChecker(header, own, result.findings)
    for note in seen:
        if before := _signed(result, note, trusted, "a checkpoint that you gave"):
            holding.take(before)
    _check_signature(result, own, trusted)
    if last:
        holding.take_last(_own(last))
    of_approvals = [key for key in keys if key.name == NAME]
    bodies = EventChecker(
        _tenant_of(header),
        _tenant_of(header) or VENDORS_ID,
        header.whole,
        result.findings,
        of_approvals,
        approvers=approvers,
    )
    roots: Mapping[int, bytes] = {}
    if header.whole:
        roots = _whole(result, numbered, bodies, own, holding.sizes)
    else:
        _filtered(result, numbered, bodies, own)
    holding.finish(roots, bodies.restores)
    bodies.finish()
    _check_generation(result, bodies)
    if now:
        _check_times(result, [own, *holding.extended], now)
    _conclude(result, bodies, holding)
    return result


def _check_generation(result: VerificationResult, bodies: EventChecker) -> None:
    header = result.header
    is_later = header.generation > 1 and not result.findings.is_contradicted
    if header.whole and is_later and not bodies.restores and not result.removed:
        message = f"the log began anew, as {header.origin}, but no event of it records a restored back-up"
        result.findings.add(FindingKind.FORKED, message)


def _check_times(result: VerificationResult, signed: Iterable[Checkpoint], now: datetime) -> None:
    for one in signed:
        try:
            at = datetime.fromisoformat(one.at)
            is_later = at > now + CLOCKS_DIFFER
        except (TypeError, ValueError):
            message = f"the checkpoint of {one.size} events does not say in the right form when it was signed"
            result.findings.add(FindingKind.FUTURE, message)
        else:
            if is_later:
                message = (
                    f"the checkpoint of {one.size} events was signed at {one.at}, later than now: check the clocks"
                )
                result.findings.add(FindingKind.FUTURE, message)


def _conclude(result: VerificationResult, bodies: EventChecker, holding: ConsistencyChecker) -> None:
    findings = result.findings
    if result.said is not None and result.said != result.events and not findings.is_contradicted:
        kind = FindingKind.REMOVED if result.said > result.events else FindingKind.INSERTED
        findings.add(kind, f"there are {result.events} events, and the last line says {result.said}")
    result.extended = holding.extended
    result.details, result.left_out = bodies.details, bodies.left_out
    approved = bodies.approved
    if approved.unchecked:
        message = f"not checked without the key of approvals, {NAME}+…: {approved.unchecked} of the approvals"
        findings.add(FindingKind.UNPROVEN, message)
    result.approvals, result.approvals_by_hash = approved.checked, approved.by_hash
    result.unchecked_approvals = approved.unchecked
    result.signed_approvals, result.unchecked_signatures = bodies.signed.signed, bodies.signed.unchecked
    result.hidden_signatures = bodies.signed.hidden
    result.by_break_glass = bodies.signed.by_break_glass
    result.attested, result.opened_alone = bodies.signed.attested, bodies.signed.alone


def _signed(
    result: VerificationResult, note: str, keys: Mapping[bytes, VerifierKey], whose: str
) -> Checkpoint | None:
    try:
        said, result.signer = checkpoint.verify(note, keys)
    except UnknownKey as error:
        result.findings.add(FindingKind.UNKNOWN_KEY, f"{whose} is {error}")
    except WrongSignature as error:
        result.findings.add(FindingKind.WRONG_SIGNATURE, f"{whose}: {error}")
    except BadNote as error:
        raise Unreadable(f"{whose}: {error}") from None
    else:
        return said
    return None


def _check_signature(result: VerificationResult, own: Checkpoint, keys: Mapping[bytes, VerifierKey]) -> None:
    header = result.header
    _signed(result, header.checkpoint, keys, "the export's checkpoint")
    if (own.origin, own.size) != (header.origin, header.size) or not _names_its_log(header):
        message = "the first line and its checkpoint name different logs or sizes"
        result.findings.add(FindingKind.EDITED, message, line=1)
    result.at = own.at


def _log_of(origin: str) -> str:
    """An origin is `name/audit/LOG`, with `/N` from generation 2 on."""
    return checkpoint.named(origin)[0].rpartition("/audit/")[2]


def _names_its_log(header: ExportHeader) -> bool:
    base, generation = checkpoint.named(header.origin)
    log = _log_of(header.origin)
    is_it = header.log == (VENDORS_ID if log == VENDORS else log) and base.endswith(f"/audit/{log}")
    origin = f"{base}/{generation}" if generation > 1 else base
    return is_it and (header.origin, header.generation) == (origin, generation)


def _tenant_of(header: ExportHeader) -> str | None:
    named = _log_of(header.origin)
    return None if named == VENDORS else named


def _own(note: str) -> Checkpoint:
    try:
        return checkpoint.read(note)
    except BadNote:
        raise Unreadable("what the export has for a checkpoint is none") from None


def _until_enough(numbered: Numbered, result: VerificationResult, most: int | None) -> Numbered:
    for line, raw in numbered:
        findings = result.findings
        if most is not None and findings.count >= most and findings.is_contradicted:
            result.stopped_at = line
            return
        yield line, raw


def _read(result: VerificationResult, numbered: Numbered) -> Iterator[tuple[int, TileLine | EventLine | GapLine]]:
    end = None
    for line, raw in numbered:
        if end:
            result.findings.add(FindingKind.INSERTED, "nothing comes behind the last line of an export", line=line)
            continue
        try:
            said = export_format.read(raw)
        except Unreadable as error:
            if raw.endswith(b"\n") or len(raw) == export_format.LONGEST_LINE:
                result.findings.add(FindingKind.DAMAGED, str(error), line=line)
            continue
        match said:
            case ExportHeader():
                result.findings.add(FindingKind.INSERTED, "this is a first line, and not the first", line=line)
            case EndLine():
                end = said
            case _:
                result.events += isinstance(said, EventLine)
                yield line, said
    if end is None and result.stopped_at is None:
        result.findings.add(FindingKind.TRUNCATED, "the last line is missing: the file has been cut off")
    result.said = end.events if end else None


def _whole(
    result: VerificationResult, numbered: Numbered, bodies: EventChecker, own: Checkpoint, sizes: Iterable[int]
) -> Mapping[int, bytes]:
    placing = InclusionChecker(own.size, own.root, bodies, result.findings, sizes)
    for line, said in _read(result, numbered):
        match said:
            case TileLine():
                placing.tile(line, said)
            case GapLine():
                placing.gap(line, said)
            case EventLine(proof=None):
                placing.event(line, said)
            case EventLine():
                result.findings.add(
                    FindingKind.DAMAGED, "an event of a whole export has no proof of its own", line=line
                )
    placing.finish(is_cut=FindingKind.TRUNCATED in result.findings.kinds)
    result.removed = placing.removed
    return placing.roots


def _filtered(result: VerificationResult, numbered: Numbered, bodies: EventChecker, own: Checkpoint) -> None:
    last = -1
    for line, said in _read(result, numbered):
        if not isinstance(said, EventLine) or said.proof is None:
            result.findings.add(FindingKind.DAMAGED, "this is no event with its proof", line=line)
            continue
        if said.number <= last:
            kind = FindingKind.INSERTED if said.number == last else FindingKind.REORDERED
            message = f"the event {said.number} comes behind the event {last}"
            result.findings.add(kind, message, line=line, number=said.number)
        is_next, last = said.number > last, max(last, said.number)
        try:
            check_inclusion(leaf_hash(said.body), said.number, own.size, said.proof, own.root)
        except BadProof:
            message = "this event is not in the log as it was signed, not in this place and form"
            result.findings.add(FindingKind.EDITED, message, line=line, number=said.number)
        else:
            if is_next:
                bodies.check(line, said)


def word(result: VerificationResult) -> str:
    if result.exit_code == BAD:
        return "Tampered."
    if result.exit_code == CANNOT_TELL:
        return "Not fully verified."
    if result.continues:
        return f"Intact, continues your checkpoint of {day(result.continues.at)}."
    return "Intact as signed by the vendor; not compared with a checkpoint of yours."


def day(at: str) -> str:
    return f"{at[:10]} {at[11:16]} UTC"


def whole(result: VerificationResult) -> str:
    kind = "whole" if result.header.whole else "filtered"
    events = counted(result.events, "event")
    return f"{events}, a {kind} export of {result.header.origin} at size {result.header.size}"


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def remarks(result: VerificationResult) -> Iterator[str]:
    if result.signer:
        yield f"signed by {result.signer.name}+{result.signer.id.hex()} at {result.at}"
        yield f"its fingerprint: {result.signer.fingerprint}; compare it over another channel"
        yield from _of_name(result.header.origin, result.signer.name)
    for size, at in sorted({(one.size, one.at) for one in result.extended}):
        yield f"it extends your checkpoint of {counted(size, 'event')}, signed at {day(at)}"
    if not result.extended:
        yield "not compared with a checkpoint of yours: someone with the vendor's key could have signed another log"
    if not result.header.whole:
        yield "it was filtered: each event is proven, but others may match the filter too"
    for start, end in result.removed:
        yield f"the events {start} to {end - 1} were removed by retention"
    if result.left_out:
        details = counted(result.left_out, "personal detail")
        yield f"not in the file: {details}, erased or not visible to the person who exported it"
    yield from _of_approvals(result)
    yield from _of_passkeys(result)


def _of_name(origin: str, name: str) -> Iterator[str]:
    if not origin.startswith(f"{name}/audit/"):
        yield f"the log is of another name than the key: give no --key but those of whoever keeps {origin}"


def _of_passkeys(result: VerificationResult) -> Iterator[str]:
    if result.signed_approvals:
        yield f"signed by a passkey of your approvers: {counted(result.signed_approvals, 'approval')}"
    if result.hidden_signatures:
        yield f"{result.hidden_signatures} of these over resources that the file does not show: not compared"
    if result.unchecked_signatures:
        approvals = counted(result.unchecked_signatures, "approval")
        yield f"signed by a passkey, not checked without the file of your approvers' keys: {approvals}"
    if result.attested:
        people = ", ".join(f"{name} ({count})" for name, count in sorted(result.attested.items()))
        total = sum(result.attested.values())
        yield f"attested by the vendor's server alone: {counted(total, 'approval')}, of {people}"
    if result.by_break_glass:
        yield f"opened by break-glass, without your approval: {counted(result.by_break_glass, 'window')}"
    if result.opened_alone:
        yield f"opened by the vendor without asking you: {counted(result.opened_alone, 'window')}"


def _of_approvals(result: VerificationResult) -> Iterator[str]:
    if result.approvals:
        yield f"signed by the vendor's key of approvals: {counted(result.approvals, 'approval')}"
    if result.approvals_by_hash:
        yield f"{result.approvals_by_hash} of these by their hash alone: the file does not show what was asked for"
