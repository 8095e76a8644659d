"""Check that every event of a whole export is at the position that the signed root proves; pure."""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass

from lockbox.audit.log.merkle import WIDTH, WIDTH_BITS, BadProof, CompactRange, check_inclusion, leaf_hash, root_of
from lockbox.audit.verifier.event_checks import EventChecker
from lockbox.audit.verifier.export_format import EventLine, FindingKind, Findings, GapLine, TileLine, parts

MOST_ROWS = 4 * WIDTH


@dataclass(frozen=True)
class EventRow:
    line: int
    entry: EventLine
    leaf: bytes


class InclusionChecker:
    """Keeps one tile in memory at a time.

    `older` are the sizes of earlier checkpoints of the log; `roots` receives the roots at those sizes.
    """

    def __init__(
        self, size: int, root: bytes, bodies: EventChecker, findings: Findings, older: Iterable[int]
    ) -> None:
        self.roots: dict[int, bytes] = {}
        self.removed: list[tuple[int, int]] = []
        self._size, self._root = size, root
        self._bodies, self._findings = bodies, findings
        self._older = sorted(older)
        self._growing = CompactRange()
        self._at = 0
        self._tile: TileLine | None = None
        self._rows: list[EventRow] = []
        self._gaps: list[GapLine] = []
        self._passed = 0

    def tile(self, line: int, tile: TileLine) -> None:
        """The hashes of the tile must lead to the signed root."""
        self._close()
        start = tile.tile * WIDTH
        if start < self._at or start >= self._size:
            self._findings.add(FindingKind.INSERTED, f"the tile {tile.tile} is in the wrong place", line=line)
            return
        self._missed(start, line)
        last = (self._size + WIDTH - 1) // WIDTH
        try:
            if len(tile.leaves) != min(WIDTH, self._size - start):
                raise BadProof  # noqa: TRY301 - handled like a wrong hash
            check_inclusion(root_of(tile.leaves), tile.tile, last, tile.proof, self._root)
        except BadProof:
            end = min(start + WIDTH, self._size)
            message = f"the hashes of the events {start} to {end - 1} do not lead to the signed root"
            self._findings.add(FindingKind.EDITED, message, line=line)
        self._tile = tile
        self._at = min(start + WIDTH, self._size)

    def event(self, line: int, entry: EventLine) -> None:
        if self._gaps and entry.number < self._gaps[-1].start:
            message = f"this event stands behind the event {self._passed - 1}"
            self._findings.add(FindingKind.REORDERED, message, line=line, number=entry.number)
        if len(self._rows) < MOST_ROWS:
            self._passed = max(self._passed, min(entry.number + 1, self._at))
            self._rows.append(EventRow(line, entry, leaf_hash(entry.body)))
        else:
            self._findings.add(FindingKind.INSERTED, "more events than a tile has", line=line, number=entry.number)

    def gap(self, line: int, gap: GapLine) -> None:
        start = self._tile.tile * WIDTH if self._tile else self._at
        if self._tile and max(start, self._passed) <= gap.start and gap.end <= self._at and not gap.hashes:
            self._gaps.append(gap)
            self._passed = gap.end
        elif gap.start == self._at and gap.end <= self._size and gap.hashes:
            self._close()
            self._skip(line, gap)
        else:
            message = f"the events {gap.start} to {gap.end - 1} are reported as missing in the wrong place"
            self._findings.add(FindingKind.DAMAGED, message, line=line)

    def finish(self, *, is_cut: bool) -> None:
        self._close(is_cut=is_cut)
        if self._at < self._size:
            message = f"the events {self._at} to {self._size - 1} are missing: the file has been cut off"
            self._findings.add(FindingKind.TRUNCATED, message)
        elif not self._findings.is_contradicted and self._growing.root != self._root:
            self._findings.add(FindingKind.EDITED, "the hashes of what was removed do not lead to the signed root")
        self._unexplained()

    def _missed(self, start: int, line: int) -> None:
        if start > self._at:
            message = f"the events {self._at} to {start - 1} are missing before this"
            self._findings.add(FindingKind.REMOVED, message, line=line, number=self._at)

    def _skip(self, line: int, gap: GapLine) -> None:
        subtrees = list(parts(gap.start, gap.end))
        try:
            for (level, number), hashed in zip(subtrees, gap.hashes, strict=True):
                self._growing.add(hashed, level)
                self._seen_at((number + 1) << level)
        except ValueError:
            self._findings.add(FindingKind.DAMAGED, "these hashes do not match the removed events", line=line)
        self._at = gap.end
        self._note_removed(gap)

    def _close(self, *, is_cut: bool = False) -> None:
        tile, rows, gaps = self._tile, self._rows, self._gaps
        self._tile, self._rows, self._gaps = None, [], []
        if tile is None:
            for row in rows:
                message = "this event is outside of every tile"
                self._findings.add(FindingKind.INSERTED, message, line=row.line, number=row.entry.number)
            return
        for gap in gaps:
            self._note_removed(gap)
        start = tile.tile * WIDTH
        absent = {number for gap in gaps for number in range(gap.start, gap.end)}
        due = [number for number in range(start, start + len(tile.leaves)) if number not in absent]
        leaves = {start + place: leaf for place, leaf in enumerate(tile.leaves)}
        if [(row.entry.number, row.leaf) for row in rows] == [(number, leaves[number]) for number in due]:
            good = rows
        else:
            good = list(_TileMismatch(leaves, due, self._findings, is_cut=is_cut).check(rows))
        for row in good:
            self._bodies.check(row.line, row.entry)
        self._grow(tile)

    def _grow(self, tile: TileLine) -> None:
        start, count = tile.tile * WIDTH, len(tile.leaves)
        if self._growing.size != start:
            return
        for size in [size for size in self._older if start < size < start + count]:
            growing = deepcopy(self._growing)
            for leaf in tile.leaves[: size - start]:
                growing.add(leaf)
            self.roots[size] = growing.root
        if count == WIDTH:
            self._growing.add(root_of(tile.leaves), WIDTH_BITS)
        else:
            for leaf in tile.leaves:
                self._growing.add(leaf)
        self._seen_at(self._growing.size)

    def _seen_at(self, size: int) -> None:
        if size in self._older:
            self.roots[size] = self._growing.root

    def _note_removed(self, gap: GapLine) -> None:
        self._bodies.requests.removed_before = True
        if self.removed and self.removed[-1][1] == gap.start:
            self.removed[-1] = (self.removed[-1][0], gap.end)
        else:
            self.removed.append((gap.start, gap.end))

    def _unexplained(self) -> None:
        for start, end in self.removed:
            at = max(start, self._bodies.removed)
            if start > 0:
                message = (
                    f"the events {start} to {end - 1} are reported as removed, but only a log's beginning can be"
                )
                self._findings.add(FindingKind.REMOVED, message, number=start)
            elif at < end:
                message = f"the events {at} to {end - 1} are reported as removed, but no event of the log confirms it"
                self._findings.add(FindingKind.REMOVED, message, number=at)


