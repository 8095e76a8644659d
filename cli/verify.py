"""`lockbox audit verify`: reads a file, trusts keys that do not come from it, and uses no network."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from cli import verify_memory
from cli.verify_memory import UnreadableMemory, VerifiedCheckpoint
from lockbox.audit.log import checkpoint as notes
from lockbox.audit.log.checkpoint import LONGEST_NOTE, BadNote, VerifierKey
from lockbox.audit.verifier import approver_keys as key_files
from lockbox.audit.verifier import consistency, export_format
from lockbox.audit.verifier import verify as verifier
from lockbox.audit.verifier.approval_checks import NAME
from lockbox.audit.verifier.approver_keys import BadKeys
from lockbox.audit.verifier.consistency import SavedCheckpoint
from lockbox.audit.verifier.export_format import ExportHeader, FindingKind, Unreadable
from lockbox.audit.verifier.signed_approvals import Approvers
from lockbox.audit.verifier.verify import BAD, CANNOT_TELL, GOOD, NO_EXPORT, VerificationResult, remarks, whole, word

LONG_FILE = 4 << 20
COLOURS = {GOOD: "bold green", BAD: "bold red", CANNOT_TELL: "bold yellow"}
MEMORY = Path("~/.local/state/lockbox/verified")
NO_KEY = (
    "no key is known for this log: give the vendor's keys by --key, or the mail of a digest by --checkpoint, or set "
    "LOCKBOX_AUDIT_PUBLIC_KEYS; keys come in digests (the fingerprint of the log's in the first admin's invitation), "
    "never from the export itself"
)

File = Annotated[Path, typer.Argument(help="the export", show_default=False)]
Seen = Annotated[
    list[Path] | None, typer.Option("--checkpoint", help="a checkpoint of yours, or the mail it came in; repeat")
]
Keys = Annotated[
    list[str] | None,
    typer.Option("--key", help="name+id+base64, or a file of such lines; repeat", envvar="LOCKBOX_AUDIT_PUBLIC_KEYS"),
]
Required = Annotated[bool, typer.Option("--require-checkpoint", help="end with 2 if not compared with one of yours")]
Memory = Annotated[
    Path,
    typer.Option(help="where the last verified checkpoints are", envvar="LOCKBOX_VERIFIED_FOLDER", show_default=True),
]
ApproverFiles = Annotated[
    list[Path] | None, typer.Option(help="your approvers' public keys, a file that your admin exported; repeat")
]
Restore = Annotated[
    int | None,
    typer.Option("--accept-restore", help="the number of the event of a restore that you accept", show_default=False),
]
RequireSigned = Annotated[bool, typer.Option("--require-signed", help="take no approval that no passkey has signed")]

app = typer.Typer()


@dataclass(frozen=True)
class TrustAnchors:
    """`seen` are the reader's own checkpoints; `last` is the last verified checkpoint."""

    keys: tuple[VerifierKey, ...]
    seen: tuple[str, ...]
    last: VerifiedCheckpoint | None


@app.command()
def verify(
    file: File,
    key: Keys = None,
    checkpoint: Seen = None,
    require_checkpoint: Required = False,
    memory: Memory = MEMORY,
    approver_keys: ApproverFiles = None,
    require_signed: RequireSigned = False,
    accept_restore: Restore = None,
) -> None:
    """Verify an export offline.

    Trusts the keys that you give, the keys in a mail that you give, and the keys that verified the same log before.
    Approvals are checked with keys named lockbox/approvals. The checkpoint is remembered, and the next export has to
    continue it. If a back-up was restored, the command says which events the log lost, and how to accept that. Ends
    with 0 if the export is intact, 1 if it was tampered with, 2 if that cannot be verified, and 3 if the file is not
    an export.
    """
    paper, folder = Console(highlight=False), memory.expanduser()
    try:
        given = [consistency.read(_start(path)) for path in checkpoint or ()]
        keys = [one for text in key or () for one in _keys(text)]
        files = tuple(key_files.read(_start(path)) for path in approver_keys or ())
        with file.open("rb") as opened:
            by = Approvers(files, require_signed)
            size, accepted = file.stat().st_size, None
            result, trusted = _verified(opened, size, folder, keys, given, approvers=by)
            if accept_restore is not None and _restore(result, trusted.last) == accept_restore:
                accepted = trusted.last
                opened.seek(0)
                result, trusted = _verified(opened, size, folder, keys, given, approvers=by, compares_last=False)
    except OSError as error:
        raise _cannot(paper, f"{error.filename} cannot be read: {error.strerror}") from None
    except (Unreadable, BadNote, BadKeys, UnreadableMemory, UnicodeDecodeError) as error:
        raise _cannot(paper, str(error)) from None
    code = result.exit_code
    if require_checkpoint and code == GOOD and not result.continues:
        code = CANNOT_TELL
    _show(paper, result, COLOURS[code])
    if accepted:
        lost = notes.read(accepted.note).size
        said = f"  restore accepted (event number {accept_restore}): your checkpoint of {lost} events is not compared"
        paper.print(said, soft_wrap=True)
    elif (restore := _restore(result, trusted.last)) is not None:
        paper.print(f"  once you have asked, and accept that: --accept-restore {restore}", soft_wrap=True)
    if code == GOOD:
        _remember(folder, result, trusted)
    raise typer.Exit(code)


