"""Check an export against saved checkpoints of its log, also across restores; pure."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage

from lockbox.audit.log.checkpoint import DASH, BadNote, Checkpoint, VerifierKey, named, saved
from lockbox.audit.log.merkle import EMPTY_ROOT, BadProof, check_consistency
from lockbox.audit.verifier.event_checks import RestoreRecord
from lockbox.audit.verifier.export_format import ExportHeader, FindingKind, Findings

LARGEST = 1 << 20
NOTE = re.compile(
    r"^(?P<quote>(?:> ?)*)\S+/audit/\S+\n(?P=quote)\d{1,19}\n(?P=quote)[A-Za-z0-9+/]{43}=\n"
    rf"(?:(?P=quote)time \S+\n)?(?:> ?)*[ ]*\n(?:(?P=quote){DASH}\S+ [A-Za-z0-9+/=]+(?:\n|\Z))+",
    re.MULTILINE,
)
KEY = re.compile(r"^(?:> ?)*Key:? (\S+\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44})[ ]*$", re.MULTILINE)
"""A key on a line of its own, after the checkpoint. Names, which other people choose, come before the checkpoint."""


@dataclass(frozen=True)
class SavedCheckpoint:
    """A signed note, and the keys in the same file, for readers who trust that file."""

    note: str
    keys: tuple[VerifierKey, ...]


def read(raw: bytes) -> SavedCheckpoint:
    """Return the first checkpoint in a note, a saved mail, or a mail's text; raises BadNote if there is none."""
    for text in _texts(raw):
        if found := NOTE.search(text):
            quote = found["quote"]
            lines = [line.removeprefix(quote).removeprefix(quote.rstrip()) for line in found[0].split("\n")]
            return SavedCheckpoint(saved("\n".join(lines)), tuple(_keys(text[found.end() :])))
    raise BadNote("there is no checkpoint in it: give the note, or the mail of a digest as it was saved")


def _texts(raw: bytes) -> Iterator[str]:
    yield _lines(raw.decode("utf-8-sig", errors="replace"))
    message = message_from_bytes(raw, policy=policy.default)
    for part in message.walk():
        if isinstance(part, EmailMessage) and part.get_content_type() == "text/plain":
            try:
                yield _lines(str(part.get_content()))
            except (LookupError, ValueError):
                continue


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _keys(text: str) -> Iterator[VerifierKey]:
    for found in KEY.finditer(text):
        try:
            yield VerifierKey.read(found[1])
        except BadNote:
            continue


