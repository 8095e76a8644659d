"""Exports of a log, page by page, in the format of docs/audit-format.md."""

import base64
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import text

from lockbox.audit import event_search
from lockbox.audit.canonical import instant
from lockbox.audit.event_search import EventFilter, EventScope, RecordedEvent
from lockbox.audit.log import proofs
from lockbox.audit.log.merkle import WIDTH
from lockbox.audit.log.proofs import LogHead
from lockbox.audit.verifier import event_checks
from lockbox.audit.verifier.event_checks import AUDIT_EVENTS_REMOVED
from lockbox.audit.verifier.export_format import FORMAT, parts
from lockbox.database import UnitOfWork
from lockbox.text_rules import spreadsheet_cell

TILES_A_PAGE = 4
NUMBERS_A_PAGE = 2_048
HERE, REMOVED_BY_RETENTION, MISSING = "here", "removed", "missing"
Pages = Callable[[], AbstractContextManager[UnitOfWork]]
"""Opens a transaction for each page; the reader's rights are checked again in each transaction."""
REMOVED = text("""
SELECT e.body FROM events e JOIN seals s ON s.event_id = e.id
WHERE s.log_id = :log_id AND s.number < :size AND e.action = :action AND e.request_id IS NULL ORDER BY s.number
""")
COLUMNS = (
    *("Date", "IP address", "User", "Activity", "Item", "ApprovalDecision"),
    *("Role", "Request", "Event", "Number", "Altered"),
)
DECISIONS = {"approve": "Approved", "deny": "Denied", "revoke": "Revoked", "time_out": "Timed out"}


@dataclass(frozen=True)
class Export:
    """`log` is the log as it was when the export began."""

    log: LogHead
    sight: EventScope
    wanted: EventFilter
    asked: Mapping[str, Any]
    consistency: Mapping[int, Sequence[bytes]]

    @property
    def is_whole(self) -> bool:
        """Whether the export has no filter, so that the file also proves that no event is missing."""
        return self.wanted.is_all

    @property
    def first_line(self) -> bytes:
        log = self.log
        proofs = [{"from": size, "proof": _texts(path)} for size, path in self.consistency.items()]
        return _line(
            export=FORMAT,
            origin=log.origin,
            log=str(log.id),
            generation=log.generation,
            size=log.size,
            checkpoint=log.note,
            whole=self.is_whole,
            asked=dict(self.asked),
            consistency=proofs,
        )


def lines(pages: Pages, export: Export) -> Iterator[bytes]:
    yield export.first_line
    events = 0
    for page in _whole(pages, export) if export.is_whole else _filtered(pages, export):
        for is_event, line in page:
            events += is_event
            yield line
    yield _line(end={"events": events})


def _span(session: UnitOfWork, export: Export, start: int, end: int) -> list[RecordedEvent]:
    log = export.log
    end = min(end, log.size)
    return event_search.span(session, log.id, export.sight, export.wanted, start=start, end=end)


def _filtered(pages: Pages, export: Export) -> Iterator[list[tuple[bool, bytes]]]:
    for start in range(0, export.log.size, NUMBERS_A_PAGE):
        with pages() as session:
            events = _span(session, export, start, start + NUMBERS_A_PAGE)
            paths = proofs.inclusion(session, export.log, (_number(event) for event in events))
        yield [(True, _event(event, proof=_texts(paths[_number(event)]))) for event in events]


def _whole(pages: Pages, export: Export) -> Iterator[list[tuple[bool, bytes]]]:
    size = export.log.size
    with pages() as session:
        removed = _removed(session, export.log)
        at = removed // WIDTH * WIDTH
        gone = _without(session, export.log, at) if at else None
    if gone:
        yield [(False, gone)]
    while at < size:
        end = min(size, at + TILES_A_PAGE * WIDTH)
        yield _tiles(pages, export, removed, (at, end))
        at = end


def _removed(session: UnitOfWork, log: LogHead) -> int:
    values = {"log_id": log.id, "size": log.size, "action": AUDIT_EVENTS_REMOVED}
    said = [event_checks.parsed_body(bytes(body)) for body in session.execute(REMOVED, values).scalars()]
    return max((min(end, log.size) for one in said if isinstance(end := one.get("removed_to"), int)), default=0)


def _without(session: UnitOfWork, log: LogHead, end: int) -> bytes:
    places = list(parts(0, end))
    hashes = proofs.proven(session, log.id, lambda subtree: [subtree(*place) for place in places])
    return _line(removed={"from": 0, "to": end, "hashes": _texts(hashes)})


def _tiles(pages: Pages, export: Export, removed: int, within: tuple[int, int]) -> list[tuple[bool, bytes]]:
    start, end = within
    numbers = range(start // WIDTH, (end + WIDTH - 1) // WIDTH)
    with pages() as session:
        tiled = proofs.tiled(session, export.log, numbers)
        events = {event.number: event for event in _span(session, export, start, end)}
    found = []
    for tile in numbers:
        leaves, path = tiled[tile]
        found.append((False, _line(tile=tile, leaves=_texts(leaves), proof=_texts(path))))
        run = range(tile * WIDTH, tile * WIDTH + len(leaves))
        for why, group in groupby(run, key=lambda number: _standing(number, events, removed)):
            members = list(group)
            if why == HERE:
                found += [(True, _event(events[number])) for number in members]
            elif why == REMOVED_BY_RETENTION:
                found.append((False, _line(removed={"from": members[0], "to": members[-1] + 1, "hashes": []})))
    return found


def _standing(number: int, events: Mapping[int | None, RecordedEvent], removed: int) -> str:
    if number in events:
        return HERE
    return REMOVED_BY_RETENTION if number < removed else MISSING


def _number(event: RecordedEvent) -> int:
    assert event.number is not None  # noqa: S101 - it was found by its seal
    return event.number


def _event(event: RecordedEvent, **further: object) -> bytes:
    personal = {name: {"salt": salt, "value": value} for name, (salt, value) in sorted(event.details.items())}
    # Text that cannot be decoded is exported anyway, so that a verifier names the event.
    body = event.body.decode(errors="replace")
    return _line(number=event.number, body=body, personal=personal, **further)


def _texts(hashes: Iterable[bytes]) -> list[str]:
    return [base64.b64encode(one).decode() for one in hashes]


def _line(**members: object) -> bytes:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def table(pages: Pages, export: Export) -> Iterator[bytes]:
    """No cell can act as a spreadsheet formula."""
    yield row(COLUMNS)
    for start in range(0, export.log.size, NUMBERS_A_PAGE):
        with pages() as session:
            events = _table_span(session, export, start, min(start + NUMBERS_A_PAGE, export.log.size))
            items = event_search.items(session, export.log.id, events)
        for event in events:
            yield row(_cells(event, items))


def _table_span(session: UnitOfWork, export: Export, start: int, end: int) -> list[RecordedEvent]:
    log = export.log
    return event_search.checked_span(session, log.id, export.sight, export.wanted, start=start, end=end)


def _cells(event: RecordedEvent, items: Mapping[UUID, str]) -> Iterator[object]:
    yield instant(event.at)
    yield event.value("address")
    yield event.value("name") or event.actor_id or event.actor_role
    yield event.action
    yield items.get(event.request_id) if event.request_id else None
    yield DECISIONS.get(event.action)
    yield event.actor_role
    yield event.request_id
    yield event.id
    yield event.number
    yield ", ".join(event.altered)


def row(cells: Iterable[object]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerow([spreadsheet_cell("" if cell is None else str(cell)) for cell in cells])
    return written.getvalue().encode()
