"""`lockbox audit verify`: reads a file, trusts the keys on its command line, and calls nobody."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from lockbox.audit import exported
from lockbox.audit import verify as verifier
from lockbox.audit.checkpoint import LONGEST_NOTE, BadNote, VerifierKey, saved
from lockbox.audit.exported import Unreadable
from lockbox.audit.findings import Kind
from lockbox.audit.remarks import WORDS, remarks, whole
from lockbox.audit.verify import BAD, CANNOT_TELL, GOOD, NO_EXPORT, Verdict

LONG_FILE = 4 << 20
COLOURS = {GOOD: "bold green", BAD: "bold red", CANNOT_TELL: "bold yellow"}

File = Annotated[Path, typer.Argument(help="the export", show_default=False)]
Seen = Annotated[Path | None, typer.Option("--checkpoint", help="the newest you have that came another way")]
Since = Annotated[list[Path] | None, typer.Option(help="an older checkpoint that it must extend; repeat")]
Keys = Annotated[list[str], typer.Option("--key", help="name+id+base64, or a file of such lines; repeat")]
Withheld = Annotated[bool, typer.Option("--allow-withheld", help="take the file's word for what it withholds")]
BeforeSeals = Annotated[bool, typer.Option("--allow-unproven", help="take its word for what is older than the seals")]

app = typer.Typer()


@app.command()
def verify(
    file: File,
    key: Keys,
    checkpoint: Seen = None,
    since: Since = None,
    withheld: Withheld = False,
    before_seals: BeforeSeals = False,
) -> None:
    """Verify an export offline.

    Trusts the keys that you give and nothing else; approvals are checked by those named lockbox/approvals. Ends with
    0 if all is good, 1 if anything is wrong, and 2 if it cannot tell.
    """
    allowed = {kind for kind, is_so in ((Kind.WITHHELD, withheld), (Kind.BEFORE_SEALS, before_seals)) if is_so}
    paper = Console(highlight=False)
    try:
        keys = [one for text in key for one in _keys(text)]
        seen = [_note(path) for path in (checkpoint, *(since or ())) if path]
        with file.open("rb") as opened:
            lines = _followed(exported.lines_of(opened), file.stat().st_size)
            verdict = verifier.verify(lines, keys, seen, allowed)
    except OSError as error:
        raise _cannot(paper, f"{error.filename} cannot be read: {error.strerror}") from None
    except (Unreadable, BadNote, UnicodeDecodeError) as error:
        raise _cannot(paper, str(error)) from None
    _show(paper, verdict, has_seen=bool(seen))
    raise typer.Exit(verdict.exit_code)


def _keys(text: str) -> Iterator[VerifierKey]:
    """Yield the keys that a text says, or a file of that name has."""
    path = Path(text)
    lines = path.read_text(encoding="utf-8-sig").split() if len(text) < LONGEST_NOTE and path.is_file() else [text]
    for line in lines:
        try:
            yield VerifierKey.read(line)
        except BadNote:
            raise BadNote(f"{text} is no key of the form name+id+base64, and no file of such") from None


def _note(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return saved(file.read(2 * LONGEST_NOTE))


def _followed(lines: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Pass lines on, and show how far it is where that takes a while."""
    columns = (TextColumn("Verifying"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=size < LONG_FILE) as progress:
        task = progress.add_task("", total=size)
        for line in lines:
            progress.advance(task, len(line))
            yield line


def _cannot(paper: Console, why: str) -> typer.Exit:
    paper.print(Text.assemble(("Cannot read it. ", COLOURS[CANNOT_TELL]), _plain(why)), soft_wrap=True)
    return typer.Exit(NO_EXPORT)


def _show(paper: Console, verdict: Verdict, *, has_seen: bool) -> None:
    code = verdict.exit_code
    paper.print(Text.assemble((WORDS[code], COLOURS[code]), _plain(f" {whole(verdict)}")), soft_wrap=True)
    for finding in verdict.findings.first:
        place = f"{finding.place}: " if finding.place else ""
        said = Text.assemble((f"  {finding.kind}: ", COLOURS[code]), _plain(place + finding.message))
        paper.print(said, soft_wrap=True)
    if verdict.findings.count > len(verdict.findings.first):
        paper.print(f"  and {verdict.findings.count - len(verdict.findings.first)} more", soft_wrap=True)
    for line in remarks(verdict, has_seen=has_seen):
        paper.print(Text(_plain(f"  {line}")), soft_wrap=True)


def _plain(said: str) -> str:
    """Return a line without marks that a terminal would obey: what stands in a file is somebody else's."""
    return "".join(mark if mark.isprintable() else "?" for mark in said)