class ConsistencyChecker:
    """Collect saved checkpoints, and check them once the export is read.

    `extended` are the checkpoints that the log extends.
    """

    def __init__(self, header: ExportHeader, own: Checkpoint, findings: Findings) -> None:
        self.extended: list[Checkpoint] = []
        self._header, self._own, self._findings = header, own, findings
        self._base, self._generation = named(own.origin)
        self._waiting: list[Checkpoint] = []
        self._earlier: list[tuple[int, Checkpoint]] = []
        self._common: dict[str, int] = {}

    @property
    def sizes(self) -> set[int]:
        return {one.size for one in self._waiting} | {one.size for _, one in self._earlier}

    def take_last(self, last: Checkpoint) -> None:
        """Take the last verified checkpoint; report a log that has changed its name."""
        base, _ = named(last.origin)
        if base != self._base:
            message = (
                f"you have verified this log as {base}; here it is called {self._base}, and a log never changes its "
                "name: ask why, before you trust it"
            )
            self._findings.add(FindingKind.UNPROVEN, message)
        else:
            self.take(last)

    def take(self, before: Checkpoint) -> None:
        own, (base, generation) = self._own, named(before.origin)
        if base != self._base:
            message = f"the checkpoint that you gave is of {before.origin}, not {own.origin}"
            self._findings.add(FindingKind.ANOTHER_LOG, message)
        elif generation < self._generation:
            self._earlier.append((generation, before))
        elif (generation, before.size) > (self._generation, own.size):
            self._is_shorter(before)
        else:
            self._waiting.append(before)

    def _is_shorter(self, before: Checkpoint) -> None:
        own = self._own
        message = (
            f"the export ends at {own.size} events ({own.at}); a checkpoint of {before.origin} that was seen before "
            f"({before.at}) has {before.size}"
        )
        if own.at >= before.at:
            self._findings.add(FindingKind.OLDER, f"{message}, and was signed no later: the log was cut back")
        else:
            message += ". That is well for a file that you kept from before; a fresh one is never shorter"
            self._findings.add(FindingKind.NEWER_KNOWN, message)

    def finish(self, roots: Mapping[int, bytes], restores: Iterable[RestoreRecord]) -> None:
        for before in self._waiting:
            self._within(before, roots)
        for generation, before in sorted(self._earlier, key=lambda one: one[1].size):
            if self._extends(before, roots):
                self.extended.append(before)
                self._common[before.origin] = before.size
            elif self._fits(before) is False:
                message = f"of {before.origin} at {before.size} events you gave checkpoints with different roots"
                self._findings.add(FindingKind.FORKED, message)
            elif self._header.whole:
                self._restored(generation, before, roots, list(restores))
            else:
                message = (
                    f"the log began anew, as {self._own.origin}, after a back-up was restored; "
                    f"how it follows on {before.origin} only a whole export shows"
                )
                self._findings.add(FindingKind.UNPROVEN, message)

    def _extends(self, before: Checkpoint, roots: Mapping[int, bytes]) -> bool | None:
        proof = self._header.consistency.get(before.size)
        if before.size > self._own.size:
            return None
        if before.size in {0, self._own.size}:
            return before.root == (self._own.root if before.size else EMPTY_ROOT)
        if proof is None:
            return before.root == roots[before.size] if before.size in roots else self._fits(before)
        try:
            check_consistency(before.size, self._own.size, before.root, self._own.root, proof)
        except BadProof:
            return False
        return True

    def _fits(self, before: Checkpoint) -> bool | None:
        given = [*self._waiting, *(one for _, one in self._earlier)]
        same = [one for one in given if one.size == before.size and one.origin == before.origin]
        return None if all(one.root == before.root for one in same) else False

    def _within(self, before: Checkpoint, roots: Mapping[int, bytes]) -> None:
        extends = self._extends(before, roots)
        if extends:
            self.extended.append(before)
        elif extends is None:
            self._not_shown(before.size)
        else:
            message = f"the log does not extend what it was at {before.size} events ({before.at})"
            self._findings.add(FindingKind.FORKED, message)

    def _restored(
        self, generation: int, before: Checkpoint, roots: Mapping[int, bytes], restores: list[RestoreRecord]
    ) -> None:
        later = [
            restore
            for restore in restores
            if (self._base, generation) <= named(restore.shipped[0]) < (self._base, self._generation)
        ]
        first = min(later, key=lambda one: one.size, default=None)
        shipped = (before.origin, before.size)
        roots_then = {one.shipped[2] for one in later if one.shipped[:2] == shipped}
        if first is None:
            message = f"the log began anew as {self._own.origin}, and no event of it says why it left {before.origin}"
            self._findings.add(FindingKind.FORKED, message)
        elif roots_then - {base64.b64encode(before.root).decode()}:
            message = f"the restore of {first.at} names another root for {before.size} events than you were given"
            self._findings.add(FindingKind.FORKED, message, number=first.number)
        elif before.size > first.size:
            self._given_up(before, first)
        elif before.size in roots or before.size == 0:
            message = f"the log does not extend what it was at {before.size} events, before it was restored"
            self._findings.add(FindingKind.FORKED, message)
        else:
            self._not_shown(before.size)

    def _given_up(self, before: Checkpoint, restore: RestoreRecord) -> None:
        common = self._common.get(before.origin)
        proven = f"that the first {common} are the same is shown" if common else "that they are the same is not shown"
        message = (
            f"a back-up was restored at {restore.at}: the log went on from its first {restore.size} events, and gave "
            f"up what came after them, to which your checkpoint of {before.size} belongs; {proven}. Give your newest "
            f"checkpoint of at most {restore.size} events, and ask what was given up"
        )
        self._findings.add(FindingKind.RESTORED, message, number=restore.number)

    def _not_shown(self, size: int) -> None:
        message = (
            f"nothing in the file proves that the log extends its state at {size} events; export it again "
            f"with since={size}"
        )
        self._findings.add(FindingKind.UNPROVEN, message)