class _TileMismatch:
    def __init__(self, leaves: Mapping[int, bytes], due: list[int], findings: Findings, *, is_cut: bool) -> None:
        self._place = {leaf: number for number, leaf in leaves.items()}
        self._due = due
        self._findings = findings
        self._is_cut = is_cut

    def check(self, rows: list[EventRow]) -> Iterator[EventRow]:
        before = self._findings.count
        found: dict[int, EventRow] = {}
        strangers = []
        for row in rows:
            number = self._place.get(row.leaf)
            if number is None:
                strangers.append(row)
            elif number in found:
                self._say(FindingKind.INSERTED, row, f"this is the event {number} a second time")
            elif number not in self._due:
                self._say(FindingKind.DAMAGED, row, f"the event {number} is in the file, but reported as removed")
            else:
                found[number] = row
        missing = [number for number in self._due if number not in found]
        for row in strangers:
            if row.entry.number in missing:
                missing.remove(row.entry.number)
                self._say(FindingKind.EDITED, row, "this event differs from what was sealed")
            else:
                self._say(FindingKind.INSERTED, row, "this event was never sealed at this position")
        self._say_missing(missing, max(found, default=-1))
        self._say_order(found)
        if before == self._findings.count:
            for number, row in found.items():
                if row.entry.number != number:
                    self._say(FindingKind.EDITED, row, f"this is the event {number}, under another number")
        yield from found.values()

    def _say_missing(self, missing: list[int], last: int) -> None:
        tail = [number for number in missing if number > last] if self._is_cut else []
        if tail:
            message = f"the events from {tail[0]} on are missing: the file has been cut off"
            self._findings.add(FindingKind.TRUNCATED, message, number=tail[0])
        for number in missing[: len(missing) - len(tail)]:
            self._findings.add(FindingKind.REMOVED, f"the event {number} is missing", number=number)

    def _say_order(self, found: Mapping[int, EventRow]) -> None:
        for place, (number, row) in zip(sorted(found), found.items(), strict=True):
            if place != number:
                self._say(FindingKind.REORDERED, row, f"the event {number} stands where the event {place} belongs")
                return

    def _say(self, kind: FindingKind, row: EventRow, message: str) -> None:
        self._findings.add(kind, message, line=row.line, number=row.entry.number)