def _verified(
    opened: BinaryIO,
    size: int,
    folder: Path,
    keys: Sequence[VerifierKey],
    given: Sequence[SavedCheckpoint],
    *,
    approvers: Approvers,
    compares_last: bool = True,
) -> tuple[VerificationResult, TrustAnchors]:
    first = opened.readline(export_format.LONGEST_LINE)
    header = export_format.read(first)
    if not isinstance(header, ExportHeader):
        raise Unreadable("this is no export: it does not begin with the line of one")
    last = verify_memory.read(folder, notes.named(header.origin)[0])
    known = tuple(_known(keys, [key for mail in given for key in mail.keys], last.keys if last else ()))
    if not any(one.name != NAME for one in known):
        raise BadNote(NO_KEY)
    trusted = TrustAnchors(known, tuple(mail.note for mail in given), last)
    lines = _followed(chain([first], export_format.lines_of(opened)), size)
    now = datetime.fromtimestamp(time.time(), UTC)
    before = last.note if last and compares_last else None
    result = verifier.verify(lines, known, trusted.seen, last=before, now=now, approvers=approvers)
    return result, trusted


def _restore(result: VerificationResult, last: VerifiedCheckpoint | None) -> int | None:
    """Return the number of the restore event, if only that restore separates this export from the last verified one.

    A log that began again without a restore event was forked.
    """
    numbers = {one.number for one in result.findings.first}
    if last is None or result.findings.kinds != {FindingKind.RESTORED} or len(numbers) != 1:
        return None
    is_from_before = notes.named(notes.read(last.note).origin)[1] < result.header.generation
    return numbers.pop() if is_from_before else None


def _known(*from_best: Iterable[VerifierKey]) -> Iterator[VerifierKey]:
    groups = [list(group) for group in from_best]
    for is_of_approvals in (False, True):
        chosen = ([one for one in group if (one.name == NAME) is is_of_approvals] for group in groups)
        yield from next((keys for keys in chosen if keys), [])


def _keys(text: str) -> Iterator[VerifierKey]:
    """Yield the keys in a text, or in the file that the text names; JSON lists and lines are both read."""
    path = Path(text)
    is_file = len(text) < LONGEST_NOTE and path.is_file()
    words = path.read_text(encoding="utf-8-sig").split() if is_file else [text]
    for one in filter(None, (part.strip('[]",') for part in words)):
        try:
            yield VerifierKey.read(one)
        except BadNote:
            raise BadNote(f"{text} is no key of the form name+id+base64, and no file of such") from None


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(consistency.LARGEST)


def _remember(folder: Path, result: VerificationResult, trusted: TrustAnchors) -> None:
    of_approvals = [key for key in trusted.keys if key.name == NAME]
    signer = [result.signer] if result.signer else []
    log = notes.named(result.header.origin)[0]
    try:
        verify_memory.keep(folder, log, result.header.checkpoint, [*signer, *of_approvals])
    except OSError as error:
        Console(stderr=True).print(f"The checkpoint could not be remembered: {error.strerror}", soft_wrap=True)


def _followed(lines: Iterable[bytes], size: int) -> Iterator[bytes]:
    columns = (TextColumn("Verifying"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=size < LONG_FILE) as progress:
        task = progress.add_task("", total=size)
        for line in lines:
            progress.advance(task, len(line))
            yield line


def _cannot(paper: Console, why: str) -> typer.Exit:
    paper.print(Text.assemble(("Cannot read it. ", COLOURS[CANNOT_TELL]), _plain(why)), soft_wrap=True)
    return typer.Exit(NO_EXPORT)


def _show(paper: Console, result: VerificationResult, colour: str) -> None:
    paper.print(Text.assemble((word(result), colour), _plain(f" {whole(result)}")), soft_wrap=True)
    for finding in result.findings.first:
        place = f"{finding.place}: " if finding.place else ""
        said = Text.assemble((f"  {finding.kind}: ", colour), _plain(place + finding.message))
        paper.print(said, soft_wrap=True)
    if result.findings.count > len(result.findings.first):
        paper.print(f"  and {result.findings.count - len(result.findings.first)} more", soft_wrap=True)
    for line in remarks(result):
        paper.print(Text(_plain(f"  {line}")), soft_wrap=True)


def _plain(said: str) -> str:
    """Remove control characters: the text of a file is untrusted."""
    return "".join(mark if mark.isprintable() else "?" for mark in said)
