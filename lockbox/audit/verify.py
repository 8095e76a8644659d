"""The verifier of exports: it reads one file, trusts the keys that it is given and nothing else, and is pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lockbox.audit import checkpoint, exported
from lockbox.audit.bodies import Bodies
from lockbox.audit.checkpoint import BadNote, Checkpoint, UnknownKey, VerifierKey, WrongSignature
from lockbox.audit.exported import End, Entry, Gap, Header, TileLine, Unreadable
from lockbox.audit.findings import Findings, Kind
from lockbox.audit.merkle import BadProof, check_consistency, check_inclusion, leaf_hash
from lockbox.audit.placing import Placing

GOOD, BAD, CANNOT_READ = 0, 1, 2
VENDORS = "vendor"


@dataclass
class Verdict:
    """What a verifier says of a file: what it found, and what it has seen.

    `signer` is the trusted key that has signed, `seen` the sizes of the older checkpoints that the log extends.
    `events` are those in the file, `said` is how many its last line says there are.
    `details` are personal values that were shown, `left_out` those that were erased or not for this reader.
    """

    header: Header
    at: str = ""
    signer: VerifierKey | None = None
    seen: list[int] = field(default_factory=list)
    events: int = 0
    said: int | None = None
    details: int = 0
    left_out: int = 0
    withheld: int = 0
    removed: list[tuple[int, int]] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)

    @property
    def exit_code(self) -> int:
        """0 where nothing was found, 2 where all that was found is that something could not be shown, else 1."""
        kinds = {finding.kind for finding in self.findings.first}
        return GOOD if not kinds else CANNOT_READ if kinds == {Kind.UNPROVEN} else BAD


def verify(lines: Iterable[bytes], keys: Iterable[VerifierKey], seen: Sequence[str] = ()) -> Verdict:
    """Return the verdict on an export; memory does not grow with its length.

    Args:
        lines: of the file, each with its line break.
        keys: those that are trusted.
        seen: signed checkpoints of the log that came another way, such as by mail.

    Raises:
        Unreadable: the file does not begin as an export does, or a checkpoint is none.
    """
    numbered = iter(enumerate(lines, 1))
    _, first = next(numbered, (1, b""))
    header = exported.read(first)
    if not isinstance(header, Header):
        raise Unreadable("an export begins with a line that says what it is")
    verdict = Verdict(header)
    trusted = {key.id: key for key in keys}
    older = _held_against(verdict, trusted, seen)
    bodies = Bodies(_tenant_of(header), header.whole, verdict.findings)
    root = _signed_root(verdict, trusted)
    if header.whole:
        _whole(verdict, numbered, bodies, root, older)
    else:
        _filtered(verdict, numbered, bodies, root, older)
    bodies.finish()
    _count(verdict)
    verdict.details, verdict.left_out = bodies.details, bodies.left_out
    return verdict


def _signed(verdict: Verdict, note: str, keys: Mapping[bytes, VerifierKey], whose: str) -> Checkpoint | None:
    """Return a checkpoint that a trusted key has signed, or None and say why not."""
    try:
        said, verdict.signer = checkpoint.verify(note, keys)
    except UnknownKey as error:
        verdict.findings.add(Kind.UNKNOWN_KEY, f"{whose} is {error}")
    except WrongSignature as error:
        verdict.findings.add(Kind.WRONG_SIGNATURE, f"{whose}: {error}")
    except BadNote as error:
        raise Unreadable(f"{whose}: {error}") from None
    else:
        return said
    return None


def _signed_root(verdict: Verdict, keys: Mapping[bytes, VerifierKey]) -> bytes:
    header = verdict.header
    said = _signed(verdict, header.checkpoint, keys, "the export's checkpoint")
    if said is None:
        said = checkpoint.read(header.checkpoint)
    if (said.origin, said.size) != (header.origin, header.size) or not _names_its_log(header):
        message = "the first line names another log or size than the checkpoint in it"
        verdict.findings.add(Kind.EDITED, message, line=1)
    verdict.at = said.at
    return said.root


def _log_of(origin: str) -> str:
    """Return the log that an origin names: `name/audit/LOG`, and `/N` behind it once it began anew."""
    parts = origin.split("/audit/")
    return parts[-1].split("/")[0]


def _names_its_log(header: Header) -> bool:
    generation = f"/{header.generation}" if header.generation > 1 else ""
    named = _log_of(header.origin)
    is_it = int(header.log.replace("-", ""), 16) == 0 if named == VENDORS else named == header.log
    return is_it and header.origin.endswith(f"/audit/{named}{generation}")


def _tenant_of(header: Header) -> str | None:
    named = _log_of(header.origin)
    return None if named == VENDORS else named


def _held_against(verdict: Verdict, keys: Mapping[bytes, VerifierKey], seen: Sequence[str]) -> dict[int, bytes]:
    """Hold the export against checkpoints that were seen before; return those it must still be shown to extend."""
    header, findings = verdict.header, verdict.findings
    own = _own(header.checkpoint)
    older: dict[int, bytes] = {}
    for note in seen:
        before = _signed(verdict, note, keys, "a checkpoint that you gave")
        if before is None:
            continue
        if before.origin != own.origin:
            findings.add(Kind.ANOTHER_LOG, f"the checkpoint that you gave is of {before.origin}, not {own.origin}")
        elif before.size > own.size:
            message = (
                f"the export ends at {own.size} events; a checkpoint seen before ({before.at}) has {before.size}"
            )
            findings.add(Kind.OLDER, message)
        elif before.size == own.size:
            _same(verdict, before.size, before.root, own.root)
        elif before.size in older:
            _same(verdict, before.size, before.root, older[before.size])
        elif before.size in header.consistency:
            _extends(verdict, before, own)
        else:
            older[before.size] = before.root
    return older


def _own(note: str) -> Checkpoint:
    try:
        return checkpoint.read(note)
    except BadNote:
        raise Unreadable("what the export has for a checkpoint is none") from None


def _same(verdict: Verdict, size: int, seen: bytes, found: bytes) -> None:
    if seen == found:
        verdict.seen.append(size)
    else:
        verdict.findings.add(Kind.FORKED, f"at {size} events the log has another root than was seen before")


def _extends(verdict: Verdict, before: Checkpoint, own: Checkpoint) -> None:
    proof = verdict.header.consistency[before.size]
    try:
        check_consistency(before.size, own.size, before.root, own.root, proof)
    except BadProof:
        message = f"the log does not extend what it was at {before.size} events ({before.at})"
        verdict.findings.add(Kind.FORKED, message)
    else:
        verdict.seen.append(before.size)


Numbered = Iterator[tuple[int, bytes]]


def _read(verdict: Verdict, numbered: Numbered) -> Iterator[tuple[int, TileLine | Entry | Gap]]:
    """Yield what the lines say up to the last one, and say what is wrong with them."""
    end = None
    for line, raw in numbered:
        try:
            said = exported.read(raw)
        except Unreadable as error:
            if raw.endswith(b"\n") or len(raw) == exported.LONGEST_LINE:
                verdict.findings.add(Kind.DAMAGED, str(error), line=line)
            continue
        if end or isinstance(said, Header):
            verdict.findings.add(Kind.INSERTED, "nothing comes behind the last line of an export", line=line)
        elif isinstance(said, End):
            end = said
        else:
            verdict.events += isinstance(said, Entry)
            yield line, said
    if end is None:
        verdict.findings.add(Kind.TRUNCATED, "the last line is missing: the file has been cut off")
    verdict.said = end.events if end else None


def _count(verdict: Verdict) -> None:
    if verdict.said is not None and verdict.said != verdict.events and not verdict.findings.count:
        kind = Kind.REMOVED if verdict.said > verdict.events else Kind.INSERTED
        verdict.findings.add(kind, f"there are {verdict.events} events, and the last line says {verdict.said}")


def _whole(verdict: Verdict, numbered: Numbered, bodies: Bodies, root: bytes, older: Mapping[int, bytes]) -> None:
    size = checkpoint.read(verdict.header.checkpoint).size
    placing = Placing(size, root, bodies, verdict.findings, older)
    for line, said in _read(verdict, numbered):
        match said:
            case TileLine():
                placing.tile(line, said)
            case Entry():
                placing.event(line, said)
            case Gap():
                placing.gap(line, said)
    placing.finish(is_cut=any(one.kind is Kind.TRUNCATED for one in verdict.findings.first))
    verdict.removed, verdict.withheld = placing.removed, placing.withheld
    for before, seen in older.items():
        if before in placing.roots or before == 0:
            _same(verdict, before, seen, placing.roots.get(before, seen))
        else:
            _not_shown(verdict, before)


def _filtered(verdict: Verdict, numbered: Numbered, bodies: Bodies, root: bytes, older: Mapping[int, bytes]) -> None:
    size, last = checkpoint.read(verdict.header.checkpoint).size, -1
    for line, said in _read(verdict, numbered):
        if not isinstance(said, Entry) or said.proof is None:
            verdict.findings.add(Kind.DAMAGED, "this is no event with its proof", line=line)
            continue
        if said.number <= last:
            kind = Kind.INSERTED if said.number == last else Kind.REORDERED
            message = f"the event {said.number} comes behind the event {last}"
            verdict.findings.add(kind, message, line=line, number=said.number)
        last = max(last, said.number)
        try:
            check_inclusion(leaf_hash(said.body), said.number, size, said.proof, root)
        except BadProof:
            message = "this event is not in the log as it was signed, not in this place and form"
            verdict.findings.add(Kind.EDITED, message, line=line, number=said.number)
        else:
            bodies.check(line, said)
    for before in older:
        _not_shown(verdict, before)


def _not_shown(verdict: Verdict, size: int) -> None:
    message = (
        f"nothing here shows that the log extends what it was at {size} events; export it again with since={size}"
    )
    verdict.findings.add(Kind.UNPROVEN, message)
